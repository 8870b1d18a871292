//! `audit erase` and `audit prune`: what leaves the log, and the entries that say so (audit-log.md §5).
//!
//! Both run as the database's owner. Proofs hold before and after: bodies bind digests of what is erased,
//! and pruned bodies leave their hashes.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::body::open_disclosure;
use super::clock_guard::micros;
use super::head::{locate, position};
use super::read::{GrantFilter, GrantStatus};
use super::record::{Decision, Effect, Event, EventType, Record};
use super::{Log, LogError, Revoke, Selector};
use crate::server::store::append::StoredPrivate;
use crate::server::store::read;
use crate::server::store::surgery::Surgery;
use crate::server::store::whole::{PrivateEntry, private_rows};
use crate::token::{Act, Issuer, Sub};

/// How long nobody can have his own acts erased, by default.
pub const ACTOR_RETENTION: TimeDelta = TimeDelta::days(365);
/// Rows of personal data looked at, at a time.
const CHUNK: i64 = 2048;
/// Entries one `erase` entry names.
const PER_ENTRY: usize = 1000;
/// Tiles one transaction prunes.
const TILES: i64 = 64;
/// Bodies that always stay: the check at start needs them.
const KEPT: u64 = 2048;

/// Whose data is erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// A target user: his id, and the reason and ticket of each attempt on him.
    Subject(Sub),
    /// A person who acted, anywhere in a chain: the chain and the address.
    Actor {
        /// His id.
        sub: Sub,
        /// The issuer that names him; `None` matches any.
        iss: Option<Issuer>,
        /// On which basis, in a word that is no person's: it goes into the log.
        basis: String,
    },
}

/// What was erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Entries whose personal data is gone.
    pub entries: u64,
    /// Entries that were too young to be erased.
    pub too_young: u64,
    /// Grants on the erased user that were ended first: nobody could name him any more to end them.
    pub ended: u64,
}

/// Why nothing was erased or pruned.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemovalError {
    /// The basis is no short word.
    #[error("--basis must be a short word (letters, digits, - _ .), as it stands in the log for good")]
    Basis,
    /// What is asked to be pruned is younger than anybody's trail may be.
    #[error("--before must lie at least {0} days back: nobody prunes his own trail")]
    TooYoung(i64),
    /// The log did not record it, so it did not happen.
    #[error("the log could not do it")]
    Log(#[from] LogError),
}

impl Whom {
    const fn fields(&self) -> &'static [&'static str] {
        match self {
            Self::Subject(_) => &["reason", "sub", "ticket"],
            Self::Actor { .. } => &["act", "addr"],
        }
    }

    fn is_in(&self, name: &str, value: &Value) -> bool {
        match self {
            Self::Subject(sub) => name == "sub" && value.as_str() == Some(sub.as_str()),
            Self::Actor { sub, iss, .. } => {
                let act: Option<Act> =
                    (name == "act").then(|| serde_json::from_value(value.clone()).ok()).flatten();
                act.is_some_and(|act| act.chain().any(|a| a.sub == *sub && (iss.is_none() || a.iss == *iss)))
            }
        }
    }

    fn is_named_by(&self, row: &StoredPrivate) -> bool {
        opened(row).iter().any(|(_, (name, value))| self.is_in(name, value))
    }
}

/// A row's disclosures as text, and as name and value.
fn opened(row: &StoredPrivate) -> Vec<(String, (String, Value))> {
    let list: Vec<String> = serde_json::from_str(&row.disclosures).unwrap_or_default();
    list.into_iter().filter_map(|text| open_disclosure(&text).map(|open| (text, open))).collect()
}

/// What stays of a row when disclosures of these names go; `None` for nothing.
pub(in crate::server) fn without(row: StoredPrivate, fields: &[&str]) -> Option<StoredPrivate> {
    let gone = |name: &str| fields.contains(&name);
    let kept: Vec<String> =
        opened(&row).into_iter().filter(|(_, (name, _))| !gone(name)).map(|(text, _)| text).collect();
    let unless = |name: &str, value: Option<String>| value.filter(|_| !gone(name));
    (!kept.is_empty()).then(|| StoredPrivate {
        disclosures: json!(kept).to_string(),
        actor: unless("act", row.actor),
        actor_iss: unless("act", row.actor_iss),
        subject: unless("sub", row.subject),
        ticket: unless("ticket", row.ticket),
    })
}

