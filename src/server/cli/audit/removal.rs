//! `stagedoor audit erase` and `prune`: what leaves the log on purpose, as the database's owner.

use std::process::ExitCode;

use chrono::{DateTime, NaiveDate, Utc};
use clap::{ArgGroup, Args};
use serde_json::json;

use super::super::{CliError, Outcome, output, record};
use super::verdict;
use crate::server::config::Config;
use crate::server::log::Log;
use crate::server::log::erase::{self, Whom};
use crate::server::master_key::MasterKey;
use crate::server::store::{Db, check_migrated};
use crate::token::{Clock as _, Issuer, Sub, SystemClock};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whom").required(true)))]
pub struct Erase {
    /// A user who was acted as: his id, and the reason and ticket of every attempt on him
    #[arg(long, value_name = "ID", group = "whom")]
    subject: Option<String>,
    /// A person who acted, wherever he stands in a chain: the chain and his address. What is younger than
    /// `ACTOR_RETENTION` stays. Needs --basis
    #[arg(long, value_name = "SUB", group = "whom", requires = "basis")]
    actor: Option<String>,
    /// With --actor: only where this issuer names him
    #[arg(long, value_name = "ISS", requires = "actor", conflicts_with = "subject")]
    iss: Option<String>,
    /// With --actor, which needs it: on which basis, a short word that stays in the log for good
    // a requirement alone counts for nothing where what is required is excluded, as --actor is by --subject
    #[arg(long, value_name = "WORD", requires = "actor", conflicts_with = "subject")]
    basis: Option<String>,
}

#[derive(Debug, Args)]
pub struct Prune {
    /// Entries recorded before: 2025-11-25, or 2025-11-25T12:00:00Z. At least `ACTOR_RETENTION` back
    #[arg(long, value_name = "TIME", value_parser = moment)]
    before: DateTime<Utc>,
}

pub async fn erase(args: &Erase, config: &Config, json: bool) -> Outcome {
    let whom = whom(args)?;
    let (db, log) = open(config).await?;
    let now = SystemClock::default().now();
    let erased = erase::erase(&log, &whom, now, config.actor_retention).await;
    log.close().await;
    let erased = erased?;
    // even when nothing was found: an earlier run may have been cut short before this
    db.forget().await.map_err(|error| CliError::Log(error.into()))?;
    db.close().await;
    if json {
        output::print_json(&json!({
            "object": "audit_erasure",
            "entries": erased.entries,
            "too_young": erased.too_young,
            "ended": erased.ended,
        }))?;
    } else {
        let mut text = format!("erased: the personal data of {} entries", erased.entries);
        if erased.ended > 0 {
            text += &format!("\nended: {} grants that were live", erased.ended);
        }
        if erased.too_young > 0 {
            let days = config.actor_retention.num_days();
            text += &format!(
                "\n{} entries are younger than ACTOR_RETENTION ({days} days) and stay: nobody erases his own trail",
                erased.too_young
            );
        }
        text += "\nbackups, WAL archives, standbys and those who were sent the data keep what they have: see docs/audit.md";
        output::print(&text)?;
    }
    Ok(verdict(erased.too_young == 0))
}

pub async fn prune(args: &Prune, config: &Config, json: bool) -> Outcome {
    let (db, log) = open(config).await?;
    let now = SystemClock::default().now();
    let pruned = erase::prune(&log, args.before, now, config.actor_retention).await;
    log.close().await;
    let pruned = pruned?;
    db.forget().await.map_err(|error| CliError::Log(error.into()))?;
    db.close().await;
    if json {
        output::print_json(&json!({ "object": "audit_pruning", "entries": pruned }))?;
    } else {
        output::print(&format!("pruned: {pruned} entries, whose hashes stay"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The log as its tables' owner, who alone may take anything out.
async fn open(config: &Config) -> Result<(Db, Log), CliError> {
    if !config.database_url.is_sqlite() && config.database_url == config.database_owner_url {
        return Err(CliError::Refused(
            "`database_owner_url` is missing; the service's role may not take anything out of the log"
                .to_owned(),
        ));
    }
    let master = MasterKey::load(&config.master_key)?;
    let db = Db::connect(config.database_owner_url.expose()).await?;
    check_migrated(&db).await?;
    let log = record::open_log(config, &db, &master).await.map_err(CliError::Log)?;
    Ok((db, log))
}

fn whom(args: &Erase) -> Result<Whom, CliError> {
    let id = |text: &str| {
        Sub::try_from(text).map_err(|error| CliError::Refused(format!("this is no id: it {error}")))
    };
    match (&args.subject, &args.actor) {
        (Some(subject), _) => Ok(Whom::Subject(id(subject)?)),
        (None, actor) => Ok(Whom::Actor {
            sub: id(actor.as_deref().unwrap_or_default())?,
            iss: args
                .iss
                .as_deref()
                .map(Issuer::try_from)
                .transpose()
                .map_err(|error| CliError::Refused(format!("--iss is no issuer: it {error}")))?,
            basis: args.basis.clone().unwrap_or_default(),
        }),
    }
}

fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    let day = || Some(text.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0)?.and_utc());
    text.parse::<DateTime<Utc>>()
        .ok()
        .or_else(day)
        .ok_or_else(|| "is no time; write 2025-11-25 or 2025-11-25T12:00:00Z".to_owned())
}
