//! OAuth's errors, one row an endpoint and fault, and what a chain of delegation may be; the ids are those of
//! standards.md.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use stagedoor::token::{Alg, LocalSigner, Signer as _, encode_jws};

use crate::company::{AUDIENCE, Caller, ISSUER, LOGIN, Replica, claims, on_both, text, until};
use crate::support::contract::Reply;

pub const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub const USER_ID: &str = "urn:stagedoor:params:oauth:token-type:user-id";
pub const ACCESS: &str = "urn:ietf:params:oauth:token-type:access_token";
const ID: &str = "urn:ietf:params:oauth:token-type:id_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const REASON: &str = "Ticket 4711: the address is wrong";

pub fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// Members of a form.
type Form<'f> = &'f [(&'f str, &'f str)];

pub async fn post(
    replica: &Replica,
    path: &str,
    authorization: Option<&str>,
    form: &[(&str, &str)],
) -> Reply {
    let call = replica.api.call(Method::POST, path).form(form);
    match authorization {
        Some(value) => call.header("authorization", value).send().await,
        None => call.send().await,
    }
}

/// Asserts an OAuth error with everything around it (OA-11, OA-12, OA-13); the contract is held by the client.
#[track_caller]
fn fails(row: &str, reply: &Reply, status: u16, error: &str) {
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]), (status, &json!(error)), "{row}: {reply:#?}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{row}: never problem details");
    assert_eq!(
        (reply.header("cache-control"), reply.header("pragma")),
        (Some("no-store"), Some("no-cache")),
        "{row}"
    );
    let described = reply.json()["error_description"].as_str().unwrap().to_owned();
    assert!(
        described.bytes().all(|b| (b' '..=b'~').contains(&b) && !matches!(b, b'"' | b'\\')),
        "OA-12 {row}: {described}"
    );
    let challenge = reply.header("www-authenticate");
    assert_eq!(challenge.is_some_and(|c| c.starts_with("Basic ")), status == 401, "OA-13 {row}");
}

/// A form with some members changed; an empty value takes one out, `name+` adds one more.
fn changed<'a>(form: &[(&'a str, &'a str)], changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut out = form.to_vec();
    for (name, value) in changes {
        match name.strip_suffix('+') {
            Some(name) => out.push((name, value)),
            None => {
                out.retain(|(n, _)| n != name);
                if !value.is_empty() {
                    out.push((name, value));
                }
            }
        }
    }
    out
}

