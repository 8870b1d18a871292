//! People as the directory knows them: by another claim than `sub`, by their consent, by name or by pseudonym.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use serde_json::{Value, json};
use stagedoor::token::Clock as _;
use stagedoor::token::signer::sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::company::{AUDIENCE, Caller, Company, Database, PARTNERS, claims, on_both, text, until};
use crate::oauth::{ACCESS, EXCHANGE, USER_ID, basic, post};
use crate::support::contract::Reply;

const REASON: &str = "Ticket 4711: the address is wrong";

on_both! {
    async fn an_actor_is_looked_up_by_the_claim_that_his_issuer_is_configured_with(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let api = tool.at(&replica);
        let ask = |user: &str, token: String| json!({ "user_id": user, "actor_token": token, "reason": REASON });
        let partner = |claims: Value| company.token_of(PARTNERS, "p-17", claims);

        let minted = api.mint(&ask("user_42", partner(json!({ "employee": "agent_1" })))).await.ok();
        assert_eq!(claims(text(&minted, "token"))["act"], json!({ "sub": "p-17", "iss": PARTNERS }), "named as he came");
        for (why, token) in [
            ("not mapped", partner(json!({}))),
            ("whose sub alone is a colleague's", company.token_of(PARTNERS, "agent_1", json!({}))),
            ("mapped to somebody without the role", partner(json!({ "employee": "clerk_1" }))),
            ("mapped to nobody", partner(json!({ "employee": "agent_99" }))),
        ] {
            let refused = api.mint(&ask("user_42", token)).await;
            assert_eq!(refused.fails(403, "policy_denied").json()["errors"][0]["meta"]["rule"], "stagedoor/no_permit", "{why}");
        }
        api.mint(&ask("user_42", partner(json!({ "employee": ["agent_1", "agent_2"] })))).await.fails(422, "form_param_value_invalid");
        // himself, under whatever name
        let own = api.mint(&ask("agent_1", partner(json!({ "employee": "agent_1" })))).await;
        assert_eq!(own.fails(403, "policy_denied").json()["errors"][0]["meta"]["rule"], "stagedoor/never_self");

        // and again when a code is redeemed
        let body = json!({ "user_id": "user_42", "actor_token": partner(json!({ "employee": "agent_1" })), "reason": REASON, "delivery": "code" });
        let handed = api.mint(&body).await.ok();
        let redeemed = api.post("/v1/actor_tokens/redeem", &json!({ "code": handed["code"] })).await.ok();
        assert_eq!(redeemed["status"], "accepted");
        let handed = api.mint(&body).await.ok();
        company.change("agent_1", json!({ "roles": ["clerk"] }), &[&replica]).await;
        api.post("/v1/actor_tokens/redeem", &json!({ "code": handed["code"] })).await.fails(403, "policy_denied");
        assert_eq!(redeemed["audience"], json!([AUDIENCE]));
        replica.stop().await;
    }
}

