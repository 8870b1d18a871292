//! Whether what a batch's records name is revoked, held, used up or taken, asked under the log's lock.
//!
//! This is what makes a stop a stop: whoever records after a revocation sees it, whatever his clock says or
//! his memory holds (audit-log.md §3). A few statements, whatever the batch's size.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::DateTime;

use super::approval::ApprovalState;
use super::record::{Condition, Effect, Record};
use super::stopping::{Beginning, Selector, Tag};
use super::{LogError, changes};
use crate::server::store::StoreError;
use crate::server::store::append::{Standing, StandingKind, Tx};
use crate::server::store::stop::{CutOff, CutOffKind};
use crate::token::GrantId;

/// What becomes of a record as far as revocations go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ruling {
    /// It stands.
    Stands,
    /// It becomes a denial.
    Denied(Condition),
    /// It is not made: a cut-off covers everything issued up to this second.
    NotYet(i64),
}

impl Ruling {
    /// The condition that fails a record, `failed` before this ruling's.
    ///
    /// # Errors
    /// [`LogError::NotYet`] for one that must not be made.
    pub(super) fn after(self, failed: Option<Condition>) -> Result<Option<Condition>, LogError> {
        match (failed, self) {
            (Some(failed), _) | (None, Self::Denied(failed)) => Ok(Some(failed)),
            (None, Self::Stands) => Ok(None),
            (None, Self::NotYet(second)) => {
                Err(LogError::NotYet { after: DateTime::from_timestamp(second, 0).unwrap_or_default() })
            }
        }
    }
}

/// What the database says of everything that a batch's conditions name.
#[derive(Default)]
struct Facts {
    t_us: i64,
    cut_offs: HashMap<(CutOffKind, String), CutOff>,
    /// Those that are not over.
    grants: HashSet<String>,
    open_codes: HashSet<String>,
    taken_keys: HashSet<String>,
    approvals: HashMap<String, ApprovalState>,
}

/// Rules on every record of a batch that would be recorded at `t_us`, in their order, so that of several
/// uses of one code or key the first wins.
pub(super) async fn judge(
    tx: &mut Tx<'_>,
    records: &[Record],
    cut_offs: Vec<CutOff>,
    standing: Vec<Standing>,
    t_us: i64,
) -> Result<Vec<Ruling>, StoreError> {
    let mut facts = gather(tx, records, t_us).await?;
    facts.cut_offs.extend(cut_offs.into_iter().map(|c| ((c.kind, c.target.clone()), c)));
    for Standing { kind, grant, .. } in standing.into_iter().filter(|standing| standing.exp_us > t_us) {
        match kind {
            StandingKind::Grant => facts.grants.insert(grant),
            StandingKind::Code => facts.open_codes.insert(grant),
        };
    }
    Ok(facts.rule_all(records))
}

/// Whether the rulings on a batch can be foreseen: its conditions are of the kinds that nearly always hold, and that a
/// single statement can check.
pub(super) fn is_foreseeable(records: &[Record]) -> bool {
    conditions(records).all(|condition| match condition {
        Condition::ClientActive(_)
        | Condition::GrantLive(_)
        | Condition::NotHeld(_)
        | Condition::CodeUnused(_)
        | Condition::KeyFree(_) => true,
        Condition::TargetsBelow { .. } | Condition::Waiting(_) | Condition::Approved(_) => false,
    })
}

/// The rulings on a batch if whatever it names stands, and no cut-off or hold meets it.
pub(super) fn foresee(records: &[Record], t_us: i64) -> Vec<Ruling> {
    let named = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    let facts =
        Facts { t_us, grants: named(grants(records)), open_codes: named(codes(records)), ..Facts::default() };
    facts.rule_all(records)
}

/// Idempotency keys that must be free.
pub(super) fn keys(records: &[Record]) -> Vec<&str> {
    let free = conditions(records).filter_map(|condition| match condition {
        Condition::KeyFree(Tag(tag)) => Some(&**tag),
        _ => None,
    });
    list(free.collect())
}

/// Grants whose approval is asked for.
fn requests(records: &[Record]) -> Vec<&str> {
    let asked = conditions(records).filter_map(|condition| match condition {
        Condition::Waiting(grant) | Condition::Approved(grant) => Some(grant.as_str()),
        _ => None,
    });
    list(asked.collect())
}

/// The earliest `iat`, seconds, of what must not be held: no cut-off before it meets any.
pub(super) fn since(records: &[Record]) -> i64 {
    let issued = conditions(records).filter_map(|condition| match condition {
        Condition::NotHeld(beginning) => Some(beginning.iat.timestamp()),
        _ => None,
    });
    issued.min().unwrap_or(i64::MAX)
}

/// Whatever a cut-off or hold could name to meet what is to be recorded.
pub(super) fn targets(records: &[Record]) -> Vec<&str> {
    let beginnings = conditions(records).filter_map(|condition| match condition {
        Condition::NotHeld(beginning) => Some(&**beginning),
        _ => None,
    });
    let names: HashSet<&str> = beginnings.flat_map(named).map(|(_, target)| target).collect();
    names.into_iter().collect()
}

/// Grants that must not be over.
pub(super) fn grants(records: &[Record]) -> Vec<&str> {
    let live = conditions(records).filter_map(|condition| match condition {
        Condition::GrantLive(grant) => Some(grant.as_str()),
        _ => None,
    });
    list(live.collect())
}

/// Grants whose code must not be used.
pub(super) fn codes(records: &[Record]) -> Vec<&str> {
    let unused = conditions(records).filter_map(|condition| match condition {
        Condition::CodeUnused(grant) => Some(grant.as_str()),
        _ => None,
    });
    list(unused.collect())
}

