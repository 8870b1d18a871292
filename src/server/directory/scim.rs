//! People as a SCIM 2.0 server names them (RFC 7643, RFC 7644).

mod wire;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};
use zeroize::Zeroizing;

use super::{Cached, DirectoryError};
use crate::server::outbound::{Answer, Call, Outbound, Url, with_segment};
use crate::server::policy::Person;
use crate::server::remembered::Remembered;
use crate::token::{Clock, Sub};

const SCIM_JSON: &str = "application/scim+json";
/// The most people remembered.
const MAX_REMEMBERED: usize = 10_000;
/// The longest an answer is remembered, whatever is configured, seconds.
const MAX_CACHE_SECONDS: u32 = 3_600;
/// The most calls to the SCIM server at once; the rest wait, and are refused after [`WAIT`].
const MAX_CALLS: usize = 16;
const WAIT: Duration = Duration::from_secs(3);
/// The longest token file, bytes.
const MAX_TOKEN_BYTES: u64 = 8 * 1024;

/// Which SCIM attribute is the `user_id` that callers send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdAttribute {
    /// `id`: read by `GET Users/{id}`.
    #[default]
    Id,
    /// `userName`: found by filter.
    UserName,
    /// `externalId`: found by filter.
    ExternalId,
}

impl IdAttribute {
    const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::UserName => "userName",
            Self::ExternalId => "externalId",
        }
    }
}

/// A bearer token; `Debug` never shows it.
#[derive(Clone)]
pub enum BearerToken {
    /// In a file, read for every call, so that a new token needs no restart.
    File(PathBuf),
    /// Itself.
    Text(Zeroizing<String>),
}

impl std::fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "BearerToken(file {})", path.display()),
            Self::Text(_) => f.write_str("BearerToken([redacted])"),
        }
    }
}

/// A SCIM server, as configured.
#[derive(Debug, Clone)]
pub struct ScimConfig {
    /// The base, without `/Users`.
    pub url: String,
    /// What the server knows us by.
    pub token: BearerToken,
    /// How long an answer is believed, seconds; 0 asks every time.
    pub cache_seconds: u32,
    /// Which attribute is the `user_id`.
    pub id_attribute: IdAttribute,
}

impl ScimConfig {
    /// How long "nobody has that id" is believed, seconds: a sixth of `cache_seconds`, at most 10, so that a new
    /// user can be helped at once.
    #[must_use]
    pub const fn negative_seconds(&self) -> u32 {
        let sixth = self.cache_seconds / 6;
        if sixth < 10 { sixth } else { 10 }
    }
}

/// How long an answer that is asked for every time serves explanations, seconds.
const EXPLAINED_SECONDS: u32 = 10;

type Found = Result<Option<Person>, DirectoryError>;
type Flight = Arc<OnceCell<Found>>;

pub(super) struct ScimDirectory {
    config: ScimConfig,
    users: Url,
    search: Url,
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    remembered: Remembered<Sub, Option<Person>>,
    flights: Mutex<HashMap<Sub, Flight>>,
    calls: Semaphore,
}

impl ScimDirectory {
    pub(super) fn open(
        config: ScimConfig,
        outbound: Outbound,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DirectoryError> {
        if config.cache_seconds > MAX_CACHE_SECONDS {
            return Err(DirectoryError::Setting(format!("cache_seconds is at most {MAX_CACHE_SECONDS}")));
        }
        let base = outbound.destination(&config.url).map_err(|e| DirectoryError::Setting(e.to_string()))?;
        let users = with_segment(&base, "Users").map_err(DirectoryError::Unreachable)?;
        let search = with_segment(&users, ".search").map_err(DirectoryError::Unreachable)?;
        if let BearerToken::File(path) = &config.token {
            read_token(path)?;
        }
        Ok(Self {
            config,
            users,
            search,
            outbound,
            clock,
            remembered: Remembered::at_most(MAX_REMEMBERED),
            flights: Mutex::default(),
            calls: Semaphore::new(MAX_CALLS),
        })
    }

    pub(super) fn cached(&self, id: &Sub) -> Cached {
        match self.remembered.get(id, self.clock.monotonic()) {
            Some(Some(person)) => Cached::Known(person),
            Some(None) => Cached::NotThere,
            None => Cached::NotAsked,
        }
    }

    pub(super) async fn look_up(&self, id: &Sub) -> Found {
        let believed = self.config.cache_seconds > 0;
        if let Some(found) = self.remembered.get(id, self.clock.monotonic()).filter(|_| believed) {
            return Ok(found);
        }
        let seat = self.board(id);
        seat.flight.get_or_init(|| self.ask_and_remember(id)).await.clone()
    }

    /// A seat in the one question that is under way for `id`.
    fn board<'a>(&'a self, id: &'a Sub) -> Seat<'a> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let flight = Arc::clone(flights.entry(id.clone()).or_default());
        Seat { directory: self, id, flight }
    }

    async fn ask_and_remember(&self, id: &Sub) -> Found {
        // The age of an answer counts from the question: what changes meanwhile may not be in it.
        let asked_at = self.clock.monotonic();
        let found = self.ask(id).await?;
        let seconds = match (&found, self.config.cache_seconds) {
            // nobody mints by it, but what a policy says of people is explained from what is known
            (_, 0) => EXPLAINED_SECONDS,
            (Some(_), seconds) => seconds,
            (None, _) => self.config.negative_seconds(),
        };
        if seconds > 0 {
            self.remembered.put(id.clone(), found.clone(), asked_at + Duration::from_secs(seconds.into()));
        }
        Ok(found)
    }

