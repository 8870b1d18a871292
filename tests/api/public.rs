//! What anybody may read, from which origins, and for how long (contract.md §4: cache and CORS).

use reqwest::Method;
use serde_json::json;

use crate::support::app::{TestApp, mint_body};

/// Readable from pages of any origin; nothing else is.
const ANY_ORIGIN: &[&str] = &[
    "/.well-known/jwks.json",
    "/v1/jwks",
    "/v1/audit/log/checkpoint",
    "/v1/audit/log/vkey",
    "/openapi.yaml",
];
const NOT_FROM_PAGES: &[&str] =
    &["/healthz", "/readyz", "/metrics", "/v1/actor_tokens", "/v1/audit/entries", "/nope"];

on_both_databases! {
    async fn both_jwks_addresses_publish_the_same_public_keys(app: TestApp) {
        let keys = app.api.get("/.well-known/jwks.json").await;
        assert_eq!(keys.body, app.api.get("/v1/jwks").await.body);
        let keys = keys.ok();
        assert!(!keys["keys"].as_array().unwrap().is_empty());
        for key in keys["keys"].as_array().unwrap() {
            for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                assert!(key.get(private).is_none(), "JW-1: only public members");
            }
        }
    }

    async fn the_cors_table_holds(app: TestApp) {
        let client = app.minter().await;
        let origin = "https://anywhere.example";
        for path in ANY_ORIGIN {
            let reply = app.api.call(Method::GET, path).header("origin", origin).send().await;
            assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{path}");
            assert!(reply.header("access-control-allow-credentials").is_none(), "{path}: without credentials");
            let call = app.api.call(Method::OPTIONS, path).header("origin", origin);
            let preflight = call.header("access-control-request-method", "GET").send().await;
            assert_eq!(preflight.header("access-control-allow-origin"), Some("*"), "{path}");
        }
        // Public to read, private to write.
        let write = app.api.call(Method::POST, "/v1/revocations").json(&json!({})).header("origin", origin).send().await;
        assert!(write.header("access-control-allow-origin").is_none());
        for path in NOT_FROM_PAGES {
            let reply = client.api.call(Method::GET, path).header("origin", origin).send().await;
            assert!(reply.header("access-control-allow-origin").is_none(), "{path}");
            let call = app.api.call(Method::OPTIONS, path).header("origin", origin);
            let preflight = call.header("access-control-request-method", "POST").send().await;
            assert!(!preflight.status.is_success() && preflight.header("access-control-allow-origin").is_none(), "{path}");
        }
    }

    async fn health_readiness_and_metrics_answer(app: TestApp) {
        assert_eq!(app.api.get("/healthz").await.ok(), json!({ "status": "ok" }));
        assert_eq!(app.api.get("/readyz").await.ok(), json!({ "status": "ready" }));
        let client = app.minter().await;
        let token = client.api.mint(&mint_body()).await.ok()["token"].as_str().unwrap().to_owned();
        let metrics = app.api.get("/metrics").await;
        assert_eq!(metrics.status, 200);
        for personal in ["user_42", "admin_7", token.as_str(), client.secret.as_str()] {
            assert!(!metrics.text().contains(personal), "metrics name nobody");
        }
    }

    async fn the_contract_is_served_as_it_stands_in_the_tree(app: TestApp) {
        assert_eq!(app.api.get("/openapi.yaml").await.text(), include_str!("../../openapi.yaml"));
    }

    /// DNS rebinding: a page that resolves its own name to 127.0.0.1 gets nothing from `dev`.
    async fn dev_refuses_hosts_that_are_not_loopback(app: TestApp) {
        let app = app.restarted_as_dev().await;
        let port = app.api_address().port();
        for host in ["evil.example".to_owned(), format!("evil.example:{port}"), "127.0.0.1.evil.example".into(), format!("10.0.0.1:{port}")] {
            for path in ["/v1/jwks", "/healthz", "/v1/actor_tokens", "/nope"] {
                let reply = app.api.call(Method::GET, path).header("host", &host).send().await;
                reply.fails(403, "host_not_allowed");
            }
        }
        for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}")] {
            assert_eq!(app.api.call(Method::GET, "/healthz").header("host", &host).send().await.status, 200, "{host}");
        }
    }
}
