//! What the process says of itself: log lines on standard error, the trace a request belongs to, OTLP.
//!
//! Standard output is for `listening on …` and answers.

#[cfg(feature = "otel")]
mod openmetrics;
#[cfg(feature = "otel")]
pub mod otlp;
pub mod trace;

use std::fmt::Write as _;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::config::{Config, ConfigError, LogFormat};
use trace::TraceContext;

/// Starts logging as configured. A second call in one process changes nothing.
///
/// # Errors
/// `LOG_LEVEL` is no filter.
pub fn init(config: &Config, quiet: &[&str]) -> Result<(), ConfigError> {
    let filter = filter(&config.log_level, quiet)?;
    let human = match config.log_format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if human {
        lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed()
    } else {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    };
    let registry = tracing_subscriber::registry();
    // What lines leave out is no reason for a trace to leave it out: each layer has a filter of its own.
    #[cfg(feature = "otel")]
    let started =
        registry.with(lines.with_filter(filter)).with(config.otlp.as_ref().map(otlp::layer)).try_init();
    #[cfg(not(feature = "otel"))]
    let started = registry.with(lines.with_filter(filter)).try_init();
    // The only error is that somebody else's subscriber is there, as in tests: that one stays.
    drop(started);
    Ok(())
}

/// Makes a request's span part of its caller's trace, where traces are exported; the ids it then has.
#[must_use]
pub fn join(span: &tracing::Span, parent: Option<TraceContext>) -> Option<TraceContext> {
    #[cfg(feature = "otel")]
    return otlp::join(span, parent);
    #[cfg(not(feature = "otel"))]
    {
        let _ = (span, parent);
        None
    }
}

/// The lines that `text` lets out, but for those of `quiet` targets that it does not name itself.
fn filter(text: &str, quiet: &[&str]) -> Result<EnvFilter, ConfigError> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if let Some(part) = parts.iter().find(|part| !is_directive(part)) {
        return Err(no_filter(format!("\"{part}\"")));
    }
    let mut all = parts.join(",");
    for target in quiet.iter().filter(|target| !text.contains(**target)) {
        let _ = write!(all, ",{target}=off");
    }
    EnvFilter::try_new(all).map_err(no_filter)
}

/// A level, or `target=level`. `EnvFilter` takes any other word for a target, of which it lets everything out and of
/// all others nothing: a mistyped level would silence the log.
fn is_directive(part: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match part.split_once('=') {
        None => is_level(part),
        Some((target, level)) => target.split("::").all(is_name) && is_level(level),
    }
}

fn no_filter(what: impl std::fmt::Display) -> ConfigError {
    ConfigError::Invalid {
        setting: "`log_level`".to_owned(),
        why: format!(
            "is no filter ({what}); write a level (off, error, warn, info, debug, trace), or warn,stagedoor=debug"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_refused_with_what_to_write() {
        assert!(filter("info", &["noise::of"]).is_ok() && filter("warn,stagedoor=debug", &[]).is_ok());
        for good in ["INFO", "off", "warn, stagedoor::server::log=trace,actix_web=error"] {
            assert!(filter(good, &["noise::of"]).is_ok(), "{good}");
        }
        for wrong in
            ["inof", "loud", "9", "nonsense=", "debug info", "=info", "info,", "a b=info", "stagedoor=loud"]
        {
            let error = filter(wrong, &[]).unwrap_err().to_string();
            assert!(error.contains("write a level (off, error,"), "{wrong}: {error}");
        }
    }
}
