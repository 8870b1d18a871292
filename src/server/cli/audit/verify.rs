//! `stagedoor audit verify`: the log recomputed, from the database or as anybody outside sees it.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::super::api::Api;
use super::super::{CliError, Outcome, output};
use super::{key_text, log_key, read_checkpoint, trusted, verdict};
use crate::server::config::{Config, Environment};
use crate::server::log::Checkpoint;
use crate::server::log::note::{NoteVerifier, split};
use crate::server::log::verify::{self, Directory, MAX_FILE_BYTES, Published, PublishedError, Report};
use crate::server::log::witness::CosignatureVerifier;
use crate::server::master_key::MasterKey;
use crate::server::store::{Db, check_migrated};

/// How many findings people are shown; programs get all.
const SHOWN: usize = 20;
/// Where a server has its log.
const LOG_PATH: &str = "/v1/audit/log";

#[derive(Debug, Args)]
pub struct Verify {
    /// A checkpoint (or a receipt) kept from earlier: the log must still continue it
    #[arg(long, num_args = 1.., value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// Over HTTP: a server's address, or the one under which `checkpoint` stands. Entries are recomputed when
    /// `STAGEDOOR_CLIENT_SECRET` is that of a client with `audit:read`, else their hashes alone
    #[arg(long, value_name = "URL", conflicts_with = "dir")]
    url: Option<String>,
    /// A directory that `audit export --format tiles` made
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// With --url or --dir: the log's key (name+id+key), or a file with it, as its operator gave it to you
    /// [default: what the log says of itself, with a warning]
    #[arg(long, value_name = "VKEY")]
    vkey: Option<String>,
    /// With --url or --dir: the key of a witness (name+id+key), or a file with it, that must have cosigned
    #[arg(long, num_args = 1.., value_name = "VKEY")]
    witness: Vec<String>,
}

pub async fn run(args: &Verify, config: &Config, environment: &Environment, json: bool) -> Outcome {
    match (&args.url, &args.dir) {
        (Some(url), _) => {
            let web = Web::new(url, environment)?;
            look_from_outside(args, &web, json).await
        }
        (None, Some(dir)) if !dir.is_dir() => Err(CliError::Refused(format!(
            "--dir {} is no directory that is there; name one that `stagedoor audit export --format tiles` made",
            dir.display()
        ))),
        (None, Some(dir)) => look_from_outside(args, &Directory(dir.clone()), json).await,
        (None, None) if args.vkey.is_some() || !args.witness.is_empty() => Err(CliError::Refused(
            "--vkey and --witness go with --url or --dir: this command looks into the database without them"
                .to_owned(),
        )),
        (None, None) => look_inside(args, config, json).await,
    }
}

async fn look_inside(args: &Verify, config: &Config, json: bool) -> Outcome {
    let db = Db::connect(config.database_url.expose()).await?;
    check_migrated(&db).await?;
    let public = match MasterKey::load(&config.master_key) {
        Ok(master) => Some(log_key(&master, &db).await?),
        Err(error) if !args.checkpoint.is_empty() => return Err(error.into()),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "whether the service wrote the newest entries was not looked at: that takes the master key"
            );
            None
        }
    };
    let checkpoints = public.map_or_else(|| Ok(Vec::new()), |public| checkpoints(args, public))?;
    let mut progress = Progress::default();
    let mut tell = |done, all| progress.tell(done, all);
    let report = verify::database(&db, &checkpoints, public.as_ref(), &mut tell).await?;
    db.close().await;
    progress.end();
    answer(&report, checkpoints.len(), json)
}

async fn look_from_outside(args: &Verify, source: &dyn Published, json: bool) -> Outcome {
    let verifier = match &args.vkey {
        Some(given) => trusted(given)?,
        None => of_itself(source).await?,
    };
    let mut checkpoints = checkpoints(args, *verifier.public())?;
    match witnessed(args, source, &verifier).await? {
        Ok(cosigned) => checkpoints.extend(cosigned),
        Err(finding) => return does_not_hold(&finding, json),
    }
    let mut progress = Progress::default();
    let report = verify::published(source, &verifier, &checkpoints, &mut |done, all| {
        progress.tell(done, all);
    })
    .await;
    progress.end();
    match report {
        Ok(report) => answer(&report, checkpoints.len(), json),
        // it could be looked at, and is not what the key signs
        Err(PublishedError::Checkpoint(error)) => {
            does_not_hold(&format!("its checkpoint is not one of {}: {error}", verifier.name()), json)
        }
        Err(error) => Err(error.into()),
    }
}

/// What is wrong before anything was recomputed.
fn does_not_hold(finding: &str, json: bool) -> Outcome {
    if json {
        output::print_json(&json!({
            "object": "audit_verification", "holds": false, "entries": 0, "bodies_unseen": 0, "epochs": [],
            "findings": [{ "epoch": null, "finding": finding }], "more_findings": 0,
        }))?;
    } else {
        output::print(&format!("the log does NOT hold: {}", output::plain(finding)))?;
    }
    Ok(verdict(false))
}

