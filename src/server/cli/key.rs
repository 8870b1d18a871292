//! `stagedoor key …`: signing keys.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Subcommand;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::open::open;
use super::record::{can_record, record, record_ending};
use super::{CliError, Outcome, output};
use crate::server::clients;
use crate::server::config::{Config, SecretSource};
use crate::server::keyring::{self, KeyInfo, KeyPurpose, MAX_KEY_FILE_BYTES};
use crate::server::log::Event;
use crate::server::log::Selector;
use crate::server::log::head::locate;
use crate::server::master_key::{MasterKey, MasterKeyError};
use crate::token::{Alg, Clock as _, Kid, SystemClock, SystemEntropy};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the keys
    List,
    /// Publish a new key, which signs ten minutes from now
    Rotate {
        /// token, feed or clerk:CLIENT
        #[arg(long, default_value = "token", value_parser = purpose)]
        purpose: KeyPurpose,
        /// `ES256`, `RS256` or `EdDSA` [default: as before]
        #[arg(long, value_parser = alg)]
        alg: Option<Alg>,
    },
    /// Take in a private key (PEM, DER or JWK), which signs ten minutes from now
    Import {
        /// The key file
        file: PathBuf,
        /// token, feed or clerk:CLIENT
        #[arg(long, default_value = "token", value_parser = purpose)]
        purpose: KeyPurpose,
    },
    /// End a key that signs no more
    Retire {
        /// The key
        kid: Kid,
        /// It is compromised: end it at once, with all it signed
        #[arg(long)]
        now: bool,
    },
    /// Write keys and clients again under a new master key; stop the servers first: one that runs under the old key
    /// knows no client any more, and answers 401 until it is started again with the new one
    Reseal {
        /// File of the new master key; made if it is not there
        #[arg(long, value_name = "FILE")]
        new_key_file: PathBuf,
        /// End the holds on people: what stands for them in the database is made under the old key
        #[arg(long)]
        end_holds: bool,
    },
}

pub async fn run(command: &Command, config: &Config, json: bool) -> Outcome {
    let (db, master) = open(config).await?;
    let now = SystemClock::default().now();
    let entropy = &SystemEntropy;
    if let Command::Rotate { purpose, .. } | Command::Import { purpose, .. } = command {
        can_record(&db, &master).await?;
        if let KeyPurpose::Clerk(id) = purpose {
            // no key is made for a client that is not there
            clients::find(&db, &master, id).await?;
        }
    }
    match command {
        Command::List => print_list(&keyring::list(&db, &master).await?, now, json)?,
        Command::Rotate { purpose, alg } => {
            let key = keyring::rotate(&db, &master, purpose.clone(), *alg, now, entropy).await?;
            record(config, &db, &master, vec![entry(&key, "rotate")]).await?;
            print_keys(&[("published", &key)], now, json)?;
        }
        Command::Import { file, purpose } => {
            let text = read_key(file)?;
            let key = keyring::import(&db, &master, purpose.clone(), &text, now, entropy).await?;
            record(config, &db, &master, vec![entry(&key, "import")]).await?;
            print_keys(&[("imported", &key)], now, json)?;
        }
        Command::Retire { kid, now: false } => {
            let key = keyring::retire(&db, &master, kid, now, entropy).await?;
            record(config, &db, &master, vec![entry(&key, "retire")]).await?;
            print_keys(&[("retired", &key)], now, json)?;
        }
        Command::Retire { kid, now: true } => {
            let (gone, follower) = keyring::revoke(&db, &master, kid, now, entropy).await?;
            let follows = follower.iter().map(|key| entry(key, "activate"));
            let entries = std::iter::once(entry(&gone, "revoke")).chain(follows).collect();
            // what it signed ends with it; a key of the feed signed no tokens
            record_ending(config, &db, &master, entries, Selector::Kid(gone.kid.clone())).await?;
            let mut keys = vec![("revoked", &gone)];
            keys.extend(follower.iter().map(|key| ("signs now", key)));
            print_keys(&keys, now, json)?;
        }
        Command::Reseal { new_key_file, end_holds } => {
            let held = db.held_people(now.timestamp_micros()).await?;
            if !held.is_empty() && !end_holds {
                return Err(CliError::Refused(would_end(&held)));
            }
            let source = SecretSource::File(new_key_file.clone());
            let new = match MasterKey::load(&source) {
                Err(MasterKeyError::Missing(path)) => MasterKey::create(&path, entropy)?,
                loaded => loaded?,
            };
            let (keys, clients) = keyring::reseal(&db, &master, &new, now, entropy).await?;
            record(config, &db, &new, vec![super::record::reseal(keys, clients, held.len())]).await?;
            let file = output::plain(&new_key_file.display().to_string());
            if json {
                output::print_json(&json!({
                    "object": "reseal", "keys": keys, "clients": clients, "holds_ended": held.len(), "master_key_file": file,
                }))?;
            } else {
                let again = if held.is_empty() { "" } else { ", then hold those people again" };
                output::print(&format!(
                    "sealed again: {keys} keys, {clients} clients\nnext: set MASTER_KEY_FILE to {file} and restart every server{again}"
                ))?;
            }
        }
    }
    db.close().await;
    Ok(ExitCode::SUCCESS)
}

