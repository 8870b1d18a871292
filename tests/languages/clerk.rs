//! Clerk's SDKs, unmodified, against the real binary (issue 6 §3; contract.md §5, §6 "Profile `clerk`").

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::recipes::Runtime;
use crate::served::{Made, Served, http, printed};

const ORIGIN: &str = "https://app.example.com";

/// A Stagedoor with one client of profile `clerk`, set up by the permit that `client create` printed.
fn served() -> (Served, Made) {
    let mut served = Served::initialised();
    let scopes = "actor_tokens:issue,actor_tokens:assert_actor,actor_tokens:revoke";
    let client = served.client(&[
        "--profile",
        "clerk",
        "--scopes",
        scopes,
        "--may-assert",
        "admin_*",
        "--origin",
        ORIGIN,
    ]);
    served.serve(&client.permit);
    (served, client)
}

/// The claims that Clerk's verifiers read, and what the profile leaves out.
fn has_clerks_claims(claims: &Value, served: &Served, client: &Made) {
    assert_eq!(claims["iss"], format!("{}/clerk/{}", served.url, client.id));
    assert_eq!((&claims["sub"], &claims["act"]), (&json!("user_42"), &json!({ "sub": "admin_7" })));
    assert_eq!(claims["azp"], ORIGIN);
    assert!(claims["sid"].as_str().is_some_and(|sid| sid.starts_with("act_")), "{claims}");
    // the SDKs ask for 3600 and 1800 seconds; their verifiers see no revocation, so it is 300
    let seconds = |name: &str| claims[name].as_i64().expect("a whole number");
    assert_eq!((seconds("exp") - seconds("iat"), seconds("nbf")), (300, seconds("iat")));
    assert!(claims.get("aud").is_none() && claims.get("v").is_none(), "{claims}");
}

/// One error as an SDK hands it on: status, code, and the parameter it names.
fn is_error(error: &Value, status: u16, code: &str, param: Option<&str>) {
    let first = &error["errors"][0];
    assert_eq!((&error["status"], &first["code"]), (&json!(status), &json!(code)), "{error}");
    let long = first["longMessage"].as_str().or(first["long_message"].as_str());
    assert!(long.is_some_and(|text| !text.is_empty()), "{error}");
    let named = first["meta"]["paramName"].as_str().or(first["meta"]["param_name"].as_str());
    assert_eq!(named, param, "{error}");
}

#[test]
fn clerks_backend_and_express_sdks_work_unmodified() {
    if !Runtime::Node.is_here("clerks_backend_and_express_sdks_work_unmodified") {
        return;
    }
    let (served, client) = served();
    let publishable = format!("pk_live_{}", STANDARD.encode("clerk.app.example.com$"));
    let saw = printed(Runtime::Node.command("tests/recipes/node/clerk.mjs").envs([
        ("CLERK_API_URL", &served.url),
        ("CLERK_SECRET_KEY", &client.secret),
        ("CLERK_PUBLISHABLE_KEY", &publishable),
    ]));

    let created = &saw["created"];
    assert_eq!((&created["status"], &created["userId"]), (&json!("pending"), &json!("user_42")));
    assert_eq!(created["actor"], json!({ "sub": "admin_7" }), "what else stands in actor is dropped");
    assert!(created["createdAt"].is_i64() && created["updatedAt"].is_i64(), "{created}");
    assert_eq!(saw["revoked"]["status"], "revoked");

    has_clerks_claims(&saw["verified"], &served, &client);
    assert_eq!(saw["otherParty"]["reason"], "token-invalid-authorized-parties");
    assert_eq!(saw["tampered"]["reason"], "token-invalid-signature");
    let actor = json!({ "sub": "admin_7" });
    assert_eq!(saw["authenticated"], json!({ "status": "signed-in", "user": "user_42", "actor": actor }));
    assert_eq!(saw["nobody"]["status"], "signed-out");
    let me =
        json!({ "isAuthenticated": true, "userId": "user_42", "sessionId": created["id"], "actor": actor });
    assert_eq!(saw["middleware"], me, "getAuth(req).actor");
    assert_eq!(saw["middlewareNobody"]["isAuthenticated"], false);
    // docs/clerk.md says so plainly
    assert_eq!(saw["afterRevoke"], "still accepted");

    is_error(&saw["revokedAgain"], 400, "actor_token_cannot_be_revoked_code", None);
    is_error(&saw["unknown"], 404, "resource_not_found", None);
    is_error(&saw["noUser"], 422, "form_param_missing", Some("user_id"));
    is_error(&saw["denied"], 403, "policy_denied", None);
    is_error(&saw["stranger"], 401, "client_secret_invalid", None);
    assert!(saw["denied"]["traceId"].as_str().is_some_and(|id| !id.is_empty()), "{}", saw["denied"]);
}