/// The checkpoint that every named witness cosigned, which the log must continue; or what is wrong with it.
async fn witnessed(
    args: &Verify,
    source: &dyn Published,
    verifier: &NoteVerifier,
) -> Result<Result<Option<Checkpoint>, String>, CliError> {
    if args.witness.is_empty() {
        return Ok(Ok(None));
    }
    let newest = match source.get("witnessed").await? {
        Some(note) => note,
        None => source.get("checkpoint").await?.unwrap_or_default(),
    };
    let note = String::from_utf8_lossy(&newest);
    let checkpoint = match Checkpoint::open(&note, verifier) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return Ok(Err(format!("its witnessed checkpoint is not acceptable: {error}"))),
    };
    let Ok((text, lines)) = split(&note) else {
        return Ok(Err("its witnessed checkpoint is no note".into()));
    };
    for given in &args.witness {
        let witness = CosignatureVerifier::parse(&key_text(given)?).map_err(|_| {
            CliError::Refused(format!("{given} holds no witness's key; it is one line, name+id+key"))
        })?;
        if let Err(error) = witness.line_in(text, lines) {
            return Ok(Err(format!(
                "its witnessed checkpoint is not cosigned by {}: {error}",
                witness.name()
            )));
        }
    }
    Ok(Ok(Some(checkpoint)))
}

fn checkpoints(args: &Verify, public: [u8; 32]) -> Result<Vec<Checkpoint>, CliError> {
    args.checkpoint.iter().map(|file| read_checkpoint(file, public)).collect()
}

/// Nobody gave the key: the log's own word for it, said aloud.
async fn of_itself(source: &dyn Published) -> Result<NoteVerifier, CliError> {
    let bytes = source.get("vkey").await?.ok_or_else(|| PublishedError::Missing("vkey".to_owned()))?;
    let verifier = String::from_utf8(bytes).ok().and_then(|text| NoteVerifier::parse(&text).ok());
    let verifier = verifier.ok_or_else(|| PublishedError::Malformed("vkey".to_owned()))?;
    eprintln!(
        "warning: the log itself says that its key is {}: that shows whether it holds together, not whose it is; \
         give the key you got from its operator with --vkey",
        output::plain(&verifier.vkey())
    );
    Ok(verifier)
}

/// A running server's log, or any other under an address.
struct Web {
    api: Api,
    prefix: &'static str,
}

impl Web {
    fn new(url: &str, environment: &Environment) -> Result<Self, CliError> {
        let api = Api::new(Some(url), environment)?;
        let prefix = if api.has_path() { "" } else { LOG_PATH };
        Ok(Self { api, prefix })
    }
}

#[async_trait::async_trait]
impl Published for Web {
    async fn get(&self, path: &str) -> Result<Option<Vec<u8>>, PublishedError> {
        let for_auditors = path.starts_with("tile/entries/");
        if for_auditors && !self.api.has_secret() {
            return Ok(None);
        }
        let limit = usize::try_from(MAX_FILE_BYTES).unwrap_or(usize::MAX);
        let fetched = self.api.get(&format!("{}/{path}", self.prefix), limit, for_auditors).await;
        fetched.map_err(|error| PublishedError::Fetch { path: path.to_owned(), source: error.into() })
    }
}

/// A line for every hundredth part of long work, to a person only.
#[derive(Default)]
struct Progress {
    shown: u64,
}

impl Progress {
    fn tell(&mut self, done: u64, all: u64) {
        if all > 100_000 && done / (all / 100) != self.shown && std::io::stderr().is_terminal() {
            self.shown = done / (all / 100);
            let _ = write!(std::io::stderr(), "\r{} % of {all} entries ", self.shown);
        }
    }

    fn end(&self) {
        if self.shown > 0 {
            eprintln!();
        }
    }
}

fn answer(report: &Report, checkpoints: usize, json: bool) -> Outcome {
    if json {
        output::print_json(&as_json(report))?;
    } else {
        output::print(&as_text(report, checkpoints))?;
    }
    Ok(verdict(report.holds()))
}

fn as_json(report: &Report) -> Value {
    let epochs = report.epochs.iter().map(|e| json!({ "epoch": e.epoch, "entries": e.size }));
    let findings =
        report.findings.iter().map(|(epoch, f)| json!({ "epoch": epoch, "finding": f.to_string() }));
    json!({
        "object": "audit_verification",
        "holds": report.holds(),
        "entries": report.entries,
        "bodies_unseen": report.bodies_unseen,
        "epochs": epochs.collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
        "more_findings": report.more,
    })
}

fn as_text(report: &Report, checkpoints: usize) -> String {
    let by_hash = match report.bodies_unseen {
        0 => String::new(),
        n => format!(", {n} of them by their hashes alone"),
    };
    if report.holds() {
        let continued = match checkpoints {
            0 => String::new(),
            n => format!(", {n} checkpoints continued"),
        };
        return format!("the log holds: {} entries recomputed{by_hash}{continued}", report.entries);
    }
    let mut lines = vec![format!("the log does NOT hold ({} entries recomputed{by_hash}):", report.entries)];
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
