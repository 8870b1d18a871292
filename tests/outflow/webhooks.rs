//! Webhooks: at least once, in the order of the log, signed, only what is durable, and nothing that was erased.

use serde_json::{Value, json};
use stagedoor::server::log::erase::{ACTOR_RETENTION, Whom, erase};
use stagedoor::server::log::{CheckpointSigner, Log, LogOptions};
use stagedoor::token::{Clock as _, SystemClock, SystemEntropy};

use crate::receiver::{Answer, Delivery, Receiver};
use crate::service::Place;
use crate::site::{Replica, Site, body_for, mint, text, until};
use crate::support::contract::{CONTRACT, Client};
use crate::support::until_within;

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OLD_SECRET: &str = "whsec_HxwdHhwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgE=";

/// Settings with one webhook.
fn hook(receiver: &Receiver, more: &str) -> String {
    format!("allow_http = true\n{}", entry("hook", receiver, more))
}

fn entry(name: &str, receiver: &Receiver, more: &str) -> String {
    format!(
        "[[webhooks]]\nname = \"{name}\"\nurl = \"{}/{name}?from=stagedoor\"\nsecret = \"{SECRET}\"\n{more}\n",
        receiver.base
    )
}

/// Runs a test on both databases, each with a receiver of its own.
macro_rules! told {
    ($($(#[doc = $doc:expr])* async fn $name:ident($site:ident, $receiver:ident, $more:expr) $body:block)+) => {$(
        $(#[doc = $doc])*
        mod $name {
            use super::*;
            async fn run($site: Site, $receiver: Receiver) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let receiver = Receiver::start().await;
                run(Site::sqlite().await.with(&hook(&receiver, $more)), receiver).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                let receiver = Receiver::start().await;
                if let Some(site) = Site::postgres().await {
                    run(site.with(&hook(&receiver, $more)), receiver).await;
                }
            }
        }
    )+};
}

fn indexes(deliveries: &[Delivery]) -> Vec<i64> {
    deliveries.iter().map(|d| d.json()["data"]["index"].as_i64().unwrap()).collect()
}

/// The indexes of what a receiver of everything is told, by the log itself.
async fn told_by_the_log(replica: &Replica) -> Vec<i64> {
    let told = |entry: &Value| match entry["typ"].as_str().unwrap() {
        "issue" => entry["decision"] == "denied" || entry.get("signed_sha256").is_some(),
        "redeem" | "anomaly" => true,
        "revoke" => entry["decision"] == "granted",
        _ => false,
    };
    let entries = replica.entries().await;
    (0..).zip(&entries).filter(|(_, entry)| told(entry)).map(|(index, _)| index).collect()
}

/// What nobody in the project wrote says of an event: the schema of `CloudEvents` and the Standard Webhooks library.
fn foreign_checks(delivery: &Delivery) {
    let event = delivery.json();
    if let Some(dir) = crate::support::vectors() {
        let schema = std::fs::read(dir.join("schemas/cloudevents.schema.json")).unwrap();
        let schema: Value = serde_json::from_slice(&schema).unwrap();
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let faults: Vec<String> = validator.iter_errors(&event).map(|e| e.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?} in {event}");
    } else {
        crate::support::skip("the schema of CloudEvents", "the vectors are not at hand");
    }
    CONTRACT.check_component("WebhookEvent", &event).unwrap_or_else(|e| panic!("{e} in {event}"));
    for secret in [SECRET, OLD_SECRET] {
        let judge = standardwebhooks::Webhook::new(secret).unwrap();
        judge.verify(&delivery.body, &delivery.headers).unwrap();
        let mut forged = delivery.body.clone();
        forged[10] ^= 1;
        assert!(judge.verify(&forged, &delivery.headers).is_err());
    }
}

told! {
    async fn every_event_comes_once_in_the_order_of_the_log_signed_and_by_the_contract(
        site, receiver, &format!("previous_secret = \"{OLD_SECRET}\"")
    ) {
        let (minter, admin) = (site.minter().await, site.admin().await);
        let replica = site.replica().await;
        let api = minter.at(&replica);
        let first = mint(&api).await;
        api.mint(&json!({ "user_id": "admin_7", "actor": { "sub": "admin_7" }, "reason": "to myself" })).await.fails(403, "policy_denied");
        let second = mint(&api).await;
        let path = format!("/v1/actor_tokens/{}/revoke", text(&first, "id"));
        api.post(&path, &json!({ "reason": "done" })).await.ok();
        let everything = json!({ "user_id": "user_42", "reason": "leaves", "hold_seconds": 60 });
        admin.at(&replica).post("/v1/revocations", &everything).await.ok();
        api.mint(&body_for("admin_7", "user_42")).await.fails(403, "policy_denied");

        let taken = receiver.taken(6).await;
        let types: Vec<String> = taken.iter().map(|d| d.json()["type"].as_str().unwrap().to_owned()).collect();
        let want = ["grant.started", "grant.denied", "grant.started", "grant.ended", "grant.ended", "grant.denied"];
        assert_eq!(types, want);
        assert_eq!(indexes(&taken), told_by_the_log(&replica).await);
        assert_eq!(receiver.came().len(), 6, "nothing came twice");
        for delivery in &taken {
            foreign_checks(delivery);
            assert_eq!(delivery.path, "/hook?from=stagedoor");
            assert_eq!(delivery.header("content-type"), "application/cloudevents+json");
        }
        let event = taken[0].json();
        assert_eq!(event["subject"], first["id"]);
        let data = &event["data"];
        assert_eq!((&data["user_id"], &data["actor"]["sub"]), (&json!("user_42"), &json!("admin_7")));
        assert_eq!((&data["expires_at"], &data["break_glass"]), (&first["expires_at"], &json!(false)));
        assert!(data.get("reason").is_none(), "ids only, unless more is asked for: {data}");
        assert_eq!(taken[3].json()["data"]["grants"], json!([first["id"]]));
        let (end, by) = (taken[4].json(), "user");
        assert_eq!((&end["data"]["by"], &end["data"]["grants"]), (&json!(by), &json!([second["id"]])));
        assert_eq!(taken[5].json()["data"]["rule"], "on_hold");
        replica.stop().await;
    }

    async fn what_is_refused_is_sent_again_and_nothing_overtakes_it(site, receiver, "") {
        receiver.answers(&[Answer::Status(500), Answer::Status(302)]);
        let (minter, replica) = (site.minter().await, site.replica().await);
        for _ in 0..5 {
            mint(&minter.at(&replica)).await;
        }
        let taken = receiver.taken(5).await;
        assert_eq!(indexes(&taken), told_by_the_log(&replica).await);
        let came = receiver.came();
        assert_eq!(came.len(), 7, "two refusals, five events");
        let ids: Vec<&str> = came.iter().take(3).map(|d| d.header("webhook-id")).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "a receiver can tell that it is the same event: {ids:?}");
        let metrics = replica.api.get("/metrics").await.text();
        for line in [
            "stagedoor_webhook_deliveries_total{webhook=\"hook\",outcome=\"delivered\"} 5",
            "stagedoor_webhook_deliveries_total{webhook=\"hook\",outcome=\"failed\"} 2",
        ] {
            assert!(metrics.contains(line), "{line} in {metrics}");
        }
        until("the backlog is gone", || async {
            replica.api.get("/metrics").await.text().contains("stagedoor_webhook_backlog{webhook=\"hook\"} 0")
        }).await;
        replica.stop().await;
    }

    async fn a_receiver_that_takes_some_each_time_is_not_made_to_wait_longer_each_time(site, receiver, "") {
        // waits that double would be 63 seconds for six refusals
        let (no, yes) = (Answer::Status(429), Answer::Status(204));
        receiver.answers(&[no, yes, no, yes, no, yes, no, yes, no, yes, no, yes]);
        let (minter, replica) = (site.minter().await, site.replica().await);
        for _ in 0..6 {
            mint(&minter.at(&replica)).await;
        }
        until_within(25, "all are taken", || async {
            receiver.came().iter().filter(|delivery| delivery.taken()).count() == 6
        })
        .await;
        replica.stop().await;
    }

    async fn a_receiver_that_does_not_answer_holds_up_nobody(site, receiver, "") {
        receiver.always(Some(Answer::Held));
        let (minter, replica) = (site.minter().await, site.replica().await);
        mint(&minter.at(&replica)).await;
        receiver.asked(1).await;
        for _ in 0..20 {
            mint(&minter.at(&replica)).await;
        }
        assert!(receiver.came().iter().all(|d| d.answer == Answer::Held), "nothing was taken meanwhile");
        let metrics = replica.api.get("/metrics").await.text();
        assert!(metrics.contains("stagedoor_webhook_backlog_age_seconds{webhook=\"hook\"} "), "{metrics}");
        receiver.always(None);
        receiver.let_go();
        until("the rest is delivered", || async { receiver.came().len() > 20 }).await;
        let mut told = indexes(&receiver.came());
        told.dedup();
        assert_eq!(told, told_by_the_log(&replica).await);
        replica.stop().await;
    }

    async fn a_clean_stop_repeats_nothing_and_what_is_recorded_meanwhile_comes_later(site, receiver, "") {
        let (minter, replica) = (site.minter().await, site.replica().await);
        mint(&minter.at(&replica)).await;
        receiver.taken(1).await;
        receiver.always(Some(Answer::Status(503)));
        mint(&minter.at(&replica)).await;
        receiver.asked(2).await;
        replica.stop().await;
        receiver.always(None);
        let again = site.replica().await;
        mint(&minter.at(&again)).await;
        let taken = receiver.taken(3).await;
        assert_eq!(indexes(&taken), told_by_the_log(&again).await);
        again.stop().await;
    }

    async fn what_was_erased_is_delivered_without_the_person(site, receiver, "personal = \"all\"") {
        receiver.always(Some(Answer::Status(500)));
        let (minter, replica) = (site.minter().await, site.replica().await);
        let api = minter.at(&replica);
        api.mint(&body_for("admin_7", "user_forgetme")).await.ok();
        receiver.asked(1).await;
        let event = receiver.came()[0].json();
        assert_eq!(event["data"]["reason"], "Ticket 4711: invoice missing");
        assert_eq!((&event["data"]["user_id"], &event["data"]["address"]), (&json!("user_forgetme"), &json!("127.0.0.1")));
        replica.stop().await;

        erase_subject(&site, "user_forgetme").await;
        receiver.always(None);
        let again = site.replica().await;
        let taken = receiver.taken(1).await;
        let event = taken[0].json();
        assert_eq!(taken[0].header("webhook-id"), receiver.came()[0].header("webhook-id"));
        assert!(!event.to_string().contains("forgetme"), "{event}");
        assert!(event["data"].get("user_id").is_none() && event["data"].get("reason").is_none());
        assert_eq!(event["data"]["actor"]["sub"], "admin_7", "the actor's trail stays");
        again.stop().await;
    }

    async fn whoever_breaks_the_glass_is_told_of(site, receiver, "personal = \"none\"") {
        let (minter, replica) = (site.minter().await, site.replica().await);
        site.policy(&crate::site::POLICY.replace("@scope", "@break_glass\n@scope"), &replica).await;
        mint(&minter.at(&replica)).await;
        let event = receiver.taken(1).await[0].json();
        assert_eq!((&event["type"], &event["data"]["break_glass"]), (&json!("grant.started"), &json!(true)));
        assert!(event["data"].get("user_id").is_none() && event["data"].get("actor").is_none(), "{event}");
        replica.stop().await;
    }
}

