//! A client sees its own grants and audiences, and learns nothing of what lies outside (contract.md §3).

use serde_json::json;

use crate::support::app::{AUDIENCE, NewClient, OTHER_AUDIENCE, TestApp, mint_body};

on_both_databases! {
    async fn another_clients_grant_is_exactly_as_absent_as_one_that_never_was(app: TestApp) {
        let (one, other) = (app.minter().await, app.minter().await);
        let id = one.api.mint(&mint_body()).await.ok()["id"].as_str().unwrap().to_owned();
        let (one, other) = (one.api, other.api);
        one.get(&format!("/v1/actor_tokens/{id}")).await.ok();
        let foreign = other.get(&format!("/v1/actor_tokens/{id}")).await;
        foreign.fails(404, "resource_not_found");
        let absent = other.get("/v1/actor_tokens/act_00000000000000000000000000").await;
        absent.fails(404, "resource_not_found");
        assert_eq!(foreign.json()["detail"], absent.json()["detail"], "the two cannot be told apart");
        for never in ["x", "act_", "act_a-b", "client_1", "%00", &"a".repeat(300)] {
            other.get(&format!("/v1/actor_tokens/{never}")).await.fails(404, "resource_not_found");
        }
    }

    async fn lists_hold_only_what_is_ones_own_unless_admin(app: TestApp) {
        let (one, other) = (app.minter().await, app.minter().await);
        one.api.mint(&mint_body()).await.ok();
        other.api.mint(&mint_body()).await.ok();
        let own = one.api.get("/v1/actor_tokens").await.ok();
        assert_eq!(own["actor_tokens"].as_array().unwrap().len(), 1);
        assert_eq!(own["actor_tokens"][0]["client_id"], one.id.as_str());
        let admin = app.client(NewClient { scopes: &["actor_tokens:read", "admin"], ..NewClient::minter() }).await;
        let all = admin.api.get("/v1/actor_tokens").await.ok();
        assert_eq!(all["actor_tokens"].as_array().unwrap().len(), 2);
    }

    async fn tokens_for_somebody_else_are_not_valid_and_show_no_claims(app: TestApp) {
        let minter = app.minter().await;
        let token = minter.api.mint(&mint_body()).await.ok()["token"].as_str().unwrap().to_owned();
        let service = |audience: &'static [&'static str], scopes: &'static [&'static str]| {
            app.client(NewClient { scopes, audience, may_assert: &[] })
        };
        let own = service(&[AUDIENCE], &["tokens:verify"]).await;
        assert_eq!(own.api.verify(&token).await.ok()["active"], true);
        let foreign = service(&[OTHER_AUDIENCE], &["tokens:verify"]).await;
        let verdict = foreign.api.verify(&token).await.ok();
        assert_eq!(verdict["active"], false);
        assert_eq!(verdict.as_object().unwrap().len(), 2, "a reason and no claims: {verdict}");
        // Naming the audience does not make it one's own.
        let body = json!({ "token": token, "audience": AUDIENCE });
        assert_eq!(foreign.api.post("/v1/actor_tokens/verify", &body).await.ok()["active"], false);
        let nobody = service(&[], &["tokens:verify"]).await;
        assert_eq!(nobody.api.verify(&token).await.ok()["active"], false);
        let admin = service(&[], &["tokens:verify", "admin"]).await;
        assert_eq!(admin.api.post("/v1/actor_tokens/verify", &body).await.ok()["active"], true);
    }
}