    async fn ask(&self, id: &Sub) -> Found {
        if self.config.id_attribute != IdAttribute::Id {
            return self.ask_by_filter(id).await;
        }
        // `.` and `..` cannot be a path segment, and no server gives them as ids.
        let Ok(url) = with_segment(&self.users, id.as_str()) else { return Ok(None) };
        let answer = self.call(Call::get(url)).await?;
        match answer.status {
            200 => {
                let (given, person) = wire::read_user(&answer.body)?.into_person(IdAttribute::Id)?;
                if given == *id { Ok(Some(person)) } else { Err(DirectoryError::WrongPerson) }
            }
            404 => Ok(None),
            status => Err(failure(status)),
        }
    }

    async fn ask_by_filter(&self, id: &Sub) -> Found {
        let attribute = self.config.id_attribute;
        let filter = format!("{} eq {}", attribute.name(), wire::quote(id.as_str()));
        let mut users = self.find(&filter, 2).await?.into_iter();
        let Some(user) = users.next() else { return Ok(None) };
        if users.next().is_some() {
            return Err(DirectoryError::Malformed("more than one person for an id"));
        }
        let (given, person) = user.into_person(attribute)?;
        if given == *id {
            return Ok(Some(person));
        }
        // `userName` is compared without case by SCIM servers (RFC 7643 §4.1.1). Here ids are bytes: somebody
        // whose name differs in case only is another id, so this one is not there.
        if given.as_str().to_lowercase() == id.as_str().to_lowercase() {
            return Ok(None);
        }
        Err(DirectoryError::WrongPerson)
    }

    pub(super) async fn search(&self, text: &str, limit: usize) -> Result<Vec<Person>, DirectoryError> {
        let attribute = self.config.id_attribute;
        let quoted = wire::quote(text);
        let filter = format!("displayName co {quoted} or userName co {quoted}");
        let users = self.find(&filter, limit).await?;
        // Whoever has no such id cannot be a target: he is left out.
        let mut people: Vec<Person> =
            users.into_iter().filter_map(|user| Some(user.into_person(attribute).ok()?.1)).collect();
        people.truncate(limit);
        Ok(people)
    }

    /// `POST Users/.search` (RFC 7644 §3.4.3): the filter holds what a caller sent, so it travels in a JSON body
    /// and never in a URL.
    async fn find(&self, filter: &str, count: usize) -> Result<Vec<wire::User>, DirectoryError> {
        let body = wire::search_request(filter, count);
        let answer = self.call(Call::post(self.search.clone(), SCIM_JSON, body)).await?;
        match answer.status {
            200 => wire::read_list(&answer.body),
            status => Err(failure(status)),
        }
    }

    async fn call(&self, call: Call) -> Result<Answer, DirectoryError> {
        let Ok(Ok(_permit)) = tokio::time::timeout(WAIT, self.calls.acquire()).await else {
            return Err(DirectoryError::Busy);
        };
        let token = match self.config.token.clone() {
            BearerToken::Text(token) => token,
            BearerToken::File(path) => match tokio::task::spawn_blocking(move || read_token(&path)).await {
                Ok(token) => token?,
                Err(_cancelled) => return Err(DirectoryError::Busy),
            },
        };
        let call = call.accept(SCIM_JSON).bearer(&token).map_err(DirectoryError::Unreachable)?;
        let answer = self.outbound.send(call).await.map_err(DirectoryError::Unreachable)?;
        let json = matches!(answer.content_type.as_deref(), Some(SCIM_JSON | "application/json"));
        if answer.status == 200 && !json {
            return Err(DirectoryError::Malformed("it is not JSON"));
        }
        Ok(answer)
    }
}

/// A place among those who wait for one answer; the last to leave takes the question off the list.
struct Seat<'a> {
    directory: &'a ScimDirectory,
    id: &'a Sub,
    flight: Flight,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut flights = self.directory.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = flights.get(self.id).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight));
        // An answered question is off the list at once: who comes later finds the memory, or asks anew.
        if ours && (self.flight.initialized() || Arc::strong_count(&self.flight) == 2) {
            flights.remove(self.id);
        }
    }
}

const fn failure(status: u16) -> DirectoryError {
    match status {
        401 | 403 => DirectoryError::Refused { status },
        _ => DirectoryError::Unavailable { status },
    }
}

fn read_token(path: &std::path::Path) -> Result<Zeroizing<String>, DirectoryError> {
    use std::io::Read as _;
    let unreadable = |what: String| DirectoryError::Unreadable { path: path.display().to_string(), what };
    let file = std::fs::File::open(path).map_err(|e| unreadable(e.to_string()))?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_TOKEN_BYTES + 1).read_to_string(&mut text).map_err(|e| unreadable(e.to_string()))?;
    let token = text.trim();
    if token.is_empty() || text.len() as u64 > MAX_TOKEN_BYTES {
        return Err(unreadable("a bearer token is needed here, alone in the file".to_owned()));
    }
    Ok(Zeroizing::new(token.to_owned()))
}
