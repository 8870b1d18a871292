//! The log's side of witnessing: asks the configured witnesses to cosign the newest checkpoint, keeps what
//! they sign, and knows how long the oldest entry has waited for enough of them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Url;

use super::head::{locate, position};
use super::note::{NoteError, split};
use super::witness::{CosignatureVerifier, request};
use super::{Checkpoint, Log, LogError, ReadError};
use crate::server::outbound::{Call, Outbound, OutboundError, chain};
use crate::server::store::{cosig, read};

/// How often witnesses are asked, and the signed checkpoint is written to the log stream.
pub const EVERY: Duration = Duration::from_secs(10);
/// How many cosignature lines are looked through for one that verifies: anybody who can write the table writes there.
const LOOKED_THROUGH: i64 = 1000;
/// How many sizes that enough witnesses are said to have signed are fetched at a time, and how often.
const SIZES: (i64, usize) = (32, 32);

/// One of the witnesses.
#[derive(Debug, Clone)]
pub struct WitnessAt {
    /// Where its `add-checkpoint` is.
    pub url: Url,
    /// What it signs with.
    pub verifier: CosignatureVerifier,
}

/// Why a witness did not cosign.
#[derive(Debug, thiserror::Error)]
enum AskError {
    /// It could not be asked.
    #[error("it cannot be asked")]
    Outbound(#[from] OutboundError),
    /// It does not know the log, or not its key.
    #[error("it answered {0}; give its operator the key at /v1/audit/log/vkey")]
    Refused(u16),
    /// It signed nothing that verifies under its key.
    #[error("its cosignature is not acceptable")]
    Cosignature(#[from] NoteError),
    /// It has cosigned more than there is: the log went back.
    #[error("ROLLBACK: it has cosigned {seen} entries, the log has {size}")]
    Rollback { seen: u64, size: u64 },
    /// The log is not the one it cosigned.
    #[error("FORK: the log did not grow from the {0} entries that it cosigned")]
    Fork(u64),
    /// Another replica was quicker.
    #[error("another replica asks it at this moment")]
    Overtaken,
    /// The log could not be read.
    #[error("the log could not be read")]
    Log(#[from] LogError),
}

impl AskError {
    /// Whether the witness says that the log was cut or rewritten.
    const fn is_alarm(&self) -> bool {
        matches!(self, Self::Rollback { .. } | Self::Fork(_))
    }
}

impl From<ReadError> for AskError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Log(error) => Self::Log(error),
            // sizes were compared before
            ReadError::Range(_) | ReadError::Pruned => Self::Overtaken,
        }
    }
}

/// What the last round left.
#[derive(Debug, Default)]
struct Seen {
    /// When the oldest entry was recorded that too few witnesses know of.
    waiting_since: Option<DateTime<Utc>>,
    /// How far each witness's cosignature was found to verify (global position).
    ends: HashMap<String, i64>,
    /// What keeps a witness from cosigning, said once; and whether it is an alarm.
    problems: HashMap<String, (String, bool)>,
}

/// The configured witnesses, and how many of them make a checkpoint witnessed.
#[derive(Debug)]
pub struct Witnesses {
    list: Vec<WitnessAt>,
    required: usize,
    outbound: Outbound,
    seen: Mutex<Seen>,
}

impl Witnesses {
    /// `required` of `list`, asked through `outbound`.
    #[must_use]
    pub fn new(list: Vec<WitnessAt>, required: usize, outbound: Outbound) -> Self {
        Self { list, required, outbound, seen: Mutex::default() }
    }

    /// Whether there are any.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Asks every witness that has not cosigned the newest checkpoint to do so. Of several replicas the one
    /// that looks first after [`EVERY`] asks.
    ///
    /// # Errors
    /// The log could not be read. What a witness did is logged, not returned.
    pub async fn round(&self, log: &Log, now: DateTime<Utc>) -> Result<(), LogError> {
        if self.list.is_empty() {
            return Ok(());
        }
        let start = position(log.epoch(), 0);
        if self.is_due(log, start, now).await? {
            // the same for all of them: only lines on one size make it witnessed
            let note = log.checkpoint().await?;
            for witness in &self.list {
                let asked = self.ask(log, witness, &note, start).await;
                self.tell(witness, asked);
            }
        }
        self.look(log, start).await
    }

