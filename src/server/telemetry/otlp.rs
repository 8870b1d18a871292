//! OTLP: spans and metrics leave for the configured collector, over the one outbound client, and to nowhere else.
//!
//! Spans are let out by a list of what they may say: whatever else stands on one stays here.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
};
use opentelemetry::trace::{TraceState, TracerProvider as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter, SpanLimits,
};
use prost::Message as _;
use tokio::sync::mpsc;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use super::openmetrics::{self, Times};
use super::trace::TraceContext;
use crate::server::config::{OtlpConfig, Secret};
use crate::server::outbound::{Call, Outbound, OutboundError};
use crate::token::Clock;

/// Batches that may wait for the collector; one more is dropped.
const WAITING: usize = 16;
/// How long spans gather.
const GATHER: Duration = Duration::from_secs(1);
/// What a span may say, and what the field's standard calls it.
const SAID: [(&str, &str); 7] = [
    ("method", "http.request.method"),
    ("route", "http.route"),
    ("status", "http.response.status_code"),
    ("host", "server.address"),
    ("id", "stagedoor.request_id"),
    ("outcome", "stagedoor.outcome"),
    ("webhook", "stagedoor.webhook"),
];

/// The process's traces, once it was told where they go.
static TRACES: OnceLock<Traces> = OnceLock::new();

struct Traces {
    provider: SdkTracerProvider,
    waiting: Mutex<Option<mpsc::Receiver<Vec<u8>>>>,
}

/// The layer that makes spans of ours into spans for the collector.
pub(super) fn layer<S>(config: &OtlpConfig) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    let traces = TRACES.get_or_init(|| traces(config));
    tracing_opentelemetry::layer()
        .with_tracer(traces.provider.tracer("stagedoor"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target("stagedoor", tracing::Level::DEBUG))
}

fn traces(config: &OtlpConfig) -> Traces {
    let (queue, waiting) = mpsc::channel(WAITING);
    let gather = BatchConfigBuilder::default()
        .with_max_queue_size(4096)
        .with_max_export_batch_size(512)
        .with_scheduled_delay(GATHER)
        .build();
    let exporter = Queue { queue, resource: (&resource()).into() };
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(gather).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource())
        .with_sampler(Sampler::TraceIdRatioBased(f64::from(config.sample_percent) / 100.0))
        .with_span_limits(SpanLimits::default())
        .with_span_processor(processor)
        .build();
    Traces { provider, waiting: Mutex::new(Some(waiting)) }
}

/// Who we are to a collector.
fn resource() -> Resource {
    Resource::builder_empty()
        .with_service_name("stagedoor")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", std::process::id().to_string()))
        .build()
}

/// Makes the span of a request part of its caller's trace; the ids it has now.
pub(super) fn join(span: &tracing::Span, parent: Option<TraceContext>) -> Option<TraceContext> {
    TRACES.get()?;
    if let Some(parent) = parent {
        let remote = SpanContext::new(
            TraceId::from_bytes(parent.trace_id),
            SpanId::from_bytes(parent.span_id),
            if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED },
            true,
            TraceState::NONE,
        );
        // the only errors are that nobody listens, or that the span began already: it has its own ids then
        let _ = span.set_parent(Context::new().with_remote_span_context(remote));
    }
    let context = span.context();
    let span = context.span();
    let ours = span.span_context();
    ours.is_valid().then(|| TraceContext {
        trace_id: ours.trace_id().to_bytes(),
        span_id: ours.span_id().to_bytes(),
        sampled: ours.is_sampled(),
    })
}

/// Encodes batches and queues them; never waits for a collector.
#[derive(Debug)]
struct Queue {
    queue: mpsc::Sender<Vec<u8>>,
    resource: ResourceAttributesWithSchema,
}

impl SpanExporter for Queue {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(plain);
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let full = |_| OTelSdkError::InternalFailure("the collector takes spans too slowly".into());
        self.queue.try_send(body).map_err(full)
    }
}

