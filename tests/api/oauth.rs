//! `/oauth/…` and its metadata: what generic clients send, and errors in OAuth's own words.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;

use crate::support::app::{NewClient, OTHER_AUDIENCE, TestApp, TestClient, mint_body};
use crate::support::contract::{Call, Reply};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const USER_ID: &str = "urn:stagedoor:params:oauth:token-type:user-id";

/// `client_secret_basic` of a client.
fn basic(client: &TestClient) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", client.id, client.secret)))
}

fn post(app: &TestApp, path: &str, form: &[(&str, &str)]) -> Call {
    app.api.call(Method::POST, path).form(form)
}

/// Asserts an OAuth error; OA-11: errors are not cached either.
#[track_caller]
fn fails(reply: &Reply, status: u16, error: &str) {
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]), (status, &json!(error)), "{reply:#?}");
    assert_eq!(reply.header("pragma"), Some("no-cache"));
}

on_both_databases! {
    async fn introspection_says_what_verify_says(app: TestApp) {
        let client = app.minter().await;
        let token = client.api.mint(&mint_body()).await.ok()["token"].as_str().unwrap().to_owned();
        let call = post(&app, "/oauth/introspect", &[("token", &token), ("token_type_hint", "refresh_token")]);
        let mut told = call.header("authorization", basic(&client)).send().await.ok();
        assert_eq!(told.as_object_mut().unwrap().remove("token_type"), Some(json!("Bearer")));
        assert_eq!(told, client.api.verify(&token).await.ok(), "TE-11: one shape");
    }

    async fn in_4_what_is_not_valid_for_this_caller_is_exactly_active_false(app: TestApp) {
        let minter = app.minter().await;
        let token = minter.api.mint(&mint_body()).await.ok()["token"].as_str().unwrap().to_owned();
        let foreign = app.client(NewClient { audience: &[OTHER_AUDIENCE], ..NewClient::minter() }).await;
        for (client, token) in [(&foreign, token.as_str()), (&minter, "x.y.z"), (&minter, &token[..token.len() - 2])] {
            let call = post(&app, "/oauth/introspect", &[("token", token)]);
            assert_eq!(call.header("authorization", basic(client)).send().await.text(), r#"{"active":false}"#);
        }
        let call = post(&app, "/oauth/introspect", &[]).header("authorization", basic(&minter));
        fails(&call.send().await, 400, "invalid_request");
    }

    async fn clients_prove_themselves_in_one_way_and_the_errors_are_oauths(app: TestApp) {
        let client = app.minter().await;
        let (id, secret) = (client.id.as_str(), client.secret.as_str());
        let introspect = |form: &[(&str, &str)]| post(&app, "/oauth/introspect", form);
        let encoded = STANDARD.encode(format!("{}:{}", id.replace('_', "%5F"), secret.replace('_', "%5F")));
        for (why, call) in [
            ("basic", introspect(&[("token", "x")]).header("authorization", basic(&client))),
            ("OA-7: basic, form-encoded first", introspect(&[("token", "x")]).header("authorization", format!("Basic {encoded}"))),
            ("post", introspect(&[("token", "x"), ("client_id", id), ("client_secret", secret)])),
            ("OA-3: unknown parameters", introspect(&[("token", "x"), ("what", "ever"), ("client_id", id), ("client_secret", secret)])),
            ("OA-2: empty is omitted", introspect(&[("token", "x"), ("client_assertion", ""), ("client_id", id), ("client_secret", secret)])),
        ] {
            assert_eq!(call.send().await.status, 200, "{why}");
        }
        let other = app.minter().await;
        let bad_secret = STANDARD.encode(format!("{id}:sk_live_wrong"));
        for (why, call, status, error) in [
            ("none", introspect(&[("token", "x")]), 401, "invalid_client"),
            ("a wrong secret", introspect(&[("token", "x")]).header("authorization", format!("Basic {bad_secret}")), 401, "invalid_client"),
            ("another client's secret", introspect(&[("token", "x"), ("client_id", id), ("client_secret", &other.secret)]), 401, "invalid_client"),
            ("the API's Bearer", introspect(&[("token", "x")]).header("authorization", format!("Bearer {secret}")), 401, "invalid_client"),
            ("OA-9: two ways", introspect(&[("token", "x"), ("client_id", id), ("client_secret", secret)]).header("authorization", basic(&client)), 400, "invalid_request"),
            ("OA-4: a parameter twice", introspect(&[("token", "x"), ("token", "y")]).header("authorization", basic(&client)), 400, "invalid_request"),
            ("OA-5: in the URL", post(&app, &format!("/oauth/introspect?client_secret={secret}"), &[("token", "x")]), 400, "invalid_request"),
            ("OA-6: JSON", app.api.call(Method::POST, "/oauth/introspect").json(&json!({ "token": "x" })), 400, "invalid_request"),
        ] {
            let reply = call.send().await;
            assert_eq!((reply.status.as_u16(), &reply.json()["error"]), (status, &json!(error)), "{why}: {reply:#?}");
        }
        let get = app.api.call(Method::GET, "/oauth/token").header("accept", "application/problem+json").send().await;
        assert_eq!((get.status.as_u16(), get.header("allow"), get.header("content-type")), (405, Some("POST"), Some("application/json")));
        assert_eq!(get.json()["error"], "invalid_request");
    }

    async fn an_exchange_is_recorded_and_its_faults_have_oauths_codes(app: TestApp) {
        let (client, auditor) = (app.minter().await, app.auditor().await);
        let ask = |changes: &[(&'static str, &'static str)]| {
            let mut form = vec![("grant_type", EXCHANGE), ("subject_token", "user_42"), ("subject_token_type", USER_ID), ("reason", "Invoice is missing")];
            for (name, value) in changes {
                form.retain(|(n, _)| n != name);
                form.push((name, value));
            }
            post(&app, "/oauth/token", &form).header("authorization", basic(&client)).send()
        };
        for (why, changes, error) in [
            ("another grant", &[("grant_type", "password")][..], "unsupported_grant_type"),
            ("no grant", &[("grant_type", "")], "invalid_request"),
            ("no subject", &[("subject_token", "")], "invalid_request"),
            ("an unknown subject type", &[("subject_token_type", "urn:x")], "invalid_request"),
            ("TE-1: a bad actor token", &[("actor_token", "x.y.z"), ("actor_token_type", "urn:ietf:params:oauth:token-type:access_token")], "invalid_request"),
            ("an actor token without its type", &[("actor_token", "x.y.z")], "invalid_request"),
            ("a type without its actor token", &[("actor_token_type", "urn:ietf:params:oauth:token-type:jwt")], "invalid_request"),
            ("no actor at all: no rule permits this client itself", &[], "invalid_request"),
            ("RE-1: a fragment", &[("resource", "https://api.example.com/#x")], "invalid_target"),
            ("a scope with a quote", &[("scope", "re\"ad")], "invalid_scope"),
        ] {
            let reply = ask(changes).await;
            assert_eq!((reply.status.as_u16(), &reply.json()["error"]), (400, &json!(error)), "{why}: {reply:#?}");
        }
        let blank = ask(&[("ticket", " ")]).await;
        assert!(blank.json()["error_description"].as_str().unwrap().contains("ticket is blank"), "{blank:#?}");
        let denied = auditor.api.get("/v1/audit/entries?decision=denied&typ=issue&user_id=user_42").await.ok();
        assert!(!denied["entries"].as_array().unwrap().is_empty(), "a denial by policy is an entry here too");
    }

    async fn both_metadata_addresses_tell_the_same_truth(app: TestApp) {
        let metadata = app.api.get("/.well-known/oauth-authorization-server").await;
        assert_eq!(metadata.body, app.api.get("/.well-known/openid-configuration").await.body);
        let metadata = metadata.ok();
        assert_eq!(metadata["issuer"], app.issuer.as_str(), "MD-2: byte for byte");
        let base = app.issuer.as_str();
        assert_eq!(metadata["jwks_uri"], format!("{base}/.well-known/jwks.json"));
        for (name, value) in metadata.as_object().unwrap() {
            assert_ne!(value, &json!([]), "MD-4: {name}");
            let Some(path) = value.as_str().and_then(|v| v.strip_prefix(base)).filter(|p| p.starts_with('/')) else { continue };
            let reply = app.api.call(Method::GET, path).send().await;
            assert_ne!(reply.status, 404, "{name} names a path that is not there");
        }
        let algs: Vec<&str> = stagedoor::token::Alg::ALL.iter().map(|alg| alg.name()).collect();
        assert_eq!(metadata["token_endpoint_auth_signing_alg_values_supported"], json!(algs), "as `client create --alg` takes them");
        assert_eq!(metadata["grant_types_supported"], json!([EXCHANGE]), "MD-6: the default would be another");
    }
}