    async fn is_due(&self, log: &Log, start: i64, now: DateTime<Utc>) -> Result<bool, LogError> {
        let ends = self.ends(log, start).await?;
        let Some(newest) = ends.iter().copied().max().filter(|end| *end > start) else { return Ok(true) };
        let head = read::head_at_or_before(log.db(), start, newest).await?;
        let since = head.and_then(|head| DateTime::from_timestamp_micros(head.t_us));
        let every = TimeDelta::from_std(EVERY).unwrap_or_default();
        // a round that some witnesses missed is tried again at once
        let missing = ends.iter().any(|end| *end < newest);
        Ok(missing || since.is_none_or(|since| now - since >= every))
    }

    /// How far each witness has cosigned; `start` where it has not.
    async fn ends(&self, log: &Log, start: i64) -> Result<Vec<i64>, LogError> {
        let mut ends = Vec::with_capacity(self.list.len());
        for witness in &self.list {
            ends.push(self.end(log, &witness.verifier, start).await?);
        }
        Ok(ends)
    }

    /// How far a witness has cosigned. Anybody who can write the table writes lines there: only what verifies counts.
    async fn end(&self, log: &Log, verifier: &CosignatureVerifier, start: i64) -> Result<i64, LogError> {
        let known = self.seen().ends.get(verifier.name()).copied().unwrap_or(start);
        let lines = cosig::newest_of(log.db(), verifier.name(), known, LOOKED_THROUGH).await?;
        for (end, line) in lines {
            let (epoch, last) = locate(end - 1);
            // a line of this epoch says nothing of another
            if epoch != log.epoch() {
                continue;
            }
            let Some(note) = log.checkpoint_of(last + 1).await? else { continue };
            if split(&note).is_ok_and(|(text, _)| verifier.line_in(text, &line).is_ok()) {
                self.seen().ends.insert(verifier.name().to_owned(), end);
                return Ok(end);
            }
        }
        Ok(known)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one witness about `note`, the checkpoint of this round.
    async fn ask(&self, log: &Log, witness: &WitnessAt, note: &str, start: i64) -> Result<(), AskError> {
        let name = witness.verifier.name();
        let known = self.end(log, &witness.verifier, start).await?;
        let mut old = u64::try_from(known - start).unwrap_or(0);
        let mut note = Cow::Borrowed(note);
        // the second time with the size that the witness says it has seen: of that very size it may have seen another log
        for again in [false, true] {
            let mut head = Checkpoint::parse_unverified(&note)?;
            if old > head.size {
                // another replica has asked it about a newer one, or the log went back
                note = log.checkpoint().await?.into();
                head = Checkpoint::parse_unverified(&note)?;
            }
            if head.size == 0 || (head.size == old && !again) {
                return Ok(());
            }
            if old > head.size {
                return Err(AskError::Rollback { seen: old, size: head.size });
            }
            let proof = log.consistency(old, Some(head.size)).await?.hashes;
            let body = request(old, &proof, &note).into_bytes();
            let call = Call::post(witness.url.clone(), "text/plain; charset=utf-8", body);
            let answer = self.outbound.send(call).await?;
            match answer.status {
                200 => {
                    let lines = String::from_utf8(answer.body).map_err(|_| NoteError::Note)?;
                    let (text, _) = split(&note)?;
                    let line = witness.verifier.line_in(text, &lines)?;
                    let end = position(log.epoch(), head.size);
                    cosig::add(log.db(), end, name, line).await.map_err(LogError::from)?;
                    return Ok(());
                }
                409 => {
                    let seen = std::str::from_utf8(&answer.body).ok().and_then(|t| t.trim().parse().ok());
                    let seen: u64 = seen.ok_or(AskError::Refused(409))?;
                    if seen == old {
                        // as the protocol had it before 422
                        return Err(AskError::Fork(old));
                    }
                    old = seen;
                }
                422 => return Err(AskError::Fork(old)),
                status => return Err(AskError::Refused(status)),
            }
        }
        Err(AskError::Overtaken)
    }

    /// Says what changed with a witness, once.
    fn tell(&self, witness: &WitnessAt, asked: Result<(), AskError>) {
        let name = witness.verifier.name();
        let mut seen = self.seen();
        match asked {
            Ok(()) => {
                if seen.problems.remove(name).is_some() {
                    tracing::info!(witness = name, "the witness cosigns again");
                }
            }
            Err(AskError::Overtaken) => {}
            Err(error) => {
                let text = chain(&error);
                let alarm = error.is_alarm();
                if seen.problems.get(name).is_some_and(|(said, _)| *said == text) {
                    return;
                }
                if alarm {
                    tracing::error!(witness = name, error = %text, "ALARM: a witness refuses the log");
                } else {
                    tracing::warn!(witness = name, error = %text, "the witness did not cosign");
                }
                seen.problems.insert(name.to_owned(), (text, alarm));
            }
        }
    }

    /// From which entry on too few witnesses know of the log.
    async fn look(&self, log: &Log, start: i64) -> Result<(), LogError> {
        let mut ends = self.ends(log, start).await?;
        ends.sort_unstable_by(|a, b| b.cmp(a));
        let covered = ends.get(self.required.saturating_sub(1)).copied().unwrap_or(start);
        let first = read::heads(log.db(), covered, 1).await?;
        let since = first.first().and_then(|(_, head)| DateTime::from_timestamp_micros(head.t_us));
        self.seen().waiting_since = since;
        Ok(())
    }

    /// How long the oldest entry has waited for enough witnesses; zero when none waits.
    #[must_use]
    pub fn unwitnessed(&self, now: DateTime<Utc>) -> TimeDelta {
        let since = self.seen().waiting_since;
        since.map_or(TimeDelta::zero(), |since| (now - since).max(TimeDelta::zero()))
    }

    /// Each witness, and whether it says that the log was cut or rewritten.
    #[must_use]
    pub fn refusals(&self) -> Vec<(String, bool)> {
        let seen = self.seen();
        let alarm = |name: &str| seen.problems.get(name).is_some_and(|(_, alarm)| *alarm);
        self.list.iter().map(|w| (w.verifier.name().to_owned(), alarm(w.verifier.name()))).collect()
    }

    /// The checkpoint `note` with the cosignatures there are of it; each verifies.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn cosigned(&self, log: &Log, note: String) -> Result<String, LogError> {
        Ok(self.with_kept(log, note).await?.0)
    }

