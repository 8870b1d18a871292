//! `/v1/forward_auth`: a proxy hears 200, 401 or 403 and nothing else, and every identity header on every 200.

use reqwest::Method;

use crate::support::app::{TestApp, mint_body};

const IDENTITY: &[&str] =
    &["x-stagedoor-user", "x-stagedoor-actor", "x-stagedoor-scopes", "x-stagedoor-grant", "impersonated"];

on_both_databases! {
    async fn a_gate_that_lets_impersonation_in_names_both_people(app: TestApp) {
        let client = app.minter().await;
        let minted = client.api.mint(&mint_body()).await.ok();
        let holder = app.api.with_secret(minted["token"].as_str().unwrap());
        // Any method, and path text after the gate is ignored: proxies send the original's.
        for (method, path) in [
            (Method::GET, "/v1/forward_auth"), (Method::POST, "/v1/forward_auth/default"), (Method::DELETE, "/v1/forward_auth/default/orders/7"),
            (Method::OPTIONS, "/v1/forward_auth"), (Method::HEAD, "/v1/forward_auth"),
        ] {
            let reply = holder.call(method.clone(), path).send().await;
            assert_eq!(reply.status, 200, "{method} {path}: {reply:#?}");
            let told: Vec<_> = IDENTITY.iter().map(|name| reply.header(name).unwrap_or("(missing)")).collect();
            assert_eq!(told, ["user_42", "admin_7", "read", minted["id"].as_str().unwrap(), "?1"], "{method} {path}");
        }
    }

    async fn a_gate_that_does_not_refuses_with_403(app: TestApp) {
        let client = app.minter().await;
        let holder = app.api.with_secret(client.api.mint(&mint_body()).await.ok()["token"].as_str().unwrap());
        for path in [
            "/v1/forward_auth/strict", "/v1/forward_auth/other", "/v1/forward_auth?impersonation=refuse", "/v1/forward_auth?assurance=verified",
            "/v1/forward_auth?scope=write", "/v1/forward_auth?scop=read", "/v1/forward_auth?scope=read&scope=read", "/v1/forward_auth/no-such-gate",
            "/v1/forward_auth?impersonation=allow",
        ] {
            let reply = holder.get(path).await;
            let wrong_audience = path.ends_with("/other");
            assert_eq!(reply.status, if wrong_audience { 401 } else { 403 }, "{path}: {reply:#?}");
            assert!(IDENTITY.iter().all(|name| reply.header(name).is_none()), "{path}: nobody is named on a refusal");
        }
        assert_eq!(holder.get("/v1/forward_auth?scope=read").await.status, 200);
    }

    async fn credentials_that_are_none_are_401(app: TestApp) {
        let client = app.minter().await;
        let token = client.api.mint(&mint_body()).await.ok()["token"].as_str().unwrap().to_owned();
        for value in ["", "Bearer", "Basic eDp5", "Bearer x.y.z", &format!("Bearer {token}, Bearer {token}"), &format!("Bearer {}", client.secret)] {
            let reply = app.api.call(Method::GET, "/v1/forward_auth").header("authorization", value).send().await;
            assert_eq!(reply.status, 401, "{value:?}");
        }
        let twice = app.api.call(Method::GET, "/v1/forward_auth");
        let twice = twice.header("authorization", format!("Bearer {token}")).header("authorization", format!("Bearer {token}"));
        assert_eq!(twice.send().await.status, 401, "doubled Authorization");
    }
}
