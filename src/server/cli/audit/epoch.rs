//! `stagedoor audit epoch`: a restored or damaged log is not continued; a new one begins and says after what.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args};
use serde_json::json;

use super::super::open::open;
use super::super::{CliError, Outcome, output, record};
use super::{log_key, read_checkpoint, signer};
use crate::server::config::Config;
use crate::server::log::current_epoch;
use crate::server::log::epoch::{EpochReason, begin};
use crate::token::{SystemClock, SystemEntropy};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("continues").required(true)))]
pub struct Epoch {
    /// Why: the database was restored or a late standby took over; a wrong clock wrote a time far ahead; the
    /// log was damaged; the service has another issuer now
    #[arg(long, value_parser = PossibleValuesParser::new(EpochReason::WORDS))]
    reason: String,
    /// The last checkpoint (or receipt) of the old log that anybody has
    #[arg(long, value_name = "FILE", group = "continues")]
    checkpoint: Option<PathBuf>,
    /// Nobody has one; the entry will show that none was named
    #[arg(long, group = "continues")]
    no_checkpoint: bool,
}

pub async fn run(args: &Epoch, config: &Config, json: bool) -> Outcome {
    let (db, master) = open(config).await?;
    let known = match &args.checkpoint {
        Some(file) => Some(read_checkpoint(file, log_key(&master, &db).await?)?),
        None => None,
    };
    let reason = EpochReason::parse(&args.reason).unwrap_or(EpochReason::Damaged);
    let signer = signer(config, &db, &master, current_epoch(&db).await? + 1).await?;
    let (origin, vkey) = (signer.origin().to_owned(), signer.verifier().vkey());
    let options = record::options(config);
    let clock = Arc::new(SystemClock::default());
    let begun = begin(db, signer, clock, Arc::new(SystemEntropy), options, reason, known.as_ref())
        .await
        .map_err(|error| CliError::Log(error.into()))?;
    if json {
        output::print_json(&json!({
            "object": "audit_epoch",
            "epoch": begun.epoch,
            "origin": origin,
            "vkey": vkey,
            "reason": args.reason,
            "continues": known.map(|known| json!({ "origin": known.origin, "size": known.size })),
        }))?;
    } else {
        output::print(&format!(
            "begun: {}\nits key for auditors and witnesses: {}\nnext: start every replica of `stagedoor serve` again",
            output::plain(&origin),
            output::plain(&vkey)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