/// What would be lost with the old key.
fn would_end(held: &[(i64, i64)]) -> String {
    let entries: Vec<String> = held
        .iter()
        .map(|(idx, until)| {
            let until = DateTime::from_timestamp_micros(*until).unwrap_or_default();
            format!("entry {}, until {}", locate(*idx).1, time(until))
        })
        .collect();
    format!(
        "nothing was changed: {} hold(s) on people would end ({}), as what stands for them is made under the old key; run it \
         again with --end-holds, and hold them again when a server runs (stagedoor token revoke --actor SUB --hold SECONDS)",
        held.len(),
        entries.join("; ")
    )
}

fn entry(key: &KeyInfo, change: &str) -> Event {
    Event::key(&key.kid, change, &key.purpose.to_string())
}

fn print_keys(keys: &[(&str, &KeyInfo)], now: DateTime<Utc>, json: bool) -> Result<(), CliError> {
    if json {
        let list: Vec<Value> = keys.iter().map(|(_, key)| as_json(key, now)).collect();
        return output::print_json(&json!({ "object": "list", "keys": list }));
    }
    let line = |(did, key): &(&str, &KeyInfo)| {
        let from = if key.activated_at > now {
            format!(", signs from {}", time(key.activated_at))
        } else {
            String::new()
        };
        format!("{did}: {} key {} ({}){from}", key.purpose, key.kid, key.alg)
    };
    output::print(&keys.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn print_list(
    (keys, ignored): &(Vec<KeyInfo>, Vec<String>),
    now: DateTime<Utc>,
    json: bool,
) -> Result<(), CliError> {
    if !ignored.is_empty() {
        let ids: Vec<String> = ignored.iter().map(|id| output::plain(id)).collect();
        eprintln!(
            "warning: ignored, as not authentic: {}; restore these rows, or the master key they were written under",
            ids.join(", ")
        );
    }
    if json {
        let list: Vec<Value> = keys.iter().map(|key| as_json(key, now)).collect();
        return output::print_json(&json!({ "object": "list", "keys": list, "not_authentic": ignored }));
    }
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|key| {
            vec![
                key.kid.to_string(),
                key.purpose.to_string(),
                key.alg.to_string(),
                key.state(now).as_str().to_owned(),
                time(key.activated_at),
                key.retired_at.map_or_else(|| "-".to_owned(), time),
            ]
        })
        .collect();
    output::print(&output::table(&["KID", "PURPOSE", "ALG", "STATE", "SIGNS FROM", "UNTIL"], &rows))
}

/// A key without its private half, its state as of `now`.
pub fn as_json(key: &KeyInfo, now: DateTime<Utc>) -> Value {
    json!({
        "object": "key",
        "kid": key.kid,
        "purpose": key.purpose.to_string(),
        "alg": key.alg.name(),
        "state": key.state(now).as_str(),
        "created_at": key.created_at.timestamp_millis(),
        "activated_at": key.activated_at.timestamp_millis(),
        "retired_at": key.retired_at.map(|t| t.timestamp_millis()),
        "public_jwk": key.public.to_jwk(),
    })
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let failed = |source| CliError::File { path: path.to_owned(), source };
    // one byte more than is taken, so that a larger file is refused and not cut
    let most = MAX_KEY_FILE_BYTES + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    std::fs::File::open(path).and_then(|f| f.take(most as u64).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

fn purpose(text: &str) -> Result<KeyPurpose, String> {
    KeyPurpose::from_word(text).ok_or_else(|| "write token, feed or clerk:CLIENT".to_owned())
}

fn alg(text: &str) -> Result<Alg, String> {
    Alg::from_name(text)
        .filter(|alg| Alg::SIGNING.contains(alg))
        .ok_or_else(|| "write ES256, RS256 or EdDSA".to_owned())
}
