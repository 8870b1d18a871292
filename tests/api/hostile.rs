//! Bodies nobody should send: always a 4xx with the contract's error body, never a 5xx, never a framework page.

use std::io::Write;
use std::net::TcpStream;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{TestApp, mint_body};
use crate::support::contract::CONTRACT;
use crate::support::{skip, vectors};

on_both_databases! {
    async fn bodies_that_are_no_object_are_400(app: TestApp) {
        let client = app.minter().await;
        for body in ["", " ", "null", "[]", "[{}]", "\"text\"", "7", "{", "{}{}", "{} x", "\u{feff}{}", "{\"user_id\":\"a\",}", "user_id=a", "{'user_id':'a'}"] {
            for path in ["/v1/actor_tokens", "/v1/actor_tokens/verify"] {
                let call = client.api.call(Method::POST, path);
                call.bytes(body).header("content-type", "application/json").send().await.fails(400, "request_body_invalid");
            }
        }
    }

    async fn a_member_that_occurs_twice_is_400(app: TestApp) {
        let client = app.minter().await;
        for body in [
            r#"{"user_id":"user_42","user_id":"user_43","actor":{"sub":"admin_7"},"reason":"Invoice is missing"}"#,
            r#"{"user_id":"user_42","user\u005fid":"user_43","actor":{"sub":"admin_7"},"reason":"Invoice is missing"}"#,
            r#"{"user_id":"user_42","actor":{"sub":"admin_7","sub":"admin_8"},"reason":"Invoice is missing"}"#,
        ] {
            let call = client.api.call(Method::POST, "/v1/actor_tokens").bytes(body);
            call.header("content-type", "application/json").send().await.fails(400, "request_body_invalid");
        }
    }

    async fn deep_nesting_is_400_and_costs_nothing(app: TestApp) {
        let client = app.minter().await;
        for depth in [20, 200, 8000] {
            let body = format!("{{\"user_id\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
            let call = client.api.call(Method::POST, "/v1/actor_tokens").bytes(body);
            call.header("content-type", "application/json").send().await.fails(400, "request_body_invalid");
        }
    }

    async fn a_body_over_16_kib_is_413_however_it_is_sent(app: TestApp) {
        let client = app.minter().await;
        let mut body = mint_body();
        let fits = 16 * 1024 - body.to_string().len() - ",\"x\":\"\"".len();
        body["x"] = json!("y".repeat(fits));
        assert_eq!(body.to_string().len(), 16 * 1024);
        client.api.mint(&body).await.fails(422, "form_param_unknown");
        body["x"] = json!("y".repeat(fits + 1));
        client.api.mint(&body).await.fails(413, "request_body_too_large");
        body["x"] = json!("y".repeat(1024 * 1024));
        client.api.mint(&body).await.fails(413, "request_body_too_large");
    }

    async fn a_chunked_body_is_limited_as_well(app: TestApp) {
        let client = app.minter().await;
        let address = app.api_address();
        let mut stream = TcpStream::connect(address).expect("connects");
        let head = format!(
            "POST /v1/actor_tokens HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            client.secret
        );
        stream.write_all(head.as_bytes()).expect("sends");
        let chunk = format!("1000\r\n{}\r\n", " ".repeat(4096));
        // The server may answer and close before everything is sent.
        for _ in 0..64 {
            if stream.write_all(chunk.as_bytes()).is_err() {
                break;
            }
        }
        let _ = stream.write_all(b"0\r\n\r\n");
        let answer = crate::support::read_to_end(stream);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("request_body_too_large"), "{answer}");
    }

    async fn a_packed_body_is_not_unpacked(app: TestApp) {
        let client = app.minter().await;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(mint_body().to_string().as_bytes()).expect("packs");
        let packed = packed.finish().expect("packs");
        for encoding in ["gzip", "GZIP", "br", "identity, gzip", ""] {
            let call = client.api.call(Method::POST, "/v1/actor_tokens").bytes(packed.clone());
            let call = call.header("content-type", "application/json").header("content-encoding", encoding);
            call.send().await.fails(400, "request_body_invalid");
        }
        let form = client.api.call(Method::POST, "/oauth/introspect").form(&[("token", "x")]);
        let reply = form.header("content-encoding", "deflate").send().await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]), (400, &json!("invalid_request")));
        let plain = client.api.call(Method::POST, "/v1/actor_tokens").bytes(mint_body().to_string());
        plain.header("content-type", "application/json").header("content-encoding", "identity").send().await.ok();
    }

    async fn every_file_of_the_json_test_suite_is_a_4xx_in_our_words(app: TestApp) {
        let Some(dir) = vectors() else {
            return skip("every_file_of_the_json_test_suite_is_a_4xx_in_our_words", "the vectors are not here");
        };
        let client = app.minter().await;
        let mut files = 0;
        for entry in std::fs::read_dir(dir.join("json-test-suite")).expect("the suite") {
            let path = entry.expect("a file").path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            files += 1;
            let body = std::fs::read(&path).expect("readable");
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let parses = serde_json::from_slice::<Value>(&body).is_ok_and(|v| v.is_object());
            for target in ["/v1/actor_tokens", "/v1/actor_tokens/verify"] {
                let call = client.api.call(Method::POST, target).bytes(body.clone()).header("content-type", "application/json");
                // `send` itself fails on anything but the contract's error body.
                let reply = call.send().await;
                let status = reply.status.as_u16();
                assert!((400..500).contains(&status), "{name} at {target}: {status}");
                if !parses || name.starts_with("n_") {
                    assert!(matches!(status, 400 | 413), "{name} at {target}: {status} for what is no JSON object");
                }
            }
        }
        assert!(files >= 300, "{files} files");
    }

    async fn errors_are_problem_json_when_asked_and_json_otherwise(app: TestApp) {
        for accept in ["application/json", "*/*", "text/html", "application/problem+json", "application/problem+json, */*;q=0.1", "\u{fc}"] {
            let reply = app.api.call(Method::GET, "/v1/actor_tokens").header("accept", accept).send().await;
            let expected = if accept.contains("problem") { "application/problem+json" } else { "application/json" };
            assert_eq!(reply.header("content-type"), Some(expected), "{accept}");
        }
        let unwanted = app.api.call(Method::GET, "/v1/actor_tokens").header("accept", "application/problem+json;q=0").send().await;
        assert_eq!(unwanted.header("content-type"), Some("application/json"));
        let both = app.api.call(Method::GET, "/v1/actor_tokens").header("accept", "application/json, application/problem+json").send().await;
        assert_eq!(both.header("content-type"), Some("application/problem+json"), "it is named");
    }

    async fn parameters_that_nobody_reads_are_refused(app: TestApp) {
        let scopes = &["actor_tokens:issue", "actor_tokens:read", "actor_tokens:revoke", "tokens:verify", "audit:read", "audit:read_personal", "admin"];
        let client = app.client(crate::support::app::NewClient { scopes, ..crate::support::app::NewClient::minter() }).await;
        let mut operations = 0;
        for operation in CONTRACT.operations() {
            if !operation.path.starts_with("/v1/") || operation.path.starts_with("/v1/forward_auth") {
                continue;
            }
            let path = operation.path.replace("{id}", "act_0").replace("{idx}", "0").replace("{level}", "0").replace("{n}", "000");
            let call = client.api.call(operation.method.clone(), &format!("{path}?nobodys=1"));
            let refused = call.send().await;
            refused.fails(400, "query_invalid");
            assert_eq!(refused.param().as_deref(), Some("nobodys"), "{path}");
            operations += 1;
        }
        assert!(operations >= 20, "{operations}");
        for path in ["/healthz?v=1", "/readyz?v=1", "/openapi.yaml?v=1", "/.well-known/jwks.json?v=1", "/.well-known/openid-configuration?v=1", "/v1/jwks?"] {
            assert_eq!(app.api.get(path).await.status, 200, "{path}");
        }
        assert_eq!(app.api.call(Method::PUT, "/v1/jwks?v=1").send().await.status, 405);
    }

    async fn a_broken_address_of_the_console_is_answered_by_a_page(app: TestApp) {
        for path in ["/console/security?matched=abc", "/console/callback?state=a&state=b", "/console/approvals?done=%ff&done=1"] {
            let reply = app.api.call(Method::GET, path).send_unchecked().await;
            assert_eq!((reply.status.as_u16(), reply.header("content-type")), (400, Some("text/html; charset=utf-8")), "{path}: {reply:#?}");
            assert!(reply.text().contains("This address cannot be read") && reply.header("content-security-policy").is_some(), "{path}");
        }
    }

    async fn paths_and_methods_that_are_not_there_answer_in_our_words(app: TestApp) {
        // `Client::send` holds each to 404, or to 405 with the right `Allow`.
        for path in ["/", "/v1", "/v1/", "/nope", "/v1/actor_tokens/a/b/c", "/%00", "/%ff", "/..%2f..%2fetc/passwd", "//v1/jwks", "/v1/jwks/"] {
            app.api.get(path).await.fails(404, "resource_not_found");
        }
        let reply = app.api.call(Method::PUT, "/v1/revocations").send().await;
        assert_eq!(reply.header("allow"), Some("POST, GET, HEAD, OPTIONS"));
        for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE, "FROBNICATE".parse().unwrap()] {
            for path in ["/v1/actor_tokens", "/v1/actor_tokens/verify", "/v1/revocations", "/v1/revocations/stream", "/healthz", "/.well-known/jwks.json"] {
                app.api.call(method.clone(), path).send().await.fails(405, "method_not_allowed");
            }
        }
    }

    async fn head_is_get_without_its_body(app: TestApp) {
        let client = app.client(crate::support::app::NewClient { scopes: &["actor_tokens:read"], ..crate::support::app::NewClient::minter() }).await;
        for (api, path, status) in [
            (&app.api, "/healthz", 200), (&app.api, "/readyz", 200), (&app.api, "/openapi.yaml", 200), (&app.api, "/v1/jwks", 200),
            (&app.api, "/.well-known/jwks.json", 200), (&app.api, "/v1/revocations", 200), (&client.api, "/v1/actor_tokens", 200),
            (&app.api, "/v1/actor_tokens", 401), (&client.api, "/v1/actor_tokens/act_0", 404), (&app.api, "/nope", 404),
        ] {
            let (head, get) = (api.call(Method::HEAD, path).send().await, api.call(Method::GET, path).send().await);
            assert_eq!((head.status.as_u16(), get.status.as_u16()), (status, status), "{path}");
            assert!(head.text().is_empty(), "{path}");
            for name in ["content-type", "content-length", "cache-control"] {
                assert_eq!(head.header(name), get.header(name), "{name} of {path}");
            }
        }
        // a path without GET, and an answer without an end
        for path in ["/v1/actor_tokens/verify", "/v1/revocations/stream"] {
            assert_eq!(app.api.call(Method::HEAD, path).send_unchecked().await.status, 405, "{path}");
        }
    }

    async fn broken_query_strings_are_400(app: TestApp) {
        let reader = app.client(crate::support::app::NewClient { scopes: &["actor_tokens:read", "audit:read"], ..crate::support::app::NewClient::minter() }).await;
        for query in ["limit=0", "limit=-1", "limit=abc", "limit=100000", "limit=1&limit=2", "cursor=garbage", "cursor=%00", "limt=1", "status=dead", "user_id=", "user_id=a%00b"] {
            reader.api.get(&format!("/v1/actor_tokens?{query}")).await.fails(400, "query_invalid");
        }
        for query in ["since=yesterday", "decision=maybe", "from=1", "actr=x", "since=99999999999999999999"] {
            reader.api.get(&format!("/v1/audit/entries?{query}")).await.fails(400, "query_invalid");
        }
        let long = "x".repeat(5000);
        reader.api.get(&format!("/v1/actor_tokens?user_id={long}")).await.fails(400, "query_invalid");
    }
}
