//! `[otlp]`: a collector that is sent traces and metrics.

use super::OtlpConfig;
use super::build::outbound_url;
use super::error::ConfigError;
use super::layers::{Field, Kind, Section, field};

pub(super) const OTLP: &[Field] = &[
    field("url", Kind::Text),
    field("authorization", Kind::Secret),
    field("sample_percent", Kind::Integer),
    field("interval_seconds", Kind::Integer),
];

pub(super) fn otlp(section: &Section, allow_http: bool) -> Result<OtlpConfig, ConfigError> {
    if !cfg!(feature = "otel") {
        return Err(ConfigError::invalid("`otlp`", "needs a build with the feature otel; leave it out"));
    }
    let url = section
        .text("url")?
        .ok_or_else(|| section.missing("url", "write the collector's address without /v1/traces"))?;
    outbound_url(&url.value, allow_http).map_err(|why| url.invalid(why))?;
    let whole = |key, most, default| {
        Ok::<_, ConfigError>(
            section.integer(key, 1, most)?.and_then(|n| u32::try_from(n).ok()).unwrap_or(default),
        )
    };
    Ok(OtlpConfig {
        url: url.value,
        authorization: section.secret("authorization")?,
        sample_percent: whole("sample_percent", 100, 100)?,
        interval_seconds: whole("interval_seconds", 3600, 60)?,
    })
}
