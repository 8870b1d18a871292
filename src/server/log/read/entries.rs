//! Entries: newest first with a cursor for people, ascending for machines that follow the log.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::{Cursor, Fingerprint, Page, fingerprint};
use crate::server::log::body::open_disclosure;
use crate::server::log::clock_guard::micros;
use crate::server::log::head::{locate, position};
use crate::server::log::{Log, LogError};
use crate::server::store::read::{self, Key, Search, StoredEntry};
use crate::server::store::{Db, StoreError, hex};
use crate::token::{ClientId, Sub};

/// Which entries; what is absent does not narrow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// The acting person.
    pub actor: Option<Sub>,
    /// The target.
    pub subject: Option<Sub>,
    /// The client that asked.
    pub client: Option<ClientId>,
    /// How it ended.
    pub decision: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The ticket.
    pub ticket: Option<String>,
    /// The type of entry.
    pub typ: Option<String>,
    /// Recorded then or later.
    pub since: Option<DateTime<Utc>>,
    /// Recorded before.
    pub until: Option<DateTime<Utc>>,
}

impl EntryFilter {
    /// Whether it asks about a person: then the answer tells about him even without disclosures.
    #[must_use]
    pub const fn is_personal(&self) -> bool {
        self.actor.is_some() || self.subject.is_some() || self.ticket.is_some()
    }

    /// The search that answers it, by the rarest key; `None` when only times narrow it.
    fn search(&self) -> Option<Search> {
        let keys = [
            (Key::Subject, self.subject.as_ref().map(Sub::as_str)),
            (Key::Ticket, self.ticket.as_deref()),
            (Key::Actor, self.actor.as_ref().map(Sub::as_str)),
            (Key::Rule, self.rule.as_deref()),
            (Key::Typ, self.typ.as_deref()),
            (Key::Client, self.client.as_ref().map(ClientId::as_str)),
            (Key::Decision, self.decision.as_deref()),
        ];
        // a NUL is stored as U+FFFD, see `body::searchable`
        let mut set =
            keys.into_iter().filter_map(|(key, value)| Some((key, value?.replace('\0', "\u{fffd}"))));
        let (key, value) = set.next()?;
        Some(Search { key, value, and: set.collect(), also: String::new() })
    }
}

impl Fingerprint for EntryFilter {
    fn fingerprint(&self) -> [u8; 4] {
        fingerprint(self)
    }
}

/// An entry as it is shown.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// The log's epoch.
    pub epoch: u32,
    /// Its place in the epoch's tree.
    pub index: u64,
    /// When it was recorded.
    pub time: DateTime<Utc>,
    /// The body as it was hashed.
    pub body_text: String,
    /// The body, read.
    pub body: Option<Value>,
    /// What the disclosures say, where they were asked for and not erased.
    pub personal: Option<PersonalData>,
    /// The disclosures themselves, likewise.
    pub disclosures: Vec<String>,
    leaf: Vec<u8>,
}

impl LogEntry {
    /// Its hash in the tree, in hexadecimal.
    #[must_use]
    pub fn leaf_hex(&self) -> String {
        hex(&self.leaf)
    }

    /// Its place among the entries of all epochs: what a follower counts by.
    #[must_use]
    pub fn position(&self) -> i64 {
        position(self.epoch, self.index)
    }

    pub(in crate::server::log) fn read(stored: StoredEntry, personal: bool) -> Result<Self, StoreError> {
        let (epoch, index) = locate(stored.idx);
        let body_text = String::from_utf8(stored.body).map_err(|_| StoreError::Corrupt("a body"))?;
        let disclosures: Vec<String> = match stored.disclosures.filter(|_| personal) {
            Some(text) => serde_json::from_str(&text).map_err(|_| StoreError::Corrupt("disclosures"))?,
            None => Vec::new(),
        };
        Ok(Self {
            epoch,
            index,
            time: DateTime::from_timestamp_micros(stored.t_us).unwrap_or_default(),
            body: serde_json::from_str(&body_text).ok(),
            body_text,
            personal: personal.then(|| PersonalData::open(&disclosures)),
            disclosures,
            leaf: stored.leaf,
        })
    }
}

/// A stretch of the log, as a follower reads it.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// Its entries, ascending; bodies that were pruned are left out.
    pub entries: Vec<LogEntry>,
    /// The position after the last entry of the log.
    pub end: i64,
}

/// What disclosures say: `act`, `sub`, `reason`, `ticket`, `addr`, each only if not erased.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PersonalData(Map<String, Value>);

