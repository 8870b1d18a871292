//! Conditions under the log's lock: evaluated for a whole batch at once, one statement a kind.

use std::collections::{HashMap, HashSet};

use super::clock_guard::micros;
use super::record::{Condition, Decision, EventType, Record};
use crate::server::store::append::Tx;
use crate::server::store::{Db, StoreError, read};
use crate::token::{Act, Clock, Sub};

const HOUR_US: i64 = 3_600_000_000;

/// Who acts, as targets are counted.
type Who = (String, Option<String>);

/// Where the entries of the last hour begin, when a condition asks for it. Looked up before the lock is
/// taken: what was recorded an hour ago does not change.
pub(super) async fn hour_ago(db: &Db, records: &[Record], clock: &dyn Clock) -> Result<i64, StoreError> {
    let counts = |condition: &Condition| matches!(condition, Condition::TargetsBelow { .. });
    if !records.iter().flat_map(|record| &record.conditions).any(counts) {
        return Ok(i64::MAX);
    }
    Ok(read::first_at_or_after(db, micros(clock.now()) - HOUR_US).await?.unwrap_or(i64::MAX))
}

/// Clients that have to be active.
pub(super) fn clients(records: &[Record]) -> Vec<&str> {
    let clients: HashSet<&str> = records
        .iter()
        .flat_map(|record| &record.conditions)
        .filter_map(|condition| match condition {
            Condition::ClientActive(client) => Some(client.as_str()),
            _ => None,
        })
        .collect();
    list(&clients)
}

/// The first condition of each record that does not hold, in the order of the batch: what a record
/// of the batch changes counts for those after it.
pub(super) async fn failed(
    tx: &mut Tx<'_>,
    records: &[Record],
    active: &[String],
    hour_ago: i64,
    end: i64,
) -> Result<Vec<Option<Condition>>, StoreError> {
    let all = || records.iter().flat_map(|record| &record.conditions);
    let actors: HashSet<&str> = all()
        .filter_map(|condition| match condition {
            Condition::TargetsBelow { actor, .. } => Some(actor.sub.as_str()),
            _ => None,
        })
        .collect();
    let active: HashSet<&str> = active.iter().map(String::as_str).collect();
    let mut targets: HashMap<Who, HashSet<String>> = HashMap::new();
    if !actors.is_empty() && hour_ago < end {
        for (actor, iss, subject) in tx.targets(&list(&actors), hour_ago, end).await? {
            targets.entry((actor, iss)).or_default().extend(subject);
        }
    }
    let mut out = Vec::with_capacity(records.len());
    for record in records {
        let holds = |condition: &&Condition| match condition {
            Condition::ClientActive(client) => active.contains(client.as_str()),
            Condition::TargetsBelow { actor, subject, max } => {
                let seen = targets.get(&who(actor));
                let others = seen.map_or(0, |seen| seen.iter().filter(|s| *s != subject.as_str()).count());
                others < usize::try_from(*max).unwrap_or(usize::MAX)
            }
            // `standing` rules on these
            Condition::GrantLive(_)
            | Condition::NotHeld(_)
            | Condition::CodeUnused(_)
            | Condition::KeyFree(_)
            | Condition::Waiting(_)
            | Condition::Approved(_) => true,
        };
        let failed = record.conditions.iter().find(|condition| !holds(condition)).cloned();
        let event = &record.event;
        let granted = event.typ == EventType::Issue && event.decision == Some(Decision::Granted);
        if let (None, true, Some(actor), Some(subject)) =
            (&failed, granted, &event.personal.actor, &event.personal.subject)
        {
            targets.entry(who(actor)).or_default().insert(subject.as_str().to_owned());
        }
        out.push(failed);
    }
    Ok(out)
}

/// How many different targets `actor` was granted since `since_us`, without the lock: for the policy's eyes,
/// the append counts again.
pub(super) async fn targets_since(db: &Db, actor: &Act, since_us: i64) -> Result<HashSet<Sub>, StoreError> {
    let Some(low) = read::first_at_or_after(db, since_us).await? else { return Ok(HashSet::new()) };
    let rows = read::targets(db, actor.sub.as_str(), low).await?;
    let iss = actor.iss.as_ref().map(crate::token::Issuer::as_str);
    Ok(rows
        .into_iter()
        .filter(|(by, _)| by.as_deref() == iss)
        .filter_map(|(_, subject)| Sub::try_from(subject?.as_str()).ok())
        .collect())
}

fn who(actor: &Act) -> Who {
    (actor.sub.as_str().to_owned(), actor.iss.as_ref().map(|iss| iss.as_str().to_owned()))
}

fn list<'a>(names: &HashSet<&'a str>) -> Vec<&'a str> {
    names.iter().copied().collect()
}