#[test]
fn the_contract_shows_events_as_they_are() {
    let contract = serde_saphyr::from_str::<Value>(include_str!("../../openapi.yaml")).unwrap();
    let body = &contract["webhooks"]["event"]["post"]["requestBody"];
    let examples = &body["content"]["application/cloudevents+json"]["examples"];
    for example in examples.as_object().unwrap().values() {
        CONTRACT.check_component("WebhookEvent", &example["value"]).unwrap_or_else(|e| panic!("{e}"));
    }
}

async fn erase_subject(site: &Site, subject: &str) {
    let db = stagedoor::server::store::Db::connect(site.owner_url()).await.unwrap();
    let epoch = stagedoor::server::log::current_epoch(&db).await.unwrap();
    let clock = std::sync::Arc::new(SystemClock::default());
    let keyring = stagedoor::server::keyring::Keyring::load(&db, &site.master, clock.clone()).await.unwrap();
    let signer = CheckpointSigner::from_seed(&keyring.log_seed().unwrap(), "stagedoor.test", epoch).unwrap();
    let entropy = std::sync::Arc::new(SystemEntropy);
    let log = Log::open(db.clone(), signer, clock.clone(), entropy, LogOptions::default()).await.unwrap();
    let whom = Whom::Subject(subject.parse().unwrap());
    let erased = erase(&log, &whom, clock.now(), ACTOR_RETENTION).await.unwrap();
    assert_eq!(erased.entries, 1);
    log.close().await;
    db.close().await;
}

