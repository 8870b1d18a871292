//! POST `/v1/policy/explain`: the policy's answer to a mint that is not made, recorded like one.

use serde_json::json;

use crate::support::app::{AUDIENCE, NewClient, TestApp, mint_body};

on_both_databases! {
    async fn what_would_be_granted_is_told_with_its_limits_and_nothing_is_minted(app: TestApp) {
        let (client, auditor) = (app.minter().await, app.auditor().await);
        let told = client.api.post("/v1/policy/explain", &mint_body()).await.ok();
        assert_eq!((&told["decision"], &told["rule"]), (&json!("granted"), &json!("test-read")));
        assert_eq!(told["limits"]["lifetime_seconds"], 600);
        assert_eq!((&told["limits"]["scope"], &told["limits"]["audience"]), (&json!("read"), &json!([AUDIENCE])));
        assert!(client.api.get("/v1/actor_tokens").await.ok()["actor_tokens"].as_array().unwrap().is_empty());
        let entry = auditor.api.get("/v1/audit/entries?typ=explain").await.ok()["entries"][0].clone();
        assert_eq!(entry["personal"]["sub"], "user_42");
    }

    async fn a_refusal_names_its_rule_as_a_mint_would(app: TestApp) {
        let client = app.minter().await;
        let mut body = mint_body();
        body["reason"] = json!("short");
        let told = client.api.post("/v1/policy/explain", &body).await.ok();
        let refused = client.api.mint(&body).await.json();
        assert_eq!((&told["decision"], &told["limits"]), (&json!("denied"), &json!(null)));
        assert_eq!(told["rule"], refused["errors"][0]["meta"]["rule"]);
        assert_eq!(told["message"], refused["detail"]);
    }

    /// Whatever a mint would record as a denial of the policy is an answer, with its rule.
    async fn what_is_denied_before_the_policy_is_asked_is_an_answer(app: TestApp) {
        let (client, auditor) = (app.minter().await, app.auditor().await);
        let mut foreign = mint_body();
        foreign["audience"] = json!("https://not.mine.example");
        let mut nobodys = mint_body();
        nobodys["actor"] = json!({ "sub": "stranger_1" });
        for (body, rule) in [(&foreign, "audience_not_of_client"), (&nobodys, "stagedoor/may_not_assert")] {
            let told = client.api.post("/v1/policy/explain", body).await.ok();
            let refused = client.api.mint(body).await;
            refused.fails(403, "policy_denied");
            assert_eq!((&told["decision"], &told["limits"]), (&json!("denied"), &json!(null)), "{told}");
            assert_eq!(told["rule"], refused.json()["errors"][0]["meta"]["rule"], "{rule}");
            assert_eq!(told["message"], refused.json()["detail"], "{rule}");
            let entry = auditor.api.get("/v1/audit/entries?typ=explain&limit=1").await.ok()["entries"][0].clone();
            assert_eq!((&entry["body"]["rule"], &entry["body"]["detail"]["would"]), (&told["rule"], &json!("denied")));
        }
        let unable = app.client(NewClient { scopes: &["actor_tokens:issue"], ..NewClient::minter() }).await;
        unable.api.post("/v1/policy/explain", &mint_body()).await.fails(403, "scope_missing");
        let homeless = app.client(NewClient { audience: &[], ..NewClient::minter() }).await;
        homeless.api.post("/v1/policy/explain", &mint_body()).await.fails(422, "form_param_value_invalid");
    }

    async fn its_body_is_the_mints(app: TestApp) {
        let client = app.minter().await;
        client.api.post("/v1/policy/explain", &json!({})).await.fails(422, "form_param_missing");
        client.api.post("/v1/policy/explain", &json!({ "usr_id": "a" })).await.fails(422, "form_param_unknown");
    }
}