/// Leaves on a span what it may say, in the words of the field.
fn plain(span: &mut SpanData) {
    let said = |name: &str| span.attributes.iter().find(|a| a.key.as_str() == name).map(|a| a.value.clone());
    let (method, route, status) = (said("method"), said("route"), said("status"));
    if span.name == "request" {
        span.span_kind = SpanKind::Server;
        if let (Some(method), Some(route)) = (&method, &route) {
            span.name = Cow::Owned(format!("{method} {route}"));
        }
    } else if said("host").is_some() {
        span.span_kind = SpanKind::Client;
    }
    span.status = match status {
        Some(Value::I64(status)) if status >= 500 => Status::error(""),
        _ => Status::Unset,
    };
    span.attributes.retain_mut(|attribute| {
        let known = SAID.iter().find(|(ours, _)| *ours == attribute.key.as_str());
        known.is_some_and(|(_, theirs)| {
            attribute.key = (*theirs).into();
            true
        })
    });
    for event in &mut span.events.events {
        event.attributes.clear();
    }
}

/// What carries spans and metrics to the collector.
pub struct Exporter {
    base: String,
    authorization: Option<Secret>,
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    interval: Duration,
}

impl Exporter {
    /// As configured, over the one outbound client.
    #[must_use]
    pub fn new(config: &OtlpConfig, outbound: Outbound, clock: Arc<dyn Clock>) -> Self {
        Self {
            base: config.url.trim_end_matches('/').to_owned(),
            authorization: config.authorization.clone(),
            outbound,
            clock,
            interval: Duration::from_secs(config.interval_seconds.into()),
        }
    }

    /// Carries until `closed`, then what is left; `render` is what `/metrics` would say.
    pub async fn run(&self, render: impl Fn() -> String, closed: impl Future<Output = ()>) {
        let start = self.nanos();
        let mut waiting = TRACES
            .get()
            .and_then(|traces| traces.waiting.lock().unwrap_or_else(PoisonError::into_inner).take());
        let mut tick = tokio::time::interval(self.interval);
        // the first tick comes at once, when there is nothing to tell
        tick.tick().await;
        tokio::pin!(closed);
        loop {
            tokio::select! {
                () = &mut closed => break,
                _ = tick.tick() => self.post("/v1/metrics", self.metrics(&render(), start)).await,
                Some(spans) = next(&mut waiting) => self.post("/v1/traces", spans).await,
            }
        }
        if let Some(traces) = TRACES.get() {
            // the SDK's own thread is waited for, which must not be this one
            let provider = traces.provider.clone();
            let _ = tokio::task::spawn_blocking(move || provider.force_flush()).await;
        }
        while let Some(spans) = waiting.as_mut().and_then(|waiting| waiting.try_recv().ok()) {
            self.post("/v1/traces", spans).await;
        }
        self.post("/v1/metrics", self.metrics(&render(), start)).await;
    }

    fn metrics(&self, text: &str, start: u64) -> Vec<u8> {
        let attributes = ResourceAttributesWithSchema::from(&resource()).attributes.0;
        openmetrics::request(text, attributes, Times { start, now: self.nanos() }).encode_to_vec()
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.clock.now().timestamp_nanos_opt().unwrap_or(0)).unwrap_or(0)
    }

    async fn post(&self, path: &str, body: Vec<u8>) {
        if let Err(error) = self.try_post(path, body).await {
            tracing::warn!(error = &error as &dyn std::error::Error, path, "telemetry was dropped");
        }
    }

    async fn try_post(&self, path: &str, body: Vec<u8>) -> Result<(), ExportError> {
        let url = self.outbound.destination(&format!("{}{path}", self.base))?;
        let mut call = Call::post(url, "application/x-protobuf", body);
        if let Some(authorization) = &self.authorization {
            call = call.authorization(authorization.expose())?;
        }
        match self.outbound.send(call).await?.status {
            200..=299 => Ok(()),
            status => Err(ExportError::Status(status)),
        }
    }
}

/// Why a batch was dropped.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the collector could not be called")]
    Unreachable(#[from] OutboundError),
    #[error("the collector answered with status {0}")]
    Status(u16),
}

async fn next(waiting: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match waiting {
        Some(waiting) => waiting.recv().await,
        None => std::future::pending().await,
    }
}