/// Glass that nobody hears breaking stays whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_anybody_to_tell_nobody_breaks_the_glass() {
    let receiver = Receiver::start().await;
    let site = Site::sqlite().await.with(&hook(&receiver, "events = [\"grant.denied\"]"));
    let (minter, replica) = (site.minter().await, site.replica().await);
    mint(&minter.at(&replica)).await;
    site.policy(&crate::site::POLICY.replace("@scope", "@break_glass\n@scope"), &replica).await;
    let reply = minter.at(&replica).mint(&body_for("admin_7", "user_42")).await;
    reply.fails(403, "policy_denied");
    assert!(reply.text().contains("no webhook takes grant.started"), "{reply:?}");
    let explained =
        minter.at(&replica).post("/v1/policy/explain", &body_for("admin_7", "user_42")).await.ok();
    assert_eq!(
        (&explained["decision"], &explained["rule"]),
        (&json!("denied"), &json!("break_glass_untold"))
    );
    let event = receiver.taken(1).await[0].json();
    assert_eq!(event["data"]["rule"], "break_glass_untold");
    assert_eq!(receiver.came().len(), 1, "grant.started was not asked for");
    replica.stop().await;
}

/// Nothing is told that is not durable: what failed to be recorded is never heard of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_recorded_is_never_told() {
    let receiver = Receiver::start().await;
    let Some(site) = Site::postgres().await else { return };
    let site = site.with(&hook(&receiver, ""));
    let (minter, replica) = (site.minter().await, site.replica().await);
    let api = minter.at(&replica);
    mint(&api).await;
    site.cut_off(true).await;
    for _ in 0..3 {
        api.mint(&body_for("admin_7", "user_42")).await.fails(503, "log_unavailable");
    }
    site.cut_off(false).await;
    until("it records again", || async { api.mint(&body_for("admin_7", "user_42")).await.status == 200 })
        .await;
    let last = *told_by_the_log(&replica).await.last().unwrap();
    until("the last one is told", || async { indexes(&receiver.came()).contains(&last) }).await;
    let mut told = indexes(&receiver.came());
    told.dedup();
    assert_eq!(told, told_by_the_log(&replica).await);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_replicas_one_delivers_and_the_other_takes_over() {
    let receiver = Receiver::start().await;
    let Some(site) = Site::postgres().await else { return };
    let site = site.with(&hook(&receiver, ""));
    let minter = site.minter().await;
    let (one, other) = (site.replica().await, site.replica().await);
    for _ in 0..15 {
        mint(&minter.at(&one)).await;
        mint(&minter.at(&other)).await;
    }
    let taken = receiver.taken(30).await;
    assert_eq!(indexes(&taken), told_by_the_log(&one).await, "each once, in order");
    one.stop().await;
    mint(&minter.at(&other)).await;
    let taken = receiver.taken(31).await;
    assert_eq!(indexes(&taken), told_by_the_log(&other).await);
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_did_not_deliver_comes_after_the_restart() {
    let receiver = Receiver::start().await;
    let place = Place::new(&hook(&receiver, ""));
    let secret = place.minter();
    let process = place.serve();
    let api = Client::new(process.url.clone()).with_secret(&secret);
    mint(&api).await;
    receiver.taken(1).await;
    receiver.always(Some(Answer::Status(500)));
    for _ in 0..3 {
        mint(&api).await;
    }
    receiver.asked(2).await;
    drop(process);
    receiver.always(None);
    let process = place.serve();
    mint(&Client::new(process.url.clone()).with_secret(&secret)).await;
    let taken = receiver.taken(5).await;
    let mut told = indexes(&taken);
    told.dedup();
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(told.is_sorted(), "{told:?}");
}
