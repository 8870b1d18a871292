//! `[policy] on_verify`: what the policy says now counts where a token is verified online, and nothing else of the
//! grant changes.

use serde_json::{Value, json};

use crate::company::{Caller, Company, LOGIN, POLICY, Replica, on_both, text, until};
use crate::oauth::{ACCESS, EXCHANGE, basic, post};

const REASON: &str = "Ticket 4711: the address is wrong";

fn asks_again(mut company: Company) -> Company {
    company.config.policy_on_verify = true;
    company
}

async fn minted(company: &Company, tool: &Caller, replica: &Replica, agent: &str) -> String {
    let body = json!({ "user_id": "user_42", "actor_token": company.login(agent), "reason": REASON });
    text(&tool.at(replica).mint(&body).await.ok(), "token").to_owned()
}

/// What verification and introspection say: one verdict.
async fn verdict(tool: &Caller, replica: &Replica, token: &str) -> Value {
    let verified = tool.at(replica).verify(token).await.ok();
    let form = [("token", token)];
    let introspected =
        post(replica, "/oauth/introspect", Some(&basic(&tool.id, &tool.secret)), &form).await.ok();
    assert_eq!(verified["active"], introspected["active"], "{verified} {introspected}");
    verified.get("reason").cloned().unwrap_or_else(|| json!("active"))
}

