//! `stagedoor audit …`: the issuance log.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{Outcome, output};
use crate::server::config::Config;
use crate::server::log::{read, verify};
use crate::server::store::{Db, check_migrated};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Recompute the log from its entries: exit 0 it holds, 1 it does not, 2 could not look
    Verify,
}

pub async fn run(command: &Command, config: &Config, json: bool) -> Outcome {
    match command {
        Command::Verify => run_verify(config, json).await,
    }
}

async fn run_verify(config: &Config, json: bool) -> Outcome {
    let db = Db::connect(config.database_url.expose()).await?;
    check_migrated(&db).await?;
    let head = read::newest_head(&db).await?;
    let finding = match &head {
        Some(head) => verify::tail(&db, head, u64::MAX).await?,
        None => None,
    };
    let (epoch, size) = head.map_or((1, 0), |head| (head.epoch, head.size()));
    if json {
        output::print_json(&json!({
            "object": "audit_verification", "holds": finding.is_none(), "epoch": epoch, "entries": size,
            "finding": finding.as_ref().map(ToString::to_string),
        }))?;
    } else {
        output::print(&match &finding {
            None => format!("the log holds: {size} entries of epoch {epoch} recomputed"),
            Some(finding) => format!("the log does NOT hold: {finding}"),
        })?;
    }
    db.close().await;
    Ok(ExitCode::from(u8::from(finding.is_some())))
}
