//! `stagedoor init`: database, keys and master key file, in that order of need; what is there stays.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{CliError, Outcome, output};
use crate::server::app::DEV_STAMP;
use crate::server::config::{Config, SecretSource};
use crate::server::keyring::{self, KeyInfo};
use crate::server::log::Event;
use crate::server::master_key::{MasterKey, MasterKeyError};
use crate::server::store::{Db, StoreError, check_migrated, migrate};
use crate::token::{Clock as _, SystemClock, SystemEntropy};

#[derive(Debug, Args)]
pub struct Init {
    /// Where everything is there and up to date, say so and exit 0: for scripts that run it before each start
    #[arg(long)]
    if_needed: bool,
}

pub async fn run(args: &Init, config: &Config, json: bool) -> Outcome {
    let now = SystemClock::default().now();
    // A master key that is there and wrong is found before anything is made.
    if let Err(error) = MasterKey::load(&config.master_key)
        && !matches!(error, MasterKeyError::Missing(_))
    {
        return Err(error.into());
    }
    make_directory(&config.data_dir)?;
    let db = Db::create(config.database_owner_url.expose()).await?;
    let has_keys = match check_migrated(&db).await {
        Ok(()) => keyring::exist(&db).await?,
        Err(StoreError::NotMigrated(_)) => false,
        Err(error) => return Err(error.into()),
    };
    if has_keys {
        // With the wrong master key the database is there, too: say which of the two it is.
        let keys = open_keys(config, &db).await?;
        let of_dev = db.meta(DEV_STAMP).await?.is_some();
        if args.if_needed && !of_dev {
            return up_to_date(config, json, &keys);
        }
        let next = if of_dev {
            "it belongs to `stagedoor dev`: set another DATA_DIR"
        } else {
            "start it with `stagedoor serve`"
        };
        let which = output::plain(&format!("{:?}", config.database_url));
        return Err(CliError::Refused(format!(
            "{which} is initialised already and was left as it is; {next}"
        )));
    }
    let service = service_user(config).await?;
    migrate(&db, service.as_deref()).await?;
    if keyring::exist(&db).await? {
        let keys = open_keys(config, &db).await?;
        return report(config, json, "migrated", &keys, false);
    }
    let (master, made_key) = master_key(&config.master_key)?;
    let keys = keyring::make_initial(&db, &master, config.signing_alg, now, &SystemEntropy).await?;
    let entries = keys.iter().map(|k| Event::key(&k.kid, "create", &k.purpose.to_string()));
    super::record::record(config, &db, &master, entries.collect()).await?;
    db.close().await;
    report(config, json, "made", &keys, made_key)
}

fn up_to_date(config: &Config, json: bool, keys: &[KeyInfo]) -> Outcome {
    if json {
        return report(config, true, "nothing", keys, false);
    }
    let database = output::plain(&format!("{:?}", config.database_url));
    output::print(&format!("nothing to do: database {database} is up to date"))?;
    Ok(ExitCode::SUCCESS)
}

async fn open_keys(config: &Config, db: &Db) -> Result<Vec<KeyInfo>, CliError> {
    let master = MasterKey::load(&config.master_key)?;
    let (keys, ignored) = keyring::list(db, &master).await?;
    match ignored.into_iter().next() {
        Some(kid) => Err(keyring::KeyringError::NotAuthentic(kid).into()),
        None => Ok(keys),
    }
}

/// The role that the service connects as, which is given its rights by the owner's migration.
async fn service_user(config: &Config) -> Result<Option<String>, CliError> {
    if config.database_url.is_sqlite() {
        return Ok(None);
    }
    if config.database_url == config.database_owner_url {
        return Err(CliError::Refused(
            "`database_owner_url` is missing; give the log's tables an owner other than the service's role, \
             which `serve` would refuse"
                .to_owned(),
        ));
    }
    let db = Db::connect(config.database_url.expose()).await?;
    let user = db.user().map(str::to_owned);
    db.close().await;
    Ok(user)
}

fn make_directory(path: &Path) -> Result<(), CliError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| CliError::File { path: path.to_owned(), source })
}

/// The key that is configured, made if it is a file that is not there.
fn master_key(source: &SecretSource) -> Result<(MasterKey, bool), CliError> {
    match (MasterKey::load(source), source) {
        (Err(MasterKeyError::Missing(_)), SecretSource::File(path)) => {
            Ok((MasterKey::create(path, &SystemEntropy)?, true))
        }
        (loaded, _) => Ok((loaded?, false)),
    }
}

fn report(config: &Config, json: bool, did: &str, keys: &[KeyInfo], made_key: bool) -> Outcome {
    let database = format!("{:?}", config.database_url);
    let key_file = match &config.master_key {
        SecretSource::File(path) => Some(path.display().to_string()),
        SecretSource::Inline(_) => None,
    };
    if json {
        let keys: Vec<_> = keys.iter().map(|k| super::key::as_json(k, k.activated_at)).collect();
        output::print_json(&json!({
            "object": "init", "did": did, "database": database, "master_key_file": key_file,
            "made_master_key": made_key, "keys": keys,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = vec![format!("{did}: database {}", output::plain(&database))];
    if let (true, Some(file)) = (made_key, &key_file) {
        lines.push(format!("{did}: master key file {}", output::plain(file)));
        lines.push("      keep a copy of it elsewhere: without it the database opens nothing".to_owned());
    }
    for key in keys {
        lines.push(format!("{did}: {} key {} ({})", key.purpose, key.kid, key.alg));
    }
    if config.key_beside_database() {
        lines.push("note: master key and database share a directory, where one theft takes both;".to_owned());
        lines.push("      in production set MASTER_KEY_FILE to a file outside DATA_DIR".to_owned());
    }
    lines.push(
        "next: stagedoor client create --name backend --audience https://api.example.com \\".to_owned(),
    );
    lines.push(
        "        --scopes actor_tokens:issue,actor_tokens:assert_actor,tokens:verify --may-assert '*'"
            .to_owned(),
    );
    lines.push("      stagedoor serve".to_owned());
    output::print(&lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}
