//! Traces and metrics: continued, passed on, exported to the configured collector, and without a person in them.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use reqwest::Method;
use serde_json::Value;

use stagedoor::server::metrics::{Metrics, Observed, ObservedWebhook};

use crate::receiver::{Answer, Delivery, Receiver};
use crate::service::Place;
use crate::site::{POLICY, body_for, text, until};
use crate::support::contract::Client;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn of(receiver: &Receiver, path: &str) -> Vec<Delivery> {
    receiver.came().into_iter().filter(|d| d.path == path).collect()
}

fn spans(receiver: &Receiver) -> Vec<Span> {
    let requests = of(receiver, "/v1/traces");
    let requests = requests.iter().map(|d| ExportTraceServiceRequest::decode(&d.body[..]).unwrap());
    requests.flat_map(|r| r.resource_spans).flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect()
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|a| a.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Any::StringValue(text) => Some(text.clone()),
        Any::IntValue(n) => Some(n.to_string()),
        _ => None,
    }
}

/// A service whose policy has each ticket looked up, so that a mint makes a call.
fn place(receiver: &Receiver, more: &str) -> Place {
    let place = Place::new(&format!(
        "allow_http = true\nlog_level = \"debug\"\nlog_format = \"json\"\n{more}\n[ticket]\nurl = \"{}/ticket\"",
        receiver.base
    ));
    place.policy(&POLICY.replace("@scope", "@ticket_lookup\n@scope"));
    receiver.answers(&[Answer::Json(
        r#"{"exists":true,"open":true,"assigned_to_actor":true,"about_user":true}"#,
    )]);
    place
}