on_both! {
    async fn every_fault_of_an_exchange_has_its_row(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let auth = basic(&tool.id, &tool.secret);
        let actor = company.login("agent_1");
        let good = [
            ("grant_type", EXCHANGE), ("subject_token", "user_42"), ("subject_token_type", USER_ID),
            ("actor_token", actor.as_str()), ("actor_token_type", ACCESS), ("reason", REASON),
        ];
        let reply = post(&replica, "/oauth/token", Some(&auth), &good).await;
        assert_eq!((reply.header("cache-control"), reply.header("pragma")), (Some("no-store"), Some("no-cache")), "OA-11");
        let body = reply.ok();
        assert_eq!((&body["issued_token_type"], &body["token_type"], &body["scope"]), (&json!(ACCESS), &json!("Bearer"), &json!("read")));
        assert_eq!(body.get("refresh_token"), None);

        let of = |sub: &str, change: Value| company.token_of(LOGIN, sub, change);
        let foreign = of("agent_1", json!({ "aud": "https://other.example.com" }));
        let expired = of("agent_1", json!({ "exp": 1_700_000_000 }));
        let untrusted = of("agent_1", json!({ "iss": "https://evil.example.com" }));
        let low_value = of("agent_1", json!({ "client_id": "newsletter" }));
        let stale = of("agent_1", json!({ "iat": 1_700_000_000 }));
        let bound = of("agent_1", json!({ "cnf": { "jkt": "x" } }));
        let clerk = company.login("clerk_1");
        let (long, longer) = ("r".repeat(1001), format!("{}.{}.{}", "a".repeat(9000), "b", "c"));
        let rows: &[(&str, Form<'_>, &str)] = &[
            ("TE-3 no grant", &[("grant_type", "")], "invalid_request"),
            ("OA-14 another grant", &[("grant_type", "authorization_code")], "unsupported_grant_type"),
            ("PK-8 jwt-bearer as a grant", &[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")], "unsupported_grant_type"),
            ("TE-1 no subject", &[("subject_token", "")], "invalid_request"),
            ("TE-1 no subject type", &[("subject_token_type", "")], "invalid_request"),
            ("TE-1 an unknown subject type", &[("subject_token_type", "urn:ietf:params:oauth:token-type:saml2")], "invalid_request"),
            ("TE-4 a user id announced as a JWT", &[("subject_token_type", JWT)], "invalid_request"),
            ("TE-4 a user id announced as an actor token", &[("subject_token_type", ACCESS)], "invalid_request"),
            ("TE-1 an actor token without its type", &[("actor_token_type", "")], "invalid_request"),
            ("TE-1 a type without its actor token", &[("actor_token", "")], "invalid_request"),
            ("TE-1 an unknown actor type", &[("actor_token_type", "urn:x")], "invalid_request"),
            ("TE-4 an access token announced as an ID token", &[("actor_token_type", ID)], "invalid_request"),
            ("TE-1 no token at all", &[("actor_token", "x.y.z")], "invalid_request"),
            ("TE-1 a token too long to look at", &[("actor_token", &longer)], "invalid_request"),
            ("TE-1 another audience", &[("actor_token", &foreign)], "invalid_request"),
            ("TE-1 expired", &[("actor_token", &expired)], "invalid_request"),
            ("TE-1 an issuer nobody trusts", &[("actor_token", &untrusted)], "invalid_request"),
            ("TE-1 of a low-value client", &[("actor_token", &low_value)], "invalid_request"),
            ("TE-1 issued too long ago", &[("actor_token", &stale)], "invalid_request"),
            ("DP-4 bound to a key", &[("actor_token", &bound)], "invalid_request"),
            ("TE-3 refused by policy", &[("actor_token", &clerk)], "invalid_request"),
            ("TE-3 never for himself", &[("subject_token", "agent_1")], "invalid_request"),
            ("TE-3 a protected user", &[("subject_token", "user_99")], "invalid_request"),
            ("TE-2 a target of somebody else", &[("audience", "https://other.example.com")], "invalid_target"),
            ("TE-2 too many targets", &[("audience", AUDIENCE), ("resource", "https://second.example.com")], "invalid_target"),
            ("RE-1 a fragment", &[("resource", "https://api.example.com/#x")], "invalid_target"),
            ("RE-1 no absolute URI", &[("resource", "/invoices")], "invalid_target"),
            ("OA-14 a malformed scope", &[("scope", "re\"ad")], "invalid_scope"),
            ("TE-3 a scope that is never granted", &[("scope", "root")], "invalid_request"),
            ("TE-1 an unknown requested type", &[("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")], "invalid_request"),
            ("OA-4 a parameter twice", &[("scope", "read"), ("scope+", "write")], "invalid_request"),
            ("a reason over the limit", &[("reason", &long)], "invalid_request"),
            ("RFC 8628 a colleague has to approve", &[("scope", "read write")], "authorization_pending"),
            ("an approval of nothing", &[("approval", "act_0000000000000000000000000")], "invalid_request"),
        ];
        for (row, changes, error) in rows {
            fails(row, &post(&replica, "/oauth/token", Some(&auth), &changed(&good, changes)).await, 400, error);
        }
        for changes in [&[("resource", AUDIENCE)][..], &[("scope", "")], &[("requested_token_type", JWT)], &[("foo", "bar")], &[("actor_token_type", JWT)]] {
            let reply = post(&replica, "/oauth/token", Some(&auth), &changed(&good, changes)).await;
            assert_eq!(reply.status, 200, "OA-2, OA-3, RE-2 {changes:?}: {reply:#?}");
        }
        // an approved exchange goes on by its name
        let pending = changed(&good, &[("scope", "read write")]);
        let waits = post(&replica, "/oauth/token", Some(&auth), &pending).await;
        let described = text(&waits.json(), "error_description").to_owned();
        let id = described.rsplit('=').next().unwrap();
        replica.approve(&company.login("agent_2"), id, &json!({})).await.ok();
        let went_on = post(&replica, "/oauth/token", Some(&auth), &changed(&pending, &[("approval", id)])).await.ok();
        assert_eq!(went_on["scope"], "read write");

        let powerless = company.client(&["tokens:verify"]).await;
        until("the client is known", || async {
            let auth = basic(&powerless.id, &powerless.secret);
            post(&replica, "/oauth/introspect", Some(&auth), &[("token", "x")]).await.status == 200
        }).await;
        let unauthorized = post(&replica, "/oauth/token", Some(&basic(&powerless.id, &powerless.secret)), &good).await;
        fails("OA-14 a client without the scope", &unauthorized, 400, "unauthorized_client");
        let revoke = post(&replica, "/oauth/revoke", Some(&basic(&powerless.id, &powerless.secret)), &[("token", "x")]).await;
        fails("RV-2 a client that may not revoke", &revoke, 400, "unauthorized_client");
        replica.stop().await;
    }

    async fn every_way_of_client_authentication_has_its_faults_at_every_endpoint(company) {
        let signer = LocalSigner::generate(Alg::Es256).unwrap();
        let of_another_alg = LocalSigner::generate(Alg::EdDsa).unwrap();
        let keys = [&signer, &of_another_alg].map(|signer| signer.verifying_key().clone());
        let keys = stagedoor::token::KeySet::new(keys).to_jwks();
        let (tool, other) = (company.tool().await, company.tool().await);
        let keyed = company.client_with(&["actor_tokens:issue", "actor_tokens:revoke", "tokens:verify"], |form| {
            form.jwks = Some(keys);
            form.alg = Some("ES256".into());
        }).await;
        let now = || company.clock.now_seconds();
        let assertion_by = |signer: &LocalSigner, typ: &str, change: Value| {
            let mut said = json!({ "iss": keyed.id, "sub": keyed.id, "aud": ISSUER, "exp": now() + 60, "iat": now(), "jti": format!("{}", rand_word()) });
            for (name, value) in change.as_object().unwrap() {
                if value.is_null() { said.as_object_mut().unwrap().remove(name); } else { said[name] = value.clone(); }
            }
            encode_jws(signer, typ, &said).unwrap().into_string()
        };
        let assertion = |typ: &str, change: Value| assertion_by(&signer, typ, change);
        let kind = ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        for path in ["/oauth/token", "/oauth/introspect", "/oauth/revoke"] {
            // a fresh process: failed credentials of one address are limited
            let replica = company.replica().await;
            let send = async |authorization: Option<&str>, more: &[(&str, &str)]| {
                let mut form = vec![("token", "x"), ("grant_type", "nothing")];
                form.extend(more);
                post(&replica, path, authorization, &form).await
            };
            for (row, authorization, more, status, error) in [
                ("OA-13 none", None, &[][..], 401, "invalid_client"),
                ("OA-13 a wrong secret", Some(basic(&tool.id, "sk_live_wrong")), &[], 401, "invalid_client"),
                ("OA-13 another's secret", Some(basic(&tool.id, &other.secret)), &[], 401, "invalid_client"),
                ("OA-13 an unknown client", Some(basic("client_nobody", &tool.secret)), &[], 401, "invalid_client"),
                ("OA-13 another scheme", Some(format!("Bearer {}", tool.secret)), &[], 401, "invalid_client"),
                ("OA-7 no base64", Some("Basic !".to_owned()), &[], 401, "invalid_client"),
                ("OA-8 post, wrong", None, &[("client_id", tool.id.as_str()), ("client_secret", "sk_live_wrong")], 401, "invalid_client"),
                ("OA-8 post without an id", None, &[("client_secret", tool.secret.as_str())], 400, "invalid_request"),
                ("OA-9 two ways", Some(basic(&tool.id, &tool.secret)), &[("client_id", tool.id.as_str()), ("client_secret", tool.secret.as_str())], 400, "invalid_request"),
                ("OA-9 two clients", Some(basic(&tool.id, &tool.secret)), &[("client_id", other.id.as_str())], 400, "invalid_request"),
            ] {
                let reply = send(authorization.as_deref(), more).await;
                fails(&format!("{row} at {path}"), &reply, status, error);
                assert!(!reply.text().contains(&tool.secret), "never echoed");
            }
            let replayed = assertion("JWT", json!({}));
            let reached = send(None, &[kind, ("client_assertion", &replayed)]).await;
            assert_ne!(reached.status, 401, "PK-1 {path}: {reached:#?}");
            for (row, text) in [
                ("PK-3 used before", replayed),
                ("PK-2 another sub", assertion("JWT", json!({ "sub": tool.id }))),
                ("PK-2 another client's", assertion("JWT", json!({ "iss": tool.id, "sub": tool.id }))),
                ("PK-3 no exp", assertion("JWT", json!({ "exp": null }))),
                ("PK-3 expired", assertion("JWT", json!({ "exp": now() - 60 }))),
                ("PK-3 far-future exp", assertion("JWT", json!({ "exp": now() + 3600 }))),
                ("PK-3 issued in the future", assertion("JWT", json!({ "iat": now() + 60 }))),
                ("PK-3 not valid yet", assertion("JWT", json!({ "nbf": now() + 60 }))),
                ("PK-3 no jti", assertion("JWT", json!({ "jti": null }))),
                ("PK-4 the endpoint as aud", assertion("JWT", json!({ "aud": format!("{ISSUER}{path}") }))),
                ("PK-4 two audiences", assertion("JWT", json!({ "aud": [ISSUER, "https://x.example"] }))),
                ("PK-5 another typ", assertion("at+jwt", json!({}))),
                ("contract 3: an actor's token", assertion("JWT", json!({ "act": { "sub": "x", "iss": "https://idp.example.com" } }))),
                ("contract 6: bound to a key", assertion("JWT", json!({ "cnf": { "jkt": "x" } }))),
                ("an algorithm that the client does not use", assertion_by(&of_another_alg, "JWT", json!({}))),
                ("PK-6 no JWT", "x.y.z".to_owned()),
            ] {
                fails(&format!("{row} at {path}"), &send(None, &[kind, ("client_assertion", &text)]).await, 401, "invalid_client");
            }
            let untyped = assertion("JWT", json!({}));
            fails("PK-1 another type", &send(None, &[("client_assertion_type", "urn:x"), ("client_assertion", &untyped)]).await, 401, "invalid_client");
            let typed = assertion("client-authentication+jwt", json!({ "aud": [ISSUER] }));
            assert_ne!(send(None, &[kind, ("client_assertion", &typed)]).await.status, 401, "PK-4, PK-5 {path}");
            // the rest of the form
            let auth = basic(&tool.id, &tool.secret);
            let in_url = format!("{path}?client_id=x");
            fails("OA-5", &post(&replica, &in_url, Some(&auth), &[("token", "x")]).await, 400, "invalid_request");
            let json_body = replica.api.call(Method::POST, path).json(&json!({ "token": "x" })).header("authorization", &auth).send().await;
            fails("OA-6", &json_body, 400, "invalid_request");
            let get = replica.api.call(Method::GET, path).send().await;
            assert_eq!((get.status.as_u16(), get.header("allow")), (405, Some("POST")), "OA-1 {path}");
            replica.stop().await;
        }
    }

    async fn introspection_and_revocation_say_little_and_do_no_harm(company) {
        let (tool, other) = (company.tool().await, company.tool().await);
        let replica = company.replica().await;
        let (auth, others) = (basic(&tool.id, &tool.secret), basic(&other.id, &other.secret));
        let mint = json!({ "user_id": "user_42", "actor_token": company.login("agent_1"), "reason": REASON });
        let minted = tool.at(&replica).mint(&mint).await.ok();
        let token = text(&minted, "token");
        for path in ["/oauth/introspect", "/oauth/revoke"] {
            fails("IN-7, RV-1 no token", &post(&replica, path, Some(&auth), &[("token_type_hint", "access_token")]).await, 400, "invalid_request");
            fails("IN-2, RV-1 nobody", &post(&replica, path, None, &[("token", token)]).await, 401, "invalid_client");
        }
        for (row, text) in [("garbage", "x"), ("changed", &token[..token.len() - 2]), ("none of ours", &company.login("agent_1"))] {
            let inactive = post(&replica, "/oauth/introspect", Some(&auth), &[("token", text)]).await;
            assert_eq!((inactive.status.as_u16(), inactive.text().as_str()), (200, r#"{"active":false}"#), "IN-4 {row}");
            for by in [&auth, &others] {
                let revoked = post(&replica, "/oauth/revoke", Some(by), &[("token", text), ("token_type_hint", "nonsense")]).await;
                assert_eq!((revoked.status.as_u16(), revoked.body.len()), (200, 0), "RV-3 {row}");
            }
        }
        let foreign = post(&replica, "/oauth/revoke", Some(&others), &[("token", token)]).await;
        assert_eq!((foreign.status.as_u16(), foreign.body.len()), (200, 0), "RV-2, RV-3");
        let still = post(&replica, "/oauth/introspect", Some(&auth), &[("token", token), ("token_type_hint", "x")]).await;
        assert_eq!((&still.json()["active"], still.header("cache-control")), (&json!(true), Some("no-store")), "RV-2: not his; IN-6");
        post(&replica, "/oauth/revoke", Some(&auth), &[("token", token)]).await;
        let gone = post(&replica, "/oauth/introspect", Some(&auth), &[("token", token)]).await;
        assert_eq!(gone.text(), r#"{"active":false}"#, "RV-6");
        replica.stop().await;
    }

    async fn a_delegated_token_is_never_longer_wider_or_deeper_and_names_everybody(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let auth = basic(&tool.id, &tool.secret);
        let parent = json!({ "user_id": "user_42", "actor_token": company.login("agent_1"), "reason": REASON, "expires_in_seconds": 100 });
        let minted = tool.at(&replica).mint(&parent).await.ok();
        let first = text(&minted, "token").to_owned();
        let delegate = async |token: &str, actor: &str, more: &[(&str, &str)]| {
            let form = [
                ("grant_type", EXCHANGE), ("subject_token", token), ("subject_token_type", ACCESS),
                ("actor_token", actor), ("actor_token_type", ACCESS),
            ];
            post(&replica, "/oauth/token", Some(&auth), &changed(&form, more)).await
        };
        let robot = |n: usize| company.login(&format!("robot_{n}"));
        let mut chain = vec![first.clone()];
        for n in 1..=3 {
            let token = text(&delegate(&chain[n - 1], &robot(n), &[]).await.ok(), "access_token").to_owned();
            chain.push(token);
        }
        for (depth, token) in chain.iter().enumerate() {
            let (said, parent) = (claims(token), claims(&first));
            assert!(said["exp"].as_i64() <= parent["exp"].as_i64(), "never longer");
            let mut act = &said["act"];
            for n in (1..=depth).rev() {
                assert_eq!(act["sub"], format!("robot_{n}"), "TE-8: the current actor outermost");
                act = &act["act"];
            }
            assert_eq!((&act["sub"], act.get("act")), (&json!("agent_1"), None), "TE-9: none dropped");
            // TE-11, field.md trap 5: one shape in the token, in verify and in introspection
            let verified = tool.at(&replica).verify(token).await.ok();
            let introspected = post(&replica, "/oauth/introspect", Some(&auth), &[("token", token)]).await.ok();
            assert_eq!((&verified["act"], &introspected["act"]), (&said["act"], &said["act"]), "depth {depth}");
        }
        fails("TE-9 deeper than four", &delegate(&chain[3], &robot(4), &[]).await, 400, "invalid_request");
        fails("a circle", &delegate(&chain[2], &robot(1), &[]).await, 400, "invalid_request");
        fails("back to the first", &delegate(&chain[1], &company.login("agent_1"), &[]).await, 400, "invalid_request");
        fails("to himself", &delegate(&chain[1], &robot(1), &[]).await, 400, "invalid_request");
        fails("to the target", &delegate(&first, &company.login("user_42"), &[]).await, 400, "invalid_request");
        fails("a wider audience", &delegate(&first, &robot(1), &[("audience", "https://second.example.com")]).await, 400, "invalid_target");
        fails("only a wider scope", &delegate(&first, &robot(1), &[("scope", "write")]).await, 400, "invalid_request");
        let narrowed = delegate(&first, &robot(1), &[("scope", "read write")]).await.ok();
        assert_eq!(narrowed["scope"], "read", "field.md trap 11: never wider");
        let acting = company.token_of(LOGIN, "robot_1", json!({ "act": { "sub": "agent_2" } }));
        fails("TE-8 an actor who acts for others", &delegate(&first, &acting, &[]).await, 400, "invalid_request");

        // ten seconds left stay ten seconds
        company.clock.on(90);
        until("the revocations are read again", || async {
            tool.at(&replica).verify(&first).await.ok()["active"] == true
        }).await;
        let late = delegate(&first, &robot(1), &[]).await.ok();
        assert!((1..=10).contains(&late["expires_in"].as_i64().unwrap()), "{late}");
        assert_eq!(claims(text(&late, "access_token"))["exp"], claims(&first)["exp"]);

        let path = format!("/v1/actor_tokens/{}/revoke", text(&minted, "id"));
        tool.at(&replica).post(&path, &json!({})).await.ok();
        fails("of a revoked parent", &delegate(&first, &robot(1), &[]).await, 400, "invalid_request");
        for token in &chain {
            assert_eq!(tool.at(&replica).verify(token).await.ok()["active"], false, "descendants end with it");
        }
        replica.stop().await;
    }

    async fn what_is_delegated_is_of_the_clients_own_audiences_and_no_surer_than_its_parent(company) {
        let (tool, narrow) = (company.tool().await, company.client_with(&["actor_tokens:issue", "tokens:verify"], |form| {
            form.audiences = Some(vec!["https://second.example.com".into()]);
        }).await);
        let replica = company.replica().await;
        let wide = crate::company::POLICY
            .replace("@id(\"named-by-a-client\")", "@id(\"named-by-a-client\") @max_audiences(\"2\")")
            .replace("@id(\"agents\")", "@id(\"agents\") @max_audiences(\"2\")");
        company.policy(&wide, &[&replica]).await;
        let both = ["https://api.example.com", "https://second.example.com"];
        let parent = json!({ "user_id": "user_42", "actor": { "sub": "agent_1" }, "reason": REASON, "audience": both });
        let minted = tool.at(&replica).mint(&parent).await.ok();
        let robot = company.login("robot_1");
        let form = [
            ("grant_type", EXCHANGE), ("subject_token", text(&minted, "token")), ("subject_token_type", ACCESS),
            ("actor_token", robot.as_str()), ("actor_token_type", ACCESS),
        ];
        for (client, audiences) in [(&tool, json!(both)), (&narrow, json!(both[1]))] {
            let given = post(&replica, "/oauth/token", Some(&basic(&client.id, &client.secret)), &form).await.ok();
            let said = claims(text(&given, "access_token"));
            assert_eq!(said["aud"], audiences);
            assert_eq!((&said["act"]["sub"], &said["actor_assurance"]), (&json!("robot_1"), &json!("asserted")), "agent_1 was only named");
        }
        replica.stop().await;
    }

    async fn may_act_is_honoured_and_other_peoples_tokens_are_no_subjects(company) {
        let signer = LocalSigner::generate(Alg::Es256).unwrap();
        let keys = stagedoor::token::KeySet::new([signer.verifying_key().clone()]).to_jwks();
        let keyed: Caller = company.client_with(&["actor_tokens:issue", "tokens:verify"], |form| form.jwks = Some(keys)).await;
        let replica = company.replica().await;
        let auth = basic(&keyed.id, &keyed.secret);
        let actor = company.login("agent_1");
        let now = company.clock.now_seconds();
        let exchange = async |change: Value| {
            let mut said = json!({ "iss": keyed.id, "sub": "user_42", "aud": ISSUER, "exp": now + 60, "iat": now });
            for (name, value) in change.as_object().unwrap() {
                if value.is_null() { said.as_object_mut().unwrap().remove(name); } else { said[name] = value.clone(); }
            }
            let subject = encode_jws(&signer, "JWT", &said).unwrap().into_string();
            let form = [
                ("grant_type", EXCHANGE), ("subject_token", subject.as_str()), ("subject_token_type", JWT),
                ("actor_token", actor.as_str()), ("actor_token_type", ACCESS), ("reason", REASON),
            ];
            post(&replica, "/oauth/token", Some(&auth), &form).await
        };
        for good in [json!({}), json!({ "may_act": { "sub": "agent_1", "iss": LOGIN } }), json!({ "aud": format!("{ISSUER}/oauth/token") })] {
            let reply = exchange(good.clone()).await;
            assert_eq!(reply.status, 200, "TE-10, PK-8 {good}: {reply:#?}");
        }
        for (row, change) in [
            ("TE-10 another actor", json!({ "may_act": { "sub": "agent_2" } })),
            ("TE-10 another issuer", json!({ "may_act": { "sub": "agent_1", "iss": "https://other.example.com" } })),
            ("TE-10 nobody", json!({ "may_act": {} })),
            ("PK-8 another audience", json!({ "aud": "https://other.example.com" })),
            ("PK-8 another issuer", json!({ "iss": "client_other" })),
            ("PK-8 expired", json!({ "exp": now - 60 })),
            ("PK-8 no exp", json!({ "exp": null })),
            ("PK-8 it acts already", json!({ "act": { "sub": "x" } })),
        ] {
            fails(row, &exchange(change).await, 400, "invalid_request");
        }
        replica.stop().await;
    }
}

/// A word that was not used before.
fn rand_word() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("jti-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