fn conditions(records: &[Record]) -> impl Iterator<Item = &Condition> {
    records.iter().flat_map(|record| &record.conditions)
}

async fn gather(tx: &mut Tx<'_>, records: &[Record], t_us: i64) -> Result<Facts, StoreError> {
    let mut facts = Facts { t_us, ..Facts::default() };
    // all else was asked with the lock
    let (keys, requests) = (keys(records), requests(records));
    if !keys.is_empty() {
        facts.taken_keys.extend(tx.taken_keys(&keys, t_us).await?);
    }
    if !requests.is_empty() {
        for (grant, state) in tx.approval_states(&requests).await? {
            let state = ApprovalState::parse(&state).ok_or(StoreError::Corrupt("an approval's state"))?;
            facts.approvals.insert(grant, state);
        }
    }
    Ok(facts)
}

fn list(set: BTreeSet<&str>) -> Vec<&str> {
    set.into_iter().collect()
}

/// Under which names a cut-off or hold could meet a token.
fn named(beginning: &Beginning) -> impl Iterator<Item = (CutOffKind, &str)> {
    let people = beginning.people.iter().map(|Tag(tag)| (CutOffKind::Person, &**tag));
    let kid = beginning.kid.iter().map(|kid| (CutOffKind::Kid, kid.as_str()));
    [(CutOffKind::All, ""), (CutOffKind::Client, beginning.client.as_str())]
        .into_iter()
        .chain(kid)
        .chain(people)
}

impl Facts {
    /// Of several uses of one code or key the first wins.
    fn rule_all(mut self, records: &[Record]) -> Vec<Ruling> {
        records
            .iter()
            .map(|record| {
                let ruling = self.rule(record);
                if ruling == Ruling::Stands {
                    self.take(record);
                }
                ruling
            })
            .collect()
    }

    fn rule(&self, record: &Record) -> Ruling {
        let mut not_yet = None;
        for condition in &record.conditions {
            let holds = match condition {
                Condition::GrantLive(grant) => self.grants.contains(grant.as_str()),
                Condition::NotHeld(beginning) => {
                    not_yet = not_yet.max(self.covered(beginning));
                    !self.held(beginning)
                }
                Condition::CodeUnused(grant) => self.open_codes.contains(grant.as_str()),
                Condition::KeyFree(Tag(tag)) => !self.taken_keys.contains(&**tag),
                Condition::Waiting(grant) => self.stands(grant, ApprovalState::Waiting),
                Condition::Approved(grant) => self.stands(grant, ApprovalState::Approved),
                Condition::ClientActive(_) | Condition::TargetsBelow { .. } => true,
            };
            if !holds {
                return Ruling::Denied(condition.clone());
            }
        }
        // a denial is final and recorded; only what would be granted waits for the next second
        not_yet.map_or(Ruling::Stands, Ruling::NotYet)
    }

    fn cut_off(&self, kind: CutOffKind, target: &str) -> Option<&CutOff> {
        // targets are few: a look-up that allocates is cheaper than a map of maps
        if self.cut_offs.is_empty() { None } else { self.cut_offs.get(&(kind, target.to_owned())) }
    }

    fn stands(&self, grant: &GrantId, state: ApprovalState) -> bool {
        self.approvals.get(grant.as_str()) == Some(&state)
    }

    fn held(&self, beginning: &Beginning) -> bool {
        named(beginning).any(|(kind, target)| {
            let until = self.cut_off(kind, target).and_then(|c| c.hold_until_us);
            until.is_some_and(|until| self.t_us < until)
        })
    }

    /// The last second that a cut-off covers, when it covers this token's. What a refused key signed is
    /// never recorded; the next attempt is signed with another.
    fn covered(&self, beginning: &Beginning) -> Option<i64> {
        let issued = beginning.iat.timestamp();
        let now = self.t_us.div_euclid(1_000_000);
        // nothing is recorded before it was issued: so a cut-off at this record's time covers all before it
        let early = (issued > now).then_some(now);
        let refused_key = beginning.kid.as_ref().and_then(|kid| self.cut_off(CutOffKind::Kid, kid.as_str()));
        [(CutOffKind::All, ""), (CutOffKind::Client, beginning.client.as_str())]
            .into_iter()
            .filter_map(|(kind, target)| self.cut_off(kind, target)?.until_iat)
            .filter(|until| issued <= *until)
            .chain(early)
            .chain(refused_key.map(|_| now))
            .max()
    }

    /// What a record that stands takes from those after it in the batch.
    fn take(&mut self, record: &Record) {
        for effect in &record.effects {
            match effect {
                Effect::Redeem(row) => {
                    self.open_codes.remove(row.grant.as_str());
                }
                Effect::InsertKey(row) => {
                    self.taken_keys.insert(row.key.0.to_string());
                }
                Effect::Revoke(revoke) => {
                    if let Selector::Grant(grant) = &revoke.selector {
                        self.grants.remove(grant.as_str());
                    }
                }
                Effect::Decide { grant, approved } => {
                    self.approvals.insert(grant.as_str().to_owned(), changes::decided(*approved));
                }
                Effect::Release(row) => {
                    self.approvals.insert(row.grant.as_str().to_owned(), ApprovalState::Released);
                }
                Effect::InsertGrant(_)
                | Effect::InsertChain { .. }
                | Effect::InsertCode(_)
                | Effect::InsertFacts { .. }
                | Effect::InsertApproval(_) => {}
            }
        }
    }
}
