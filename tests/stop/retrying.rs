//! Idempotency keys on minting: the same claims again, and nothing that was stopped meanwhile.

use serde_json::json;

use crate::site::{body_for, claims, is_active, keyed, on_both, text};

const MINT: &str = "/v1/actor_tokens";

on_both! {
    async fn a_retry_is_given_the_same_claims_across_replicas_and_restarts(site) {
        let minter = site.minter().await;
        let (one, two) = (site.replica().await, site.replica().await);
        let body = body_for("admin_7", "user_42");
        let first = keyed(&minter.at(&one), MINT, "8e03978e-40d5", &body).await.ok();
        let said = claims(text(&first, "token"));
        let quoted = keyed(&minter.at(&two), MINT, "\"8e03978e-40d5\"", &body).await.ok();
        assert_eq!(claims(text(&quoted, "token")), said, "another replica, quoted");
        assert_eq!(quoted["audit"]["index"], first["audit"]["index"], "the entry that is there already");
        one.stop().await;
        two.stop().await;
        let restarted = site.replica().await;
        let again = keyed(&minter.at(&restarted), MINT, "8e03978e-40d5", &body).await.ok();
        assert_eq!(claims(text(&again, "token")), said, "a restart");
        assert!(is_active(&minter.at(&restarted), text(&again, "token")).await);
        let issued = restarted.entries().await.iter().filter(|e| e["typ"] == "issue").count();
        assert_eq!(issued, 1, "one grant, one entry");
        let other = keyed(&minter.at(&restarted), MINT, "another", &body).await.ok();
        assert_ne!(claims(text(&other, "token"))["jti"], said["jti"]);
        restarted.stop().await;
    }

    async fn a_key_belongs_to_its_body_and_its_client(site) {
        let (minter, other) = (site.minter().await, site.minter().await);
        let replica = site.replica().await;
        let api = minter.at(&replica);
        let first = keyed(&api, MINT, "k", &body_for("admin_7", "user_42")).await.ok();
        keyed(&api, MINT, "k", &body_for("admin_7", "user_43")).await.fails(422, "idempotency_key_reused");
        let foreign = keyed(&other.at(&replica), MINT, "k", &body_for("admin_7", "user_42")).await.ok();
        assert_ne!(foreign["id"], first["id"], "IK-2: keys belong to the client");
        for bad in ["", "\"", "a b", "ä", &"x".repeat(256)] {
            let reply = keyed(&api, MINT, bad, &body_for("admin_7", "user_42")).await;
            reply.fails(422, "form_param_value_invalid");
        }
        assert_eq!(replica.recorded("issue", "idempotency_key_reused").await, 1);
        replica.stop().await;
    }

    async fn a_key_that_somebody_gave_anothers_grant_is_given_nothing(site) {
        let (minter, other) = (site.minter().await, site.minter().await);
        let replica = site.replica().await;
        let victim = minter.at(&replica).post(MINT, &body_for("admin_7", "user_43")).await.ok();
        let (own, api) = (body_for("admin_7", "user_42"), other.at(&replica));
        let same_client = api.post(MINT, &body_for("admin_7", "user_44")).await.ok();
        for stolen in [&victim, &same_client] {
            let key = text(stolen, "id");
            let first = keyed(&api, MINT, key, &own).await.ok();
            let sql = format!("UPDATE idempotency SET grant_id = '{key}' WHERE grant_id = '{}'", text(&first, "id"));
            assert_eq!(crate::support::sql::execute(site.database_url(), &sql).await, 1);
            keyed(&api, MINT, key, &own).await.fails(409, "idempotency_grant_ended");
        }
        replica.stop().await;
    }

    async fn what_is_over_or_would_be_denied_is_not_released_again(site) {
        let minter = site.minter().await;
        let replica = site.replica().await;
        let api = minter.at(&replica);
        let (revoked, denied) = (body_for("admin_7", "user_42"), body_for("admin_7", "user_43"));
        let first = keyed(&api, MINT, "revoked", &revoked).await.ok();
        keyed(&api, MINT, "denied", &denied).await.ok();
        api.post(&format!("{MINT}/{}/revoke", text(&first, "id")), &json!({})).await.ok();
        keyed(&api, MINT, "revoked", &revoked).await.fails(409, "idempotency_grant_ended");
        site.policy(crate::site::CLOSED, &replica).await;
        keyed(&api, MINT, "denied", &denied).await.fails(409, "idempotency_grant_ended");
        site.policy(crate::site::POLICY, &replica).await;
        keyed(&api, MINT, "denied", &denied).await.ok();
        replica.stop().await;
    }

    async fn the_same_key_at_once_makes_one_grant(site) {
        let minter = site.minter().await;
        let (one, two) = (site.replica().await, site.replica().await);
        let body = body_for("admin_7", "user_42");
        let mut tasks = Vec::new();
        for i in 0..20 {
            let (api, body) = (minter.at(if i % 2 == 0 { &one } else { &two }), body.clone());
            tasks.push(tokio::spawn(async move { keyed(&api, MINT, "k", &body).await }));
        }
        let mut ids = std::collections::BTreeSet::new();
        for task in tasks {
            let reply = task.await.unwrap();
            if reply.status == 200 {
                ids.insert(text(&reply.ok(), "id").to_owned());
            } else {
                assert_eq!(reply.fails(409, "idempotency_in_flight").header("retry-after"), Some("1"));
            }
        }
        assert_eq!(ids.len(), 1, "{ids:?}");
        one.stop().await;
        two.stop().await;
    }
}
