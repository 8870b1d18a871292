//! The clients in memory: a caller is known by its secret without asking the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::constant_time;
use chrono::{DateTime, Utc};

use super::client::{Client, StoredSecret};
use super::row::{self, CONFIG_VERSION};
use super::secret::{ClientSecret, SecretHash, SecretKind};
use crate::server::master_key::MasterKey;
use crate::server::store::{Db, StoreError};
use crate::token::ClientId;

/// How often a running server looks for changes: half of the second within which it promises to see them.
pub const FOLLOW_EVERY: Duration = Duration::from_millis(400);
/// How many looks later the rows are read although nobody said that they changed: a restored database, or a
/// hand in it.
pub(in crate::server) const READ_ANYWAY_AFTER: u32 = 75;

/// Which secrets a server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptedSecrets {
    /// `serve`: live ones only.
    LiveOnly,
    /// `dev`: both kinds.
    LiveAndTest,
}

/// Every client that is there, by its secrets and by its id.
pub struct Clients {
    now: ArcSwap<Snapshot>,
    master: MasterKey,
    accepted: AcceptedSecrets,
    ignored: AtomicU64,
}

#[derive(Default)]
struct Snapshot {
    by_secret: HashMap<SecretHash, (Arc<Client>, StoredSecret)>,
    by_id: HashMap<ClientId, Arc<Client>>,
    version: Option<String>,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").field("count", &self.now.load().by_id.len()).finish_non_exhaustive()
    }
}

impl Clients {
    /// Reads every client. Rows that are not authentic are ignored and alarmed.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn load(db: &Db, master: &MasterKey, accepted: AcceptedSecrets) -> Result<Self, StoreError> {
        let clients =
            Self { now: ArcSwap::default(), master: master.clone(), accepted, ignored: AtomicU64::new(0) };
        clients.reload(db).await?;
        Ok(clients)
    }

    /// The client whose valid secret this is: no database, one hash, one look-up. `None` says no more than
    /// that it is not one.
    #[must_use]
    pub fn authenticate(&self, secret: &str, now: DateTime<Utc>) -> Option<Arc<Client>> {
        let secret = ClientSecret::parse(secret)?;
        if secret.kind() == SecretKind::Test && self.accepted == AcceptedSecrets::LiveOnly {
            return None;
        }
        let hash = secret.hash();
        let snapshot = self.now.load();
        let (client, stored) = snapshot.by_secret.get(&hash)?;
        let same = constant_time::verify_slices_are_equal(&hash.0, &stored.hash.0).is_ok();
        (same && client.is_active() && client.kind == secret.kind() && stored.is_valid(now))
            .then(|| Arc::clone(client))
    }

    /// A client by its id, disabled or not: for client assertions, whose authentication is the caller's, and
    /// for what a grant names. Test clients are unknown where test secrets are refused.
    #[must_use]
    pub fn get(&self, id: &ClientId) -> Option<Arc<Client>> {
        self.now.load().by_id.get(id).cloned()
    }

    /// Every client, disabled or not, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.now.load().by_id.values().cloned().collect()
    }

    /// How many rows are ignored now because they are not authentic: anything but 0 is an alarm.
    #[must_use]
    pub fn ignored_rows(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    /// Reads the clients again if they changed; says whether they did.
    ///
    /// # Errors
    /// The database could not be asked; what was known stays.
    pub async fn refresh(&self, db: &Db) -> Result<bool, StoreError> {
        if db.meta(CONFIG_VERSION).await? == self.now.load().version {
            return Ok(false);
        }
        self.reload(db).await?;
        Ok(true)
    }

    /// Keeps the clients fresh for as long as it is polled.
    pub async fn follow(&self, db: &Db) {
        let mut ticks = tokio::time::interval(FOLLOW_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut looks, mut failing) = (0u32, false);
        loop {
            ticks.tick().await;
            looks = looks.wrapping_add(1);
            let seen = if looks.is_multiple_of(READ_ANYWAY_AFTER) {
                self.reload(db).await
            } else {
                self.refresh(db).await.map(drop)
            };
            // said once when it begins: a database that is away is alarmed where requests fail, too
            if let (Err(error), false) = (&seen, failing) {
                tracing::error!(error = error as &dyn std::error::Error, "changes of clients cannot be seen");
            }
            failing = seen.is_err();
        }
    }

    async fn reload(&self, db: &Db) -> Result<(), StoreError> {
        // The version first: a change between the two reads is then seen again, never missed.
        let version = db.meta(CONFIG_VERSION).await?;
        let mut snapshot = Snapshot { version, ..Snapshot::default() };
        let mut ignored = 0;
        for row in row::all(db).await? {
            let Some(client) = row.open(&self.master) else {
                ignored += 1;
                tracing::error!(client.id = %row.id.escape_debug(), "a client's row is not authentic and is ignored");
                continue;
            };
            if client.kind == SecretKind::Test && self.accepted == AcceptedSecrets::LiveOnly {
                continue;
            }
            let client = Arc::new(client);
            for secret in &client.secrets {
                snapshot.by_secret.insert(secret.hash, (Arc::clone(&client), *secret));
            }
            snapshot.by_id.insert(client.id.clone(), client);
        }
        self.ignored.store(ignored, Ordering::Relaxed);
        self.now.store(Arc::new(snapshot));
        Ok(())
    }
}
