//! People as the directory knows them: by another claim than `sub`, by their consent, by name or by pseudonym.

use serde_json::{Value, json};

use crate::company::{AUDIENCE, PARTNERS, claims, on_both, text};

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
