//! POST `/v1/actor_tokens`: what a caller gets, and each way of being refused.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::app::{AUDIENCE, NewClient, OTHER_AUDIENCE, TestApp, mint_body};
use crate::support::contract::CONTRACT;

/// A part of a compact JWS, decoded but not verified.
fn part(token: &str, at: usize) -> Value {
    let text = token.split('.').nth(at).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).expect("base64url")).expect("JSON")
}

/// The mint body with one member set (or taken away by `null`).
fn with(name: &str, value: Value) -> Value {
    let mut body = mint_body();
    match value {
        Value::Null => body.as_object_mut().expect("an object").remove(name),
        value => body.as_object_mut().expect("an object").insert(name.into(), value),
    };
    body
}

on_both_databases! {
    async fn a_mint_answers_every_member_of_the_contract(app: TestApp) {
        let client = app.minter().await;
        let reply = client.api.mint(&mint_body()).await;
        assert_eq!(reply.header("content-type"), Some("application/json"), "no charset: public SDKs misread it");
        let body = reply.ok();
        assert_eq!(body["status"], "pending");
        assert_eq!(body["user_id"], "user_42");
        assert_eq!(body["actor"], json!({ "sub": "admin_7" }), "an asserted actor carries no issuer");
        assert_eq!(body["actor_assurance"], "asserted");
        assert_eq!(body["url"], Value::Null);
        assert_eq!(body["scope"], "read");
        assert_eq!(body["audience"], json!([AUDIENCE]));
        let (created, expires) = (body["created_at"].as_i64().unwrap(), body["expires_at"].as_i64().unwrap());
        assert!(created > 1_700_000_000_000, "milliseconds");
        assert!((599_000..=600_000).contains(&(expires - created)), "ten minutes: {created} {expires}");
        for absent in ["data", "deleted", "m2m_tokens"] {
            assert!(body.get(absent).is_none(), "{absent} would be misread by public SDKs");
        }
    }

    async fn the_token_says_who_acts_for_whom_and_nothing_personal(app: TestApp) {
        let client = app.minter().await;
        let body = client.api.mint(&with("ticket", json!("TICKET-4711"))).await.ok();
        let token = body["token"].as_str().unwrap();
        let (header, claims) = (part(token, 0), part(token, 1));
        assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("ES256")), "AT-1");
        let jwks = app.api.get("/.well-known/jwks.json").await.ok();
        assert!(jwks["keys"].as_array().unwrap().iter().any(|k| k["kid"] == header["kid"]), "JW-1");
        assert_eq!(claims["sub"], "user_42");
        assert_eq!(claims["act"], json!({ "sub": "admin_7" }), "TE-7: identity claims only");
        assert_eq!(claims["aud"], AUDIENCE);
        assert_eq!(claims["sid"], body["id"]);
        assert_eq!(claims["client_id"], client.id.as_str());
        assert_eq!(claims["actor_assurance"], "asserted");
        assert_eq!(claims["iss"], app.issuer.as_str());
        assert_eq!(claims["nbf"], claims["iat"]);
        let mut names: Vec<&str> = claims.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        let expected =
            ["act", "actor_assurance", "aud", "client_id", "exp", "iat", "iss", "jti", "nbf", "scope", "sid", "sub"];
        assert_eq!(names, expected, "contract.md §6: never reason or ticket");
    }

    async fn every_example_of_the_contract_is_accepted(app: TestApp) {
        let client = app.minter().await;
        let operations = CONTRACT.operations();
        let mint = operations.iter().find(|o| o.path == "/v1/actor_tokens" && o.method == "POST").unwrap();
        let examples = mint.request_examples();
        assert!(examples.len() >= 3);
        for example in examples {
            CONTRACT.check_component("MintRequest", &example).expect("an example is what the schema says");
            // A code needs a product to take it: tests/stop/handing.rs.
            if example["delivery"] != "code" {
                client.api.mint(&example).await.ok();
            }
        }
    }

    async fn lifetimes_are_clamped_and_never_refused_for_being_long(app: TestApp) {
        let client = app.minter().await;
        let table = [
            (json!({}), 600),
            (json!({ "expires_in_seconds": 1 }), 1),
            (json!({ "expires_in_seconds": 60 }), 60),
            (json!({ "expires_in_seconds": 900 }), 900),
            (json!({ "expires_in_seconds": 901 }), 900),
            (json!({ "expires_in_seconds": 3600, "session_max_duration_in_seconds": 1800 }), 900),
            (json!({ "expires_in_seconds": 600, "session_max_duration_in_seconds": 30 }), 30),
            (json!({ "session_max_duration_in_seconds": 45 }), 45),
            (json!({ "expires_in_seconds": 4_294_967_296_u64 }), 900),
            (json!({ "expires_in_seconds": 9_007_199_254_740_993_u64 }), 900),
        ];
        for (asked, granted) in table {
            let mut body = mint_body();
            body.as_object_mut().unwrap().extend(asked.as_object().unwrap().clone());
            let token = client.api.mint(&body).await.ok()["token"].as_str().unwrap().to_owned();
            let claims = part(&token, 1);
            let lifetime = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
            assert_eq!(lifetime, granted, "{asked}");
        }
    }

    async fn a_reason_and_ticket_in_actor_count_and_its_other_members_are_dropped(app: TestApp) {
        let client = app.minter().await;
        let auditor = app.auditor().await;
        let mut body = with("reason", Value::Null);
        body["actor"] = json!({ "sub": "admin_7", "reason": "From a public SDK", "ticket": "T-9", "iss": "https://evil.example", "role": "root" });
        let minted = client.api.mint(&body).await.ok();
        assert_eq!(minted["actor"], json!({ "sub": "admin_7" }));
        assert_eq!(part(minted["token"].as_str().unwrap(), 1)["act"], json!({ "sub": "admin_7" }));
        let entries = auditor.api.get("/v1/audit/entries?ticket=T-9").await.ok();
        assert_eq!(entries["entries"][0]["personal"]["reason"], "From a public SDK");
        assert_eq!(entries["entries"][0]["index"], minted["audit"]["index"]);
    }

    async fn unicode_ids_are_kept_as_they_are(app: TestApp) {
        let client = app.client(NewClient { may_assert: &["*"], ..NewClient::minter() }).await;
        // Look-alikes, combining marks, right-to-left, astral: never normalised, never folded.
        for id in ["ｕｓｅｒ_42", "usеr_42", "e\u{301}", "é", "אבג", "👩‍🚀", " padded ", "UPPER", "a/b?c#d%20", "\"quoted\\\""] {
            let minted = client.api.mint(&with("user_id", json!(id))).await.ok();
            assert_eq!(minted["user_id"], id);
            assert_eq!(part(minted["token"].as_str().unwrap(), 1)["sub"], id);
            let mut body = mint_body();
            body["actor"] = json!({ "sub": id });
            assert_eq!(client.api.mint(&body).await.ok()["actor"]["sub"], id);
        }
    }

    async fn what_cannot_be_used_is_named(app: TestApp) {
        let client = app.minter().await;
        let long = "x".repeat(10 * 1024);
        let value = "form_param_value_invalid";
        let table: Vec<(Value, &str, &str)> = vec![
            (with("user_id", Value::Null), "form_param_missing", "user_id"),
            (with("actor", Value::Null), "form_param_missing", "actor"),
            (with("actor", json!({})), "form_param_missing", "actor"),
            (with("user_id", json!("")), value, "user_id"),
            (with("user_id", json!(42)), value, "user_id"),
            (with("user_id", json!(["user_42"])), value, "user_id"),
            (with("user_id", json!(long)), value, "user_id"),
            (with("user_id", json!("é".repeat(128))), value, "user_id"),
            (with("user_id", json!("a\u{0}b")), value, "user_id"),
            (with("user_id", json!("a\nb")), value, "user_id"),
            (with("user_id", json!("a\u{7f}")), value, "user_id"),
            (with("user_id", json!("a\u{85}")), value, "user_id"),
            (with("actor", json!("admin_7")), value, "actor"),
            (with("actor", json!({ "sub": "" })), value, "actor.sub"),
            (with("actor", json!({ "sub": long })), value, "actor.sub"),
            (with("actor", json!({ "sub": "a\tb" })), value, "actor.sub"),
            (with("actor", json!({ "sub": 7 })), value, "actor.sub"),
            (with("reason", json!("r".repeat(1001))), value, "reason"),
            (with("reason", json!(["because"])), value, "reason"),
            (with("reason", json!("bell \u{7} bell bell")), value, "reason"),
            (with("ticket", json!("t".repeat(101))), value, "ticket"),
            (with("ticket", json!(4711)), value, "ticket"),
            (with("ticket", json!("")), value, "ticket"),
            (with("ticket", json!(" \t")), value, "ticket"),
            (with("actor", json!({ "sub": "admin_7", "ticket": "" })), value, "actor.ticket"),
            (with("expires_in_seconds", json!(0)), value, "expires_in_seconds"),
            (with("expires_in_seconds", json!(-5)), value, "expires_in_seconds"),
            (with("expires_in_seconds", json!(1.5)), value, "expires_in_seconds"),
            (with("expires_in_seconds", json!("600")), value, "expires_in_seconds"),
            (with("session_max_duration_in_seconds", json!(true)), value, "session_max_duration_in_seconds"),
            (with("audience", json!([])), value, "audience"),
            (with("audience", json!("")), value, "audience"),
            (with("audience", json!([""])), value, "audience"),
            (with("audience", json!({})), value, "audience"),
            (with("audience", json!([7])), value, "audience"),
            (with("audience", json!((0..9).map(|n| format!("https://{n}.example")).collect::<Vec<_>>())), value, "audience"),
            (with("scope", json!(["read"])), value, "scope"),
            (with("scope", json!("re\"ad")), value, "scope"),
            (with("scope", json!((0..51).map(|n| format!("s{n}")).collect::<Vec<_>>().join(" "))), value, "scope"),
            (with("delivery", json!("pigeon")), value, "delivery"),
        ];
        for (body, code, param) in table {
            let reply = client.api.mint(&body).await;
            reply.fails(422, code);
            assert_eq!(reply.param().as_deref(), Some(param), "{body}");
        }
    }

    async fn unknown_members_are_refused_naming_the_nearest(app: TestApp) {
        let client = app.minter().await;
        for (name, hint) in [
            ("reasn", Some("`reason`")), ("userid", Some("`user_id`")), ("expires_in", Some("`expires_in_seconds`")),
            ("exp", None), ("iss", None), ("sub", None), ("jti", None), ("cnf", None), ("zzzzzzzzzz", None),
        ] {
            let reply = client.api.mint(&with(name, json!("x"))).await;
            reply.fails(422, "form_param_unknown");
            assert_eq!(reply.param().as_deref(), Some(name));
            if let Some(hint) = hint {
                assert!(reply.text().contains(hint), "{}", reply.text());
            }
        }
    }

    async fn the_rules_refuse_and_say_which(app: TestApp) {
        let client = app.client(NewClient { may_assert: &["*"], ..NewClient::minter() }).await;
        let mut myself = mint_body();
        myself["actor"] = json!({ "sub": "user_42" });
        let table = [
            ("never self", myself),
            ("a reason is needed", with("reason", Value::Null)),
            ("a reason says something", with("reason", json!("short"))),
            ("a scope nobody grants", with("scope", json!("scope:nobody:grants"))),
            ("an empty scope", with("scope", json!("  "))),
        ];
        for (why, body) in table {
            let reply = client.api.mint(&body).await;
            reply.fails(403, "policy_denied");
            let error = &reply.json()["errors"][0];
            assert!(error["meta"]["rule"].as_str().is_some_and(|r| !r.is_empty()), "{why}: names its rule");
            assert!(error["long_message"].as_str().unwrap().len() > 10, "{why}: says why in words");
        }
    }

    async fn a_client_without_audiences_is_told_at_once_who_can_help(app: TestApp) {
        let none = app.client(NewClient { audience: &[], ..NewClient::minter() }).await;
        let unnamed = none.api.mint(&mint_body()).await;
        unnamed.fails(422, "form_param_value_invalid");
        assert_eq!(unnamed.param().as_deref(), Some("audience"));
        let named = none.api.mint(&with("audience", json!(AUDIENCE))).await;
        named.fails(403, "policy_denied");
        for reply in [unnamed, named] {
            let detail = reply.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.starts_with("This client has no audiences"), "{detail}");
            assert!(detail.contains("`stagedoor client update ID --audience URL`"), "{detail}");
        }
    }

    async fn a_client_names_audiences_of_its_own_only(app: TestApp) {
        let client = app.minter().await;
        client.api.mint(&with("audience", json!(AUDIENCE))).await.ok();
        client.api.mint(&with("audience", json!([AUDIENCE]))).await.ok();
        let foreign = client.api.mint(&with("audience", json!([OTHER_AUDIENCE]))).await;
        foreign.fails(403, "policy_denied");
        let both = client.api.mint(&with("audience", json!([AUDIENCE, OTHER_AUDIENCE]))).await;
        both.fails(403, "policy_denied");
    }

    async fn a_client_asserts_only_whom_it_may(app: TestApp) {
        let unable = app.client(NewClient { scopes: &["actor_tokens:issue"], ..NewClient::minter() }).await;
        unable.api.mint(&mint_body()).await.fails(403, "scope_missing");
        let narrow = app.client(NewClient { may_assert: &["admin_*"], ..NewClient::minter() }).await;
        narrow.api.mint(&mint_body()).await.ok();
        let mut body = mint_body();
        body["actor"] = json!({ "sub": "ceo_1" });
        narrow.api.mint(&body).await.fails(403, "policy_denied");
        let nobody = app.client(NewClient { may_assert: &[], ..NewClient::minter() }).await;
        nobody.api.mint(&mint_body()).await.fails(403, "policy_denied");
    }

    async fn fields_and_routes_that_are_not_there_are_refused(app: TestApp) {
        let client = app.minter().await;
        for (name, value) in [("claims", json!({ "admin": true })), ("act", json!({ "sub": "x" })), ("code", json!("x"))] {
            client.api.mint(&with(name, value)).await.fails(422, "form_param_unknown");
        }
        let id = client.api.mint(&mint_body()).await.ok()["id"].as_str().unwrap().to_owned();
        for path in [format!("/v1/actor_tokens/{id}/frobnicate"), "/v2/actor_tokens".into(), "/v1/actor_tokens/".into()] {
            client.api.post(&path, &json!({})).await.fails(404, "resource_not_found");
        }
    }
}
