//! Handoff codes: bound to one product, used once, and nobody can be slipped another's impersonation.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::site::{Caller, Replica, Site, body_for, claims, is_active, keyed, on_both, text, until};

const REDEEM: &str = "/v1/actor_tokens/redeem";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A minter, a product that redeems, another product, and a replica that knows all three.
async fn cast(site: &Site) -> (Caller, Caller, Caller, Replica) {
    let (minter, product, other) = (
        site.minter().await,
        site.redeemer(Some("https://product.example/start#code={code}")).await,
        site.redeemer(None).await,
    );
    (minter, product, other, site.replica().await)
}

fn by_code(redeem_client: &Caller, more: Value) -> Value {
    let mut body = body_for("admin_7", "user_42");
    body["delivery"] = "code".into();
    body["redeem_client"] = redeem_client.id.as_str().into();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn handed(minter: &Caller, product: &Caller, replica: &Replica, more: Value) -> Value {
    minter.at(replica).mint(&by_code(product, more)).await.ok()
}

fn with(code: &Value) -> Value {
    json!({ "code": text(code, "code") })
}

on_both! {
    async fn a_code_becomes_a_token_for_its_product_alone(site) {
        let (minter, product, other, replica) = cast(&site).await;
        let grant = handed(&minter, &product, &replica, json!({})).await;
        assert_eq!((&grant["token"], &grant["status"]), (&Value::Null, &json!("pending")));
        assert_eq!(text(&grant, "url"), format!("https://product.example/start#code={}", text(&grant, "code")));
        let left = grant["code_expires_at"].as_i64().unwrap() - grant["created_at"].as_i64().unwrap();
        assert!(left <= 60_000, "{left} ms");

        for stranger in [&other, &minter] {
            stranger.at(&replica).post(REDEEM, &with(&grant)).await.fails(404, "resource_not_found");
        }
        assert_eq!(replica.recorded("redeem", "code_of_another_client").await, 2, "recorded");
        product.at(&replica).post(REDEEM, &json!({ "code": "hc_0" })).await.fails(404, "resource_not_found");
        product.at(&replica).post(REDEEM, &json!({ "code": "" })).await.fails(422, "form_param_value_invalid");

        let redeemed = product.at(&replica).post(REDEEM, &with(&grant)).await.ok();
        assert_eq!((&redeemed["status"], &redeemed["id"]), (&json!("accepted"), &grant["id"]));
        let token = text(&redeemed, "token");
        let said = claims(token);
        assert_eq!((&said["sid"], &said["client_id"]), (&grant["id"], &json!(minter.id)));
        assert_eq!(said["exp"].as_i64().map(|exp| exp * 1000), grant["expires_at"].as_i64(), "counted from the mint");
        assert!(is_active(&minter.at(&replica), token).await, "not consumed by strangers");
        let listed = minter.at(&replica).get("/v1/actor_tokens?status=accepted").await.ok();
        assert_eq!(listed["actor_tokens"][0]["id"], grant["id"]);

        product.at(&replica).post(REDEEM, &with(&grant)).await.fails(404, "resource_not_found");
        assert!(!is_active(&minter.at(&replica), token).await, "a second use revokes");
        assert_eq!(replica.recorded("redeem", "code_reused").await, 1);
        product.at(&replica).post(REDEEM, &with(&grant)).await.fails(404, "resource_not_found");
        assert_eq!(replica.recorded("redeem", "code_used").await, 1, "the grant is over: an attempt, and no end");
        replica.stop().await;
    }

    async fn every_answer_says_when_the_grant_last_changed_as_the_grant_does(site) {
        let (minter, product, _, replica) = cast(&site).await;
        let (api, body) = (minter.at(&replica), by_code(&product, json!({})));
        let shown = async |answer: &Value| {
            let grant = api.get(&format!("/v1/actor_tokens/{}", text(answer, "id"))).await.ok();
            assert_eq!((&grant["status"], &grant["updated_at"]), (&answer["status"], &answer["updated_at"]), "{answer}");
        };
        let grant = keyed(&api, "/v1/actor_tokens", "k1", &body).await.ok();
        assert_eq!(grant["updated_at"], grant["created_at"]);
        shown(&grant).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let redeemed = product.at(&replica).post(REDEEM, &with(&grant)).await.ok();
        assert!(redeemed["updated_at"].as_i64() > redeemed["created_at"].as_i64(), "{redeemed}");
        shown(&redeemed).await;
        let replayed = keyed(&api, "/v1/actor_tokens", "k1", &body).await.ok();
        assert_eq!(replayed["status"], "accepted");
        shown(&replayed).await;
        let token = keyed(&api, "/v1/actor_tokens", "k2", &body_for("admin_7", "user_43")).await.ok();
        shown(&token).await;
        shown(&keyed(&api, "/v1/actor_tokens", "k2", &body_for("admin_7", "user_43")).await.ok()).await;
        replica.stop().await;
    }

    async fn a_grant_that_somebody_changed_in_the_database_becomes_no_token(site) {
        let (minter, product, _, replica) = cast(&site).await;
        for change in [
            "assurance = 'verified'",
            "exp_us = exp_us + 86400000000, iat_us = iat_us + 86400000000",
            "exp_us = exp_us + 60000000",
            "scope = 'read write'",
            "aud = '[\"https://other.example\"]'",
        ] {
            let grant = handed(&minter, &product, &replica, json!({})).await;
            let sql = format!("UPDATE actor_grant SET {change} WHERE id = '{}'", text(&grant, "id"));
            // whoever writes to the database as the service does
            assert_eq!(crate::support::sql::execute(site.database_url(), &sql).await, 1);
            product.at(&replica).post(REDEEM, &with(&grant)).await.fails(404, "resource_not_found");
        }
        assert_eq!(replica.recorded("redeem", "code_void").await, 5);
        // nor is a code somebody else's, or longer good, or another one than the service made
        for (change, code) in [
            ("redeem_client = 'CLIENT'", None),
            ("exp_us = exp_us + 600000000", None),
            ("code_hash = 'HASH'", Some("hc_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")),
        ] {
            let grant = handed(&minter, &product, &replica, json!({})).await;
            let thief = if change.starts_with("redeem_client") { &minter } else { &product };
            let hash = stagedoor::token::signer::sha256(code.unwrap_or_default().as_bytes());
            let hash = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, hash);
            let change = change.replace("CLIENT", &thief.id).replace("HASH", &hash);
            let sql = format!("UPDATE handoff_code SET {change} WHERE grant_id = '{}'", text(&grant, "id"));
            assert_eq!(crate::support::sql::execute(site.database_url(), &sql).await, 1);
            let code = code.unwrap_or_else(|| text(&grant, "code"));
            thief.at(&replica).post(REDEEM, &json!({ "code": code })).await.fails(404, "resource_not_found");
        }
        assert_eq!(replica.recorded("redeem", "code_void").await, 8);
        replica.stop().await;
    }

    async fn of_a_hundred_redeems_at_once_one_wins_and_the_grant_is_over(site) {
        let (minter, product, _, one) = cast(&site).await;
        let two = site.replica().await;
        let grant = handed(&minter, &product, &one, json!({})).await;
        let mut tasks = Vec::new();
        for i in 0..100 {
            let (api, body) = (product.at(if i % 2 == 0 { &one } else { &two }), with(&grant));
            tasks.push(tokio::spawn(async move { api.post(REDEEM, &body).await }));
        }
        let mut won = Vec::new();
        for task in tasks {
            let reply = task.await.unwrap();
            if reply.status == 200 { won.push(reply.ok()) } else { reply.fails(404, "resource_not_found"); }
        }
        assert_eq!(won.len(), 1, "one wins");
        let refused = one.entries().await.iter().filter(|e| e["typ"] == "redeem" && e["decision"] == "denied").count();
        assert!(refused >= 99, "{refused}: the others are refused and recorded");
        until("a second use revoked it", || async { !is_active(&minter.at(&one), text(&won[0], "token")).await }).await;
        one.stop().await;
        two.stop().await;
    }

    async fn codes_that_come_at_once_become_each_its_own_token(site) {
        let (minter, product, _, replica) = cast(&site).await;
        let mut tasks = Vec::new();
        // more than are looked up together, and between them some that nobody made
        for i in 0..80 {
            let user = format!("user_{i}");
            let grant = handed(&minter, &product, &replica, json!({ "user_id": user })).await;
            let mut body = with(&grant);
            if i % 8 == 0 {
                body["code"] = format!("{}A", text(&grant, "code")).into();
            }
            let api = product.at(&replica);
            tasks.push((i, user, grant, api, body));
        }
        let answers = tasks.into_iter().map(|(i, user, grant, api, body)| async move {
            let reply = api.post(REDEEM, &body).await;
            if i % 8 == 0 {
                reply.fails(404, "resource_not_found");
            } else {
                let redeemed = reply.ok();
                assert_eq!(redeemed["id"], grant["id"]);
                assert_eq!(claims(text(&redeemed, "token"))["sub"], *user);
            }
        });
        futures_util::future::join_all(answers).await;
        replica.stop().await;
    }

    async fn a_lost_answer_can_be_had_again_with_its_key_and_only_with_it(site) {
        let (minter, product, _, replica) = cast(&site).await;
        let grant = handed(&minter, &product, &replica, json!({})).await;
        let api = product.at(&replica);
        let first = keyed(&api, REDEEM, "once", &with(&grant)).await.ok();
        let again = keyed(&api, REDEEM, "\"once\"", &with(&grant)).await.ok();
        assert_eq!(claims(text(&first, "token")), claims(text(&again, "token")), "the same claims");
        assert_eq!((&again["status"], &again["audit"]["index"]), (&json!("accepted"), &first["audit"]["index"]));
        assert!(is_active(&minter.at(&replica), text(&first, "token")).await, "the same use, not a second");
        let other = handed(&minter, &product, &replica, json!({})).await;
        keyed(&api, REDEEM, "once", &with(&other)).await.fails(422, "idempotency_key_reused");
        keyed(&api, REDEEM, "another", &with(&grant)).await.fails(404, "resource_not_found");
        assert!(!is_active(&minter.at(&replica), text(&first, "token")).await);
        keyed(&api, REDEEM, "once", &with(&grant)).await.fails(409, "idempotency_grant_ended");
        replica.stop().await;
    }

    async fn a_code_that_travelled_through_a_browser_needs_its_verifier(site) {
        let (minter, product, _, replica) = cast(&site).await;
        let api = product.at(&replica);
        let bound = handed(&minter, &product, &replica, json!({ "code_challenge": CHALLENGE })).await;
        let attempt = |code: &Value, verifier: Option<&str>| {
            let mut body = with(code);
            if let Some(verifier) = verifier {
                body["code_verifier"] = verifier.into();
            }
            let api = product.at(&replica);
            async move { api.post(REDEEM, &body).await }
        };
        let wrong = URL_SAFE_NO_PAD.encode([7; 32]);
        attempt(&bound, None).await.fails(422, "form_param_value_invalid");
        attempt(&bound, Some(&wrong)).await.fails(422, "form_param_value_invalid");
        assert_eq!(attempt(&bound, Some(VERIFIER)).await.ok()["status"], "accepted", "wrong ones use nothing up");
        // a code of a session that set no verifier, slipped into one that did
        let unbound = handed(&minter, &product, &replica, json!({})).await;
        attempt(&unbound, Some(VERIFIER)).await.fails(422, "form_param_value_invalid");
        let mut expecting = with(&unbound);
        expecting["expected_actor"] = "admin_8".into();
        api.post(REDEEM, &expecting).await.fails(403, "policy_denied");
        expecting["expected_actor"] = "admin_7".into();
        api.post(REDEEM, &expecting).await.ok();
        for rule in ["code_verifier", "expected_actor"] {
            assert!(replica.recorded("redeem", rule).await > 0, "{rule} is recorded");
        }
        replica.stop().await;
    }

    async fn what_was_stopped_or_is_forbidden_meanwhile_is_not_redeemed(site) {
        // field.md, trap 1: the policy is asked at the mint and at redemption
        let (minter, product, _, replica) = cast(&site).await;
        let (revoked, held) = (
            handed(&minter, &product, &replica, json!({})).await,
            handed(&minter, &product, &replica, json!({ "user_id": "user_43" })).await,
        );
        let path = format!("/v1/actor_tokens/{}/revoke", text(&revoked, "id"));
        minter.at(&replica).post(&path, &json!({})).await.ok();
        product.at(&replica).post(REDEEM, &with(&revoked)).await.fails(404, "resource_not_found");
        let stop = json!({ "user_id": "user_43", "reason": "Asked us to", "hold_seconds": 60 });
        assert_eq!(minter.at(&replica).post("/v1/revocations", &stop).await.ok()["matched"], 1, "codes too");
        product.at(&replica).post(REDEEM, &with(&held)).await.fails(404, "resource_not_found");

        let late = handed(&minter, &product, &replica, json!({})).await;
        site.policy(crate::site::CLOSED, &replica).await;
        product.at(&replica).post(REDEEM, &with(&late)).await.fails(403, "policy_denied");
        site.policy(crate::site::POLICY, &replica).await;
        product.at(&replica).post(REDEEM, &with(&late)).await.ok();
        replica.stop().await;
    }

    async fn codes_of_a_disabled_client_are_worth_nothing(site) {
        let (minter, product, _, replica) = cast(&site).await;
        let code = handed(&minter, &product, &replica, json!({})).await;
        site.disable(&minter.id).await;
        until("the client is out", || async {
            minter.at(&replica).get("/v1/actor_tokens").await.status == 401
        })
        .await;
        let refused = product.at(&replica).post(REDEEM, &with(&code)).await;
        assert!(matches!(refused.status.as_u16(), 403 | 404), "{refused:?}");
        assert!(refused.json()["token"].is_null());
        replica.stop().await;
    }

    async fn members_of_a_handoff_are_read_strictly(site) {
        let (minter, product, _, replica) = cast(&site).await;
        let api = minter.at(&replica);
        for (more, code) in [
            (json!({ "delivery": "mail" }), "form_param_value_invalid"),
            (json!({ "delivery": "token" }), "form_param_value_invalid"),
            (json!({ "code_challenge": "short" }), "form_param_value_invalid"),
            (json!({ "redeem_client": "client_nobody" }), "form_param_value_invalid"),
            (json!({ "redeem_client": minter.id, "delivery": "code", "code_verifier": VERIFIER }), "form_param_unknown"),
        ] {
            api.mint(&by_code(&product, more)).await.fails(422, code);
        }
        // a client redeems what it minted for itself, with the scope it minted with
        let own = api.mint(&by_code(&minter, json!({}))).await.ok();
        assert_eq!(own["url"], Value::Null);
        assert_eq!(api.post(REDEEM, &with(&own)).await.ok()["status"], "accepted");
        api.post(REDEEM, &json!({})).await.fails(422, "form_param_missing");
        api.post(REDEEM, &json!({ "code": "x", "verifier": "y" })).await.fails(422, "form_param_unknown");
        replica.stop().await;
    }

    async fn a_code_rests_nowhere(site) {
        let (minter, product, _, replica) = cast(&site).await;
        let grant = handed(&minter, &product, &replica, json!({})).await;
        let code = text(&grant, "code");
        let stored = replica.running.service.db.handoff_code("").await.unwrap();
        assert_eq!(stored, None);
        let log: String = replica.entries().await.iter().map(Value::to_string).collect();
        assert!(!log.contains(&code[3..]), "not in the log");
        let retried = {
            let body = by_code(&product, json!({ "user_id": "user_44" }));
            let api = minter.at(&replica);
            let first = keyed(&api, "/v1/actor_tokens", "k", &body).await.ok();
            let again = keyed(&api, "/v1/actor_tokens", "k", &body).await.ok();
            (first, again)
        };
        assert_eq!(retried.0["code"], retried.1["code"], "a retry rebuilds it");
        assert_eq!(retried.0["id"], retried.1["id"]);
        replica.stop().await;
    }
}
