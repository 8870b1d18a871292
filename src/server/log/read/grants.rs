//! Grants as they are listed: the stored row with what the log says of its people.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{Cursor, Fingerprint, LogEntry, Page, PersonalData, fingerprint};
use crate::server::log::approval::{Approval, ApprovalState, LAPSE_SECONDS};
use crate::server::log::body::{disclosure_digest, open_disclosure};
use crate::server::log::clock_guard::micros;
use crate::server::log::conditions;
use crate::server::log::head::{locate, position};
use crate::server::log::record::GrantRow;
use crate::server::log::{Log, LogError, Tag};
use crate::server::store::StoreError;
use crate::server::store::grants::{self, GrantRecord, State};
use crate::server::store::read::{self, Key, Search};
use crate::token::{Act, Assurance, Audience, ClientId, GrantId, Scope, Sub};

/// What became of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantStatus {
    /// Not used through this service yet.
    Pending,
    /// Redeemed.
    Accepted,
    /// Revoked.
    Revoked,
    /// Neither revoked nor ended; only to filter by.
    Active,
    /// Ended without having been revoked; only to filter by.
    Expired,
}

impl GrantStatus {
    /// The words that can be filtered by.
    pub const WORDS: &'static [&'static str] = &["pending", "accepted", "revoked", "active", "expired"];

    /// The word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Revoked => "revoked",
            Self::Active => "active",
            Self::Expired => "expired",
        }
    }

    /// Reads a word of [`Self::WORDS`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Pending, Self::Accepted, Self::Revoked, Self::Active, Self::Expired]
            .into_iter()
            .find(|status| status.as_str() == word)
    }

    const fn state(self) -> State {
        match self {
            Self::Pending => State::Pending,
            Self::Accepted => State::Accepted,
            Self::Revoked => State::Revoked,
            Self::Active => State::Active,
            Self::Expired => State::Expired,
        }
    }
}

/// Which grants; what is absent does not narrow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantFilter {
    /// The client that asked.
    pub client: Option<ClientId>,
    /// The target.
    pub subject: Option<Sub>,
    /// The acting person.
    pub actor: Option<Sub>,
    /// What became of it.
    pub status: Option<GrantStatus>,
}

impl Fingerprint for GrantFilter {
    fn fingerprint(&self) -> [u8; 4] {
        fingerprint(self)
    }
}

/// A grant as it is listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The row.
    pub row: GrantRow,
    /// Pending, accepted or revoked.
    pub status: GrantStatus,
    /// The target, unless erased.
    pub subject: Option<Sub>,
    /// The actor with his chain, unless erased.
    pub actor: Option<Act>,
    /// Why, unless erased.
    pub reason: Option<String>,
    /// The ticket, unless erased.
    pub ticket: Option<String>,
    /// What stands beside it when a colleague was asked, or glass was broken.
    pub approval: Option<Approval>,
    /// Redeemed at.
    pub accepted_at: Option<DateTime<Utc>>,
    /// Revoked at.
    pub revoked_at: Option<DateTime<Utc>>,
    /// Last changed at.
    pub updated_at: DateTime<Utc>,
    /// The epoch of the entry that issued it.
    pub epoch: u32,
    /// The index of the entry that issued it.
    pub index: u64,
}

impl Grant {
    /// Whether it is neither revoked nor ended at `now`.
    #[must_use]
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.row.exp > now
    }

    /// Whether it was made without the colleague whom the policy asks for otherwise.
    #[must_use]
    pub fn is_break_glass(&self) -> bool {
        self.approval.as_ref().is_some_and(|approval| approval.state == ApprovalState::Waived)
    }

    /// Whether `entry` says the same of scope, audience, lifetime and people.
    fn is_in(&self, entry: &LogEntry) -> bool {
        let Some(body) = &entry.body else { return false };
        let scope = self.row.scope.to_string();
        let aud: Vec<&str> = self.row.aud.iter().map(Audience::as_str).collect();
        let lifetime = self.approval.as_ref().map(|approval| approval.lifetime_seconds);
        let is_bound = |disclosure: &String| {
            open_disclosure(disclosure)
                .is_some_and(|(name, _)| body[format!("{name}_sd")] == disclosure_digest(disclosure))
        };
        body["grant"] == self.row.id.as_str()
            && body["client"] == self.row.client.as_str()
            && body["scope"] == scope.as_str()
            && body["aud"] == json!(aud)
            && body["ttl"] == json!(lifetime)
            && entry.disclosures.iter().all(is_bound)
    }

    pub(in crate::server::log) fn read(record: GrantRecord) -> Result<Self, StoreError> {
        const BAD: StoreError = StoreError::Corrupt("a grant");
        let time = |us: i64| DateTime::from_timestamp_micros(us).ok_or(BAD);
        let disclosures: Vec<String> = match &record.disclosures {
            Some(text) => serde_json::from_str(text).map_err(|_| BAD)?,
            None => Vec::new(),
        };
        let personal = PersonalData::open(&disclosures);
        let status = match (record.revoked_at_us, record.accepted_at_us) {
            (Some(_), _) => GrantStatus::Revoked,
            (None, Some(_)) => GrantStatus::Accepted,
            (None, None) => GrantStatus::Pending,
        };
        let (epoch, index) = locate(record.idx);
        let text = |name: &str| personal.get(name).and_then(|text| Some(text.as_str()?.to_owned()));
        Ok(Self {
            row: GrantRow {
                id: record.id.parse().map_err(|_| BAD)?,
                jti: record.jti.parse().map_err(|_| BAD)?,
                client: record.client.parse().map_err(|_| BAD)?,
                kid: record.kid.parse().map_err(|_| BAD)?,
                aud: serde_json::from_str(&record.aud).map_err(|_| BAD)?,
                scope: Scope::parse(&record.scope).map_err(|_| BAD)?,
                assurance: match record.assurance.as_str() {
                    "verified" => Assurance::Verified,
                    "asserted" => Assurance::Asserted,
                    _ => return Err(BAD),
                },
                iat: time(record.iat_us)?,
                exp: time(record.exp_us)?,
                created_at: time(record.created_at_us)?,
                parent: record.parent.map(|id| id.parse()).transpose().map_err(|_| BAD)?,
            },
            status,
            subject: personal.get("sub").and_then(|sub| Sub::try_from(sub.as_str()?).ok()),
            actor: personal.get("act").and_then(|act| serde_json::from_value(act.clone()).ok()),
            reason: text("reason"),
            ticket: text("ticket"),
            approval: match record.approval {
                None => None,
                Some(row) => Some(Approval {
                    state: ApprovalState::parse(&row.state).ok_or(BAD)?,
                    lapses_at: time(row.lapses_us)?,
                    lifetime_seconds: u32::try_from(row.lifetime_seconds).map_err(|_| BAD)?,
                    asker: row.asker_tag.map(|tag| Tag(tag.into())),
                }),
            },
            accepted_at: record.accepted_at_us.map(time).transpose()?,
            revoked_at: record.revoked_at_us.map(time).transpose()?,
            updated_at: time(record.updated_at_us)?,
            epoch,
            index,
        })
    }
}