    /// The newest checkpoint that enough witnesses cosigned, with their lines; `None` when there is none.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn witnessed(&self, log: &Log) -> Result<Option<String>, LogError> {
        if self.list.is_empty() {
            return Ok(None);
        }
        let names: Vec<&str> = self.list.iter().map(|witness| witness.verifier.name()).collect();
        let (start, mut below) = (position(log.epoch(), 0), position(log.epoch() + 1, 0));
        let (at_a_time, times) = SIZES;
        for _ in 0..times {
            let ends = cosig::signed_by(log.db(), &names, self.required, (start, below), at_a_time).await?;
            for end in &ends {
                let size = locate(end - 1).1 + 1;
                let Some(note) = log.checkpoint_of(size).await? else { continue };
                let (note, count) = self.with_kept(log, note).await?;
                if count >= self.required {
                    return Ok(Some(note));
                }
            }
            let Some(last) = ends.last() else { break };
            below = last - 1;
        }
        Ok(None)
    }

    /// Adds the lines that are kept of the checkpoint `note`; says how many.
    async fn with_kept(&self, log: &Log, note: String) -> Result<(String, usize), LogError> {
        let Some(head) = Checkpoint::parse_unverified(&note).ok().filter(|_| !self.list.is_empty()) else {
            return Ok((note, 0));
        };
        let end = position(log.epoch(), head.size);
        let lines = cosig::newest(log.db(), end - 1, end, LOOKED_THROUGH).await?;
        let lines: Vec<(String, String)> = lines.into_iter().map(|(_, name, line)| (name, line)).collect();
        Ok(self.with_lines(&note, &lines))
    }

    /// Adds those of `lines` that a configured witness signed; says how many.
    fn with_lines(&self, note: &str, lines: &[(String, String)]) -> (String, usize) {
        let (mut out, mut count) = (note.to_owned(), 0);
        let Ok((text, _)) = split(note) else { return (out, 0) };
        for witness in &self.list {
            let line = lines.iter().find(|(name, _)| name == witness.verifier.name());
            if let Some(line) = line.and_then(|(_, line)| witness.verifier.line_in(text, line).ok()) {
                out.push_str(line);
                out.push('\n');
                count += 1;
            }
        }
        (out, count)
    }
}
