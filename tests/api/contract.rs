//! `openapi.yaml` is true: its routes are the server's, its codes are the server's, its examples parse.

use std::collections::BTreeSet;

use stagedoor::server::http::ROUTES;
use stagedoor::server::http::problem::Code;

use reqwest::Method;
use serde_json::json;

use crate::support::contract::{CONTRACT, Reply};

#[test]
fn the_contract_and_the_server_know_the_same_routes() {
    let documented: BTreeSet<String> =
        CONTRACT.operations().iter().map(|o| format!("{} {}", o.method, o.path)).collect();
    // OpenAPI has no "any method": those that a browser or a proxy sends stand for it. And a path's rest is one
    // parameter there.
    let any = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let served: BTreeSet<String> = ROUTES
        .iter()
        .flat_map(|endpoint| {
            let methods = match &endpoint.method {
                Some(method) => vec![method.as_str()],
                None => any.to_vec(),
            };
            let path = endpoint.path.replace("{tail:.*}", "{gate}").replace(":.*}", "}");
            methods.into_iter().map(move |method| format!("{method} {path}"))
        })
        .collect();
    assert_eq!(served, documented);
}

#[test]
fn the_contract_and_the_server_know_the_same_error_codes() {
    let documented: BTreeSet<&str> = CONTRACT.error_codes().into_iter().collect();
    let known: BTreeSet<&str> = Code::ALL.iter().map(|c| c.as_str()).collect();
    assert_eq!(known, documented);
}

/// A code that no operation could answer, or a status the contract leaves out, would be a lie either way.
#[test]
fn every_code_is_explained_where_its_status_is() {
    let text = include_str!("../../openapi.yaml");
    for code in Code::ALL.iter().filter(|c| c.status().as_u16() != 500) {
        let explained = text.contains(&format!("`{}`", code.as_str()));
        let later = [
            "actor_token_cannot_be_revoked_code",
            "idempotency_in_flight",
            "idempotency_grant_ended",
            "idempotency_key_reused",
        ];
        assert!(
            explained || later.contains(&code.as_str()) || code.as_str() == "method_not_allowed",
            "{code:?}"
        );
    }
}

#[test]
fn every_request_example_is_what_its_schema_says() {
    let mut examples = 0;
    for operation in CONTRACT.operations() {
        let Some(component) = operation.request_component() else { continue };
        for example in operation.request_examples() {
            CONTRACT
                .check_component(component, &example)
                .unwrap_or_else(|e| panic!("{}: {e}", operation.path));
            examples += 1;
        }
    }
    assert!(examples >= 5, "{examples} examples");
}

#[test]
fn every_operation_that_takes_a_body_shows_one() {
    for operation in CONTRACT.operations().iter().filter(|o| o.spec.contains_key("requestBody")) {
        assert!(!operation.request_examples().is_empty(), "{} {}", operation.method, operation.path);
    }
}

#[test]
fn every_response_example_is_what_its_schema_says() {
    let mut examples = 0;
    for operation in CONTRACT.operations() {
        let content = &operation.spec["responses"]["200"]["content"]["application/json"];
        for (name, example) in content["examples"].as_object().into_iter().flatten() {
            let component = content["schema"]["$ref"]
                .as_str()
                .and_then(|r| r.rsplit('/').next())
                .expect("a named schema");
            CONTRACT.check_component(component, &example["value"]).unwrap_or_else(|e| panic!("{name}: {e}"));
            examples += 1;
        }
    }
    assert!(examples >= 3, "{examples} examples");
}

/// A reply as a server might give it.
fn reply(status: u16, headers: &[(&'static str, &str)], body: &str) -> Reply {
    Reply {
        status: reqwest::StatusCode::from_u16(status).expect("a status"),
        headers: headers
            .iter()
            .map(|(n, v)| (n.parse().expect("a name"), v.parse().expect("a value")))
            .collect(),
        body: body.as_bytes().to_vec(),
    }
}

/// The judge itself is judged: a client that accepts everything would make every test here pass.
#[test]
fn replies_that_break_the_contract_are_noticed() {
    let good = [("content-type", "application/json"), ("cache-control", "no-store"), ("x-request-id", "01k")];
    let with = |extra: &[(&'static str, &'static str)]| {
        let mut headers: Vec<(&'static str, &str)> =
            good.iter().filter(|(n, _)| extra.iter().all(|(e, _)| e != n)).copied().collect();
        headers.extend(extra.iter().filter(|(_, v)| !v.is_empty()));
        headers
    };
    let problem = |code: &str, trace: &str| {
        json!({
            "type": format!("https://x.example/problems/{code}"), "title": "t", "status": 404, "detail": "d",
            "instance": "/requests/01k", "trace_id": trace, "clerk_trace_id": trace,
            "errors": [{ "code": code, "message": "m", "long_message": "l", "meta": {} }],
        })
        .to_string()
    };
    let faults = |path: &str, reply: &Reply| CONTRACT.faults(&Method::GET, path, None, reply);
    let ok = r#"{"status":"ok"}"#;
    assert_eq!(faults("/healthz", &reply(200, &good, ok)), [""; 0], "the honest answer passes");
    assert_eq!(faults("/nope", &reply(404, &good, &problem("resource_not_found", "01k"))), [""; 0]);
    let lies = [
        ("an undocumented status", "/healthz", reply(201, &good, ok)),
        ("a missing header", "/healthz", reply(200, &with(&[("x-request-id", "")]), ok)),
        ("a cached answer", "/healthz", reply(200, &with(&[("cache-control", "max-age=60")]), ok)),
        (
            "a charset",
            "/healthz",
            reply(200, &with(&[("content-type", "application/json; charset=utf-8")]), ok),
        ),
        ("another media type", "/healthz", reply(200, &with(&[("content-type", "text/plain")]), ok)),
        ("a cookie", "/healthz", reply(200, &with(&[("set-cookie", "a=b")]), ok)),
        (
            "CORS where there is none",
            "/healthz",
            reply(200, &with(&[("access-control-allow-origin", "*")]), ok),
        ),
        ("a missing member", "/healthz", reply(200, &good, "{}")),
        ("one member more", "/healthz", reply(200, &good, r#"{"status":"ok","version":"1"}"#)),
        ("no JSON", "/healthz", reply(200, &good, "ok")),
        ("a missing path that is 200", "/nope", reply(200, &good, ok)),
        ("an unknown code", "/nope", reply(404, &good, &problem("not_found", "01k"))),
        ("another trace", "/nope", reply(404, &good, &problem("resource_not_found", "02k"))),
        ("a framework page", "/nope", reply(404, &with(&[("content-type", "text/plain")]), "Not Found")),
        (
            "405 without Allow",
            "/v1/actor_tokens/verify",
            reply(405, &good, &problem("method_not_allowed", "01k")),
        ),
        ("503 without Retry-After", "/readyz", reply(503, &good, &problem("log_unavailable", "01k"))),
    ];
    for (why, path, lie) in lies {
        assert!(!faults(path, &lie).is_empty(), "{why} went unnoticed");
    }
}
