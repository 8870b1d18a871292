//! The traps other products fell into (field.md), by their number there, as far as they show through HTTP. 1, 2, 3,
//! 8, 11, 13, 15 and 16 are the policy's (tests/policy/traps.rs).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::company::{Caller, Company, Replica, claims, on_both, text};

const REASON: &str = "Ticket 4711: the address is wrong";

async fn minted(company: &Company, tool: &Caller, replica: &Replica) -> (Value, String) {
    let body = json!({ "user_id": "user_42", "actor_token": company.login("agent_1"), "reason": REASON });
    let grant = tool.at(replica).mint(&body).await.ok();
    let token = text(&grant, "token").to_owned();
    (grant, token)
}

on_both! {
    async fn trap_4_no_parameter_sets_act_or_any_other_claim(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let body = |more: Value| {
            let mut body = json!({ "user_id": "user_42", "actor_token": company.login("agent_1"), "reason": REASON });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        for name in ["act", "may_act", "claims", "sub", "iss", "jti", "exp", "sid", "client_id", "actor_assurance", "break_glass"] {
            tool.at(&replica).mint(&body(json!({ name: "x" }))).await.fails(422, "form_param_unknown");
        }
        // what a public SDK sends in `actor` besides `sub` is dropped
        let sneaky = json!({ "actor": { "sub": "agent_1", "act": { "sub": "nobody" }, "iss": "https://evil.example.com", "admin": true } });
        let said = claims(text(&tool.at(&replica).mint(&body(sneaky)).await.ok(), "token"));
        assert_eq!(said["act"], json!({ "sub": "agent_1", "iss": crate::company::LOGIN }));
        replica.stop().await;
    }

    async fn traps_6_and_7_a_stop_stops_however_the_token_is_written(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let (_, token) = minted(&company, &tool, &replica).await;
        let stopped = replica.api.with_secret(&token).call(Method::POST, "/v1/actor_tokens/stop").send().await.ok();
        assert_eq!(stopped["status"], "revoked");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        // (r, s) and (r, n - s) are both signatures of the same bytes: another text, the same token
        let malleated = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(negated(&URL_SAFE_NO_PAD.decode(signature).unwrap())));
        assert_ne!(malleated, token);
        for text in [&token, &malleated, &format!("{token}="), &format!("{token}\n")] {
            assert_eq!(tool.at(&replica).verify(text).await.ok()["active"], false, "{text:?}");
        }
        replica.stop().await;
    }

    async fn trap_9_who_acts_as_somebody_can_make_nothing_of_it(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let (grant, token) = minted(&company, &tool, &replica).await;
        let acting = replica.api.with_secret(&token);
        let body = json!({ "user_id": "user_43", "actor": { "sub": "user_42" }, "reason": REASON });
        acting.mint(&body).await.fails(401, "client_secret_invalid");
        acting.get("/v1/actor_tokens").await.fails(401, "client_secret_invalid");
        acting.post(&format!("/v1/actor_tokens/{}/approve", text(&grant, "id")), &json!({})).await.fails(401, "actor_token_invalid");
        let as_actor = json!({ "user_id": "user_43", "actor_token": token, "reason": REASON });
        tool.at(&replica).mint(&as_actor).await.fails(422, "form_param_value_invalid");
        let exchanged = replica.api.call(Method::POST, "/oauth/token").form(&[("grant_type", "x")]).header("authorization", format!("Bearer {token}")).send().await;
        assert_eq!(exchanged.status, 401);
        assert_eq!(replica.api.call(Method::GET, "/oauth/token").send().await.status, 405, "and nothing is refreshed");
        replica.stop().await;
    }

    async fn traps_10_and_12_no_token_rests_in_the_log_and_every_refusal_does(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let (_, token) = minted(&company, &tool, &replica).await;
        let before = replica.entries().await.len();
        for user in ["user_99", "agent_1", "nobody"] {
            let body = json!({ "user_id": user, "actor_token": company.login("agent_1"), "reason": REASON });
            tool.at(&replica).mint(&body).await.fails(403, "policy_denied");
        }
        let entries = replica.entries().await;
        assert_eq!(entries[before..].iter().filter(|e| e["decision"] == "denied").count(), 3);
        let all: String = entries.iter().map(Value::to_string).collect();
        for part in token.split('.') {
            assert!(!all.contains(part), "no part of a token");
        }
        replica.stop().await;
    }

    async fn traps_14_and_17_a_product_can_tell_an_impersonation_apart_cheaply(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let (_, token) = minted(&company, &tool, &replica).await;
        // the claim that guards turn into `is_impersonated`, with which products skip password pages and analytics
        assert!(claims(&token)["act"].is_object());
        assert!(tool.at(&replica).verify(&token).await.ok()["act"].is_object());
        replica.stop().await;
    }
}

/// The other signature of an ES256 signature: `s` becomes `n - s`.
fn negated(signature: &[u8]) -> Vec<u8> {
    const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let mut out = signature.to_vec();
    let mut borrow = 0_i16;
    for i in (0..32).rev() {
        let difference = i16::from(N[i]) - i16::from(signature[32 + i]) - borrow;
        borrow = i16::from(difference < 0);
        out[32 + i] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    out
}
