//! What can be wrong with a configuration: one sentence each, with what to do.

use std::path::PathBuf;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that is named cannot be read.
    #[error("{} cannot be read ({source}); make it readable, or name another", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than any sensible one.
    #[error("{} is larger than {max} bytes; name the right file", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The most that is read.
        max: u64,
    },
    /// The file is not TOML.
    #[error("{file} line {line} is not TOML ({message}); correct that line")]
    Syntax {
        /// Which file.
        file: String,
        /// Where, counted from 1.
        line: usize,
        /// What the reader says.
        message: String,
    },
    /// There is no such setting.
    #[error("{given} is not a setting; did you mean {nearest}?")]
    Unknown {
        /// As it was given.
        given: String,
        /// The nearest setting that exists, written the same way.
        nearest: String,
    },
    /// A setting has a value it cannot have.
    #[error("{setting} {why}")]
    Invalid {
        /// Which setting, and where it was set.
        setting: String,
        /// What is wrong, and what to write instead.
        why: String,
    },
    /// Two settings exclude each other.
    #[error("{one} and {other} are both set; keep one of them")]
    Both {
        /// The first.
        one: String,
        /// The second.
        other: String,
    },
    /// Others reach the listener, and `issuer` does not say how they call it.
    #[error(
        "{setting} is missing; others reach this listener, so write the https address they use, such as https://stagedoor.example.com"
    )]
    NoIssuer {
        /// The setting.
        setting: String,
        /// The listener.
        listen: std::net::SocketAddr,
    },
    /// A setting is needed that is not there.
    #[error("{setting} is missing; {hint}")]
    Missing {
        /// Which setting.
        setting: String,
        /// What to write.
        hint: String,
    },
}

impl ConfigError {
    pub(super) fn invalid(setting: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { setting: setting.into(), why: why.into() }
    }
}
