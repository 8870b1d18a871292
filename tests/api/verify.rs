//! POST `/v1/actor_tokens/verify`: the claims of a valid token, or why it is not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::app::{AUDIENCE, TestApp, mint_body};

on_both_databases! {
    async fn a_fresh_token_is_active_with_exactly_its_claims(app: TestApp) {
        let client = app.minter().await;
        let api = client.api.clone();
        let token = client.api.mint(&mint_body()).await.ok()["token"].as_str().unwrap().to_owned();
        let mut verdict = api.verify(&token).await.ok();
        assert_eq!(verdict.as_object_mut().unwrap().remove("active"), Some(json!(true)));
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        assert_eq!(verdict, serde_json::from_slice::<Value>(&payload).unwrap(), "TE-11: the same shape as in the token");
    }

    async fn scope_and_audience_only_narrow(app: TestApp) {
        let client = app.minter().await;
        let api = client.api.clone();
        let token = client.api.mint(&mint_body()).await.ok()["token"].as_str().unwrap().to_owned();
        for (ask, active) in [
            (json!({ "audience": AUDIENCE }), true), (json!({ "scope": "read" }), true), (json!({ "scope": "" }), true),
            (json!({ "scope": "read write" }), false), (json!({ "audience": format!("{AUDIENCE}/") }), false),
            (json!({ "audience": AUDIENCE.to_uppercase() }), false),
        ] {
            let mut body = ask.clone();
            body["token"] = json!(token);
            let verdict = api.post("/v1/actor_tokens/verify", &body).await.ok();
            assert_eq!(verdict["active"], active, "{ask}");
        }
    }

    async fn any_changed_or_re_encoded_token_is_not_valid(app: TestApp) {
        let client = app.minter().await;
        let api = client.api.clone();
        let token = client.api.mint(&mint_body()).await.ok()["token"].as_str().unwrap().to_owned();
        let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
        let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        claims["sub"] = json!("user_1");
        let swapped = URL_SAFE_NO_PAD.encode(claims.to_string());
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#);
        assert_eq!(api.verify(&token).await.ok()["active"], true, "remembered, so that a memory would be asked");
        for (why, hostile) in [
            ("payload swapped under a kept jti and signature", format!("{header}.{swapped}.{signature}")),
            ("padding", format!("{token}=")),
            ("a space", format!(" {token}")),
            ("a line end", format!("{token}\n")),
            ("no signature", format!("{header}.{payload}.")),
            ("alg none", format!("{none}.{payload}.")),
            ("four parts", format!("{token}.{signature}")),
            ("two parts", format!("{header}.{payload}")),
            ("not a token", "x".to_owned()),
            ("JSON serialisation", json!({ "payload": payload, "protected": header, "signature": signature }).to_string()),
            ("ten kilobytes", format!("{header}.{}.{signature}", "A".repeat(10 * 1024))),
        ] {
            let verdict = api.verify(&hostile).await.ok();
            assert_eq!(verdict["active"], false, "{why}");
            assert!(verdict["reason"].as_str().is_some_and(|r| !r.is_empty()), "{why}");
        }
        let empty = api.verify("").await;
        assert!(empty.status == 422 || empty.json()["active"] == false, "{empty:?}");
    }

    async fn an_expired_token_is_not_valid_and_says_so(app: TestApp) {
        let client = app.minter().await;
        let api = client.api.clone();
        let mut body = mint_body();
        body["expires_in_seconds"] = json!(1);
        let token = client.api.mint(&body).await.ok()["token"].as_str().unwrap().to_owned();
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let verdict = api.verify(&token).await.ok();
            if verdict["active"] == false {
                assert_eq!(verdict["reason"], "expired");
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "a leeway of ten seconds would be a longer life");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }

    async fn members_it_does_not_know_are_refused(app: TestApp) {
        let api = app.minter().await.api;
        let path = "/v1/actor_tokens/verify";
        api.post(path, &json!({})).await.fails(422, "form_param_missing");
        api.post(path, &json!({ "token": 7 })).await.fails(422, "form_param_value_invalid");
        api.post(path, &json!({ "token": "x", "tokn": "x" })).await.fails(422, "form_param_unknown");
        api.post(path, &json!({ "token": "x", "audience": [] })).await.fails(422, "form_param_value_invalid");
    }
}
