//! `stagedoor audit export`: the log as files for others.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, json};

use super::super::open::open;
use super::super::{CliError, Outcome, output, record};
use crate::server::app::{StopSignals, log_host};
use crate::server::config::Config;
use crate::server::log::export::{self, ExportFormat};
use crate::server::log::head::{Head, position};
use crate::server::log::{CheckpointSigner, Event, EventType, Record, current_epoch, read};
use crate::server::master_key::MasterKey;
use crate::server::store::{self, Db, cosig};

#[derive(Debug, Args)]
pub struct Export {
    /// ndjson: an entry a line; csv: a table; ocsf: Authentication events 3002/7, attempts only; tiles: a
    /// directory that any verifier of C2SP tlog-tiles reads
    #[arg(long, value_parser = PossibleValuesParser::new(ExportFormat::WORDS))]
    format: String,
    /// Where to; never written over
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// With what identifies people (actor, user, reason, ticket, address); that is recorded first
    #[arg(long)]
    personal: bool,
}

pub async fn run(args: &Export, config: &Config, json: bool) -> Outcome {
    // clap knows the words
    let format = ExportFormat::parse(&args.format).unwrap_or(ExportFormat::Ndjson);
    if args.personal && format == ExportFormat::Tiles {
        return Err(CliError::Refused(
            "--personal does not go with tiles, which hold the bodies as they were hashed; export ndjson for \
             the disclosures"
                .to_owned(),
        ));
    }
    // before anything is recorded
    export::refuse_existing(&args.out)?;
    let (db, master) = open(config).await?;
    if args.personal {
        record_view(config, &db, &master, &args.format).await?;
    }
    let mut stop = StopSignals::watch()?;
    let written = tokio::select! {
        () = stop.told() => {
            // what was written so far went with the future
            return Err(CliError::Refused("the export was stopped; nothing is left of it".to_owned()));
        }
        written = write(args, format, config, &db, &master) => written?,
    };
    db.close().await;
    if json {
        output::print_json(&json!({
            "object": "audit_export",
            "format": args.format,
            "path": args.out.display().to_string(),
            "entries": written,
            "personal": args.personal,
        }))?;
    } else {
        let path = args.out.display().to_string();
        output::print(&format!("exported: {written} entries to {}", output::plain(&path)))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn write(
    args: &Export,
    format: ExportFormat,
    config: &Config,
    db: &Db,
    master: &MasterKey,
) -> Result<u64, CliError> {
    if format == ExportFormat::Tiles {
        return tiles(config, db, master, &args.out).await;
    }
    let issuer = config.issuer_for(config.listen)?;
    Ok(export::entries(db, format, log_host(&issuer), &args.out, args.personal).await?)
}

async fn tiles(config: &Config, db: &Db, master: &MasterKey, out: &Path) -> Result<u64, CliError> {
    let signer = super::signer(config, db, master, current_epoch(db).await?).await?;
    let head = read::newest_head(db).await?;
    let head = head.unwrap_or_else(|| Head::empty(signer.epoch()));
    // only committed heads can be seen, and a commit is durable before it is seen
    let checkpoint = signer.sign(head.size(), head.root);
    let witnessed = witnessed(config, db, &signer, &head).await?;
    let notes = export::Notes { checkpoint, witnessed, vkey: signer.verifier().vkey() };
    Ok(export::tiles(db, &head, &notes, out).await?)
}

/// The newest checkpoint that as many of the configured witnesses cosigned as are required, else as many as ever did
/// (of anybody, where none is configured); with the lines as they were kept: who reads it verifies them.
async fn witnessed(
    config: &Config,
    db: &Db,
    signer: &CheckpointSigner,
    head: &Head,
) -> Result<Option<String>, CliError> {
    let names: Vec<&str> =
        config.witnesses.iter().filter_map(|witness| witness.vkey.split('+').next()).collect();
    let (start, end) = (position(head.epoch, 0), head.end());
    for required in (1..=config.witnesses_required.max(1)).rev() {
        let Some(size) = cosig::signed_by(db, &names, required, (start, end), 1).await?.pop() else {
            continue;
        };
        let stored = store::read::head_at_or_before(db, start, size).await?;
        let Some(stored) = stored.filter(|stored| stored.size == size) else { continue };
        let at = Head::read(&stored)?;
        let lines = cosig::newest(db, size - 1, size, 100).await?;
        let lines: String = lines.iter().flat_map(|(_, _, line)| [line, "\n"]).collect();
        return Ok(Some(signer.sign(at.size(), at.root) + &lines));
    }
    Ok(None)
}

/// Reading personal data is an entry of its own, recorded before the data leaves.
async fn record_view(config: &Config, db: &Db, master: &MasterKey, format: &str) -> Result<(), CliError> {
    let log = record::open_log(config, db, master).await.map_err(CliError::Log)?;
    let mut detail = Map::new();
    detail.insert("entries".into(), json!(log.known_size()));
    detail.insert("export".into(), json!(format));
    let event = Event { detail: Some(detail), ..Event::new(EventType::View) };
    let recorded = log.record(Record::of(event)).await;
    log.close().await;
    recorded.map(drop).map_err(|error| CliError::Log(error.into()))
}
