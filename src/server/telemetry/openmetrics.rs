//! From what `/metrics` says to OTLP's metrics, so that both say the same.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// Names and values of a sample.
type Labels = Vec<(String, String)>;

/// Times of a point, nanoseconds since 1970: since when it counts, and when it was read.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub start: u64,
    pub now: u64,
}

/// A request to a collector that says what `text` says; `attributes` say who.
pub(super) fn request(text: &str, attributes: Vec<KeyValue>, times: Times) -> ExportMetricsServiceRequest {
    let resource = Resource { attributes, ..Resource::default() };
    let scope = InstrumentationScope { name: "stagedoor".into(), ..InstrumentationScope::default() };
    let metrics = families(text).into_iter().filter_map(|family| family.metric(times)).collect();
    let scope_metrics = ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![scope_metrics],
            schema_url: String::new(),
        }],
    }
}

#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    help: String,
    unit: String,
    samples: Vec<(String, Labels, f64)>,
}

fn families(text: &str) -> Vec<Family> {
    let mut out: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some(said) = line.strip_prefix("# ") {
            let mut words = said.splitn(3, ' ');
            let (Some(what), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            if out.last().is_none_or(|family| family.name != name) {
                out.push(Family { name: name.to_owned(), ..Family::default() });
            }
            let Some(family) = out.last_mut() else { continue };
            match what {
                "TYPE" => rest.clone_into(&mut family.kind),
                "HELP" => rest.trim_end_matches('.').clone_into(&mut family.help),
                "UNIT" => (if rest == "seconds" { "s" } else { rest }).clone_into(&mut family.unit),
                _ => {}
            }
        } else if let (Some(family), Some(sample)) = (out.last_mut(), sample(line)) {
            family.samples.push(sample);
        }
    }
    out
}

/// `name{label="value",…} 1.5`
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = series.split_once('{') else {
        return Some((series.to_owned(), Vec::new(), value));
    };
    let mut labels = Vec::new();
    let mut rest = rest.strip_suffix('}')?;
    while let Some((label, quoted)) = rest.split_once("=\"") {
        let (mut text, mut end, mut chars) = (String::new(), None, quoted.char_indices());
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = Some(at + 1);
                    break;
                }
                '\\' => match chars.next()?.1 {
                    'n' => text.push('\n'),
                    other => text.push(other),
                },
                _ => text.push(c),
            }
        }
        labels.push((label.trim_start_matches(',').to_owned(), text));
        rest = quoted.get(end?..)?;
    }
    Some((name.to_owned(), labels, value))
}

impl Family {
    fn metric(self, times: Times) -> Option<Metric> {
        let data = match self.kind.as_str() {
            "counter" => Data::Sum(Sum {
                data_points: self.points(Some(times.start), times.now),
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: true,
            }),
            "gauge" => Data::Gauge(Gauge { data_points: self.points(None, times.now) }),
            "histogram" => Data::Histogram(Histogram {
                data_points: self.histograms(times),
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
            }),
            _ => return None,
        };
        let Self { name, help, unit, .. } = self;
        Some(Metric { name, description: help, unit, metadata: Vec::new(), data: Some(data) })
    }

    fn points(&self, start: Option<u64>, now: u64) -> Vec<NumberDataPoint> {
        let point = |(_, labels, value): &(String, Labels, f64)| NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: start.unwrap_or(0),
            time_unix_nano: now,
            value: Some(Value::AsDouble(*value)),
            ..NumberDataPoint::default()
        };
        self.samples.iter().map(point).collect()
    }

    /// Buckets are counted from below in the text, and each for itself in OTLP.
    fn histograms(&self, times: Times) -> Vec<HistogramDataPoint> {
        let mut points: BTreeMap<Labels, HistogramDataPoint> = BTreeMap::new();
        for (name, labels, value) in &self.samples {
            let (le, others): (Labels, Labels) = labels.iter().cloned().partition(|(label, _)| label == "le");
            let point = points.entry(others.clone()).or_insert_with(|| HistogramDataPoint {
                attributes: attributes(&others),
                start_time_unix_nano: times.start,
                time_unix_nano: times.now,
                ..HistogramDataPoint::default()
            });
            match name.strip_prefix(&self.name) {
                Some("_sum") => point.sum = Some(*value),
                Some("_count") => point.count = whole(*value),
                Some("_bucket") => {
                    let below: u64 = point.bucket_counts.iter().sum();
                    point.bucket_counts.push(whole(*value).saturating_sub(below));
                    let bound = le.first().and_then(|(_, bound)| bound.parse::<f64>().ok());
                    point.explicit_bounds.extend(bound.filter(|bound| bound.is_finite()));
                }
                _ => {}
            }
        }
        points.into_values().collect()
    }
}

fn attributes(labels: &Labels) -> Vec<KeyValue> {
    let attribute = |(name, value): &(String, String)| KeyValue {
        key: name.clone(),
        value: Some(AnyValue { value: Some(Any::StringValue(value.clone())) }),
        ..KeyValue::default()
    };
    labels.iter().map(attribute).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, written by ourselves")]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::server::metrics::{Metrics, Observed, ObservedWebhook};

    #[test]
    fn every_sample_of_our_own_metrics_arrives_with_its_labels_and_unit() {
        let metrics = Metrics::default();
        metrics.mint("granted");
        for millis in [1, 1, 700] {
            metrics.request("POST", "/v1/actor_tokens", 200, Duration::from_millis(millis));
        }
        let hook = ObservedWebhook {
            name: "a\"b\\c".into(),
            backlog: 7,
            backlog_age_seconds: 9,
            delivered: 3,
            failed: 1,
        };
        let text = metrics.render(&Observed { webhooks: vec![hook], ..Observed::default() });
        let request = request(&text, Vec::new(), Times { start: 1, now: 2 });
        let found = &request.resource_metrics[0].scope_metrics[0].metrics;
        let metric =
            |name: &str| found.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("{name}: {text}"));
        let Some(Data::Sum(mints)) = &metric("stagedoor_mints").data else { panic!("a counter") };
        assert!(mints.is_monotonic);
        let granted = mints.data_points.iter().find(|p| p.value == Some(Value::AsDouble(1.0)));
        assert_eq!((mints.data_points.len(), granted.is_some()), (3, true), "nothing denied or pending yet");
        let Some(Data::Gauge(age)) = &metric("stagedoor_webhook_backlog_age_seconds").data else {
            panic!("a gauge")
        };
        assert_eq!(metric("stagedoor_webhook_backlog_age_seconds").unit, "s");
        let Some(Any::StringValue(name)) = &age.data_points[0].attributes[0].value.as_ref().unwrap().value
        else {
            panic!("a text")
        };
        assert_eq!((name.as_str(), &age.data_points[0].value), ("a\"b\\c", &Some(Value::AsDouble(9.0))));
        let duration = metric("stagedoor_http_request_duration_seconds");
        let Some(Data::Histogram(durations)) = &duration.data else { panic!("a histogram") };
        let point = &durations.data_points[0];
        assert_eq!((point.count, point.bucket_counts.iter().sum::<u64>()), (3, 3));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert!((point.sum.unwrap() - 0.702).abs() < 1e-9);
        let samples = text.lines().filter(|l| !l.starts_with('#')).count();
        assert!(samples > 20, "{text}");
    }
}
