//! The process's log lines, on standard error: standard output is for `listening on …` and answers.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::config::{Config, ConfigError, LogFormat};

/// Starts logging as configured. A second call in one process changes nothing.
///
/// # Errors
/// `LOG_LEVEL` is no filter.
pub fn init(config: &Config) -> Result<(), ConfigError> {
    let filter = filter(&config.log_level)?;
    let human = match config.log_format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = if human {
        registry.with(lines.with_ansi(std::io::stderr().is_terminal()).with_target(false)).try_init()
    } else {
        registry
            .with(lines.json().flatten_event(true).with_current_span(true).with_span_list(false))
            .try_init()
    };
    // The only error is that somebody else's subscriber is there, as in tests: that one stays.
    drop(started);
    Ok(())
}

fn filter(text: &str) -> Result<EnvFilter, ConfigError> {
    EnvFilter::try_new(text).map_err(|e| ConfigError::Invalid {
        setting: "`log_level`".to_owned(),
        why: format!("is no filter ({e}); write a level such as info, or warn,stagedoor=debug"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_refused_with_what_to_write() {
        assert!(filter("info").is_ok() && filter("warn,stagedoor=debug").is_ok());
        let error = filter("stagedoor=loud").unwrap_err().to_string();
        assert!(error.contains("write a level such as info"), "{error}");
    }
}