impl Log {
    /// Grants that match at `now`, newest first.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn grants(
        &self,
        filter: &GrantFilter,
        cursor: Option<Cursor>,
        limit: u32,
        now: DateTime<Utc>,
    ) -> Result<Page<Grant>, LogError> {
        let (db, now_us) = (self.db(), micros(now));
        let high = Cursor::below(cursor);
        let state = filter.status.map(GrantStatus::state);
        let low = match state {
            // no grant lives longer than the cap, nor waits longer than this for a colleague: what was asked
            // for before cannot be active
            Some(State::Active) => {
                let longest = i64::from(crate::server::policy::LIFETIME_CAP_SECONDS) + LAPSE_SECONDS;
                let cap = longest * 1_000_000;
                read::first_at_or_after(db, now_us - cap - 60_000_000).await?.unwrap_or(i64::MAX)
            }
            _ => 0,
        };
        let client = filter.client.as_ref().map(ClientId::as_str);
        let records = if let Some(search) = person_search(filter, now_us) {
            let found = read::search_newest(db, &search, low, high, limit as usize + 1).await?;
            grants::grants_at(db, &found).await?
        } else {
            let state = state.map(|state| (state, now_us));
            grants::newest_grants(db, (low, high), client, state, i64::from(limit) + 1).await?
        };
        let more = records.len() > limit as usize;
        let mut records = records;
        records.truncate(limit as usize);
        let next = records.last().filter(|_| more).map(|last| Cursor::text(last.idx, filter));
        let rows = records.into_iter().map(Grant::read).collect::<Result<_, _>>()?;
        Ok(Page { rows, next })
    }

    /// One grant; `None` when there is none.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn grant(&self, id: &GrantId) -> Result<Option<Grant>, LogError> {
        let record = grants::grant(self.db(), id.as_str()).await?;
        Ok(record.map(Grant::read).transpose()?)
    }

    /// Whether a request that waits for a colleague is what its entry says was asked for: a row can be changed by
    /// whoever can write the database, and is all that the colleague is shown.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn is_as_asked(&self, grant: &Grant) -> Result<bool, LogError> {
        let stored = read::entries_at(self.db(), &[position(grant.epoch, grant.index)]).await?;
        let entry = stored.into_iter().next().map(|row| LogEntry::read(row, true)).transpose()?;
        Ok(entry.is_some_and(|entry| grant.is_in(&entry)))
    }

    /// The different targets that `actor` was granted since `since`. A limit on it belongs into
    /// [`Condition::TargetsBelow`](crate::server::log::Condition::TargetsBelow), which counts under the lock.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn targets_since(&self, actor: &Act, since: DateTime<Utc>) -> Result<HashSet<Sub>, LogError> {
        Ok(conditions::targets_since(self.db(), actor, micros(since)).await?)
    }
}

/// The search over entries that answers a filter on a person.
fn person_search(filter: &GrantFilter, now_us: i64) -> Option<Search> {
    let people = [
        (Key::Subject, filter.subject.as_ref().map(Sub::as_str)),
        (Key::Actor, filter.actor.as_ref().map(Sub::as_str)),
    ];
    let client = (Key::Client, filter.client.as_ref().map(ClientId::as_str));
    let mut set = people.into_iter().filter_map(|(key, value)| Some((key, value?.to_owned())));
    let (key, value) = set.next()?;
    let and = set.chain(client.1.map(|value| (client.0, value.to_owned()))).collect();
    Some(Search { key, value, and, also: State::of_entry(filter.status.map(GrantStatus::state), now_us) })
}
