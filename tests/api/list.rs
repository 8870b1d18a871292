//! GET `/v1/actor_tokens` and `/v1/actor_tokens/{id}`: filters, pages, and never the token.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::app::{NewClient, TestApp, mint_body};

fn ids(page: &Value) -> Vec<String> {
    let grants = page["actor_tokens"].as_array().expect("a list").iter();
    grants.map(|g| g["id"].as_str().expect("an id").to_owned()).collect()
}

fn anybody() -> NewClient<'static> {
    NewClient { may_assert: &["*"], ..NewClient::minter() }
}

on_both_databases! {
    async fn a_grant_reads_as_it_was_minted_without_its_token(app: TestApp) {
        let client = app.client(anybody()).await;
        let minted = client.api.mint(&mint_body()).await.ok();
        let reply = client.api.get(&format!("/v1/actor_tokens/{}", minted["id"].as_str().unwrap())).await;
        assert!(!reply.text().contains("eyJ"), "never the token itself");
        let read = reply.ok();
        for member in ["id", "status", "user_id", "actor", "actor_assurance", "scope", "audience", "created_at", "expires_at"] {
            assert_eq!(read[member], minted[member], "{member}");
        }
        assert_eq!(read["audit"]["index"], minted["audit"]["index"]);
        assert_eq!(read["client_id"], client.id.as_str());
    }

    async fn a_grant_is_read_under_the_pseudonym_it_is_listed_under(app: TestApp) {
        let client = app.client(anybody()).await;
        let id = client.api.mint(&mint_body()).await.ok()["id"].as_str().unwrap().to_owned();
        let listed = client.api.get("/v1/actor_tokens?actors=pseudonymous").await.ok()["actor_tokens"][0].clone();
        let read = client.api.get(&format!("/v1/actor_tokens/{id}?actors=pseudonymous")).await.ok();
        assert_eq!(read, listed);
        assert!(read["actor"]["sub"].as_str().unwrap().starts_with("staff_"), "{read}");
        let named = client.api.get(&format!("/v1/actor_tokens/{id}?actors=named")).await.ok();
        assert_eq!(named["actor"]["sub"], "admin_7");
        for bad in ["actors=nobody", "actor=admin_7", "actors=named&actors=pseudonymous"] {
            client.api.get(&format!("/v1/actor_tokens/{id}?{bad}")).await.fails(400, "query_invalid");
        }
    }

    async fn pages_are_newest_first_and_miss_and_repeat_nothing(app: TestApp) {
        let client = app.client(anybody()).await;
        let mut minted = Vec::new();
        for _ in 0..7 {
            minted.push(client.api.mint(&mint_body()).await.ok()["id"].as_str().unwrap().to_owned());
        }
        minted.reverse();
        let (mut seen, mut path) = (Vec::new(), "/v1/actor_tokens?limit=3".to_owned());
        let mut pages = 0;
        loop {
            let page = client.api.get(&path).await.ok();
            seen.extend(ids(&page));
            pages += 1;
            // What comes in between does not shift the pages.
            client.api.mint(&mint_body()).await.ok();
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/v1/actor_tokens?limit=3&cursor={cursor}");
        }
        assert_eq!((seen, pages), (minted, 3));
    }

    async fn a_cursor_of_other_filters_is_refused(app: TestApp) {
        let client = app.client(anybody()).await;
        for _ in 0..3 {
            client.api.mint(&mint_body()).await.ok();
        }
        let page = client.api.get("/v1/actor_tokens?limit=1").await.ok();
        let cursor = page["next_cursor"].as_str().unwrap();
        client.api.get(&format!("/v1/actor_tokens?limit=1&user_id=user_43&cursor={cursor}")).await.fails(400, "query_invalid");
    }

    async fn filters_narrow_and_combine(app: TestApp) {
        let client = app.client(anybody()).await;
        let mint = |user: &str, actor: &str| {
            let mut body = mint_body();
            body["user_id"] = json!(user);
            body["actor"] = json!({ "sub": actor });
            let api = client.api.clone();
            async move { api.mint(&body).await.ok()["id"].as_str().unwrap().to_owned() }
        };
        let a = mint("user_42", "admin_7").await;
        let b = mint("user_42", "admin_8").await;
        let c = mint("user_43", "admin_7").await;
        let strange = mint("a&b=c ü", "admin_7").await;
        for (query, expected) in [
            ("user_id=user_42", vec![&a, &b]), ("actor=admin_7", vec![&a, &c, &strange]), ("user_id=user_42&actor=admin_7", vec![&a]),
            ("user_id=nobody", vec![]), ("user_id=user_4", vec![]), ("user_id=a%26b%3Dc%20%C3%BC", vec![&strange]),
            ("status=active", vec![&a, &b, &c, &strange]), ("status=pending&user_id=user_43", vec![&c]),
            ("status=revoked", vec![]), ("status=expired", vec![]), ("status=accepted", vec![]),
        ] {
            let page = client.api.get(&format!("/v1/actor_tokens?{query}")).await.ok();
            let found: BTreeSet<String> = ids(&page).into_iter().collect();
            assert_eq!(found, expected.into_iter().cloned().collect(), "{query}");
        }
    }

    async fn an_expired_grant_is_listed_as_expired(app: TestApp) {
        let client = app.client(anybody()).await;
        let mut body = mint_body();
        body["expires_in_seconds"] = json!(1);
        let id = client.api.mint(&body).await.ok()["id"].as_str().unwrap().to_owned();
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        assert_eq!(ids(&client.api.get("/v1/actor_tokens?status=expired").await.ok()), [id]);
        assert!(ids(&client.api.get("/v1/actor_tokens?status=active").await.ok()).is_empty());
    }
}