async fn mint(url: &str, secret: &str) -> Value {
    let mut body = body_for("admin_7", "user_42");
    body["ticket"] = "TICKET-4711".into();
    Client::new(url)
        .with_secret(secret)
        .call(Method::POST, "/v1/actor_tokens")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .header("tracestate", "somebody=user_42")
        .json(&body)
        .send()
        .await
        .ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mint_is_one_trace_at_the_collector_without_person_token_or_secret() {
    let receiver = Receiver::start().await;
    let otlp = format!(
        "[otlp]\nurl = \"{}\"\nauthorization = \"Bearer collector-key\"\ninterval_seconds = 1",
        receiver.base
    );
    let place = place(&receiver, &otlp);
    let secret = place.minter();
    let process = place.serve();
    let minted = mint(&process.url, &secret).await;
    let span = |name: &str| spans(&receiver).into_iter().find(|span| span.name == name);
    until("the trace is exported", || async { span("POST /v1/actor_tokens").is_some() }).await;
    until("metrics are exported", || async { !of(&receiver, "/v1/metrics").is_empty() }).await;

    let request = span("POST /v1/actor_tokens").unwrap();
    assert_eq!((hex(&request.trace_id).as_str(), hex(&request.parent_span_id).as_str()), (TRACE, PARENT));
    assert_eq!(request.kind, SpanKind::Server as i32);
    assert_eq!(attribute(&request, "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(attribute(&request, "http.route").as_deref(), Some("/v1/actor_tokens"));
    let of_trace: Vec<Span> = spans(&receiver).into_iter().filter(|s| hex(&s.trace_id) == TRACE).collect();
    let named = |name: &str| of_trace.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(named("decide").parent_span_id, request.span_id);
    assert_eq!(named("record").parent_span_id, request.span_id);
    let call = named("call");
    assert_eq!((call.kind, call.parent_span_id == named("decide").span_id), (SpanKind::Client as i32, true));
    assert_eq!(attribute(call, "server.address").as_deref(), Some("127.0.0.1"));

    let asked = &of(&receiver, "/ticket")[0];
    assert_eq!(asked.header("traceparent"), format!("00-{TRACE}-{}-01", hex(&request.span_id)));
    assert!(asked.headers.get("tracestate").is_none(), "what a stranger wrote is not handed on");
    process.stop();

    let (token, id) = (text(&minted, "token"), text(&minted, "id"));
    let exported = receiver.came().into_iter().filter(|d| d.path != "/ticket");
    for delivery in exported {
        assert_eq!(delivery.header("authorization"), "Bearer collector-key");
        assert_eq!(delivery.header("content-type"), "application/x-protobuf");
        let said = String::from_utf8_lossy(&delivery.body).into_owned();
        for hidden in
            ["user_42", "admin_7", "4711", "invoice", "127.0.0.1:", &secret, token, id, "collector-key"]
        {
            assert!(!said.contains(hidden), "{hidden} in {said}");
        }
    }
    let last = of(&receiver, "/v1/metrics").pop().expect("what is left is sent when it stops");
    let metrics = ExportMetricsServiceRequest::decode(&last.body[..]).unwrap();
    let resource = &metrics.resource_metrics[0];
    let service = resource.resource.as_ref().unwrap().attributes.iter().find(|a| a.key == "service.name");
    assert!(service.is_some());
    let names: Vec<&str> = resource.scope_metrics[0].metrics.iter().map(|m| m.name.as_str()).collect();
    for name in ["stagedoor_mints", "stagedoor_http_request_duration_seconds", "stagedoor_log_entries"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_collector_a_trace_goes_on_all_the_same() {
    let receiver = Receiver::start().await;
    let place = place(&receiver, "");
    let secret = place.minter();
    let process = place.serve();
    let minted = mint(&process.url, &secret).await;
    let asked = &of(&receiver, "/ticket")[0];
    let parent = asked.header("traceparent").to_owned();
    assert!(parent.starts_with(&format!("00-{TRACE}-")) && !parent.contains(PARENT), "{parent}");
    process.stop();
    assert_eq!(receiver.came().len(), 1, "nothing else left");

    let logged = place.logged();
    let lines: Vec<Value> = logged.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answered =
        |line: &&Value| line["message"] == "answered" && line["span"]["route"] == "/v1/actor_tokens";
    let line = lines.iter().find(answered).unwrap_or_else(|| panic!("a line in {logged}"));
    assert_eq!((&line["span"]["trace_id"], &line["span"]["status"]), (&TRACE.into(), &200.into()));
    assert_eq!(line["span"]["span_id"], parent.split('-').nth(2).unwrap());
    for hidden in ["user_42", "admin_7", "TICKET-4711", "invoice", &secret, text(&minted, "token")] {
        assert!(!logged.contains(hidden), "{hidden} in {logged}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_costs_a_line_and_nothing_else() {
    let receiver = Receiver::start().await;
    let place = place(&receiver, "[otlp]\nurl = \"http://127.0.0.1:9\"\ninterval_seconds = 1");
    let secret = place.minter();
    let process = place.serve();
    mint(&process.url, &secret).await;
    until("it is said", || async { place.logged().contains("telemetry was dropped") }).await;
    process.stop();
}

/// An alert without a runbook helps nobody at night, and one on a figure that is not there never fires.
#[test]
fn every_alert_has_a_runbook_and_a_figure_that_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let (alerts, runbooks) = (read("deploy/prometheus/alerts.yaml"), read("docs/operate.md"));
    let metrics = Metrics::default();
    metrics.request("GET", "/readyz", 200, std::time::Duration::ZERO);
    let hook =
        ObservedWebhook { name: "a".into(), backlog: 0, backlog_age_seconds: 0, delivered: 0, failed: 0 };
    let figures = metrics.render(&Observed {
        issuer_keys_age_seconds: vec![("https://idp.example".into(), None)],
        witness_refusals: vec![("w".into(), false)],
        webhooks: vec![hook],
        ..Observed::default()
    });
    for outcome in ["granted", "denied", "pending"] {
        let line = format!("stagedoor_mints_total{{outcome=\"{outcome}\"}} 0");
        assert!(figures.lines().any(|l| l == line), "{line} is there before the first: {figures}");
    }
    let alerts: Value = serde_saphyr::from_str(&alerts).unwrap();
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 10, "{}", rules.len());
    for rule in rules {
        let name = text(rule, "alert");
        assert!(runbooks.contains(&format!("\n### {name}\n")), "{name} has no runbook");
        let expr = text(rule, "expr");
        let words = expr.split(|c: char| !c.is_alphanumeric() && c != '_');
        for figure in words.filter(|word| word.starts_with("stagedoor_")) {
            assert!(figures.lines().any(|line| line.starts_with(figure)), "{figure} of {name}: {figures}");
        }
    }
}
