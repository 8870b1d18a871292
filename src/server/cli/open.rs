//! What most commands begin with: the database, migrated, and the master key.

use crate::server::config::Config;
use crate::server::master_key::MasterKey;
use crate::server::store::{Db, check_migrated};

use super::CliError;

/// Opens both as the service does.
pub async fn open(config: &Config) -> Result<(Db, MasterKey), CliError> {
    let master = MasterKey::load(&config.master_key)?;
    let db = Db::connect(config.database_url.expose()).await?;
    check_migrated(&db).await?;
    Ok((db, master))
}