impl PersonalData {
    /// Reads disclosures; what is none is left out.
    #[must_use]
    pub fn open(disclosures: &[String]) -> Self {
        Self(disclosures.iter().filter_map(|disclosure| open_disclosure(disclosure)).collect())
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All of them, by name.
    #[must_use]
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

/// The positions a filter's times allow, `[low, high)`.
pub(super) async fn bounds(
    db: &Db,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
) -> Result<(i64, i64), StoreError> {
    let low = match since {
        Some(at) => read::first_at_or_after(db, micros(at)).await?.unwrap_or(i64::MAX),
        None => 0,
    };
    let high = match until {
        Some(at) => read::first_at_or_after(db, micros(at)).await?.unwrap_or(i64::MAX),
        None => i64::MAX,
    };
    Ok((low, high))
}

impl Log {
    /// Entries that match, newest first. Disclosures come along only when `personal`.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn entries(
        &self,
        filter: &EntryFilter,
        cursor: Option<Cursor>,
        limit: u32,
        personal: bool,
    ) -> Result<Page<LogEntry>, LogError> {
        let db = self.db();
        let (low, high) = bounds(db, filter.since, filter.until).await?;
        let high = high.min(Cursor::below(cursor));
        let wanted = i64::from(limit) + 1;
        let mut positions = match filter.search() {
            Some(search) => read::search_newest(db, &search, low, high, limit as usize + 1).await?,
            None => read::newest_positions(db, low, high, wanted).await?,
        };
        let more = positions.len() > limit as usize;
        positions.truncate(limit as usize);
        let next = positions.last().filter(|_| more).map(|last| Cursor::text(*last, filter));
        let rows = read::entries_at(db, &positions).await?;
        let rows = rows.into_iter().map(|row| LogEntry::read(row, personal)).collect::<Result<_, _>>()?;
        Ok(Page { rows, next })
    }

    /// Up to `limit` entries of the current epoch that match, ascending from index `from`.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn entries_from(
        &self,
        filter: &EntryFilter,
        from: u64,
        limit: u32,
        personal: bool,
    ) -> Result<Vec<LogEntry>, LogError> {
        let db = self.db();
        if from >= 1 << 40 {
            return Ok(Vec::new());
        }
        let (low, high) = bounds(db, filter.since, filter.until).await?;
        let low = low.max(position(self.epoch(), from));
        let rows = match filter.search() {
            Some(search) => {
                let positions = read::search_oldest(db, &search, low, high, limit as usize).await?;
                let mut rows = read::entries_at(db, &positions).await?;
                rows.reverse();
                rows
            }
            None => read::entries_ascending(db, low, high, i64::from(limit)).await?,
        };
        Ok(rows.into_iter().map(|row| LogEntry::read(row, personal)).collect::<Result<_, _>>()?)
    }

    /// Up to `limit` durable entries from `position` on, with what is known of people, of this epoch and later.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn stretch(&self, from: i64, limit: u32) -> Result<Stretch, LogError> {
        // only committed heads can be seen, and a commit is durable before it is seen
        let end = read::newest_head(self.db()).await?.map_or(0, |head| head.size);
        let rows = if from < end {
            read::entries_ascending(self.db(), from, end, i64::from(limit)).await?
        } else {
            Vec::new()
        };
        let entries = rows.into_iter().map(|row| LogEntry::read(row, true)).collect::<Result<_, _>>()?;
        Ok(Stretch { entries, end })
    }

    /// The entry at `index` of the current epoch; `None` beyond the end, or when it was pruned.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn entry(&self, index: u64, personal: bool) -> Result<Option<LogEntry>, LogError> {
        if index >= 1 << 40 {
            return Ok(None);
        }
        let rows = read::entries_at(self.db(), &[position(self.epoch(), index)]).await?;
        Ok(rows.into_iter().next().map(|row| LogEntry::read(row, personal)).transpose()?)
    }

    /// Everything recorded about a grant, ascending: asked, issued, redeemed, used, stopped.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn entries_of_grant(
        &self,
        grant: &crate::token::GrantId,
        personal: bool,
    ) -> Result<Vec<LogEntry>, LogError> {
        let positions = read::positions_of_grant(self.db(), grant.as_str()).await?;
        let mut rows = read::entries_at(self.db(), &positions).await?;
        rows.reverse();
        Ok(rows.into_iter().map(|row| LogEntry::read(row, personal)).collect::<Result<_, _>>()?)
    }
}