#[test]
fn clerks_python_sdk_works_unmodified() {
    if !Runtime::Python.is_here("clerks_python_sdk_works_unmodified") {
        return;
    }
    let (served, client) = served();
    let saw = printed(
        Runtime::Python
            .command("tests/recipes/python/clerk_sdk.py")
            .envs([("STAGEDOOR", &served.url), ("CLERK_SECRET_KEY", &client.secret)]),
    );
    assert_eq!(saw["created"]["object"], "actor_token");
    assert_eq!(saw["created"]["status"], "pending");
    has_clerks_claims(&saw["verified"], &served, &client);
    assert_eq!(saw["otherParty"]["reason"], "token-invalid-authorized-parties");
    assert_eq!(saw["state"], json!({ "status": "signed-in", "reason": null, "actor": { "sub": "admin_7" } }));
    assert_eq!(saw["revoked"]["status"], "revoked");
    is_error(&saw["revokedAgain"], 400, "actor_token_cannot_be_revoked_code", None);
    is_error(&saw["unknown"], 404, "resource_not_found", None);
    is_error(&saw["noUser"], 422, "form_param_value_invalid", Some("user_id"));
    is_error(&saw["denied"]["body"], 403, "policy_denied", None);
    assert!(saw["denied"]["body"]["clerk_trace_id"].is_string());
}

/// The profile's limits: its own RSA key shown to it alone, no narrower grant, and no door of ours that takes its tokens.
#[tokio::test]
async fn tokens_of_profile_clerk_are_for_clerks_verifiers_alone() {
    let mut served = Served::initialised();
    let scopes = "actor_tokens:issue,actor_tokens:assert_actor,actor_tokens:revoke,tokens:verify";
    let clerk = served.client(&[
        "--profile",
        "clerk",
        "--scopes",
        scopes,
        "--may-assert",
        "admin_*",
        "--origin",
        ORIGIN,
    ]);
    let other = served.client(&["--scopes", "tokens:verify", "--audience", "https://api.example.com"]);
    served.serve(&clerk.permit);

    let http = http();
    let post = async |path: &str, secret: &str, body: Value| {
        let sent = http.post(format!("{}{path}", served.url)).bearer_auth(secret).json(&body).send();
        let answer = sent.await.expect("it answers");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    let person = json!({ "user_id": "user_42", "actor": { "sub": "admin_7" } });
    let (status, minted) = post("/v1/actor_tokens", &clerk.secret, person.clone()).await;
    assert_eq!((status, &minted["scope"]), (200, &json!("*")), "{minted}");
    let token = minted["token"].as_str().expect("a token");
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().expect("a header")).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    assert_eq!((&header["alg"], &header["typ"]), (&json!("RS256"), &json!("JWT")));

    let narrower = json!({ "user_id": "user_42", "actor": { "sub": "admin_7" }, "scope": "read" });
    let (status, refused) = post("/v1/actor_tokens", &clerk.secret, narrower).await;
    assert_eq!((status, &refused["errors"][0]["code"]), (403, &json!("policy_denied")), "{refused}");
    let for_one =
        json!({ "user_id": "user_42", "actor": { "sub": "admin_7" }, "audience": "https://api.example.com" });
    let (status, refused) = post("/v1/actor_tokens", &clerk.secret, for_one).await;
    assert_eq!(
        (status, &refused["errors"][0]["code"]),
        (403, &json!("policy_denied")),
        "never ignored: {refused}"
    );

    for secret in [&clerk.secret, &other.secret] {
        let (status, said) = post("/v1/actor_tokens/verify", secret, json!({ "token": token })).await;
        assert_eq!((status, &said["active"]), (200, &json!(false)), "{said}");
    }
    let gate = http.get(format!("{}/v1/forward_auth", served.url)).bearer_auth(token).send().await;
    assert_eq!(gate.expect("it answers").status(), 401);

    let key_for = async |secret: &str| {
        let mut ask = http.get(format!("{}/v1/jwks", served.url));
        if !secret.is_empty() {
            ask = ask.bearer_auth(secret);
        }
        let set: Value = ask.send().await.expect("it answers").json().await.expect("JSON");
        set["keys"].as_array().expect("keys").iter().find(|key| key["kid"] == header["kid"]).cloned()
    };
    let key = key_for(&clerk.secret).await.expect("the client sees its key");
    assert_eq!(
        (&key["kty"], &key["alg"], &key["use"], &key["e"]),
        (&json!("RSA"), &json!("RS256"), &json!("sig"), &json!("AQAB"))
    );
    assert_eq!(key["n"].as_str().map(str::len), Some(342), "RSA-2048");
    assert!(key_for(&other.secret).await.is_none() && key_for("").await.is_none());
}
