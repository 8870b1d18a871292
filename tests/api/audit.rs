//! GET `/v1/audit/…`: every attempt stands in the log, people only for those who may see them, a token never.

use serde_json::{Value, json};

use crate::support::app::{NewClient, TestApp, mint_body};

/// The newest entries of `query`, as an auditor who may see people reads them.
async fn entries(api: &crate::support::contract::Client, query: &str) -> Vec<Value> {
    let page = api.get(&format!("/v1/audit/entries?{query}")).await.ok();
    page["entries"].as_array().expect("a list").clone()
}

on_both_databases! {
    async fn a_granted_attempt_is_recorded_with_its_receipt(app: TestApp) {
        let (client, auditor) = (app.minter().await, app.auditor().await);
        let minted = client.api.mint(&mint_body()).await.ok();
        let entry = entries(&auditor.api, "typ=issue").await.remove(0);
        assert_eq!(entry["index"], minted["audit"]["index"]);
        let body = &entry["body"];
        assert_eq!((&body["decision"], &body["client"]), (&json!("granted"), &json!(client.id)));
        assert_eq!(body["ttl"], 600);
        assert_eq!(entry["personal"]["sub"], "user_42");
        assert_eq!(entry["personal"]["act"]["sub"], "admin_7");
        assert_eq!(entry["personal"]["reason"], mint_body()["reason"]);
        let proof = minted["audit"]["proof"].as_str().unwrap();
        assert!(proof.contains(&format!("\nindex {}\n", minted["audit"]["index"])), "{proof}");
    }

    /// House.md §4 (29): a denied request is recorded and gets 403, and so is every other outcome but a 200.
    async fn every_outcome_after_a_parsed_body_is_recorded(app: TestApp) {
        let auditor = app.auditor().await;
        let client = app.client(NewClient { may_assert: &["*"], ..NewClient::minter() }).await;
        let unable = app.client(NewClient { scopes: &["actor_tokens:issue"], ..NewClient::minter() }).await;
        let mut myself = mint_body();
        myself["actor"] = json!({ "sub": "user_42" });
        let mut foreign = mint_body();
        foreign["audience"] = json!("https://not.mine.example");
        for (api, body, status) in [(&client.api, &myself, 403), (&client.api, &foreign, 403), (&unable.api, &mint_body(), 403)] {
            let reply = api.mint(body).await;
            assert_eq!(reply.status.as_u16(), status);
            let entry = entries(&auditor.api, "decision=denied&typ=issue&limit=1").await.remove(0);
            assert_eq!(entry["body"]["req"], reply.json()["trace_id"], "the entry is this very request");
            assert_eq!(entry["body"]["rule"], reply.json()["errors"][0]["meta"]["rule"], "and names the same rule");
            assert_eq!(entry["personal"]["sub"], "user_42");
            assert!(entry["body"].get("jti").is_none() && entry["body"].get("signed_sha256").is_none(), "no token was");
        }
        // JSON, and no attempt
        for (name, value, code) in [
            ("user_id", json!(""), "form_param_value_invalid"), ("user_id", Value::Null, "form_param_missing"), ("expires_in_seconds", json!(0), "form_param_value_invalid"),
            ("delivery", json!("mail"), "form_param_value_invalid"), ("audience", json!([]), "form_param_value_invalid"), ("usr_id", json!("x"), "form_param_unknown"),
        ] {
            let mut body = mint_body();
            body[name] = value;
            if body[name].is_null() { body.as_object_mut().unwrap().remove(name); }
            let reply = client.api.mint(&body).await;
            let trace = reply.json()["trace_id"].clone();
            reply.fails(422, code);
            let entry = entries(&auditor.api, "decision=denied&typ=issue&limit=1").await.remove(0);
            assert_eq!((&entry["body"]["req"], &entry["body"]["rule"], &entry["body"]["client"]), (&trace, &json!(code), &json!(client.id)), "{name}");
        }
    }

    async fn noise_is_counted_in_sums_and_not_an_entry_each(app: TestApp) {
        let (client, auditor) = (app.minter().await, app.auditor().await);
        let size = |api: crate::support::contract::Client| async move { entries(&api, "typ=issue&limit=500").await.len() };
        let before = size(auditor.api.clone()).await;
        let bad = app.api.with_secret("sk_test_0000000000000000000000000000000000000000");
        for _ in 0..20 {
            bad.mint(&mint_body()).await.fails(401, "client_secret_invalid");
            client.api.call(reqwest::Method::POST, "/v1/actor_tokens").bytes("[").send().await.fails(400, "request_body_invalid");
        }
        assert_eq!(size(auditor.api.clone()).await, before, "none of them is an entry of its own");
        let sums: Vec<Value> = app.stop_and_read_the_log().await.into_iter().filter(|b| b["typ"] == "suppressed").collect();
        let total: u64 = sums.iter().flat_map(|b| b["detail"].as_object().into_iter().flatten()).filter_map(|(_, n)| n.as_u64()).sum();
        assert!(total >= 40, "forty refusals are in the sums by the time the service has stopped: {sums:?}");
    }

    async fn people_are_shown_only_to_those_who_may_see_them(app: TestApp) {
        let client = app.minter().await;
        client.api.mint(&mint_body()).await.ok();
        let plain = app.client(NewClient { scopes: &["audit:read"], ..NewClient::minter() }).await;
        let reply = plain.api.get("/v1/audit/entries").await;
        for secret in ["user_42", "admin_7", mint_body()["reason"].as_str().unwrap()] {
            assert!(!reply.text().contains(secret), "{secret} is shown to a client without audit:read_personal");
        }
        assert!(reply.json()["entries"].as_array().unwrap().iter().all(|e| e.get("personal").is_none()));
        for filter in ["user_id=user_42", "actor=admin_7"] {
            plain.api.get(&format!("/v1/audit/entries?{filter}")).await.fails(403, "scope_missing");
        }
    }

    async fn looking_at_people_is_itself_recorded(app: TestApp) {
        let (client, auditor) = (app.minter().await, app.auditor().await);
        client.api.mint(&mint_body()).await.ok();
        entries(&auditor.api, "typ=issue").await;
        let views = entries(&auditor.api, "typ=view").await;
        assert_eq!(views[0]["body"]["client"], auditor.id.as_str());
    }

    /// Who needs nobody's name leaves no trace of having read one; a filter on a person is a look all the same.
    async fn an_auditor_may_look_without_seeing_people(app: TestApp) {
        let (client, auditor) = (app.minter().await, app.auditor().await);
        client.api.mint(&mint_body()).await.ok();
        let looked = entries(&auditor.api, "typ=issue&personal=false").await;
        assert!(looked[0].get("personal").is_none() && looked[0].get("disclosures").is_none(), "{looked:?}");
        assert_eq!(entries(&auditor.api, "typ=view&personal=false").await.len(), 0, "nobody was seen");
        let filtered = entries(&auditor.api, "user_id=user_42&personal=false").await;
        assert!(filtered[0].get("personal").is_none() && filtered[0].get("disclosures").is_none(), "{filtered:?}");
        assert_eq!(entries(&auditor.api, "typ=view&personal=false").await.len(), 1, "what concerns somebody was told");
        auditor.api.get("/v1/audit/entries?personal=no").await.fails(400, "query_invalid");
    }

    async fn the_view_of_a_grant_may_leave_people_out(app: TestApp) {
        let (client, auditor) = (app.minter().await, app.auditor().await);
        let path = format!("/v1/audit/grants/{}", client.api.mint(&mint_body()).await.ok()["id"].as_str().unwrap());
        let seen = auditor.api.get(&format!("{path}?personal=false")).await;
        assert!(!seen.text().contains("user_42") && !seen.text().contains("admin_7"), "{seen:#?}");
        assert_eq!(entries(&auditor.api, "typ=view&personal=false").await.len(), 0, "nobody was seen");
        assert_eq!(auditor.api.get(&format!("{path}?personal=true")).await.ok()["grant"]["user_id"], "user_42");
        auditor.api.get(&format!("{path}?persnal=false")).await.fails(400, "query_invalid");
    }

    /// Each page that shows people makes an entry; one that makes an entry of nothing would never be the last.
    async fn whoever_follows_the_log_comes_to_its_end(app: TestApp) {
        let (client, auditor, other) = (app.minter().await, app.auditor().await, app.auditor().await);
        for _ in 0..3 {
            client.api.mint(&mint_body()).await.ok();
        }
        let follow = async |reader: &crate::support::contract::Client, mut from: u64| {
            for _ in 0..20 {
                let call = reader.call(reqwest::Method::GET, &format!("/v1/audit/entries?from={from}&limit=10"));
                let page = call.header("accept", "application/x-ndjson").send().await.text();
                if page.is_empty() {
                    return from;
                }
                from += u64::try_from(page.lines().count()).unwrap();
            }
            panic!("the log has no end");
        };
        let views = async || entries(&auditor.api, "typ=view&personal=false").await.len();
        let (one, two) = (follow(&auditor.api, 0).await, follow(&other.api, 0).await);
        let looked = views().await;
        assert!(looked >= 2, "people were seen");
        follow(&auditor.api, one).await;
        follow(&other.api, two).await;
        assert_eq!(views().await, looked, "of nobody but programs that read");
        client.api.mint(&mint_body()).await.ok();
        follow(&auditor.api, one).await;
        assert_eq!(views().await, looked + 1);
    }

    async fn what_accept_weighs_more_is_answered(app: TestApp) {
        let plain = app.client(NewClient { scopes: &["audit:read"], ..NewClient::minter() }).await;
        for (accept, media) in [
            ("application/x-ndjson;q=0", "application/json"),
            ("application/x-ndjson;q=0.5, application/json", "application/json"),
            ("application/x-ndjson, application/json", "application/json"),
            ("application/x-ndjson, application/json;q=0.5", "application/x-ndjson"),
            ("application/x-ndjson, */*", "application/x-ndjson"),
        ] {
            let reply = plain.api.call(reqwest::Method::GET, "/v1/audit/entries").header("accept", accept).send().await;
            assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, Some(media)), "{accept}");
        }
    }

    async fn no_entry_holds_a_token_or_a_secret(app: TestApp) {
        let (client, auditor) = (app.minter().await, app.auditor().await);
        let token = client.api.mint(&mint_body()).await.ok()["token"].as_str().unwrap().to_owned();
        let reply = auditor.api.get("/v1/audit/entries?limit=500").await;
        for part in token.split('.').chain([client.secret.as_str(), auditor.secret.as_str()]) {
            assert!(!reply.text().contains(part), "a part of a credential stands in the log");
        }
    }

    async fn filters_narrow_and_pages_join(app: TestApp) {
        let client = app.client(NewClient { may_assert: &["*"], ..NewClient::minter() }).await;
        let auditor = app.auditor().await;
        for actor in ["admin_7", "admin_8", "user_42", "admin_7"] {
            let mut body = mint_body();
            body["actor"] = json!({ "sub": actor });
            body["ticket"] = json!("4711");
            client.api.mint(&body).await;
        }
        for (query, count) in [
            ("actor=admin_7", 2), ("actor=admin_8", 1), ("decision=denied&typ=issue", 1), ("decision=granted&typ=issue", 3),
            ("ticket=4711", 4), ("ticket=4712", 0), ("rule=test-read&typ=issue", 3), ("rule=nobody", 0),
            ("user_id=user_42", 4), ("user_id=user_42&actor=admin_8", 1), ("since=2099-01-01T00:00:00Z", 0), ("until=0", 0),
        ] {
            assert_eq!(entries(&auditor.api, query).await.len(), count, "{query}");
        }
        assert_eq!(entries(&auditor.api, &format!("client={}&typ=issue", client.id)).await.len(), 4);
        let page = auditor.api.get("/v1/audit/entries?user_id=user_42&limit=3").await.ok();
        let cursor = page["next_cursor"].as_str().expect("there is one more");
        let rest = auditor.api.get(&format!("/v1/audit/entries?user_id=user_42&limit=3&cursor={cursor}")).await.ok();
        assert_eq!((rest["entries"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));
        // issue 3, bad input: a cursor of another query, and texts that are none
        let unfit = ["cursor=AAAA", "cursor=!", "typ=ISSUE", "typ=", "user_id=%FF", "user_id=%zz", "user_id=%", "user=x"];
        for bad in [&format!("user_id=user_43&cursor={cursor}"), &format!("cursor={cursor}")].into_iter().map(String::as_str).chain(unfit) {
            auditor.api.get(&format!("/v1/audit/entries?{bad}")).await.fails(400, "query_invalid");
        }
    }

    async fn ndjson_ascends_without_a_gap(app: TestApp) {
        let (client, auditor) = (app.minter().await, app.auditor().await);
        for _ in 0..4 {
            client.api.mint(&mint_body()).await.ok();
        }
        let plain = app.client(NewClient { scopes: &["audit:read"], ..NewClient::minter() }).await;
        for (api, from) in [(&plain.api, 0_u64), (&plain.api, 2), (&auditor.api, 1)] {
            let call = api.call(reqwest::Method::GET, &format!("/v1/audit/entries?from={from}&limit=3"));
            let reply = call.header("accept", "application/x-ndjson").send().await;
            assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
            let indexes: Vec<u64> = reply.text().lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["index"].as_u64().unwrap()).collect();
            assert_eq!(indexes, (from..from + 3).collect::<Vec<_>>());
        }
    }

    async fn the_checkpoint_covers_what_was_answered(app: TestApp) {
        let client = app.minter().await;
        let index = client.api.mint(&mint_body()).await.ok()["audit"]["index"].as_u64().unwrap();
        let note = app.api.get("/v1/audit/log/checkpoint").await.text();
        let size: u64 = note.lines().nth(1).unwrap().parse().unwrap();
        assert!(size > index, "{note}");
        let vkey = app.api.get("/v1/audit/log/vkey").await.text();
        let name = vkey.split('+').next().unwrap();
        assert_eq!(note.lines().next().unwrap(), name, "the key is the log's own");
        assert!(note.contains(&format!("— {name} ")), "signed by it");
    }

    /// Issue 3 §6: one view per grant, and a use sampled once a minute however often the token is shown.
    async fn the_life_of_a_grant_is_one_view(app: TestApp) {
        let scopes = &["actor_tokens:issue", "actor_tokens:assert_actor", "actor_tokens:revoke", "tokens:verify"];
        let client = app.client(NewClient { scopes, ..NewClient::minter() }).await;
        let auditor = app.auditor().await;
        let steps = async |id: &Value| {
            let seen = auditor.api.get(&format!("/v1/audit/grants/{}", id.as_str().unwrap())).await.ok();
            assert_eq!((&seen["grant"]["id"], &seen["grant"]["user_id"]), (id, &json!("user_42")));
            seen["steps"].as_array().unwrap().clone()
        };
        let names = |steps: &[Value]| steps.iter().map(|s| s["step"].as_str().unwrap().to_owned()).collect::<Vec<_>>();

        let minted = client.api.mint(&mint_body()).await.ok();
        let token = minted["token"].as_str().unwrap();
        for _ in 0..3 {
            assert_eq!(client.api.verify(token).await.ok()["active"], true);
        }
        let as_client = [("token", token), ("client_id", &client.id), ("client_secret", &client.secret)];
        let introspect = app.api.call(reqwest::Method::POST, "/oauth/introspect").form(&as_client);
        assert_eq!(introspect.send().await.ok()["active"], true);
        let gate = app.api.with_secret(token).get("/v1/forward_auth").await;
        assert_eq!(gate.status.as_u16(), 200);
        let until = async |id: &Value, last: &str| {
            let came = async {
                while names(&steps(id).await).last().map(String::as_str) != Some(last) {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(20), came).await.expect(last);
        };
        until(&minted["id"], "used").await;
        let reply = client.api.post("/v1/revocations", &json!({ "actor": { "sub": "admin_7" }, "reason": "Left the company" })).await;
        let revocation = reply.ok();
        let all = steps(&minted["id"]).await;
        assert_eq!(names(&all), ["issued", "used", "stopped"], "five uses are one sample");
        assert_eq!(all[1]["entry"]["body"]["detail"]["by"], "verify");
        assert_eq!(all[1]["entry"]["body"]["client"], client.id.as_str());
        assert_eq!(all[2]["entry"]["index"], revocation["audit"]["index"], "the entry that names no single grant");

        let mut by_code = mint_body();
        by_code["delivery"] = json!("code");
        by_code["expires_in_seconds"] = json!(5);
        by_code["actor"] = json!({ "sub": "admin_8" });
        let handed = client.api.mint(&by_code).await.ok();
        assert_eq!(names(&steps(&handed["id"]).await), ["asked"]);
        client.api.post("/v1/actor_tokens/redeem", &json!({ "code": handed["code"] })).await.ok();
        assert_eq!(names(&steps(&handed["id"]).await), ["asked", "redeemed"]);
        until(&handed["id"], "expired").await;
        assert_eq!(names(&steps(&handed["id"]).await), ["asked", "redeemed", "expired"]);

        let plain = app.client(NewClient { scopes: &["audit:read"], ..NewClient::minter() }).await;
        let seen = plain.api.get(&format!("/v1/audit/grants/{}", minted["id"].as_str().unwrap())).await;
        assert!(!seen.text().contains("user_42") && !seen.text().contains("admin_7"), "people need audit:read_personal");
        plain.api.get("/v1/audit/grants/act_00000000000000000000000000").await.fails(404, "resource_not_found");
        client.api.get(&format!("/v1/audit/grants/{}", minted["id"].as_str().unwrap())).await.fails(403, "scope_missing");
    }
}
