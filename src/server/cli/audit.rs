//! `stagedoor audit …`: the issuance log.

mod epoch;
mod export;
mod removal;
mod verify;
mod witness;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use serde_json::Value;

use super::{CliError, Outcome};
use crate::server::app::log_host;
use crate::server::config::{Config, Environment};
use crate::server::keyring::{self, KeyPurpose, Keyring};
use crate::server::log::note::NoteVerifier;
use crate::server::log::{Checkpoint, CheckpointSigner};
use crate::server::master_key::MasterKey;
use crate::server::store::Db;
use crate::token::{Clock, SystemClock};

/// The largest checkpoint file, bytes.
const MAX_CHECKPOINT_BYTES: u64 = 64 << 10;
/// What a receipt begins with; its checkpoint follows the first empty line.
const RECEIPT: &str = "c2sp.org/tlog-proof@v1\n";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Recompute the whole log from its entries: exit 0 it holds, 1 it does not, 2 could not look
    Verify(verify::Verify),
    /// Write the log to a file, or to a directory that any tlog-tiles verifier reads
    Export(export::Export),
    /// Erase what identifies a person, and record that; every proof still holds
    Erase(removal::Erase),
    /// Drop the bodies of old entries by whole tiles, and record that; their hashes stay
    Prune(removal::Prune),
    /// Begin a new log after a restore, a wrong clock or damage; it names what it continues
    Epoch(epoch::Epoch),
    /// Serve as a witness of logs that another team runs: cosigns only what grew from what it saw
    Witness(witness::Witness),
}

pub async fn run(command: &Command, config: &Config, environment: &Environment, json: bool) -> Outcome {
    match command {
        Command::Verify(args) => verify::run(args, config, environment, json).await,
        Command::Export(args) => export::run(args, config, json).await,
        Command::Erase(args) => removal::erase(args, config, json).await,
        Command::Prune(args) => removal::prune(args, config, json).await,
        Command::Epoch(args) => epoch::run(args, config, json).await,
        Command::Witness(args) => witness::run(args, json).await,
    }
}

/// The key checkpoints of this database's log are signed with.
async fn log_key(master: &MasterKey, db: &Db) -> Result<[u8; 32], CliError> {
    let (keys, _) = keyring::list(db, master).await?;
    let key = keys.iter().find(|k| k.purpose == KeyPurpose::Log);
    let jwk = key.ok_or(keyring::KeyringError::NoSigner(KeyPurpose::Log))?.public.to_jwk();
    let public = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap_or_default()).ok();
    public.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        CliError::Refused("the log's key is not an Ed25519 key; restore the database".to_owned())
    })
}

/// What signs for `epoch` under the name that `serve` gives the log.
async fn signer(
    config: &Config,
    db: &Db,
    master: &MasterKey,
    epoch: u32,
) -> Result<CheckpointSigner, CliError> {
    let issuer = config.issuer_for(config.listen)?;
    if config.issuer.is_none() && config.listen.port() == 0 {
        return Err(CliError::Refused(
            "the log is named after ISSUER, and neither that nor a fixed port is set; set ISSUER as for `serve`"
                .to_owned(),
        ));
    }
    let clock: std::sync::Arc<dyn Clock> = std::sync::Arc::new(SystemClock::default());
    let seed = Keyring::load(db, master, clock).await?.log_seed()?;
    CheckpointSigner::from_seed(&seed, log_host(&issuer), epoch)
        .map_err(|error| CliError::Log(Box::new(error)))
}

/// The checkpoint (or the one of the receipt) in `file`, signed by the log's own key; another's proves
/// nothing about this log.
fn read_checkpoint(file: &Path, public: [u8; 32]) -> Result<Checkpoint, CliError> {
    let text = kept(&read_text(file)?);
    let note = match text.strip_prefix(RECEIPT).and_then(|receipt| receipt.split_once("\n\n")) {
        Some((_, checkpoint)) => checkpoint,
        None => &text,
    };
    let refused = |why: &str| CliError::Refused(format!("{} {why}", file.display()));
    let no_checkpoint =
        "holds neither a checkpoint nor a receipt; give the text that the log's server answered, whole";
    let origin = Checkpoint::parse_unverified(note).map_err(|_| refused(no_checkpoint))?.origin;
    let verifier = NoteVerifier::new(&origin, public).map_err(|_| refused(no_checkpoint))?;
    Checkpoint::open(note, &verifier).map_err(|_| {
        refused("holds a checkpoint that another key signed, or that was changed; give one of this log")
    })
}

/// A checkpoint or receipt as people keep it: with other line ends, a line break too many (`jq -r`) or too few, or in the
/// mint's answer.
fn kept(text: &str) -> String {
    let answer: Option<Value> = serde_json::from_str(text).ok();
    let proof = answer.as_ref().and_then(|answer| answer.pointer("/audit/proof")?.as_str());
    let text = proof.unwrap_or(text).replace("\r\n", "\n");
    format!("{}\n", text.trim_end_matches('\n'))
}

/// A key from the command line, or from a file that it names.
fn trusted(given: &str) -> Result<NoteVerifier, CliError> {
    NoteVerifier::parse(&key_text(given)?)
        .map_err(|_| CliError::Refused(format!("{given} holds no verifier key; it is one line, name+id+key")))
}

/// `given` itself where it is a key, else what the file of that name holds.
fn key_text(given: &str) -> Result<String, CliError> {
    if given.split('+').count() >= 3 && !Path::new(given).exists() {
        return Ok(given.to_owned());
    }
    read_text(given.as_ref())
}

/// A short file.
fn read_text(file: &Path) -> Result<String, CliError> {
    let failed = |source| CliError::File { path: PathBuf::from(file), source };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(MAX_CHECKPOINT_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Exit code of a command whose answer is yes or no.
fn verdict(holds: bool) -> ExitCode {
    ExitCode::from(u8::from(!holds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_taken_as_people_keep_it() {
        let note = "log.example/audit/1\n3\ncm9vdA==\n\n\u{2014} log.example/audit/1 c2lnbmF0dXJl\n";
        let receipt = format!("{RECEIPT}index 2\n\n{note}");
        for whole in [note, &receipt] {
            assert_eq!(kept(whole), whole);
            assert_eq!(kept(&format!("{whole}\n")), whole, "jq -r adds a line break");
            assert_eq!(kept(whole.trim_end()), whole, "an editor takes one away");
            assert_eq!(kept(&whole.replace('\n', "\r\n")), whole, "Windows");
        }
        let answer = serde_json::json!({ "object": "actor_token", "audit": { "proof": receipt } });
        assert_eq!(kept(&answer.to_string()), receipt, "the mint's answer");
        assert_eq!(kept(""), "\n");
    }
}