/// Erases `whom` from every entry, and records which entries that concerned. Acts younger than `retention`
/// stay. Afterwards [`Db::forget`](crate::server::store::Db::forget) makes it final.
///
/// # Errors
/// See [`RemovalError`]; what was recorded before stays erased.
pub async fn erase(
    log: &Log,
    whom: &Whom,
    now: DateTime<Utc>,
    retention: TimeDelta,
) -> Result<Erased, RemovalError> {
    if let Whom::Actor { basis, .. } = whom
        && !is_word(basis)
    {
        return Err(RemovalError::Basis);
    }
    let youngest = match whom {
        Whom::Subject(_) => i64::MAX,
        Whom::Actor { .. } => micros(now - retention),
    };
    let mut erased = Erased::default();
    // what is granted from here on is not ended, and stays until the next erasure
    let end = read::newest_head(log.db()).await.map_err(LogError::from)?.map_or(0, |head| head.size);
    if let Whom::Subject(subject) = whom {
        erased.ended = end_grants_on(log, subject, now).await?;
    }
    let mut after = -1;
    let mut found: Vec<i64> = Vec::new();
    loop {
        let rows = private_rows(log.db(), after, CHUNK).await.map_err(LogError::from)?;
        let Some(last) = rows.last() else { break };
        after = last.idx;
        for PrivateEntry { idx, t_us, row } in rows.into_iter().filter(|row| row.idx < end) {
            if !whom.is_named_by(&row) {
                continue;
            }
            if t_us > youngest {
                erased.too_young += 1;
                continue;
            }
            let other_epoch = found.first().is_some_and(|first| locate(*first).0 != locate(idx).0);
            if other_epoch || found.len() == PER_ENTRY {
                erased.entries += cut(log, whom, std::mem::take(&mut found)).await?;
            }
            found.push(idx);
        }
    }
    erased.entries += cut(log, whom, found).await?;
    Ok(erased)
}

/// Ends what is live on a user; the entry does not name him.
async fn end_grants_on(log: &Log, subject: &Sub, now: DateTime<Utc>) -> Result<u64, LogError> {
    let live = GrantFilter {
        subject: Some(subject.clone()),
        status: Some(GrantStatus::Active),
        ..GrantFilter::default()
    };
    if log.grants(&live, None, 1, now).await?.rows.is_empty() {
        return Ok(0);
    }
    let mut event = Event::new(EventType::Revoke);
    event.decision = Some(Decision::Granted);
    event.rule = Some("erased".into());
    event.detail = Some(std::iter::once(("target".to_owned(), "user".into())).collect());
    let ends = Revoke { selector: Selector::Subject(subject.clone()), of_client: None, hold: None };
    let record = Record { effects: vec![Effect::Revoke(ends)], ..Record::of(event).from_the_reserve() };
    Ok(log.record(record).await?.matched)
}

async fn cut(log: &Log, whom: &Whom, rows: Vec<i64>) -> Result<u64, LogError> {
    let Some(first) = rows.first() else { return Ok(0) };
    let mut detail = Map::new();
    let (epoch, _) = locate(*first);
    if epoch != log.epoch() {
        detail.insert("epoch".into(), epoch.into());
    }
    if let Whom::Actor { basis, .. } = whom {
        detail.insert("basis".into(), basis.as_str().into());
    }
    detail.insert("fields".into(), json!(whom.fields()));
    detail.insert("indexes".into(), json!(ranges(rows.iter().map(|idx| locate(*idx).1))));
    let count = rows.len() as u64;
    let event = Event { detail: Some(detail), ..Event::new(EventType::Erase) };
    let erases = Surgery::Erase { rows, fields: whom.fields() };
    log.operate(Record::of(event).from_the_reserve(), erases).await?;
    Ok(count)
}

/// Ascending numbers as ranges, ends included.
fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for n in numbers {
        match out.last_mut() {
            Some((_, high)) if *high + 1 == n => *high = n,
            _ => out.push((n, n)),
        }
    }
    out
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Drops the bodies and personal data of the current epoch's entries recorded before `before`, by whole tiles,
/// and keeps their hashes. The number of entries dropped.
///
/// # Errors
/// See [`RemovalError`]; what was recorded before stays pruned.
pub async fn prune(
    log: &Log,
    before: DateTime<Utc>,
    now: DateTime<Utc>,
    retention: TimeDelta,
) -> Result<u64, RemovalError> {
    if before > now - retention {
        return Err(RemovalError::TooYoung(retention.num_days()));
    }
    let db = log.db();
    let start = position(log.epoch(), 0);
    let size = super::read::newest_head(db).await.map_err(LogError::from)?.map_or(0, |head| head.size());
    let end = read::first_at_or_after(db, micros(before)).await.map_err(LogError::from)?;
    let end = end.map_or(size, |end| u64::try_from(end - start).unwrap_or(0));
    let below = end.min(size.saturating_sub(KEPT));
    let last_tile = (start >> 8) + (below >> 8).cast_signed();
    let mut tile = match read::last_pruned_tile(db, start >> 8).await.map_err(LogError::from)? {
        Some(done) => done + 1,
        None => start >> 8,
    };
    let mut dropped = 0;
    while tile < last_tile {
        let last = (tile + TILES).min(last_tile);
        let mut detail = Map::new();
        detail.insert("below".into(), json!(locate(last << 8).1));
        let event = Event { detail: Some(detail), ..Event::new(EventType::Prune) };
        log.operate(Record::of(event).from_the_reserve(), Surgery::Prune { first: tile, last }).await?;
        dropped += u64::try_from((last - tile) << 8).unwrap_or(0);
        tile = last;
    }
    Ok(dropped)
}
