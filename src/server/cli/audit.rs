//! `stagedoor audit …`: the issuance log.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{CliError, Outcome, output};
use crate::server::config::Config;
use crate::server::keyring::{self, KeyPurpose};
use crate::server::log::Checkpoint;
use crate::server::log::note::NoteVerifier;
use crate::server::log::verify::{self, Report};
use crate::server::master_key::MasterKey;
use crate::server::store::{Db, check_migrated};

/// The largest checkpoint file, bytes.
const MAX_CHECKPOINT_BYTES: u64 = 64 << 10;
/// What a receipt begins with; its checkpoint follows the first empty line.
const RECEIPT: &str = "c2sp.org/tlog-proof@v1\n";
/// How many findings people are shown; programs get all.
const SHOWN: usize = 20;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Recompute the whole log from its entries: exit 0 it holds, 1 it does not, 2 could not look
    Verify {
        /// A checkpoint (or a receipt) kept from earlier: the log must still continue it
        #[arg(long, num_args = 1.., value_name = "FILE")]
        checkpoint: Vec<PathBuf>,
    },
}

pub async fn run(command: &Command, config: &Config, json: bool) -> Outcome {
    match command {
        Command::Verify { checkpoint } => run_verify(checkpoint, config, json).await,
    }
}

async fn run_verify(files: &[PathBuf], config: &Config, json: bool) -> Outcome {
    let db = Db::connect(config.database_url.expose()).await?;
    check_migrated(&db).await?;
    let checkpoints = if files.is_empty() { Vec::new() } else { checkpoints(files, config, &db).await? };
    let watched = std::io::stderr().is_terminal();
    let mut shown = 0;
    let mut progress = |done: u64, all: u64| {
        // a line for every hundredth part of long work, to a person only
        if watched && all > 100_000 && done / (all / 100) != shown {
            shown = done / (all / 100);
            let _ = write!(std::io::stderr(), "\r{shown} % of {all} entries ");
        }
    };
    let report = verify::database(&db, &checkpoints, &mut progress).await?;
    if shown > 0 {
        eprintln!();
    }
    if json {
        output::print_json(&as_json(&report))?;
    } else {
        output::print(&as_text(&report, checkpoints.len()))?;
    }
    db.close().await;
    Ok(ExitCode::from(u8::from(!report.holds())))
}

fn as_json(report: &Report) -> Value {
    let epochs = report.epochs.iter().map(|e| json!({ "epoch": e.epoch, "entries": e.size }));
    let findings =
        report.findings.iter().map(|(epoch, f)| json!({ "epoch": epoch, "finding": f.to_string() }));
    json!({
        "object": "audit_verification",
        "holds": report.holds(),
        "entries": report.entries,
        "epochs": epochs.collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
        "more_findings": report.more,
    })
}

fn as_text(report: &Report, checkpoints: usize) -> String {
    if report.holds() {
        let continued = match checkpoints {
            0 => String::new(),
            n => format!(", {n} checkpoints continued"),
        };
        return format!("the log holds: {} entries recomputed{continued}", report.entries);
    }
    let mut lines = vec![format!("the log does NOT hold ({} entries recomputed):", report.entries)];
    let findings = report.findings.iter().take(SHOWN);
    lines.extend(
        findings.map(|(epoch, finding)| format!("  epoch {epoch}: {}", output::plain(&finding.to_string()))),
    );
    let hidden = report.findings.len().saturating_sub(SHOWN) as u64 + report.more;
    if hidden > 0 {
        lines.push(format!("  and {hidden} more; --json lists up to {}", verify::MAX_FINDINGS));
    }
    lines.join("\n")
}

/// The checkpoints in `files`, each signed by the log's own key; another's proves nothing about this log.
async fn checkpoints(files: &[PathBuf], config: &Config, db: &Db) -> Result<Vec<Checkpoint>, CliError> {
    let master = MasterKey::load(&config.master_key)?;
    let (keys, _) = keyring::list(db, &master).await?;
    let key = keys.iter().find(|k| k.purpose == KeyPurpose::Log);
    let jwk = key.ok_or(keyring::KeyringError::NoSigner(KeyPurpose::Log))?.public.to_jwk();
    let public = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap_or_default()).ok();
    let public: [u8; 32] = public.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        CliError::Refused("the log's key is not an Ed25519 key; restore the database".to_owned())
    })?;
    files.iter().map(|file| read_checkpoint(file, public)).collect()
}

fn read_checkpoint(file: &Path, public: [u8; 32]) -> Result<Checkpoint, CliError> {
    let failed = |source| CliError::File { path: file.to_owned(), source };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(MAX_CHECKPOINT_BYTES).read_to_string(&mut text).map_err(failed)?;
    let note = match text.strip_prefix(RECEIPT).and_then(|receipt| receipt.split_once("\n\n")) {
        Some((_, checkpoint)) => checkpoint,
        None => &text,
    };
    let refused = |_| {
        CliError::Refused(format!(
            "{} is no checkpoint that this log's key signed; give one of this log",
            file.display()
        ))
    };
    let origin = Checkpoint::parse_unverified(note).map_err(refused)?.origin;
    let verifier = NoteVerifier::new(&origin, public).map_err(refused)?;
    Checkpoint::open(note, &verifier).map_err(refused)
}
