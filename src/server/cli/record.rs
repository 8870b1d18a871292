//! What a command changes is an entry of the log, like every other change.

use std::error::Error;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::CliError;
use crate::server::config::Config;
use crate::server::keyring::Keyring;
use crate::server::log::{
    CheckpointSigner, Effect, Event, EventType, Log, LogOptions, Record, Revoke, Selector, current_epoch,
};
use crate::server::master_key::MasterKey;
use crate::server::store::Db;
use crate::token::{ClientId, Clock, SystemClock, SystemEntropy};

/// A change of a client.
pub fn client(id: &ClientId, change: &str, version: i64) -> Event {
    let mut event = Event::new(EventType::Config);
    event.client = Some(id.clone());
    event.detail = Some(detail(&[("change", change.into()), ("version", version.into())]));
    event
}

/// Everything was sealed again under another master key.
pub fn reseal(keys: usize, clients: usize, holds_ended: usize) -> Event {
    let mut event = Event::new(EventType::Key);
    event.detail = Some(detail(&[
        ("change", "reseal".into()),
        ("keys", keys.into()),
        ("clients", clients.into()),
        ("holds_ended", holds_ended.into()),
    ]));
    event
}

fn detail(members: &[(&str, Value)]) -> Map<String, Value> {
    members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// Records what was changed. The change stands even if this fails, and the error says so: a compromised key
/// must be revocable while the log is in trouble.
pub async fn record(
    config: &Config,
    db: &Db,
    master: &MasterKey,
    events: Vec<Event>,
) -> Result<(), CliError> {
    let records = events.into_iter().map(|event| Record::of(event).from_the_reserve()).collect();
    try_record(config, db, master, records).await.map_err(CliError::Unrecorded)
}

/// As [`record`]; what `ends` names ends with the first of the events.
pub async fn record_ending(
    config: &Config,
    db: &Db,
    master: &MasterKey,
    events: Vec<Event>,
    ends: Selector,
) -> Result<(), CliError> {
    let mut records: Vec<Record> =
        events.into_iter().map(|event| Record::of(event).from_the_reserve()).collect();
    if let Some(first) = records.first_mut() {
        first.effects.push(Effect::Revoke(Revoke { selector: ends, of_client: None, hold: None }));
    }
    try_record(config, db, master, records).await.map_err(CliError::Unrecorded)
}

type Trouble = Box<dyn Error + Send + Sync>;

async fn try_record(
    config: &Config,
    db: &Db,
    master: &MasterKey,
    records: Vec<Record>,
) -> Result<(), Trouble> {
    let log = open_log(config, db, master).await?;
    let mut outcome = Ok(());
    for record in records {
        if let Err(error) = log.record(record).await {
            outcome = Err(error.into());
            break;
        }
    }
    log.close().await;
    outcome
}

/// Before something is added: whether it could be recorded. What another master key wrote nobody could use, and nobody
/// could take away.
pub async fn can_record(db: &Db, master: &MasterKey) -> Result<(), CliError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let keyring = Keyring::load(db, master, clock).await;
    let seed = keyring.map_err(Trouble::from).and_then(|keyring| keyring.log_seed().map_err(Trouble::from));
    seed.map(drop).map_err(CliError::OtherKey)
}

/// The log, to be recorded in by this process.
pub async fn open_log(config: &Config, db: &Db, master: &MasterKey) -> Result<Log, Trouble> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let keyring = Keyring::load(db, master, Arc::clone(&clock)).await?;
    // The name stands in this process's checkpoints only, which nobody sees: entries do not depend on it.
    let seed = keyring.log_seed()?;
    let signer = CheckpointSigner::from_seed(&seed, "command-line", current_epoch(db).await?)?;
    Ok(Log::open(db.clone(), signer, clock, Arc::new(SystemEntropy), options(config)).await?)
}

/// How the log runs in a command.
pub fn options(config: &Config) -> LogOptions {
    LogOptions {
        replica: format!("cli-{}", std::process::id()),
        max_bytes: config.log_max_bytes,
        ..LogOptions::default()
    }
}