on_both! {
    async fn consent_is_asked_of_the_directory_and_the_token_never_outlives_it(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let api = tool.at(&replica);
        company.policy(CONSENT, &[&replica]).await;
        // a policy that took over is an entry, with the hash of its text
        let hash: String = sha256(CONSENT.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        until("the change is in the log", || async {
            let is_it = |e: &Value| e["typ"] == "policy" && text(e, "policy").ends_with(&hash);
            replica.entries().await.iter().any(is_it)
        })
        .await;
        let ask = async |user: &str| {
            let body = json!({ "user_id": user, "actor_token": company.login("agent_1"), "reason": REASON, "expires_in_seconds": 900 });
            api.mint(&body).await
        };
        ask("user_42").await.fails(403, "policy_denied");
        let until = company.clock.now() + TimeDelta::seconds(120);
        company.change("user_42", json!({ "consent_until": until.to_rfc3339() }), &[&replica]).await;
        let said = claims(text(&ask("user_42").await.ok(), "token"));
        assert!(said["exp"].as_i64().unwrap() <= until.timestamp(), "the token ends with the consent");
        company.change("user_42", json!({ "opted_out": true }), &[&replica]).await;
        ask("user_42").await.fails(403, "policy_denied");
        company.change("user_42", json!({ "opted_out": false }), &[&replica]).await;
        company.clock.on(121);
        ask("user_42").await.fails(403, "policy_denied");
        replica.stop().await;
    }

    async fn a_customer_sees_that_somebody_acted_and_not_who(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let api = tool.at(&replica);
        for (agent, user) in [("agent_1", "user_42"), ("agent_2", "user_42"), ("agent_1", "user_42"), ("agent_1", "user_43")] {
            api.mint(&json!({ "user_id": user, "actor_token": company.login(agent), "reason": REASON })).await.ok();
        }
        let list = async |query: &str| {
            let body = api.get(&format!("/v1/actor_tokens?{query}")).await.ok();
            let actors = body["actor_tokens"].as_array().unwrap().iter().map(|grant| grant["actor"].clone());
            (actors.collect::<Vec<Value>>(), body.to_string())
        };
        let (mine, body) = list("user_id=user_42&actors=pseudonymous").await;
        assert!(!body.contains("agent_") && !body.contains("login.example.com"), "{body}");
        assert_eq!(mine.len(), 3);
        assert_eq!((&mine[0], mine[0] == mine[1]), (&mine[2], false), "one name a person, stable");
        assert!(mine[0]["sub"].as_str().unwrap().starts_with("staff_"));
        let (others, _) = list("user_id=user_43&actors=pseudonymous").await;
        assert!(!mine.contains(&others[0]), "not to be linked between customers");
        let (named, _) = list("user_id=user_42&actors=named").await;
        assert_eq!(named[1]["sub"], "agent_2");
        api.get("/v1/actor_tokens?actors=pseudonymous&actor=agent_1").await.fails(400, "query_invalid");
        api.get("/v1/actor_tokens?actors=hidden").await.fails(400, "query_invalid");
        replica.stop().await;
    }

    async fn who_asks_too_often_waits_and_nobody_else_does(company) {
        let mut company = company;
        company.config.client_rate = NonZeroU32::new(4);
        company.config.actor_rate = NonZeroU32::new(2);
        let (tool, other) = (company.tool().await, company.tool().await);
        let replica = company.replica().await;
        let ask = async |tool: &Caller, agent: &str| {
            tool.at(&replica).mint(&json!({ "user_id": "user_42", "actor_token": company.login(agent), "reason": REASON })).await
        };
        let waits = |reply: &Reply| {
            let seconds: u32 = reply.header("retry-after").expect("how long").parse().unwrap();
            assert!((1..=60).contains(&seconds), "{seconds}");
        };
        for _ in 0..2 {
            ask(&tool, "agent_1").await.ok();
        }
        let busy = ask(&tool, "agent_1").await;
        waits(&busy);
        busy.fails(429, "too_many_requests");
        ask(&tool, "agent_2").await.ok();
        ask(&tool, "agent_2").await.fails(429, "too_many_requests");
        // an exchange counts as a mint, and is told in its own way
        let login = company.login("agent_1");
        let form = [
            ("grant_type", EXCHANGE), ("subject_token", "user_42"), ("subject_token_type", USER_ID),
            ("actor_token", login.as_str()), ("actor_token_type", ACCESS), ("reason", REASON),
        ];
        let exchange = async |tool: &Caller| {
            let reply = post(&replica, "/oauth/token", Some(&basic(&tool.id, &tool.secret)), &form).await;
            assert_eq!((reply.status.as_u16(), &reply.json()["error"]), (429, &json!("temporarily_unavailable")));
            waits(&reply);
        };
        exchange(&tool).await;
        exchange(&other).await;
        ask(&other, "agent_2").await.ok();
        ask(&other, "admin_7").await.fails(403, "policy_denied");
        let entries = replica.entries().await.len();
        ask(&other, "agent_1").await.fails(429, "too_many_requests");
        // whatever else is recorded counts, too
        let body = json!({ "user_id": "user_42", "actor": { "sub": "agent_1" }, "reason": REASON });
        other.at(&replica).post("/v1/policy/explain", &body).await.fails(429, "too_many_requests");
        other.at(&replica).post("/v1/actor_tokens/redeem", &json!({ "code": "hc_0" })).await.fails(429, "too_many_requests");
        // and so does whatever is refused before anybody is asked
        let unknown = "act_0000000000000000000000000";
        let approved = json!({ "user_id": "user_42", "actor_token": company.login("agent_1"), "reason": REASON, "approval": unknown });
        other.at(&replica).mint(&approved).await.fails(429, "too_many_requests");
        let coded = json!({ "user_id": "user_42", "actor_token": company.login("agent_1"), "reason": REASON, "delivery": "code", "approval": unknown });
        other.at(&replica).mint(&coded).await.fails(429, "too_many_requests");
        waits(&other.at(&replica).post(&format!("/v1/actor_tokens/{unknown}/revoke"), &json!({})).await);
        assert_eq!(replica.entries().await.len(), entries, "counted, not an entry each");
        replica.stop().await;
        let after = company.replica().await;
        let sums: u64 = after.entries().await.iter().filter_map(|e| e["detail"]["http_429"].as_u64()).sum();
        assert_eq!(sums, 10, "and the sums are in the log");
        after.stop().await;
    }
}

const CONSENT: &str = r#"
@id("with-consent")
@require_consent("given")
@max_lifetime("900")
permit (principal in Role::"support", action == Action::"impersonate", resource)
when { principal.known && resource.known };
"#;

const TICKET: &str = r#"
@id("with-ticket")
@ticket_lookup
permit (principal in Role::"support", action == Action::"impersonate", resource)
when { principal.known && resource.known };
"#;

/// A ticket system: answers by the ticket's name; what it was asked is kept.
async fn tickets() -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
                let body = loop {
                    let n = stream.read(&mut buffer).await.unwrap_or(0);
                    text.extend_from_slice(&buffer[..n]);
                    let all = String::from_utf8_lossy(&text).into_owned();
                    let body = all
                        .split_once("\r\n\r\n")
                        .and_then(|(_, body)| serde_json::from_str::<Value>(body).ok());
                    match body {
                        Some(body) => break body,
                        None if n == 0 => return,
                        None => {}
                    }
                };
                let mut facts =
                    json!({ "exists": true, "open": true, "assigned_to_actor": true, "about_user": true });
                let status = match body["ticket"].as_str().unwrap_or("") {
                    "T-unknown" => {
                        facts["exists"] = false.into();
                        200
                    }
                    "T-closed" => {
                        facts["open"] = false.into();
                        200
                    }
                    "T-another" => {
                        facts["assigned_to_actor"] = false.into();
                        200
                    }
                    "T-about-another" => {
                        facts["about_user"] = false.into();
                        200
                    }
                    "T-half" => {
                        facts.as_object_mut().unwrap().remove("open");
                        200
                    }
                    "T-broken" => 500,
                    "T-moved" => 302,
                    _ => 200,
                };
                kept.lock().unwrap().push(body);
                let facts = facts.to_string();
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nlocation: /x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{facts}",
                    facts.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
            });
        }
    });
    (format!("http://{address}/look-up"), asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_looked_up_before_anything_is_signed() {
    for database in [Database::Sqlite, Database::Postgres] {
        let (url, asked) = tickets().await;
        let settings = format!("allow_http = true\n[ticket]\nurl = \"{url}\"\n");
        let Some(company) = Company::found(database, &settings).await else { continue };
        let tool = company.tool().await;
        let replica = company.replica().await;
        company.policy(TICKET, &[&replica]).await;
        let ask = async |ticket: Value| {
            let mut body =
                json!({ "user_id": "user_42", "actor_token": company.login("agent_1"), "reason": REASON });
            if !ticket.is_null() {
                body["ticket"] = ticket;
            }
            tool.at(&replica).mint(&body).await
        };
        ask(json!("T-1")).await.ok();
        let question = asked.lock().unwrap()[0].clone();
        assert_eq!(
            (&question["ticket"], &question["user_id"], &question["actor"]),
            (&json!("T-1"), &json!("user_42"), &json!({ "sub": "agent_1", "iss": crate::company::LOGIN }))
        );
        for (ticket, rule) in [
            ("T-unknown", "ticket_unknown"),
            ("T-closed", "ticket_closed"),
            ("T-another", "ticket_of_another"),
            ("T-about-another", "ticket_about_another"),
        ] {
            let refused = ask(json!(ticket)).await;
            assert_eq!(refused.fails(403, "policy_denied").json()["errors"][0]["meta"]["rule"], rule);
            assert_eq!(replica.recorded("issue", "denied", rule).await, 1);
        }
        for ticket in ["T-half", "T-broken", "T-moved"] {
            ask(json!(ticket)).await.fails(503, "authority_unavailable");
        }
        assert_eq!(replica.recorded("issue", "denied", "authority_unreachable").await, 3, "recorded too");
        ask(Value::Null).await.fails(403, "policy_denied");
        replica.stop().await;
    }
}
