//! The endpoints that end grants: who may end what, what is answered, and that it holds at once.

use reqwest::Method;
use serde_json::json;
use stagedoor::token::{Clock as _, SystemClock};

use crate::site::{body_for, claims, is_active, mint, on_both, text, until};
use crate::support::until_within;
use stagedoor::server::log::{Decision, Effect, Event, EventType, Record, Revoke, Selector};

on_both! {
    async fn a_revoked_grant_is_refused_everywhere_and_revoked_once(site) {
        let (owner, stranger) = (site.minter().await, site.minter().await);
        let replica = site.replica().await;
        let api = owner.at(&replica);
        let minted = mint(&api).await;
        let (id, token) = (text(&minted, "id"), text(&minted, "token"));
        let path = format!("/v1/actor_tokens/{id}/revoke");
        assert!(is_active(&api, token).await);

        stranger.at(&replica).post(&path, &json!({})).await.fails(404, "resource_not_found");
        assert!(is_active(&api, token).await, "another client's attempt ends nothing");
        let grant = api.call(Method::POST, &path).send().await.ok();
        assert_eq!(grant["status"], "revoked", "the body may be empty");
        assert_eq!(grant["id"], id);

        let verdict = api.verify(token).await.ok();
        assert_eq!((&verdict["active"], &verdict["reason"]), (&json!(false), &json!("revoked")), "at once");
        let gate = replica.api.with_secret(token).get("/v1/forward_auth").await;
        assert_eq!(gate.status, 401, "at once");
        let body = [("token", token), ("client_id", &*owner.id), ("client_secret", &*owner.secret)];
        let introspected = replica.api.call(Method::POST, "/oauth/introspect").form(&body).send().await.ok();
        assert_eq!(introspected, json!({ "active": false }), "IN-4");
        api.post(&path, &json!({})).await.fails(400, "actor_token_cannot_be_revoked_code");
        let listed = api.get("/v1/actor_tokens?status=revoked").await.ok();
        assert_eq!(listed["actor_tokens"][0]["id"], id);

        api.post(&path, &json!({ "reasn": "x" })).await.fails(422, "form_param_unknown");
        api.post("/v1/actor_tokens/act_0/revoke", &json!({})).await.fails(404, "resource_not_found");
        assert_eq!(replica.recorded("revoke", "grant_unknown").await, 2, "every refusal is recorded");
        assert_eq!(replica.recorded("revoke", "grant_ended").await, 1);
        replica.stop().await;
    }

    async fn the_holder_of_a_token_stops_it_and_may_say_so_twice(site) {
        let owner = site.minter().await;
        let replica = site.replica().await;
        let api = owner.at(&replica);
        let minted = mint(&api).await;
        let token = text(&minted, "token");
        let holder = replica.api.with_secret(token);
        for _ in 0..2 {
            let grant = holder.call(Method::POST, "/v1/actor_tokens/stop").send().await.ok();
            assert_eq!((&grant["status"], &grant["id"]), (&json!("revoked"), &minted["id"]));
        }
        assert!(!is_active(&api, token).await);
        assert_eq!(replica.recorded("revoke", "stopped_by_holder").await, 1);
        let (head, tail) = token.split_at(token.len() - 10);
        let changed = format!("{head}{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);
        let stop = |api: &crate::support::contract::Client| api.call(Method::POST, "/v1/actor_tokens/stop");
        stop(&replica.api.with_secret(changed)).send().await.fails(401, "actor_token_invalid");
        stop(&replica.api.with_secret(&owner.secret)).send().await.fails(401, "actor_token_invalid");
        stop(&replica.api).send().await.fails(401, "authorization_header_missing");
        // contract.md §3: a token that carries `act` is no credential for anything else
        holder.post("/v1/revocations", &json!({ "all": true, "reason": "x" })).await.fails(401, "client_secret_invalid");
        replica.stop().await;
    }

    async fn oauth_revocation_answers_200_and_ends_own_tokens_only(site) {
        let (owner, stranger) = (site.minter().await, site.minter().await);
        let replica = site.replica().await;
        let api = owner.at(&replica);
        let minted = mint(&api).await;
        let token = text(&minted, "token").to_owned();
        let revoke = |by: &crate::site::Caller, token: &str| {
            let body = [("token", token), ("client_id", &*by.id), ("client_secret", &*by.secret)];
            replica.api.call(Method::POST, "/oauth/revoke").form(&body)
        };
        for (why, answer) in [
            ("garbage", revoke(&owner, "garbage").send().await),
            ("RV-2", revoke(&stranger, &token).send().await),
        ] {
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, ""), "RV-3: {why}");
        }
        assert!(is_active(&api, &token).await);
        for _ in 0..2 {
            assert_eq!(revoke(&owner, &token).send().await.text(), "", "RV-3");
        }
        assert!(!is_active(&api, &token).await, "RV-6");
        replica.stop().await;
    }

    async fn a_client_ends_its_own_grants_by_person_and_an_administrator_all(site) {
        let (a, b, admin) = (site.minter().await, site.minter().await, site.admin().await);
        let replica = site.replica().await;
        let (at_a, at_b, at_admin) = (a.at(&replica), b.at(&replica), admin.at(&replica));
        let (of_a, of_b) = (mint(&at_a).await, mint(&at_b).await);
        let other = at_a.mint(&body_for("admin_8", "user_43")).await.ok();
        let by_actor = json!({ "actor": { "sub": "admin_7" }, "reason": "Left the company" });
        let answer = at_a.post("/v1/revocations", &by_actor).await.ok();
        assert_eq!(answer["matched"], 1);
        assert!(!is_active(&at_a, text(&of_a, "token")).await);
        assert!(is_active(&at_b, text(&of_b, "token")).await, "another client's grant");
        assert_eq!(at_admin.post("/v1/revocations", &by_actor).await.ok()["matched"], 1);
        assert!(!is_active(&at_b, text(&of_b, "token")).await);
        let by_user = json!({ "user_id": "user_43", "reason": "Asked us to" });
        assert_eq!(at_admin.post("/v1/revocations", &by_user).await.ok()["matched"], 1);
        assert!(!is_active(&at_a, text(&other, "token")).await);

        for body in [
            json!({ "all": true, "reason": "x" }),
            json!({ "client_id": b.id, "reason": "x" }),
            json!({ "kid": "x", "reason": "x" }),
        ] {
            at_a.post("/v1/revocations", &body).await.fails(403, "scope_missing");
        }
        let wrong = [
            (json!({ "actor": { "sub": "a" } }), "form_param_missing"),
            (json!({ "reason": "x" }), "form_param_missing"),
            (json!({ "actor": { "sub": "a" }, "user_id": "b", "reason": "x" }), "form_param_value_invalid"),
            (json!({ "all": false, "reason": "x" }), "form_param_value_invalid"),
            (json!({ "all": true, "reason": "x", "hold_seconds": 0 }), "form_param_value_invalid"),
            (json!({ "all": true, "reason": "x", "hold_seconds": 2_592_001 }), "form_param_value_invalid"),
            (json!({ "kid": "x", "reason": "x", "hold_seconds": 5 }), "form_param_value_invalid"),
            (json!({ "kid": "unknown", "reason": "x" }), "form_param_value_invalid"),
            (json!({ "client_id": "client_unknown", "reason": "x" }), "form_param_value_invalid"),
            (json!({ "actor": { "sub": "a", "org": "b" }, "reason": "x" }), "form_param_unknown"),
            (json!({ "everything": true, "reason": "x" }), "form_param_unknown"),
        ];
        for (body, code) in wrong {
            at_admin.post("/v1/revocations", &body).await.fails(422, code);
        }
        replica.stop().await;
    }

    async fn the_red_button_ends_everything_and_the_next_mint_is_sound(site) {
        let (minter, admin) = (site.minter().await, site.admin().await);
        let replica = site.replica().await;
        let api = minter.at(&replica);
        let minted = [mint(&api).await, mint(&api).await];
        let answer = admin.at(&replica).post("/v1/revocations", &json!({ "all": true, "reason": "Drill" })).await.ok();
        assert_eq!(answer["matched"], 2);
        for grant in &minted {
            assert!(!is_active(&api, text(grant, "token")).await);
            let read = api.get(&format!("/v1/actor_tokens/{}", text(grant, "id"))).await.ok();
            assert_eq!(read["status"], "revoked");
        }
        // waits for the second after the cut-off by itself
        let next = mint(&api).await;
        let (old, new) = (claims(text(&minted[1], "token")), claims(text(&next, "token")));
        assert!(new["iat"].as_i64() > old["iat"].as_i64());
        let now = SystemClock::default().now().timestamp();
        assert!(new["iat"].as_i64().unwrap() <= now && new["nbf"] == new["iat"], "no iat or nbf in the future");
        assert!(is_active(&api, text(&next, "token")).await);
        until("rows say it too", || async {
            let listed = api.get("/v1/actor_tokens?status=revoked").await.ok();
            listed["actor_tokens"].as_array().unwrap().len() == 2
        })
        .await;
        replica.stop().await;
    }

    async fn the_last_of_the_space_is_for_administrators(site) {
        // SQLite watches the volume: see space.rs
        if !site.has_replicas() {
            return;
        }
        let (minter, admin) = (site.minter().await, site.admin().await);
        let replica = site.replica().await;
        let minted = mint(&minter.at(&replica)).await;
        replica.stop().await;
        let full = site.replica_with(|config| config.log_max_bytes = Some(100_000)).await;
        let api = minter.at(&full);
        api.post("/v1/actor_tokens", &body_for("admin_7", "user_42")).await.fails(503, "log_unavailable");
        let revoke = format!("/v1/actor_tokens/{}/revoke", text(&minted, "id"));
        api.post(&revoke, &json!({})).await.fails(503, "log_unavailable");
        let bulk = json!({ "user_id": "user_42", "reason": "Flood" });
        api.post("/v1/revocations", &bulk).await.fails(503, "log_unavailable");
        assert!(is_active(&api, text(&minted, "token")).await, "not recorded, so not done");
        admin.at(&full).post("/v1/revocations", &json!({ "all": true, "reason": "Drill" })).await.ok();
        assert!(!is_active(&api, text(&minted, "token")).await);
        full.stop().await;
    }

    async fn a_hold_refuses_new_mints_by_its_rule(site) {
        let (minter, admin) = (site.minter().await, site.admin().await);
        let replica = site.replica().await;
        let api = minter.at(&replica);
        let body = json!({ "user_id": "user_42", "reason": "Opted out", "hold_seconds": 60 });
        admin.at(&replica).post("/v1/revocations", &body).await.ok();
        let refused = api.mint(&body_for("admin_7", "user_42")).await;
        assert_eq!(refused.fails(403, "policy_denied").json()["errors"][0]["meta"]["rule"], "on_hold");
        let explained = api.post("/v1/policy/explain", &body_for("admin_7", "user_42")).await.ok();
        assert_eq!((&explained["decision"], &explained["rule"]), (&json!("denied"), &json!("on_hold")), "as a mint would be");
        let explained = api.post("/v1/policy/explain", &body_for("admin_7", "user_43")).await.ok();
        assert_eq!(explained["decision"], "granted");
        api.mint(&body_for("admin_7", "user_43")).await.ok();
        // a client's own hold holds that client alone
        let body = json!({ "actor": { "sub": "admin_7" }, "reason": "Away", "hold_seconds": 60 });
        api.post("/v1/revocations", &body).await.ok();
        api.mint(&body_for("admin_7", "user_43")).await.fails(403, "policy_denied");
        let other = site.minter().await;
        until("the client is known", || async {
            other.at(&replica).get("/v1/actor_tokens").await.status == 200
        })
        .await;
        other.at(&replica).mint(&body_for("admin_7", "user_43")).await.ok();
        replica.stop().await;
    }

    async fn a_refused_key_ends_what_it_signed_and_another_takes_over(site) {
        let (minter, admin) = (site.minter().await, site.admin().await);
        let replica = site.replica().await;
        let api = minter.at(&replica);
        let minted = mint(&api).await;
        let token = text(&minted, "token");
        let jwks = replica.api.get("/.well-known/jwks.json").await.ok();
        let kid = text(&jwks["keys"][0], "kid").to_owned();
        let body = json!({ "kid": kid, "reason": "Leaked" });
        assert_eq!(admin.at(&replica).post("/v1/revocations", &body).await.ok()["matched"], 1);
        assert!(!is_active(&api, token).await);
        let next = mint(&api).await;
        assert!(is_active(&api, text(&next, "token")).await, "the key that took over is known here at once");
        let feed = claims(&replica.api.get("/v1/revocations").await.text());
        assert_eq!(feed["kids"], json!([kid]));
        replica.stop().await;
    }

    async fn a_key_whose_revocation_was_cut_off_half_way_is_replaced(site) {
        let minter = site.minter().await;
        let replica = site.replica().await;
        let api = minter.at(&replica);
        mint(&api).await;
        let kid = text(&replica.api.get("/.well-known/jwks.json").await.ok()["keys"][0], "kid").to_owned();
        let selector = Selector::Kid(kid.parse().unwrap());
        let effects = vec![Effect::Revoke(Revoke { selector, of_client: None, hold: None })];
        let event = Event { decision: Some(Decision::Granted), ..Event::new(EventType::Revoke) };
        // the process that revoked it dies before it replaces the key
        replica.running.service.log.record(Record { effects, ..Record::of(event) }).await.unwrap();
        let mints = || async { api.mint(&body_for("admin_7", "user_42")).await.status == 200 };
        until_within(30, "another key signs", mints).await;
        replica.stop().await;
    }

    async fn a_disabled_client_has_no_tokens_left(site) {
        let (minter, verifier) = (site.minter().await, site.admin().await);
        let replica = site.replica().await;
        let minted = mint(&minter.at(&replica)).await;
        let at = verifier.at(&replica);
        assert!(is_active(&at, text(&minted, "token")).await);
        site.disable(&minter.id).await;
        until("its tokens are refused", || async { !is_active(&at, text(&minted, "token")).await }).await;
        let feed = claims(&replica.api.get("/v1/revocations").await.text());
        assert!(feed["clients"][&minter.id].is_i64());
        replica.stop().await;
    }
}

/// Other replicas hear of a revocation by notification; measured where it can be had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_replicas_refuse_within_a_second() {
    let Some(site) = crate::site::Site::postgres().await else { return };
    let minter = site.minter().await;
    let (one, two) = (site.replica().await, site.replica().await);
    let (at_one, at_two) = (minter.at(&one), minter.at(&two));
    for _ in 0..5 {
        let minted = mint(&at_one).await;
        let token = text(&minted, "token");
        assert!(is_active(&at_two, token).await);
        let path = format!("/v1/actor_tokens/{}/revoke", text(&minted, "id"));
        at_one.post(&path, &json!({})).await.ok();
        let clock = SystemClock::default();
        until("the other replica refuses", || async { !is_active(&at_two, token).await }).await;
        assert!(clock.monotonic().as_millis() < 1000, "the bound, not a figure");
    }
    one.stop().await;
    two.stop().await;
}
