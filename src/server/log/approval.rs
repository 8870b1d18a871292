//! A second person's word: what waits for it, and what became of it.

use chrono::{DateTime, Utc};

use super::clock_guard::micros;
use super::read::Grant;
use super::{Log, LogError, Tag};
use crate::server::store::grants;
use crate::token::GrantId;

/// The rule of an entry by which a colleague said no.
pub const REFUSED_BY_COLLEAGUE: &str = "refused_by_colleague";
/// The rule of a second use of a handoff code that ended its grant.
pub const CODE_REUSED: &str = "code_reused";

/// How long a request waits for a colleague, and an approved one for its asker, seconds.
pub const LAPSE_SECONDS: i64 = 30 * 60;

/// What became of a request for approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApprovalState {
    /// Nobody has decided yet.
    Waiting,
    /// A colleague said yes; the asker has not come for the token.
    Approved,
    /// A colleague said no.
    Refused,
    /// The token was signed.
    Released,
    /// It was demanded of nobody: glass was broken.
    Waived,
}

impl ApprovalState {
    const ALL: [Self; 5] = [Self::Waiting, Self::Approved, Self::Refused, Self::Released, Self::Waived];

    /// The word in the row and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::Released => "released",
            Self::Waived => "waived",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// A request as it is made, or a grant that did without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRow {
    /// The grant.
    pub grant: GrantId,
    /// [`ApprovalState::Waiting`] or [`ApprovalState::Waived`].
    pub state: ApprovalState,
    /// When it lapses.
    pub lapses_at: DateTime<Utc>,
    /// The lifetime asked for, seconds.
    pub lifetime_seconds: u32,
    /// Stands for the asker as the directory knows him.
    pub asker: Option<Tag>,
}

/// What stands beside a grant that needed a second person, or would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// What became of it.
    pub state: ApprovalState,
    /// When it lapses unless its token is signed.
    pub lapses_at: DateTime<Utc>,
    /// The lifetime that was asked for, seconds: counted from the token's signature.
    pub lifetime_seconds: u32,
    /// Stands for the asker as the directory knows him.
    pub asker: Option<Tag>,
}

impl Log {
    /// Up to `limit` requests that wait at `now`, for a colleague or, approved, for their asker; those that
    /// lapse first first.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn open_requests(
        &self,
        now: DateTime<Utc>,
        undecided: bool,
        limit: u32,
    ) -> Result<Vec<Grant>, LogError> {
        let found = self.db().open_requests(micros(now), undecided, i64::from(limit)).await?;
        let mut records = grants::grants_at(self.db(), &found).await?;
        records.sort_by_key(|record| (record.approval.as_ref().map(|row| row.lapses_us), record.idx));
        Ok(records.into_iter().map(Grant::read).collect::<Result<_, _>>()?)
    }
}
