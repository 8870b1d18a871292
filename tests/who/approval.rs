//! A second person: nothing is signed before he approves, and only he, not the asker, can.

use reqwest::Method;
use serde_json::{Value, json};

use stagedoor::server::config::{Secret, WebhookConfig, WebhookEvent, WebhookPersonal};

use crate::company::{Caller, Company, PARTNERS, Replica, claims, on_both, text, until};
use crate::receiver::Receiver;
use crate::support::contract::{CONTRACT, Client, Reply};

const REASON: &str = "Ticket 4711: the address is wrong";

/// A request that needs a colleague: to change something.
fn change(company: &Company, agent: &str, user: &str) -> Value {
    json!({ "user_id": user, "actor_token": company.login(agent), "reason": REASON, "ticket": "4711", "scope": "read write" })
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Asserts that it waits, and gives the answer.
#[track_caller]
fn waits(reply: &Reply) -> Value {
    assert_eq!(reply.status, 202, "{reply:#?}");
    let body = reply.json();
    assert_eq!((&body["token"], &body["approval"]["state"]), (&Value::Null, &json!("waiting")));
    assert_eq!(reply.header("location"), Some(format!("/v1/actor_tokens/{}", text(&body, "id")).as_str()));
    body
}

async fn keyed(api: &Client, key: &str, body: &Value) -> Reply {
    api.call(Method::POST, "/v1/actor_tokens").header("idempotency-key", key).json(body).send().await
}

async fn asked(company: &Company, tool: &Caller, replica: &Replica, user: &str) -> (Value, String) {
    let body = change(company, "agent_1", user);
    let id = text(&waits(&tool.at(replica).mint(&body).await), "id").to_owned();
    (with(body, json!({ "approval": id })), id)
}

on_both! {
    async fn a_colleague_approves_and_only_then_the_asker_gets_the_token(company) {
        let tool = company.tool().await;
        let (one, two) = (company.replica().await, company.replica().await);
        let api = tool.at(&one);
        let body = change(&company, "agent_1", "user_42");
        let asked = waits(&api.mint(&body).await);
        let id = text(&asked, "id").to_owned();
        let lapses = asked["approval"]["lapses_at"].as_i64().unwrap() - asked["created_at"].as_i64().unwrap();
        assert_eq!(lapses, 30 * 60 * 1000);
        let entry = one.entries().await.into_iter().find(|e| e["decision"] == "pending").unwrap();
        assert_eq!((&entry["typ"], &entry["grant"], &entry["jti"]), (&json!("issue"), &json!(id), &Value::Null));

        let again = with(body.clone(), json!({ "approval": id }));
        waits(&api.mint(&again).await);
        let shown = api.get(&format!("/v1/actor_tokens/{id}")).await.ok();
        assert_eq!((&shown["status"], &shown["approval"]["state"]), (&json!("pending"), &json!("waiting")));
        assert_eq!(api.get("/v1/actor_tokens?status=active").await.ok()["actor_tokens"], json!([]), "no token lives");

        // through the other replica
        let approved = two.approve(&company.login("agent_2"), &id, &json!({ "reason": "I know the case" })).await.ok();
        assert_eq!((&approved["id"], &approved["approval"]["state"]), (&json!(id), &json!("approved")));
        assert_eq!(one.recorded("approve", "granted", "colleagues-approve").await, 1);

        let minted = api.mint(&again).await.ok();
        let token = text(&minted, "token").to_owned();
        let said = claims(&token);
        assert_eq!((&said["sid"], &said["scope"], &said["act"]["sub"]), (&json!(id), &json!("read write"), &json!("agent_1")));
        assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 600, "counted from the signature");
        assert_eq!(api.verify(&token).await.ok()["active"], true);
        let shown = api.get(&format!("/v1/actor_tokens/{id}")).await.ok();
        assert_eq!((&shown["approval"]["state"], &shown["expires_at"]), (&json!("released"), &minted["expires_at"]));
        assert_eq!((&shown["updated_at"], &shown["status"]), (&minted["updated_at"], &minted["status"]), "when it was given out");
        assert!(minted["updated_at"].as_i64() > minted["created_at"].as_i64(), "{minted}");
        assert_eq!(api.get("/v1/actor_tokens?status=active").await.ok()["actor_tokens"][0]["id"], json!(id));
        // the answer was lost: the same claims again, nothing more
        let once_more = api.mint(&again).await.ok();
        assert_eq!((&claims(text(&once_more, "token")), &once_more["updated_at"]), (&said, &minted["updated_at"]));
        assert_eq!(one.entries().await.iter().filter(|e| e["jti"] == said["jti"]).count(), 1, "signed once");
        two.approve(&company.login("agent_3"), &id, &json!({})).await.fails(409, "approval_not_waiting");
        one.stop().await;
        two.stop().await;
    }

    async fn an_approval_that_is_not_in_the_log_is_none(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let (again, id) = asked(&company, &tool, &replica, "user_42").await;
        for forge in [
            format!("INSERT INTO audit_index (idx, typ, decision, grant_id) VALUES (-77, 'approve', 'granted', '{id}')"),
            format!("UPDATE approval SET state = 'approved', decided_idx = -77 WHERE grant_id = '{id}'"),
        ] {
            assert_eq!(crate::support::sql::execute(company.config.database_url.expose(), &forge).await, 1);
        }
        tool.at(&replica).mint(&again).await.fails(409, "idempotency_in_flight");
        assert_eq!(replica.recorded("issue", "denied", "approval_not_given").await, 1);
        replica.stop().await;
    }

    async fn a_request_whose_rows_were_changed_is_neither_decided_nor_released(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let url = company.config.database_url.expose();
        let (tool, colleague) = (tool.at(&replica), company.login("agent_2"));
        let body = with(change(&company, "agent_1", "user_42"), json!({ "scope": "write" }));
        let id = text(&waits(&tool.mint(&body).await), "id").to_owned();
        let again = with(body, json!({ "approval": id }));
        let set = async |table: &str, change: &str| {
            let key = if table == "approval" { "grant_id" } else { "id" };
            let sql = format!("UPDATE {table} SET {change} WHERE {key} = '{id}'");
            assert_eq!(crate::support::sql::execute(url, &sql).await, 1, "{sql}");
        };
        set("actor_grant", "scope = 'read write'").await;
        replica.approve(&colleague, &id, &json!({})).await.fails(403, "policy_denied");
        tool.mint(&again).await.fails(403, "policy_denied");
        assert_eq!(replica.recorded("approve", "denied", "approval_changed").await, 1);
        set("actor_grant", "scope = 'write'").await;
        replica.approve(&colleague, &id, &json!({})).await.ok();
        for (table, change, back) in [
            ("actor_grant", "scope = 'read write'", "scope = 'write'"),
            ("actor_grant", r#"aud = '["https://other.example"]'"#, r#"aud = '["https://api.example.com"]'"#),
            ("approval", "lifetime_seconds = lifetime_seconds + 60", "lifetime_seconds = lifetime_seconds - 60"),
        ] {
            set(table, change).await;
            tool.mint(&again).await.fails(403, "policy_denied");
            set(table, back).await;
        }
        assert_eq!(replica.recorded("issue", "denied", "approval_changed").await, 4);
        assert_eq!(claims(text(&tool.mint(&again).await.ok(), "token"))["scope"], "write");
        replica.stop().await;
    }

    async fn a_key_is_enough_to_go_on_and_a_refusal_is_final(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let api = tool.at(&replica);
        let body = change(&company, "agent_1", "user_42");
        let id = text(&waits(&keyed(&api, "k1", &body).await), "id").to_owned();
        assert_eq!(text(&waits(&keyed(&api, "k1", &body).await), "id"), id);
        keyed(&api, "k1", &with(body.clone(), json!({ "scope": "write" }))).await.fails(422, "idempotency_key_reused");
        replica.approve(&company.login("agent_2"), &id, &Value::Null).await.fails(400, "request_body_invalid");
        replica.api.with_secret(company.login("agent_2")).call(Method::POST, &format!("/v1/actor_tokens/{id}/approve")).send().await.ok();
        let minted = keyed(&api, "k1", &body).await.ok();
        assert_eq!(minted["id"], json!(id));
        assert_eq!(claims(text(&keyed(&api, "k1", &body).await.ok(), "token")), claims(text(&minted, "token")));

        let other = change(&company, "agent_1", "user_43");
        let id = text(&waits(&keyed(&api, "k2", &other).await), "id").to_owned();
        let no = json!({ "decision": "refuse", "reason": "Ask the team lead" });
        let refused = replica.approve(&company.login("agent_2"), &id, &no).await.ok();
        assert_eq!(refused["approval"]["state"], "refused");
        keyed(&api, "k2", &other).await.fails(403, "policy_denied");
        replica.approve(&company.login("agent_3"), &id, &json!({})).await.fails(409, "approval_not_waiting");
        assert_eq!(replica.recorded("approve", "denied", "refused_by_colleague").await, 1);
        assert_eq!(replica.recorded("issue", "denied", "approval_refused").await, 1);
        replica.stop().await;
    }

    async fn the_view_of_a_grant_says_what_was_refused_as_refused(company) {
        let (tool, other) = (company.tool().await, company.tool().await);
        let auditor = company.client(&["audit:read"]).await;
        let replica = company.replica().await;
        let history = async |id: &str| -> Vec<String> {
            let view = auditor.at(&replica).get(&format!("/v1/audit/grants/{id}")).await.ok();
            let steps = view["steps"].as_array().unwrap().iter();
            // that it was verified is seen beside the request, sooner or later
            steps.map(|step| text(step, "step").to_owned()).filter(|step| step != "used").collect()
        };
        let (again, id) = asked(&company, &tool, &replica, "user_42").await;
        replica.approve(&company.login("clerk_1"), &id, &json!({})).await.fails(403, "policy_denied");
        let no = json!({ "decision": "refuse", "reason": "Ask the team lead" });
        replica.approve(&company.login("agent_2"), &id, &no).await.ok();
        tool.at(&replica).mint(&again).await.fails(403, "policy_denied");
        assert_eq!(history(&id).await, ["asked", "approve_refused", "refused", "issue_refused"]);

        let (again, id) = asked(&company, &tool, &replica, "user_43").await;
        replica.approve(&company.login("agent_2"), &id, &json!({})).await.ok();
        let token = tool.at(&replica).mint(&again).await.ok();
        let path = format!("/v1/actor_tokens/{id}/revoke");
        other.at(&replica).post(&path, &json!({})).await.fails(404, "resource_not_found");
        assert_eq!(tool.at(&replica).verify(text(&token, "token")).await.ok()["active"], true);
        assert_eq!(history(&id).await, ["asked", "approved", "issued", "stop_refused"]);
        tool.at(&replica).post(&path, &json!({})).await.ok();
        assert_eq!(history(&id).await, ["asked", "approved", "issued", "stop_refused", "stopped"]);
        replica.stop().await;
    }

    async fn a_receiver_is_told_of_requests_and_of_what_became_of_them(company) {
        let mut company = company;
        let receiver = Receiver::start().await;
        company.config.outbound.allow_http = true;
        company.config.webhooks.push(WebhookConfig {
            name: "oversight".into(),
            url: format!("{}/hook", receiver.base),
            secret: Secret::new("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into()),
            previous_secret: None,
            events: WebhookEvent::ALL.to_vec(),
            personal: WebhookPersonal::Ids,
        });
        let (tool, replica) = (company.tool().await, company.replica().await);
        let (again, id) = asked(&company, &tool, &replica, "user_42").await;
        replica.approve(&company.login("agent_1"), &id, &json!({})).await.fails(403, "policy_denied");
        replica.approve(&company.login("agent_2"), &id, &json!({})).await.ok();
        tool.at(&replica).mint(&again).await.ok();
        let (_, other) = asked(&company, &tool, &replica, "user_43").await;
        replica.approve(&company.login("agent_2"), &other, &json!({ "decision": "refuse", "reason": "no" })).await.ok();

        let events: Vec<Value> = receiver.taken(5).await.iter().map(crate::receiver::Delivery::json).collect();
        for event in &events {
            CONTRACT.check_component("WebhookEvent", event).unwrap_or_else(|e| panic!("{e} in {event}"));
        }
        let told: Vec<[&str; 3]> = events
            .iter()
            .map(|event| [text(event, "type"), text(event, "subject"), event["data"]["rule"].as_str().unwrap_or("-")])
            .collect();
        let by = |n: usize| events[n]["data"]["actor"]["sub"].clone();
        assert_eq!(told, [
            ["grant.requested", &id, told[0][2]],
            ["grant.denied", &id, "stagedoor/approver_is_actor"],
            ["grant.started", &id, told[2][2]],
            ["grant.requested", &other, told[3][2]],
            ["grant.denied", &other, "refused_by_colleague"],
        ]);
        assert_eq!([by(0), by(1), by(2), by(3), by(4)], ["agent_1"; 5].map(Value::from), "who asks to act");
        let decided = |n: usize| events[n]["data"]["approver"]["sub"].clone();
        assert_eq!([decided(0), decided(1), decided(2)], [Value::Null, json!("agent_1"), Value::Null]);
        assert_eq!((decided(4), &events[4]["data"]["user_id"]), (json!("agent_2"), &json!("user_43")));
        assert_eq!(events[0]["data"]["user_id"], "user_42");
        replica.stop().await;
    }

    async fn nobody_approves_who_is_in_it_or_may_not(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let (_, id) = asked(&company, &tool, &replica, "user_42").await;
        let strange = company.token_of(PARTNERS, "p-17", json!({ "employee": "agent_1" }));
        let unmapped = company.token_of(PARTNERS, "agent_2", json!({}));
        for (why, token, rule) in [
            ("the asker", company.login("agent_1"), "stagedoor/approver_is_actor"),
            ("the asker under another login", strange, "stagedoor/approver_is_actor"),
            ("the target", company.login("user_42"), "stagedoor/approver_is_target"),
            ("one without the role", company.login("clerk_1"), "stagedoor/no_permit"),
            ("a stranger", company.login("nobody"), "stagedoor/approver_unknown"),
            ("one whom the directory does not know", unmapped, "stagedoor/approver_unknown"),
        ] {
            let refused = replica.approve(&token, &id, &json!({})).await;
            refused.fails(403, "policy_denied");
            assert_eq!(refused.json()["errors"][0]["meta"]["rule"], rule, "{why}");
            assert!(replica.recorded("approve", "denied", rule).await > 0, "{why}: recorded");
        }
        let acting = company.token_of(crate::company::LOGIN, "agent_2", json!({ "act": { "sub": "robot_1" } }));
        let bad: [(&str, String); 4] = [
            ("a client's secret", tool.secret.clone()),
            ("another audience", company.token_of(crate::company::LOGIN, "agent_2", json!({ "aud": "https://other.example.com" }))),
            ("expired", company.token_of(crate::company::LOGIN, "agent_2", json!({ "exp": 1_700_000_000 }))),
            ("one who acts for somebody else", acting),
        ];
        for (why, token) in bad {
            let refused = replica.approve(&token, &id, &json!({})).await;
            assert_eq!(refused.status, 401, "{why}");
            refused.fails(401, "actor_token_invalid");
        }
        let lead = company.login("agent_2");
        replica.approve(&lead, "act_0000000000000000000000000", &json!({})).await.fails(404, "resource_not_found");
        for bad in [json!({ "decision": "maybe" }), json!({ "decison": "refuse" }), json!({ "reason": 7 })] {
            assert_eq!(replica.approve(&lead, &id, &bad).await.status, 422, "{bad}");
        }
        let plain = tool.at(&replica).mint(&json!({ "user_id": "user_42", "actor_token": company.login("agent_1"), "reason": REASON })).await.ok();
        replica.approve(&lead, text(&plain, "id"), &json!({})).await.fails(404, "resource_not_found");
        replica.approve(&lead, &id, &json!({})).await.ok();
        replica.stop().await;
    }

    async fn what_was_stopped_or_is_forbidden_meanwhile_is_never_released(company) {
        let (tool, other) = (company.tool().await, company.tool().await);
        let replica = company.replica().await;
        let api = tool.at(&replica);
        let approve = async |id: &str| { replica.approve(&company.login("agent_2"), id, &json!({})).await };

        let (again, id) = asked(&company, &tool, &replica, "user_42").await;
        api.post(&format!("/v1/actor_tokens/{id}/revoke"), &json!({})).await.ok();
        approve(&id).await.fails(409, "approval_not_waiting");
        api.mint(&again).await.fails(403, "policy_denied");
        assert_eq!(replica.recorded("approve", "denied", "grant_ended").await, 1);

        let (again, id) = asked(&company, &tool, &replica, "user_42").await;
        approve(&id).await.ok();
        api.post(&format!("/v1/actor_tokens/{id}/revoke"), &json!({})).await.ok();
        api.mint(&again).await.fails(403, "policy_denied");

        let (again, id) = asked(&company, &tool, &replica, "user_43").await;
        approve(&id).await.ok();
        let stop = json!({ "user_id": "user_43", "reason": "Asked us to", "hold_seconds": 60 });
        assert_eq!(api.post("/v1/revocations", &stop).await.ok()["matched"], 1, "what waits is revoked too");
        api.mint(&again).await.fails(403, "policy_denied");

        // the role is gone, then the policy
        let (again, id) = asked(&company, &tool, &replica, "user_42").await;
        approve(&id).await.ok();
        company.change("agent_1", json!({ "roles": [] }), &[&replica]).await;
        api.mint(&again).await.fails(403, "policy_denied");
        company.change("agent_1", json!({ "roles": ["support"] }), &[&replica]).await;
        company.policy("@id(\"closed\") forbid (principal, action, resource);", &[&replica]).await;
        api.mint(&again).await.fails(403, "policy_denied");
        company.policy(crate::company::POLICY, &[&replica]).await;

        // somebody else's request, another user, another reason
        other.at(&replica).mint(&again).await.fails(422, "form_param_value_invalid");
        for different in [
            json!({ "user_id": "user_43" }),
            json!({ "reason": "Something else entirely" }),
            json!({ "ticket": "4712" }),
            json!({ "actor_token": company.login("agent_3") }),
        ] {
            let refused = api.mint(&with(again.clone(), different)).await;
            assert!(refused.status == 422 || refused.status == 403, "{refused:#?}");
        }
        let wider = with(again.clone(), json!({ "expires_in_seconds": 3600 }));
        let minted = api.mint(&wider).await.ok();
        let said = claims(text(&minted, "token"));
        assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 600, "no longer than approved");

        let (again, id) = asked(&company, &tool, &replica, "user_42").await;
        approve(&id).await.ok();
        company.disable(&tool.id).await;
        until("the client is gone", || async { api.mint(&again).await.status == 401 }).await;
        replica.approve(&company.login("agent_2"), &id, &json!({})).await.fails(403, "policy_denied");
        replica.stop().await;
    }

    async fn a_request_lapses_after_thirty_minutes(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let (again, waiting) = asked(&company, &tool, &replica, "user_42").await;
        let (granted, approved) = asked(&company, &tool, &replica, "user_43").await;
        replica.approve(&company.login("agent_2"), &approved, &json!({})).await.ok();
        company.clock.on(30 * 60 + 1);
        replica.approve(&company.login("agent_2"), &waiting, &json!({})).await.fails(409, "approval_not_waiting");
        for body in [again, granted] {
            let fresh = with(body, json!({ "actor_token": company.login("agent_1") }));
            let refused = tool.at(&replica).mint(&fresh).await;
            refused.fails(403, "policy_denied");
            assert_eq!(refused.json()["errors"][0]["meta"]["rule"], "approval_lapsed");
        }
        replica.stop().await;
    }

    async fn of_many_words_at_once_one_counts_and_of_many_releases_all_are_the_same(company) {
        let tool = company.tool().await;
        let (one, two) = (company.replica().await, company.replica().await);
        let (again, id) = asked(&company, &tool, &one, "user_42").await;
        let mut words = Vec::new();
        for i in 0..20 {
            let replica = if i % 2 == 0 { &one } else { &two };
            let token = company.login(if i % 4 < 2 { "agent_2" } else { "agent_3" });
            let (api, path) = (replica.api.with_secret(token), format!("/v1/actor_tokens/{id}/approve"));
            let body = json!({ "decision": if i % 3 == 0 { "refuse" } else { "approve" } });
            words.push(tokio::spawn(async move { api.post(&path, &body).await }));
        }
        let mut counted = Vec::new();
        for word in words {
            let reply = word.await.unwrap();
            if reply.status == 200 { counted.push(reply.json()["approval"]["state"].clone()) } else { reply.fails(409, "approval_not_waiting"); }
        }
        assert_eq!(counted.len(), 1, "{counted:?}");
        let shown = tool.at(&one).get(&format!("/v1/actor_tokens/{id}")).await.ok();
        assert_eq!(shown["approval"]["state"], counted[0], "and it stands");

        let (again, id) = if counted[0] == "approved" { (again, id) } else {
            let (again, id) = asked(&company, &tool, &one, "user_42").await;
            one.approve(&company.login("agent_2"), &id, &json!({})).await.ok();
            (again, id)
        };
        let mut releases = Vec::new();
        for i in 0..20 {
            let (api, body) = (tool.at(if i % 2 == 0 { &one } else { &two }), again.clone());
            releases.push(tokio::spawn(async move { api.mint(&body).await }));
        }
        let mut tokens = Vec::new();
        for release in releases {
            let reply = release.await.unwrap();
            if reply.status == 200 { tokens.push(claims(text(&reply.ok(), "token"))) } else { reply.fails(409, "idempotency_in_flight"); }
        }
        tokens.dedup();
        assert_eq!(tokens.len(), 1, "one token, however often it is given");
        assert_eq!(tokens[0]["sid"], json!(id));

        // approve against revoke: whichever comes first, nothing is released after the revocation
        for _ in 0..5 {
            let (again, id) = asked(&company, &tool, &one, "user_42").await;
            let (api, path) = (one.api.with_secret(company.login("agent_2")), format!("/v1/actor_tokens/{id}/approve"));
            let yes = tokio::spawn(async move { api.post(&path, &json!({})).await.status });
            let (api, path) = (tool.at(&two), format!("/v1/actor_tokens/{id}/revoke"));
            let stop = tokio::spawn(async move { api.post(&path, &json!({})).await.status });
            assert!([200, 409].contains(&yes.await.unwrap().as_u16()));
            assert_eq!(stop.await.unwrap(), 200);
            tool.at(&one).mint(&again).await.fails(403, "policy_denied");
        }
        one.stop().await;
        two.stop().await;
    }

    async fn a_code_is_made_only_after_the_approval_and_redeemed_under_it(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let api = tool.at(&replica);
        let body = with(change(&company, "agent_1", "user_42"), json!({ "delivery": "code" }));
        let id = text(&waits(&api.mint(&body).await), "id").to_owned();
        let again = with(body, json!({ "approval": id }));
        waits(&api.mint(&again).await);
        replica.approve(&company.login("agent_2"), &id, &json!({})).await.ok();
        company.clock.on(20 * 60);
        let again = with(again, json!({ "actor_token": company.login("agent_1") }));
        let handed = api.mint(&again).await.ok();
        assert_eq!((&handed["id"], &handed["token"]), (&json!(id), &Value::Null));
        assert_eq!(api.mint(&again).await.ok()["code"], handed["code"], "asked again, the same code");
        let shown = api.get(&format!("/v1/actor_tokens/{id}")).await.ok();
        assert_eq!(shown["updated_at"], handed["updated_at"]);
        let token = with(again.clone(), json!({ "delivery": null }));
        let refused = async || {
            let refused = api.mint(&token).await;
            refused.fails(422, "form_param_value_invalid");
            assert_eq!(refused.param().as_deref(), Some("delivery"));
        };
        refused().await;
        let redeemed = api.post("/v1/actor_tokens/redeem", &json!({ "code": handed["code"] })).await.ok();
        let said = claims(text(&redeemed, "token"));
        assert_eq!((&said["sid"], &said["scope"]), (&json!(id), &json!("read write")));
        assert!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap() > 590);
        assert_eq!(api.verify(text(&redeemed, "token")).await.ok()["active"], true);
        // nor is the token, once the product has it, anybody else's
        refused().await;
        assert_eq!(replica.recorded("issue", "denied", "delivery_of_another_kind").await, 2);
        replica.stop().await;
    }

    async fn what_was_answered_with_a_token_is_never_answered_with_a_code(company) {
        let (tool, replica) = (company.tool().await, company.replica().await);
        let (again, id) = asked(&company, &tool, &replica, "user_42").await;
        replica.approve(&company.login("agent_2"), &id, &json!({})).await.ok();
        let api = tool.at(&replica);
        api.mint(&again).await.ok();
        let refused = api.mint(&with(again.clone(), json!({ "delivery": "code" }))).await;
        refused.fails(422, "form_param_value_invalid");
        assert_eq!(refused.param().as_deref(), Some("delivery"));
        api.mint(&again).await.ok();
        replica.stop().await;
    }

    async fn broken_glass_needs_nobody_and_is_marked_everywhere(
        company,
        // somebody is always told; that he cannot be reached at the moment changes nothing here
        "allow_http = true\n[[webhooks]]\nname = \"oversight\"\nurl = \"http://127.0.0.1:9/\"\n\
         secret = \"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n"
    ) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let api = tool.at(&replica);
        let emergency = |more: Value| with(json!({
            "user_id": "user_42", "actor_token": company.login("oncall_1"),
            "reason": "BREAK GLASS: SEV1-7, all invoices are wrong", "scope": "read write",
        }), more);
        let body = emergency(json!({}));
        let minted = keyed(&api, "glass", &body).await.ok();
        let token = text(&minted, "token");
        assert_eq!((&minted["break_glass"], &claims(token)["break_glass"]), (&json!(true), &json!(true)));
        assert_eq!(api.verify(token).await.ok()["break_glass"], true);
        let listed = api.get("/v1/actor_tokens?status=active").await.ok();
        assert_eq!((&listed["actor_tokens"][0]["break_glass"], &listed["actor_tokens"][0]["approval"]), (&json!(true), &Value::Null));
        let entry = replica.entries().await.into_iter().find(|e| e["rule"] == "break-glass").unwrap();
        assert_eq!(entry["detail"]["break_glass"], true);
        let again = keyed(&api, "glass", &body).await.ok();
        assert_eq!(claims(text(&again, "token")), claims(token));
        replica.approve(&company.login("agent_2"), text(&minted, "id"), &json!({})).await.fails(404, "resource_not_found");

        let handed = api.mint(&emergency(json!({ "delivery": "code" }))).await.ok();
        let redeemed = api.post("/v1/actor_tokens/redeem", &json!({ "code": handed["code"] })).await.ok();
        assert_eq!(claims(text(&redeemed, "token"))["break_glass"], true);
        // without the words, a colleague
        let calm = with(emergency(json!({})), json!({ "reason": "Ticket 4711: the address is wrong" }));
        waits(&api.mint(&calm).await);
        replica.stop().await;
    }
}
