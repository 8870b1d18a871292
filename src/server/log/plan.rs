//! What becomes of a batch, known everything it depends on: entries, head, rows and changes.

use super::LogError;
use super::body::{BodyError, ClockFlag, Draft, Encoded};
use super::changes;
use super::clock_guard::{Verdict, micros};
use super::head::{Head, position};
use super::record::{Condition, Decision, Effect, EventType, GrantRow, Record, Reserve};
use super::standing::Ruling;
use super::tree::BatchNodes;
use crate::server::store::append::{Batch, StoredGrant};
use crate::server::store::stop::Changes;
use crate::token::Entropy;

/// How far a token's `iat` may lie from the time of its entry, microseconds.
pub(super) const IAT_TOLERANCE_US: i64 = 30_000_000;

/// The condition that turned a record into its denial, or why it is not recorded at all.
pub(super) type Outcome = Result<Option<Condition>, LogError>;

/// What a batch is planned on.
pub(super) struct Given<'b> {
    /// The head it continues.
    pub head: Head,
    pub verdict: Verdict,
    /// How far into the reserve of free space a record has to go.
    pub needs: Reserve,
    /// The name of this process among replicas.
    pub replica: &'b str,
}

/// A batch as it would be recorded.
pub(super) struct Planned<'b> {
    /// One a record, in their order.
    pub outcomes: Vec<Outcome>,
    /// The head it makes.
    pub made: Head,
    pub nodes: BatchNodes,
    pub batch: Batch<'b>,
    pub changes: Changes,
}

impl Planned<'_> {
    /// Whether none of the records is recorded.
    pub fn is_nothing(&self) -> bool {
        self.batch.entries.is_empty()
    }
}

impl<'b> Given<'b> {
    /// Plans records, `failed` and `rulings` telling of each what it failed by.
    pub fn plan(
        &self,
        records: &[Record],
        drafts: Vec<Draft>,
        failed: Vec<Option<Condition>>,
        rulings: Vec<Ruling>,
        entropy: &dyn Entropy,
    ) -> Planned<'b> {
        let t_us = self.verdict.t_us();
        let (mut entries, mut effects) = (Vec::<Encoded>::new(), Vec::<&[Effect]>::new());
        let mut outcomes = Vec::with_capacity(records.len());
        for ((record, draft), (failed, ruling)) in
            records.iter().zip(drafts).zip(failed.into_iter().zip(rulings))
        {
            let outcome = ruling.after(failed).and_then(|failed| {
                let planned = self.plan_one(record, draft, failed.as_ref(), entropy)?;
                Ok((failed, planned))
            });
            outcomes.push(outcome.map(|(failed, (encoded, its_effects))| {
                entries.push(encoded);
                effects.push(its_effects);
                failed
            }));
        }
        let head = &self.head;
        let mut frontier = head.frontier.clone();
        let leaves = entries.iter().map(|encoded| encoded.leaf);
        let mut subtrees = Vec::new();
        let nodes = BatchNodes::append(&mut frontier, leaves, |height, n, hash| {
            if height > 0 && height % 8 == 0 {
                let level = i64::from(height / 8);
                subtrees.push((level, (position(head.epoch, 0) >> height) + n.cast_signed(), hash));
            }
        });
        let made = Head { epoch: head.epoch, root: frontier.root(), frontier, t_us: Some(t_us) };
        let placed = || (head.end()..).zip(effects.iter().copied());
        let grants = placed().flat_map(|(idx, effects)| {
            effects.iter().filter_map(move |effect| match effect {
                Effect::InsertGrant(grant) => Some(stored_grant(idx, grant)),
                _ => None,
            })
        });
        let changes = changes::of(placed(), t_us);
        let batch = Batch {
            prev: head.end(),
            head: made.stored(),
            replica: self.replica,
            grants: grants.collect(),
            entries,
            subtrees,
        };
        Planned { outcomes, made, nodes, batch, changes }
    }

    /// Decides what becomes of one record; whatever is wrong with it stays with it.
    fn plan_one<'r>(
        &self,
        record: &'r Record,
        draft: Draft,
        failed: Option<&Condition>,
        entropy: &dyn Entropy,
    ) -> Result<(Encoded, &'r [Effect]), LogError> {
        if record.reserve < self.needs {
            return Err(LogError::Full);
        }
        let (t_us, flag) = match self.verdict {
            Verdict::Good(t_us) => (t_us, None),
            Verdict::Bad(t_us, flag) if !record.is_attempt() => (t_us, Some(flag)),
            Verdict::Bad(_, ClockFlag::Behind) => return Err(LogError::ClockBehind),
            Verdict::Bad(_, ClockFlag::Jumped) => return Err(LogError::ClockJumped),
        };
        if let Some(condition) = failed {
            let denied = record.event.clone().denied(condition.rule());
            return Ok((Draft::of(&denied, flag, entropy)?.at(t_us), &[]));
        }
        let event = &record.event;
        let released = matches!(event.typ, EventType::Issue | EventType::Redeem)
            && event.decision == Some(Decision::Granted);
        let iat_us = event.iat.filter(|_| released && event.signed_sha256.is_some()).map(micros);
        if iat_us.is_some_and(|iat| iat.abs_diff(t_us) > IAT_TOLERANCE_US.unsigned_abs()) {
            return Err(LogError::ClockJumped);
        }
        let draft = if flag.is_some() { Draft::of(event, flag, entropy)? } else { draft };
        Ok((draft.at(t_us), &record.effects))
    }
}

/// Why a record of a batch that came to nothing was not recorded.
pub(super) fn refusal(outcome: Outcome) -> LogError {
    match outcome {
        Err(error) => error,
        // unreachable in practice: nothing was appended, so nothing was planned
        Ok(_) => LogError::Unrecordable(BodyError::Profile),
    }
}

fn stored_grant(idx: i64, grant: &GrantRow) -> StoredGrant {
    StoredGrant {
        idx,
        id: grant.id.as_str().to_owned(),
        jti: grant.jti.as_str().to_owned(),
        client: grant.client.as_str().to_owned(),
        kid: grant.kid.as_str().to_owned(),
        aud: serde_json::to_string(&grant.aud).unwrap_or_else(|_| "[]".into()),
        scope: grant.scope.to_string(),
        assurance: grant.assurance.as_str(),
        iat_us: micros(grant.iat),
        exp_us: micros(grant.exp),
        created_at_us: micros(grant.created_at),
        parent: grant.parent.as_ref().map(|id| id.as_str().to_owned()),
    }
}
