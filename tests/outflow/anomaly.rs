//! One actor, many targets: an entry, an event, a figure, and by the policy's word a refusal.

use serde_json::json;

use crate::receiver::Receiver;
use crate::site::{POLICY, body_for, mint, on_both, text, until};

const SETTINGS: &str = "[anomaly]\nmax_targets = 3\nwindow_seconds = 600";

on_both! {
    async fn an_actor_with_many_targets_is_named_once_and_others_are_not(site) {
        let receiver = Receiver::start().await;
        let hook = format!(
            "allow_http = true\n{SETTINGS}\n[[webhooks]]\nname = \"siem\"\nurl = \"{}\"\nevents = [\"anomaly.raised\"]\n\
             secret = \"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n",
            receiver.base
        );
        let site = site.with(&hook);
        let (minter, replica) = (site.minter().await, site.replica().await);
        let api = minter.at(&replica);
        for user in ["user_1", "user_2", "user_3", "user_1", "user_2"] {
            api.mint(&body_for("admin_7", user)).await.ok();
            api.mint(&body_for("admin_8", "user_1")).await.ok();
        }
        assert_eq!(replica.recorded("anomaly", "many_targets").await, 0, "three are as many as may be");
        for user in ["user_4", "user_5", "user_6"] {
            api.mint(&body_for("admin_7", user)).await.ok();
        }
        let event = receiver.taken(1).await[0].json();
        assert_eq!((&event["type"], &event["data"]["rule"]), (&json!("anomaly.raised"), &json!("many_targets")));
        assert_eq!((&event["data"]["actor"]["sub"], &event["data"]["window_seconds"]), (&json!("admin_7"), &json!(600)));
        assert!(event["data"]["targets"].as_u64().unwrap() > 3, "{event}");
        crate::support::contract::CONTRACT.check_component("WebhookEvent", &event).unwrap();
        let metrics = replica.api.get("/metrics").await.text();
        assert!(metrics.contains("stagedoor_anomalies_total 1"), "{metrics}");

        // another process knows from the log that he was named
        let other = site.replica().await;
        for user in ["user_7", "user_8", "user_9"] {
            minter.at(&other).mint(&body_for("admin_7", user)).await.ok();
        }
        for user in ["user_1", "user_2", "user_3", "user_4"] {
            minter.at(&other).mint(&body_for("admin_9", user)).await.ok();
        }
        let second = receiver.taken(2).await[1].json();
        assert_eq!(second["data"]["actor"]["sub"], "admin_9", "once a window");
        assert_eq!(replica.recorded("anomaly", "many_targets").await, 2);
        replica.stop().await;
        other.stop().await;
    }

    async fn by_the_policys_word_he_is_refused(site) {
        let site = site.with(SETTINGS);
        let (minter, replica) = (site.minter().await, site.replica().await);
        let limited = POLICY.replace("@scope", "@max_targets_per_hour(\"5\")\n@scope");
        site.policy(&limited, &replica).await;
        let api = minter.at(&replica);
        for user in ["user_1", "user_2", "user_3", "user_4", "user_5"] {
            api.mint(&body_for("admin_7", user)).await.ok();
        }
        let refused = api.mint(&body_for("admin_7", "user_6")).await;
        refused.fails(403, "policy_denied");
        api.mint(&body_for("admin_7", "user_5")).await.ok();
        until("he is named", || async { replica.recorded("anomaly", "many_targets").await == 1 }).await;
        replica.stop().await;
    }

    async fn nobody_is_named_where_the_rule_is_off(site) {
        let site = site.with("[anomaly]\nmax_targets = 0");
        let (minter, replica) = (site.minter().await, site.replica().await);
        for user in 0..40 {
            minter.at(&replica).mint(&body_for("admin_7", &format!("user_{user}"))).await.ok();
        }
        let last = mint(&minter.at(&replica)).await;
        assert!(text(&last, "id").starts_with("act_"));
        assert_eq!(replica.recorded("anomaly", "many_targets").await, 0);
        replica.stop().await;
    }
}
