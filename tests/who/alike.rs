//! Whoever explains, mints, redeems or verifies asks the same question: what one grants, the others grant.

use serde_json::{Value, json};

use crate::company::{POLICY, Replica, on_both, text, until};

const REASON: &str = "Ticket 4711: the address is wrong";

fn with(mut body: Value, member: &str, value: Value) -> Value {
    body[member] = value;
    body
}

async fn explained(api: &crate::support::contract::Client, body: &Value) -> Value {
    api.post("/v1/policy/explain", body).await.ok()["decision"].clone()
}

on_both! {
    async fn how_it_is_handed_over_is_known_wherever_the_policy_is_asked(company) {
        let tool = company.tool().await;
        let replica: Replica = company.replica().await;
        let api = tool.at(&replica);
        let token = json!({ "user_id": "user_42", "actor_token": company.login("agent_1"), "reason": REASON });
        let code = with(token.clone(), "delivery", json!("code"));
        for (forbidden, refused, granted) in [("token", &token, &code), ("code", &code, &token)] {
            let rule = format!("{POLICY}\n@id(\"how\")\nforbid (principal, action, resource) when {{ context.delivery == \"{forbidden}\" }};");
            company.policy(&rule, &[&replica]).await;
            assert_eq!(explained(&api, refused).await, "denied", "{forbidden}");
            api.mint(refused).await.fails(403, "policy_denied");
            assert_eq!(explained(&api, granted).await, "granted", "{forbidden}");
            let minted = api.mint(granted).await.ok();
            if forbidden == "token" {
                api.post("/v1/actor_tokens/redeem", &json!({ "code": minted["code"] })).await.ok();
            }
        }
        replica.stop().await;
    }

    async fn explain_counts_targets_as_a_mint_does(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let api = tool.at(&replica);
        let few = POLICY.replace("@id(\"look\")", "@id(\"look\")\n@max_targets_per_hour(\"1\")");
        company.policy(&few, &[&replica]).await;
        let on = |user: &str| json!({ "user_id": user, "actor_token": company.login("agent_1"), "reason": REASON });
        api.mint(&on("user_42")).await.ok();
        assert_eq!(explained(&api, &on("user_42")).await, "granted", "the same again");
        assert_eq!(explained(&api, &on("user_43")).await, "denied");
        api.mint(&on("user_43")).await.fails(403, "policy_denied");
        replica.stop().await;
    }

    async fn explain_sees_a_file_that_was_changed(company) {
        let tool = company.tool().await;
        let replica = company.replica().await;
        let api = tool.at(&replica);
        let body = json!({ "user_id": "user_42", "actor_token": company.login("agent_1"), "reason": REASON });
        assert_eq!(explained(&api, &body).await, "granted");
        company.write("user_42", json!({ "active": false }));
        // nobody else asks: the file is looked at once a second
        until("the change is seen", || async { explained(&api, &body).await == "denied" }).await;
        replica.stop().await;
    }

    async fn an_approved_grant_stands_though_the_asker_signed_in_again(company) {
        let mut company = company;
        company.config.policy_on_verify = true;
        let tool = company.tool().await;
        let replica = company.replica().await;
        let api = tool.at(&replica);
        let fresh = POLICY.replace("@id(\"change\")", "@id(\"change\")\n@max_login_age(\"60\")");
        company.policy(&fresh, &[&replica]).await;
        let login = || company.token_of(crate::company::LOGIN, "agent_1", json!({ "auth_time": company.clock.now_seconds() - 5 }));
        let body = || json!({ "user_id": "user_42", "actor_token": login(), "reason": REASON, "scope": "write" });
        let asked = api.mint(&body()).await.json();
        replica.approve(&company.login("agent_2"), text(&asked, "id"), &json!({})).await.ok();
        company.clock.on(90);
        until("revocations are known anew", || async { api.get("/readyz").await.status == 200 }).await;
        let token = text(&api.mint(&with(body(), "approval", asked["id"].clone())).await.ok(), "token").to_owned();
        until("revocations are known anew", || async { api.verify(&token).await.ok()["active"] == true }).await;
        replica.stop().await;
    }
}