on_both! {
    async fn an_actor_who_lost_his_role_loses_his_grants(company) {
        let company = asks_again(company);
        let tool = company.tool().await;
        let auditor = company.client(&["audit:read"]).await;
        let (one, two) = (company.replica().await, company.replica().await);
        let (token, other) =
            (minted(&company, &tool, &one, "agent_1").await, minted(&company, &tool, &one, "agent_2").await);
        assert_eq!(verdict(&tool, &two, &token).await, "active");
        company.change("agent_1", json!({ "roles": ["clerk"] }), &[&one, &two]).await;
        for replica in [&one, &two] {
            assert_eq!(verdict(&tool, replica, &token).await, "policy_denied");
            assert_eq!(verdict(&tool, replica, &other).await, "active", "a colleague keeps his");
        }
        until("the refusal is recorded, once", || async {
            one.recorded("use", "denied", "stagedoor/no_permit").await == 1
        })
        .await;
        let sid = crate::company::claims(&token)["sid"].as_str().unwrap().to_owned();
        let view = auditor.at(&one).get(&format!("/v1/audit/grants/{sid}")).await.ok();
        let steps: Vec<&str> = view["steps"].as_array().unwrap().iter().map(|step| text(step, "step")).collect();
        assert_eq!(steps, ["issued", "used", "use_refused"]);
        company.change("agent_1", json!({ "roles": ["support"] }), &[&one, &two]).await;
        assert_eq!(verdict(&tool, &two, &token).await, "active", "it was never revoked");
        company.change("user_42", json!({ "active": false }), &[&one, &two]).await;
        assert_eq!(verdict(&tool, &two, &token).await, "policy_denied", "nobody acts as who was deactivated");
        one.stop().await;
        two.stop().await;
    }

    async fn what_the_policy_narrowed_is_refused_and_what_it_kept_is_not(company) {
        let company = asks_again(company);
        let tool = company.tool().await;
        let replica = company.replica().await;
        let token = minted(&company, &tool, &replica, "agent_1").await;
        let wide = json!({ "user_id": "user_42", "actor_token": company.login("agent_1"), "reason": REASON, "scope": "read write" });
        let asked = tool.at(&replica).mint(&wide).await.json();
        replica.approve(&company.login("agent_2"), text(&asked, "id"), &json!({})).await.ok();
        let mut again = wide.clone();
        again["approval"] = asked["id"].clone();
        let approved = text(&tool.at(&replica).mint(&again).await.ok(), "token").to_owned();
        assert_eq!(verdict(&tool, &replica, &approved).await, "active", "what a colleague approved stays approved");
        for (change, narrow, wide) in [
            (POLICY.replace("@scope(\"read write\")", "@scope(\"read\")"), "active", "policy_denied"),
            (POLICY.replace("@id(\"look\")", "@id(\"look\")\n@max_lifetime(\"60\")"), "policy_denied", "active"),
            (format!("{POLICY}\n@id(\"not-now\")\nforbid (principal, action, resource) when {{ context has reason && context.reason like \"*4711*\" }};"), "policy_denied", "policy_denied"),
            (POLICY.to_owned(), "active", "active"),
        ] {
            company.policy(&change, &[&replica]).await;
            assert_eq!(verdict(&tool, &replica, &token).await, narrow, "{change}");
            assert_eq!(verdict(&tool, &replica, &approved).await, wide, "{change}");
        }
        replica.stop().await;
    }

    async fn a_login_counts_as_old_as_it_was_when_he_asked(company) {
        let company = asks_again(company);
        let tool = company.tool().await;
        let replica = company.replica().await;
        let recent = ["look", "change"].into_iter().fold(POLICY.to_owned(), |policy, rule| {
            let id = format!("@id(\"{rule}\")");
            policy.replace(&id, &format!("{id}\n@max_login_age(\"60\")"))
        });
        company.policy(&recent, &[&replica]).await;
        let login = |age: i64| company.token_of(LOGIN, "agent_1", json!({ "auth_time": company.clock.now_seconds() - age }));
        let body = |age| json!({ "user_id": "user_42", "actor_token": login(age), "reason": REASON });
        let api = tool.at(&replica);
        api.mint(&body(70)).await.fails(403, "policy_denied");
        let token = text(&api.mint(&body(50)).await.ok(), "token").to_owned();
        company.clock.on(120);
        // a clock that jumps makes what is known of revocations old, until they are asked for anew
        until("revocations are known anew", || async { api.verify(&token).await.ok()["active"] == true }).await;
        assert_eq!(verdict(&tool, &replica, &token).await, "active");
        replica.stop().await;
    }

    async fn a_grant_is_not_counted_against_itself(company) {
        let company = asks_again(company);
        let tool = company.tool().await;
        let replica = company.replica().await;
        let first = POLICY.replace("principal.known && resource.known }", "principal.known && resource.known && context.targets_last_hour < 1 }");
        company.policy(&first, &[&replica]).await;
        let token = minted(&company, &tool, &replica, "agent_1").await;
        assert_eq!(verdict(&tool, &replica, &token).await, "active");
        let body = |agent: &str, user: &str| json!({ "user_id": user, "actor_token": company.login(agent), "reason": REASON, "delivery": "code" });
        let api = tool.at(&replica);
        api.mint(&body("agent_1", "user_43")).await.fails(403, "policy_denied");
        let handed = api.mint(&body("agent_2", "user_43")).await.ok();
        api.post("/v1/actor_tokens/redeem", &json!({ "code": handed["code"] })).await.ok();
        replica.stop().await;
    }

    async fn codes_and_delegations_are_asked_about_as_what_they_are(company) {
        let company = asks_again(company);
        let tool = company.tool().await;
        let replica = company.replica().await;
        let api = tool.at(&replica);
        let body = json!({ "user_id": "user_42", "actor_token": company.login("agent_1"), "reason": REASON, "delivery": "code" });
        let handed = api.mint(&body).await.ok();
        let redeemed = api.post("/v1/actor_tokens/redeem", &json!({ "code": handed["code"] })).await.ok();
        let redeemed = text(&redeemed, "token").to_owned();
        let first = minted(&company, &tool, &replica, "agent_1").await;
        let robot = company.login("robot_1");
        let form = [
            ("grant_type", EXCHANGE), ("subject_token", &*first), ("subject_token_type", ACCESS),
            ("actor_token", &*robot), ("actor_token_type", ACCESS),
        ];
        let delegated = post(&replica, "/oauth/token", Some(&basic(&tool.id, &tool.secret)), &form).await.ok();
        let delegated = text(&delegated, "access_token").to_owned();
        for token in [&redeemed, &delegated] {
            assert_eq!(verdict(&tool, &replica, token).await, "active");
        }
        company.policy(&POLICY.replace("context.depth <= 4", "context.depth <= 1"), &[&replica]).await;
        assert_eq!(verdict(&tool, &replica, &delegated).await, "policy_denied", "nobody delegates any more");
        assert_eq!(verdict(&tool, &replica, &redeemed).await, "active");
        replica.stop().await;
    }

    async fn without_the_setting_nothing_is_kept_and_what_was_not_kept_is_refused_with_it(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let token = minted(&company, &tool, &replica, "agent_1").await;
        company.change("agent_1", json!({ "roles": ["clerk"] }), &[&replica]).await;
        assert_eq!(verdict(&tool, &replica, &token).await, "active", "the default: decided at the mint");
        company.change("agent_1", json!({ "roles": ["support"] }), &[&replica]).await;
        replica.stop().await;
        let company = asks_again(company);
        let replica = company.replica().await;
        assert_eq!(verdict(&tool, &replica, &token).await, "policy_denied", "nothing was kept to ask with");
        until("why is recorded", || async { replica.recorded("use", "denied", "facts_unknown").await == 1 }).await;
        let token = minted(&company, &tool, &replica, "agent_1").await;
        assert_eq!(verdict(&tool, &replica, &token).await, "active");
        replica.stop().await;
    }
}
