//! The life of one grant: asked, issued, redeemed, used, stopped, expired.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::{EntryFilter, Grant, LogEntry};
use crate::server::log::sightings::USED_AT;
use crate::server::log::{EventType, Log, LogError, REFUSED_BY_COLLEAGUE};
use crate::server::store::read;

/// The most revocations of one moment that are looked through.
const OF_A_MOMENT: u32 = 1000;

/// What an entry means in the life of its grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Somebody asked; no token was made yet (it waits for approval, or for its handoff code to be used).
    Asked,
    /// A second person approved.
    Approved,
    /// A second person was asked, and said no.
    Refused,
    /// Somebody tried to decide on the request who may not, or too late.
    ApproveRefused,
    /// A token was made.
    Issued,
    /// The request was gone on with, and refused.
    IssueRefused,
    /// The handoff code was exchanged for the token.
    Redeemed,
    /// An exchange of the handoff code was refused.
    RedeemRefused,
    /// The token was shown to this service.
    Used,
    /// The token was shown to this service, and the policy would not give its grant any more.
    UseRefused,
    /// Revoked, or stopped by who held it.
    Stopped,
    /// Somebody tried to stop it who may not: it lives on.
    StopRefused,
    /// Its time was over.
    Expired,
    /// Something else that names the grant.
    Other,
}

impl Step {
    /// The word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::ApproveRefused => "approve_refused",
            Self::Issued => "issued",
            Self::IssueRefused => "issue_refused",
            Self::Redeemed => "redeemed",
            Self::RedeemRefused => "redeem_refused",
            Self::Used => "used",
            Self::UseRefused => "use_refused",
            Self::Stopped => "stopped",
            Self::StopRefused => "stop_refused",
            Self::Expired => "expired",
            Self::Other => "other",
        }
    }

    /// What `entry` means.
    #[must_use]
    pub fn of(entry: &LogEntry) -> Self {
        let body = |name: &str| entry.body.as_ref().and_then(|body| body.get(name)).and_then(Value::as_str);
        match (body("typ"), body("decision")) {
            (Some("issue"), Some("granted")) if body("signed_sha256").is_some() => Self::Issued,
            (Some("issue"), Some("granted" | "pending")) => Self::Asked,
            (Some("issue"), _) => Self::IssueRefused,
            (Some("redeem"), Some("granted")) => Self::Redeemed,
            (Some("redeem"), _) => Self::RedeemRefused,
            (Some("approve"), Some("granted")) => Self::Approved,
            (Some("approve"), _) if body("rule") == Some(REFUSED_BY_COLLEAGUE) => Self::Refused,
            (Some("approve"), _) => Self::ApproveRefused,
            (Some("use"), Some("denied")) => Self::UseRefused,
            (Some("use"), _) => Self::Used,
            (Some("revoke"), Some("granted")) => Self::Stopped,
            (Some("revoke"), _) => Self::StopRefused,
            _ => Self::Other,
        }
    }
}

/// When what `entry` says happened: a use is recorded a moment after it was seen.
fn when(entry: &LogEntry) -> DateTime<Utc> {
    let seen = || {
        let body = entry.body.as_ref().filter(|body| body["typ"] == EventType::Use.as_str())?;
        DateTime::from_timestamp_micros(body["detail"][USED_AT].as_i64()?)
    };
    seen().unwrap_or(entry.time)
}

/// A step, when it was taken, and the entry that says so.
#[derive(Debug, Clone)]
pub struct Stage {
    /// What happened.
    pub step: Step,
    /// When.
    pub at: DateTime<Utc>,
    /// Where it stands; `None` for what no entry says: time that passed, a stop that cannot be told from another any more.
    pub entry: Option<LogEntry>,
}

impl Log {
    /// The stages of `grant` up to `now`, in order. Disclosures come along only when `personal`.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn history(
        &self,
        grant: &Grant,
        now: DateTime<Utc>,
        personal: bool,
    ) -> Result<Vec<Stage>, LogError> {
        let entries = self.entries_of_grant(&grant.row.id, personal).await?;
        let mut stages: Vec<Stage> = entries
            .into_iter()
            .map(|entry| Stage { step: Step::of(&entry), at: when(&entry), entry: Some(entry) })
            .collect();
        let stopped = stages.iter().any(|stage| stage.step == Step::Stopped);
        if let Some(at) = grant.revoked_at.filter(|_| !stopped) {
            let entry = self.revocation_of(grant, at, personal).await?;
            stages.push(Stage { step: Step::Stopped, at, entry });
        } else if grant.revoked_at.is_none() && grant.row.exp <= now {
            stages.push(Stage { step: Step::Expired, at: grant.row.exp, entry: None });
        }
        stages.sort_by_key(|stage| stage.at);
        Ok(stages)
    }

    /// The entry that ended `grant` at `at`. One by person, client, key or of all names the grants it hit in sums only.
    async fn revocation_of(
        &self,
        grant: &Grant,
        at: DateTime<Utc>,
        personal: bool,
    ) -> Result<Option<LogEntry>, LogError> {
        if let Some(idx) = self.db().ended_by(grant.row.id.as_str()).await? {
            let row = read::entries_at(self.db(), &[idx]).await?.pop();
            let entry = row.map(|row| LogEntry::read(row, personal)).transpose()?;
            return Ok(entry.filter(|entry| Step::of(entry) == Step::Stopped));
        }
        let filter = EntryFilter {
            typ: Some("revoke".into()),
            since: Some(at),
            until: Some(at + TimeDelta::microseconds(1)),
            ..EntryFilter::default()
        };
        let mut found = self.entries(&filter, None, OF_A_MOMENT, personal).await?;
        found.rows.retain(|entry| may_have_ended(entry, grant));
        // a batch has one time for all: what may be somebody else's is not named
        let alone = found.rows.len() == 1 && found.next.is_none();
        Ok(found.rows.pop().filter(|_| alone))
    }
}

/// Whether a revocation that does not name `grant` may be the one that ended it.
fn may_have_ended(entry: &LogEntry, grant: &Grant) -> bool {
    let Some(body) = entry.body.as_ref().filter(|_| Step::of(entry) == Step::Stopped) else { return false };
    let fits = |named: Option<&Value>, own: &str| named.is_none_or(|named| named == own);
    body.get("grant").is_none()
        && fits(body.get("kid"), grant.row.kid.as_str())
        && fits(body.get("detail").and_then(|detail| detail.get("client")), grant.row.client.as_str())
}
