//! Who the target is: people as a file or a SCIM server names them.

mod csv;
mod file;
mod scim;

use std::path::PathBuf;
use std::sync::Arc;

use crate::server::outbound::{Outbound, OutboundError};
use crate::server::policy::Person;
use crate::token::{Clock, Sub};

pub use scim::{BearerToken, IdAttribute, ScimConfig};

/// The people of the demo that `stagedoor dev` sets up, in the format of the file directory.
pub const DEMO_PEOPLE: &str = include_str!("demo.json");

/// The most people one search answers.
pub const MAX_FOUND: usize = 50;
/// The longest text searched for, in bytes.
pub const MAX_SEARCH_BYTES: usize = 100;

/// Why the directory could not say who somebody is. That somebody is not there is no error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// A file (people or bearer token) cannot be read.
    #[error("{path}: {what}")]
    Unreadable {
        /// Which file.
        path: String,
        /// What the system said.
        what: String,
    },
    /// The file of people does not say what it should.
    #[error("{path}, {place}: {what}")]
    Invalid {
        /// Which file.
        path: String,
        /// Where in it.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// The setting itself makes no sense.
    #[error("directory setting: {0}")]
    Setting(String),
    /// The file of people has been missing or wrong for too long to go on with what it said before.
    #[error("the directory file has been unusable for more than {} s", file::KEEP_SECONDS)]
    Stale,
    /// The SCIM server could not be called.
    #[error("the SCIM server could not be asked")]
    Unreachable(#[source] OutboundError),
    /// The SCIM server refuses our token.
    #[error("the SCIM server refuses the configured token (status {status})")]
    Refused {
        /// Its status: 401 or 403.
        status: u16,
    },
    /// The SCIM server cannot answer now.
    #[error("the SCIM server answers with status {status}")]
    Unavailable {
        /// Its status.
        status: u16,
    },
    /// The SCIM server's answer is none.
    #[error("the SCIM server's answer cannot be used: {0}")]
    Malformed(&'static str),
    /// The SCIM server answered with somebody else than was asked for.
    #[error("the SCIM server answered with another person than was asked for")]
    WrongPerson,
    /// Too many questions are waiting for the SCIM server already.
    #[error("too many questions to the SCIM server at once")]
    Busy,
}

/// Which directory, as configured.
#[derive(Debug, Clone, Default)]
pub enum DirectoryConfig {
    /// Nobody is known.
    #[default]
    None,
    /// A JSON (`.json`) or CSV (`.csv`) file, read again when it changes.
    File {
        /// Where it is.
        path: PathBuf,
    },
    /// A SCIM 2.0 server.
    Scim(ScimConfig),
}

/// What is known without asking anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cached {
    /// This person.
    Known(Person),
    /// Asked not long ago: nobody has that id.
    NotThere,
    /// Nothing: one would have to ask.
    NotAsked,
}

/// The directory of people.
pub struct Directory(Kind);

enum Kind {
    None,
    File(file::FileDirectory),
    Scim(Box<scim::ScimDirectory>),
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Directory").field(&self.kind()).finish()
    }
}

impl Directory {
    /// Opens the directory configured; a file is read now, a SCIM server is not called yet.
    ///
    /// # Errors
    /// A file that cannot be read or is wrong; a SCIM URL that `outbound` may not call; a token file that
    /// cannot be read.
    pub fn open(
        config: DirectoryConfig,
        outbound: &Outbound,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DirectoryError> {
        Ok(Self(match config {
            DirectoryConfig::None => Kind::None,
            DirectoryConfig::File { path } => Kind::File(file::FileDirectory::open(path, clock)?),
            DirectoryConfig::Scim(config) => {
                Kind::Scim(Box::new(scim::ScimDirectory::open(config, outbound.clone(), clock)?))
            }
        }))
    }

    /// The kind as configured: `none`, `file` or `scim`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.0 {
            Kind::None => "none",
            Kind::File(_) => "file",
            Kind::Scim(_) => "scim",
        }
    }

    /// Whether there is a directory at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self.0, Kind::None)
    }

    /// The person with exactly this id; `None`: nobody has it, or there is no directory.
    ///
    /// A SCIM answer may be up to `cache_seconds` old, and a "nobody" up to [`ScimConfig::negative_seconds`].
    ///
    /// # Errors
    /// [`DirectoryError`] when the directory could not be asked or its answer not believed: nothing is known then,
    /// and a rule that needs to know must refuse.
    pub async fn look_up(&self, id: &Sub) -> Result<Option<Person>, DirectoryError> {
        match &self.0 {
            Kind::None => Ok(None),
            Kind::File(file) => file.look_up(id).await,
            // an HTTP request is large, and what awaits it is moved
            Kind::Scim(scim) => Box::pin(scim.look_up(id)).await,
        }
    }

    /// As [`Self::cached`], but a file that was changed is read again first: that is no outbound call.
    pub async fn known(&self, id: &Sub) -> Cached {
        if let Kind::File(file) = &self.0 {
            file.look_again().await;
        }
        self.cached(id)
    }

    /// What is known of this id without any outbound call.
    #[must_use]
    pub fn cached(&self, id: &Sub) -> Cached {
        match &self.0 {
            Kind::None => Cached::NotThere,
            Kind::File(file) => file.cached(id),
            Kind::Scim(scim) => scim.cached(id),
        }
    }

    /// People whose id or name contains `text`, at most `limit` (and [`MAX_FOUND`]); for a person who looks
    /// for somebody, never for a decision.
    ///
    /// # Errors
    /// As [`Self::look_up`].
    pub async fn search(&self, text: &str, limit: usize) -> Result<Vec<Person>, DirectoryError> {
        let limit = limit.min(MAX_FOUND);
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_SEARCH_BYTES || limit == 0 {
            return Ok(Vec::new());
        }
        match &self.0 {
            Kind::None => Ok(Vec::new()),
            Kind::File(file) => file.search(text, limit).await,
            Kind::Scim(scim) => scim.search(text, limit).await,
        }
    }
}

/// The most roles and groups a person may have. More is an error, never cut: the role that protects him could
/// be the one cut off.
const MAX_MEMBERSHIPS: usize = 1_000;
/// The longest role, group, organisation or name, in bytes.
const MAX_WORD_BYTES: usize = 255;

/// Checks what every source must keep to; says what is wrong.
fn check_person(person: &Person) -> Result<(), &'static str> {
    let word = |text: &String| text.len() <= MAX_WORD_BYTES && !text.chars().any(char::is_control);
    if person.roles.len() > MAX_MEMBERSHIPS || person.groups.len() > MAX_MEMBERSHIPS {
        return Err("too many roles or groups");
    }
    let mut words = person.roles.iter().chain(&person.groups).chain(&person.org);
    if !words.all(|text| word(text) && !text.is_empty()) {
        return Err("a role, group or organisation is empty, over 255 bytes or has control characters");
    }
    if !person.display_name.iter().all(word) {
        return Err("the display name is over 255 bytes or has control characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
