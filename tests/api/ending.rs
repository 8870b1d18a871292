//! A grant ends before its time: revoke, stop, revocations by person, client and all, and the public feed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{NewClient, TestApp, TestClient, mint_body};

/// A client that may mint, read, verify and revoke its own.
async fn revoker(app: &TestApp, more: &[&str]) -> TestClient {
    let mut scopes: Vec<&str> = NewClient::minter().scopes.to_vec();
    scopes.push("actor_tokens:revoke");
    scopes.extend(more);
    app.client(NewClient { scopes: &scopes, audience: NewClient::minter().audience, may_assert: &["*"] })
        .await
}

/// Mints for `user` by `actor`: the grant's id and its token.
async fn mint(client: &TestClient, user: &str, actor: &str) -> (String, String) {
    let mut body = mint_body();
    body["user_id"] = json!(user);
    body["actor"] = json!({ "sub": actor });
    let minted = client.api.mint(&body).await.ok();
    (minted["id"].as_str().unwrap().to_owned(), minted["token"].as_str().unwrap().to_owned())
}

/// The claims of a JWT that is not verified here: the guards' tests do that.
fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

on_both_databases! {
    async fn a_revoked_grant_is_over_at_once_and_only_once(app: TestApp) {
        let client = revoker(&app, &[]).await;
        let (id, token) = mint(&client, "user_42", "admin_7").await;
        assert_eq!(client.api.verify(&token).await.ok()["active"], true, "remembered, so that a memory would be asked");
        let path = format!("/v1/actor_tokens/{id}/revoke");
        let revoked = client.api.call(Method::POST, &path).send().await.ok();
        assert_eq!((&revoked["id"], &revoked["status"]), (&json!(id), &json!("revoked")));
        assert_eq!(client.api.verify(&token).await.ok(), json!({ "active": false, "reason": "revoked" }));
        client.api.call(Method::POST, &path).send().await.fails(400, "actor_token_cannot_be_revoked_code");
        let listed = client.api.get("/v1/actor_tokens?status=revoked").await.ok();
        assert_eq!(listed["actor_tokens"][0]["id"], id.as_str());
    }

    /// Public SDKs send no body, an empty one with a JSON content type, or an empty object.
    async fn revoking_takes_an_empty_body_in_every_form(app: TestApp) {
        let client = revoker(&app, &[]).await;
        for (body, media) in [(None, None), (None, Some("application/json")), (Some(""), Some("application/json")), (Some("{}"), Some("application/json")), (Some(r#"{"reason":"done"}"#), None)] {
            let (id, _) = mint(&client, "user_42", "admin_7").await;
            let mut call = client.api.call(Method::POST, &format!("/v1/actor_tokens/{id}/revoke"));
            if let Some(body) = body {
                call = call.bytes(body);
            }
            if let Some(media) = media {
                call = call.header("content-type", media);
            }
            assert_eq!(call.send().await.ok()["status"], "revoked", "{body:?} {media:?}");
        }
        let (id, _) = mint(&client, "user_42", "admin_7").await;
        client.api.post(&format!("/v1/actor_tokens/{id}/revoke"), &json!({ "reasn": "x" })).await.fails(422, "form_param_unknown");
    }

    async fn another_clients_grant_cannot_be_revoked_and_the_attempt_is_recorded(app: TestApp) {
        let (one, other, auditor) = (revoker(&app, &[]).await, revoker(&app, &[]).await, app.auditor().await);
        let (id, token) = mint(&one, "user_42", "admin_7").await;
        let reply = other.api.call(Method::POST, &format!("/v1/actor_tokens/{id}/revoke")).send().await;
        reply.fails(404, "resource_not_found");
        assert_eq!(one.api.verify(&token).await.ok()["active"], true);
        let denied = auditor.api.get("/v1/audit/entries?typ=revoke&decision=denied").await.ok();
        assert_eq!(denied["entries"][0]["body"]["req"], reply.json()["trace_id"]);
        let admin = revoker(&app, &["admin"]).await;
        admin.api.call(Method::POST, &format!("/v1/actor_tokens/{id}/revoke")).send().await.ok();
    }

    async fn the_holder_stops_his_own_impersonation_with_the_token_itself(app: TestApp) {
        let client = revoker(&app, &[]).await;
        let (id, token) = mint(&client, "user_42", "admin_7").await;
        let holder = app.api.with_secret(&token);
        let stopped = holder.call(Method::POST, "/v1/actor_tokens/stop").send().await.ok();
        assert_eq!((&stopped["id"], &stopped["status"]), (&json!(id), &json!("revoked")));
        assert_eq!(client.api.verify(&token).await.ok()["reason"], "revoked");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
        for wrong in ["x.y.z".to_owned(), client.secret.clone(), forged] {
            app.api.with_secret(wrong).call(Method::POST, "/v1/actor_tokens/stop").send().await.fails(401, "actor_token_invalid");
        }
    }

    async fn rv_3_oauth_revocation_answers_200_and_nothing_whatever_the_token_was(app: TestApp) {
        let (one, other) = (revoker(&app, &[]).await, revoker(&app, &[]).await);
        let (_, token) = mint(&one, "user_42", "admin_7").await;
        let revoke = |client: &TestClient, token: &str| {
            let basic = STANDARD.encode(format!("{}:{}", client.id, client.secret));
            let call = app.api.call(Method::POST, "/oauth/revoke").form(&[("token", token), ("token_type_hint", "x")]);
            call.header("authorization", format!("Basic {basic}")).send()
        };
        for token in [token.as_str(), "garbage", "a.b.c"] {
            let reply = revoke(&other, token).await;
            assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
        }
        assert_eq!(one.api.verify(&token).await.ok()["active"], true, "RV-2: not another client's to revoke");
        assert_eq!(revoke(&one, &token).await.status, 200);
        assert_eq!(one.api.verify(&token).await.ok()["reason"], "revoked", "RV-6");
    }

    async fn a_revocation_ends_what_its_selector_hits_and_no_more(app: TestApp) {
        let client = revoker(&app, &[]).await;
        let other = revoker(&app, &[]).await;
        let (_, a) = mint(&client, "user_42", "admin_7").await;
        let (_, b) = mint(&client, "user_43", "admin_7").await;
        let (_, c) = mint(&client, "user_43", "admin_8").await;
        let (_, foreign) = mint(&other, "user_42", "admin_7").await;
        let active = |client: &TestClient, token: &str| {
            let (api, token) = (client.api.clone(), token.to_owned());
            async move { api.verify(&token).await.ok()["active"] == true }
        };
        let ended = client.api.post("/v1/revocations", &json!({ "actor": { "sub": "admin_7" }, "reason": "Left the company" })).await.ok();
        assert_eq!(ended["matched"], 2, "own grants only, without admin");
        assert_eq!((active(&client, &a).await, active(&client, &b).await, active(&client, &c).await), (false, false, true));
        assert!(active(&other, &foreign).await);
        let admin = revoker(&app, &["admin"]).await;
        let ended = admin.api.post("/v1/revocations", &json!({ "user_id": "user_42", "reason": "Asked for it" })).await.ok();
        assert_eq!((ended["matched"].as_u64(), active(&other, &foreign).await), (Some(1), false));
        admin.api.post("/v1/revocations", &json!({ "all": true, "reason": "Drill" })).await.ok();
        assert!(!active(&client, &c).await, "the red button");
    }

    async fn a_revocation_names_exactly_one_thing_and_why(app: TestApp) {
        let admin = revoker(&app, &["admin"]).await;
        let plain = revoker(&app, &[]).await;
        for (body, code) in [
            (json!({ "reason": "Because of this" }), "form_param_missing"),
            (json!({ "all": true }), "form_param_missing"),
            (json!({ "all": false, "reason": "x" }), "form_param_value_invalid"),
            (json!({ "all": true, "user_id": "user_42", "reason": "x" }), "form_param_value_invalid"),
            (json!({ "actor": { "sub": "a", "name": "b" }, "reason": "x" }), "form_param_unknown"),
            (json!({ "user_id": "user_42", "reason": "x", "hold_seconds": 0 }), "form_param_value_invalid"),
            (json!({ "user_id": "user_42", "reason": "x", "hold_seconds": 9_999_999 }), "form_param_value_invalid"),
            (json!({ "kid": "nope", "reason": "x" }), "form_param_value_invalid"),
        ] {
            admin.api.post("/v1/revocations", &body).await.fails(422, code);
        }
        for body in [json!({ "all": true, "reason": "x" }), json!({ "kid": "nope", "reason": "x" }), json!({ "client_id": admin.id, "reason": "x" })] {
            plain.api.post("/v1/revocations", &body).await.fails(403, "scope_missing");
        }
    }

    async fn the_feed_names_grants_and_nobody(app: TestApp) {
        let client = revoker(&app, &[]).await;
        let (id, _) = mint(&client, "user_42", "admin_7").await;
        client.api.post("/v1/revocations", &json!({ "actor": { "sub": "admin_7" }, "reason": "Left the company" })).await.ok();
        let reply = app.api.get("/v1/revocations").await;
        let feed = claims(&reply.text());
        assert!(feed["sids"].as_array().unwrap().contains(&json!(id)), "{feed}");
        for personal in ["admin_7", "user_42", "Left the company"] {
            assert!(!feed.to_string().contains(personal), "no person and no reason stands in the feed");
        }
        let etag = reply.header("etag").unwrap();
        let again = app.api.call(Method::GET, "/v1/revocations").header("if-none-match", etag).send().await;
        // The signed time is part of the text: either nothing changed, or there is a new one.
        assert!(again.status == 304 || again.header("etag") != Some(etag), "{again:?}");
        assert!(!app.api.get("/v1/revocations/jwks").await.ok()["keys"].as_array().unwrap().is_empty());
    }

    async fn the_stream_is_alive_and_signed(app: TestApp) {
        let address = app.api_address();
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        write!(stream, "GET /v1/revocations/stream HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("sends");
        let read = tokio::task::spawn_blocking(move || {
            let (mut text, mut buffer) = (String::new(), [0_u8; 4096]);
            // The head and two events: the snapshot, then a heartbeat within two seconds.
            while text.matches("data:").count() < 2 {
                let n = stream.read(&mut buffer).expect("events in time");
                assert!(n > 0, "the stream ended: {text}");
                text.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
            text
        });
        let text = read.await.expect("a reader").to_ascii_lowercase();
        assert!(text.starts_with("http/1.1 200 ok"), "{text}");
        for header in ["content-type: text/event-stream", "cache-control: no-store", "access-control-allow-origin: *"] {
            assert!(text.contains(header), "{header}: {text}");
        }
        assert!(text.contains("data: eyj"), "a signed document: {text}");
    }
}
