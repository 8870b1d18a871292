//! People in a file, read again when it changes.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{Cached, DirectoryError, check_person, csv};
use crate::server::policy::Person;
use crate::token::{Clock, Sub};

/// How long the last good contents are used while the file is missing or wrong, seconds.
pub(super) const KEEP_SECONDS: u64 = 600;
/// How often the file is looked at, at most, milliseconds.
const LOOK_EVERY_MILLIS: u64 = 500;
/// The largest file read, bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

type People = HashMap<Sub, Person>;

/// What tells one version of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

struct State {
    people: Arc<People>,
    /// Of the file as last looked at; `None` when it was not there.
    seen: Option<Fingerprint>,
    /// Since when the file has been unusable (monotonic).
    broken_since: Option<Duration>,
}

pub(super) struct FileDirectory {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    state: ArcSwap<State>,
    /// Milliseconds (monotonic) before which the file is not looked at again.
    next_look: AtomicU64,
}

impl FileDirectory {
    pub(super) fn open(path: PathBuf, clock: Arc<dyn Clock>) -> Result<Self, DirectoryError> {
        let seen = fingerprint(&path);
        let people = Arc::new(load(&path)?);
        let state = ArcSwap::from_pointee(State { people, seen, broken_since: None });
        let next_look = AtomicU64::new(millis(clock.monotonic()) + LOOK_EVERY_MILLIS);
        Ok(Self { path, clock, state, next_look })
    }

    pub(super) async fn look_up(&self, id: &Sub) -> Result<Option<Person>, DirectoryError> {
        Ok(self.people().await?.get(id).cloned())
    }

    pub(super) fn cached(&self, id: &Sub) -> Cached {
        let state = self.state.load();
        if self.is_stale(&state) {
            return Cached::NotAsked;
        }
        state.people.get(id).map_or(Cached::NotThere, |person| Cached::Known(person.clone()))
    }

    pub(super) async fn search(&self, text: &str, limit: usize) -> Result<Vec<Person>, DirectoryError> {
        let wanted = text.to_lowercase();
        let people = self.people().await?;
        let contains = |text: &str| text.to_lowercase().contains(&wanted);
        let mut found: Vec<Person> = people
            .iter()
            .filter(|(id, person)| {
                contains(id.as_str()) || person.display_name.as_deref().is_some_and(contains)
            })
            .map(|(_, person)| person.clone())
            .collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.truncate(limit);
        Ok(found)
    }

    async fn people(&self) -> Result<Arc<People>, DirectoryError> {
        self.look_again().await;
        let state = self.state.load();
        if self.is_stale(&state) { Err(DirectoryError::Stale) } else { Ok(Arc::clone(&state.people)) }
    }

    fn is_stale(&self, state: &State) -> bool {
        let keep = Duration::from_secs(KEEP_SECONDS);
        state.broken_since.is_some_and(|since| self.clock.monotonic().saturating_sub(since) >= keep)
    }

    /// Reads the file again when it is another than last time. One caller does it, the rest go on with what is known.
    pub(super) async fn look_again(&self) {
        let now = millis(self.clock.monotonic());
        let due = self.next_look.load(Ordering::Relaxed);
        let won = now >= due
            && self
                .next_look
                .compare_exchange(due, now + LOOK_EVERY_MILLIS, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if !won {
            return;
        }
        let before = self.state.load_full();
        let seen = fingerprint(&self.path);
        if seen.is_some() && seen == before.seen {
            return;
        }
        let path = self.path.clone();
        let loaded = match tokio::task::spawn_blocking(move || load(&path)).await {
            Ok(loaded) => loaded,
            Err(_cancelled) => return,
        };
        self.state.store(Arc::new(match loaded {
            Ok(people) => {
                tracing::info!(directory.people = people.len(), "directory file read again");
                State { people: Arc::new(people), seen, broken_since: None }
            }
            Err(error) => {
                if before.broken_since.is_none() || seen != before.seen {
                    tracing::warn!(%error, "directory file unusable: going on with its last good contents");
                }
                let broken_since = before.broken_since.or(Some(self.clock.monotonic()));
                State { people: Arc::clone(&before.people), seen, broken_since }
            }
        }));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}

fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let meta = std::fs::metadata(path).ok()?;
    Some(Fingerprint {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

fn load(path: &Path) -> Result<People, DirectoryError> {
    use std::io::Read as _;
    let shown = path.display().to_string();
    let unreadable = |what: String| DirectoryError::Unreadable { path: shown.clone(), what };
    let file = std::fs::File::open(path).map_err(|e| unreadable(e.to_string()))?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|e| unreadable(e.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    let people = match path.extension().and_then(|e| e.to_str()) {
        Some("json") => parse_json(&text),
        Some("csv") => csv::parse_people(&text),
        _ => Err(Flaw { place: "name".to_owned(), what: "must end in .json or .csv".to_owned() }),
    };
    people.and_then(index).map_err(|Flaw { place, what }| DirectoryError::Invalid {
        path: shown.clone(),
        place,
        what,
    })
}

/// What is wrong with a file, and where.
pub(super) struct Flaw {
    pub(super) place: String,
    pub(super) what: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    people: Vec<Entry>,
}

/// One person in the JSON file. `active` must be said: an export that lost the column must not wake the dead.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) id: Sub,
    pub(super) active: bool,
    pub(super) display_name: Option<String>,
    #[serde(default)]
    pub(super) roles: Vec<String>,
    #[serde(default)]
    pub(super) groups: Vec<String>,
    pub(super) org: Option<String>,
    pub(super) consent_until: Option<DateTime<Utc>>,
    #[serde(default)]
    pub(super) opted_out: bool,
}

fn parse_json(text: &str) -> Result<Vec<(String, Entry)>, Flaw> {
    let document: Document = serde_json::from_str(text).map_err(|e| Flaw {
        place: format!("line {}, column {}", e.line(), e.column()),
        what: e.to_string(),
    })?;
    Ok(document.people.into_iter().enumerate().map(|(i, e)| (format!("person {}", i + 1), e)).collect())
}

fn index(entries: Vec<(String, Entry)>) -> Result<People, Flaw> {
    let mut people = People::with_capacity(entries.len());
    for (place, entry) in entries {
        let person = Person {
            id: Some(entry.id.clone()),
            display_name: entry.display_name,
            active: entry.active,
            roles: entry.roles,
            groups: entry.groups,
            org: entry.org,
            consent_until: entry.consent_until,
            opted_out: entry.opted_out,
        };
        if let Err(what) = check_person(&person) {
            return Err(Flaw { place, what: what.to_owned() });
        }
        if people.insert(entry.id, person).is_some() {
            return Err(Flaw { place, what: "this id is there twice".to_owned() });
        }
    }
    Ok(people)
}
