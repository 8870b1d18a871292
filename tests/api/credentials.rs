//! Who may call: one Bearer credential, no second one, no hint about which secret was nearly right.

use reqwest::Method;

use crate::support::app::{NewClient, TestApp, mint_body};
use crate::support::contract::{CONTRACT, Call, Operation};

/// The call with the body the contract shows for it, if it takes one.
fn with_example(call: Call, operation: &Operation<'_>) -> Call {
    let Some(example) = operation.request_examples().into_iter().next() else { return call };
    if operation.spec["requestBody"]["content"].get("application/json").is_some() {
        return call.json(&example);
    }
    let members = example.as_object().expect("an object");
    call.form(&members.iter().map(|(k, v)| (k.as_str(), v.as_str().expect("text"))).collect::<Vec<_>>())
}

/// A path of the template that a call can be made to.
fn concrete(template: &str) -> String {
    template.replace("{id}", "act_0000000000000000000000000").replace("{gate}", "default")
}

on_both_databases! {
    /// House.md §3 (4): a new secured route cannot be forgotten.
    async fn every_secured_operation_answers_401_without_credentials(app: TestApp) {
        let mut secured = 0;
        for operation in CONTRACT.operations().into_iter().filter(|o| o.credential().is_some()) {
            let call = app.api.call(operation.method.clone(), &concrete(operation.path));
            let reply = with_example(call, &operation).send().await;
            assert_eq!(reply.status, 401, "{} {}", operation.method, operation.path);
            match operation.credential() {
                // OA-13: no authentication at all is invalid_client too.
                Some("clientBasic") => {
                    assert_eq!(reply.json()["error"], "invalid_client");
                    assert!(reply.header("www-authenticate").is_some_and(|c| c.starts_with("Basic ")));
                }
                scheme => {
                    let bare = Some(r#"Bearer realm="stagedoor""#);
                    assert_eq!(reply.header("www-authenticate"), bare, "BE-2: no error");
                    if scheme == Some("clientSecret") {
                        reply.fails(401, "authorization_header_missing");
                    }
                }
            }
            secured += 1;
        }
        assert!(secured >= 5, "{secured} operations ask for a credential");
    }

    async fn every_secured_operation_asks_for_its_scope(app: TestApp) {
        let powerless = app.client(NewClient { scopes: &["audit:read_personal"], ..NewClient::minter() }).await;
        for operation in CONTRACT.operations().into_iter().filter(|o| o.scopes().is_some()) {
            let call = powerless.api.call(operation.method.clone(), &concrete(operation.path));
            // A body that would do: whether the scope is asked first or last is all one.
            let reply = with_example(call, &operation).send().await;
            reply.fails(403, "scope_missing");
            for scope in operation.scopes().unwrap() {
                assert!(reply.text().contains(scope), "BE-5: {} names {scope}", operation.path);
            }
        }
    }

    async fn malformed_credentials_are_401_and_say_what_is_wrong(app: TestApp) {
        let client = app.minter().await;
        let good = format!("Bearer {}", client.secret);
        let ask = |values: Vec<Vec<u8>>| {
            let mut call = app.api.call(Method::POST, "/v1/actor_tokens").json(&mint_body());
            for value in values {
                call = call.header("authorization", value);
            }
            call.send()
        };
        let format = "authorization_header_format_invalid";
        for (why, values) in [
            ("nothing after the scheme", vec!["Bearer".into()]),
            ("a space after the scheme", vec!["Bearer ".into()]),
            ("no value", vec![Vec::new()]),
            ("another scheme", vec!["Basic Y2xpZW50OnNlY3JldA==".into()]),
            ("no scheme", vec![client.secret.clone().into_bytes()]),
            ("two in one header", vec![format!("{good}, {good}").into_bytes()]),
            ("two headers", vec![good.clone().into_bytes(), good.clone().into_bytes()]),
            ("one good and one bad", vec![good.clone().into_bytes(), b"Bearer sk_test_wrong".to_vec()]),
            ("not ASCII", vec![b"Bearer \xff\xfe".to_vec()]),
            ("over long", vec![format!("Bearer {}", "x".repeat(9000)).into_bytes()]),
        ] {
            let reply = ask(values).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (401, Some(format)), "{why}: {reply:?}");
            assert!(reply.header("www-authenticate").unwrap().contains("invalid_request"), "BE-4: {why}");
        }
        for (why, value) in [
            ("unknown", "Bearer sk_test_0000000000000000000000000000000000000000".to_owned()),
            ("cut", good[..good.len() - 1].to_owned()),
            ("longer", format!("{good}0")),
            ("other case", format!("Bearer {}", client.secret.to_uppercase())),
            ("a client id", format!("Bearer {}", client.id)),
        ] {
            let reply = ask(vec![value.into_bytes()]).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (401, Some("client_secret_invalid")), "{why}: {reply:?}");
            assert!(reply.header("www-authenticate").unwrap().contains("invalid_token"), "BE-3: {why}");
            assert!(!reply.text().contains(&client.secret[..12]), "{why}: nothing of a secret comes back");
        }
        // BE-1: the scheme is compared without case, several spaces are one.
        for value in [format!("bearer {}", client.secret), format!("BEARER   {}", client.secret)] {
            assert_eq!(ask(vec![value.into_bytes()]).await.status, 200);
        }
    }

    /// BE-6: a credential in a query or a body is none.
    async fn credentials_elsewhere_do_not_count(app: TestApp) {
        let client = app.minter().await;
        let query = format!("/v1/actor_tokens?access_token={}", client.secret);
        app.api.get(&query).await.fails(401, "authorization_header_missing");
    }

    async fn an_actor_token_is_no_credential(app: TestApp) {
        let client = app.minter().await;
        let token = client.api.mint(&mint_body()).await.ok()["token"].as_str().unwrap().to_owned();
        let holder = app.api.with_secret(token);
        holder.mint(&mint_body()).await.fails(401, "client_secret_invalid");
        holder.get("/v1/actor_tokens").await.fails(401, "client_secret_invalid");
        holder.get("/v1/audit/entries").await.fails(401, "client_secret_invalid");
    }

    async fn a_flood_of_bad_secrets_is_slowed_and_a_good_one_is_never_refused(app: TestApp) {
        let client = app.minter().await;
        let bad = app.api.with_secret("sk_test_0000000000000000000000000000000000000000");
        let mut slowed = 0;
        for _ in 0..60 {
            let reply = bad.mint(&mint_body()).await;
            match reply.status.as_u16() {
                429 => slowed += 1,
                _ => { reply.fails(401, "client_secret_invalid"); }
            }
        }
        assert!(slowed > 0, "sixty failures from one address in a moment");
        client.api.mint(&mint_body()).await.ok();
    }
}
