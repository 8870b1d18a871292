//! A client as a database row: JSON, authenticated with everything that stands beside it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ClientError;
use super::client::{Client, Profile, StoredSecret};
use super::pattern::AssertPattern;
use super::scope::ClientScope;
use super::secret::{SecretHash, SecretKind};
use crate::server::master_key::{MasterKey, Purpose, frame};
use crate::server::store::{Db, StoreError, on_db};
use crate::token::{Alg, ClientId};

/// The columns of table `client`.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub id: String,
    pub body: String,
    pub mac: Vec<u8>,
    pub created_at_us: i64,
    pub disabled_at_us: Option<i64>,
    pub version: i64,
}

/// A row's tag under another master key.
#[derive(Debug)]
pub(in crate::server) struct Retagged {
    pub id: ClientId,
    pub mac: Vec<u8>,
    pub version: i64,
}

type Columns = (String, String, Vec<u8>, i64, Option<i64>, i64);

/// The JSON of column `row`. Members are added with a default and never change their meaning, so that two
/// versions of the program read one database.
#[derive(Serialize, Deserialize)]
struct Body {
    name: String,
    scopes: Vec<String>,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    may_assert: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwks: Option<Value>,
    #[serde(default)]
    origins: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handoff_url: Option<String>,
    profile: String,
    live: bool,
    secrets: Vec<SecretBody>,
}

#[derive(Serialize, Deserialize)]
struct SecretBody {
    hash: String,
    created_at_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_us: Option<i64>,
}

impl Row {
    /// The row that stands for `client`.
    pub fn seal(client: &Client, master: &MasterKey) -> Self {
        let secret = |s: &StoredSecret| SecretBody {
            hash: URL_SAFE_NO_PAD.encode(s.hash.0),
            created_at_us: s.created_at.timestamp_micros(),
            expires_at_us: s.expires_at.map(|t| t.timestamp_micros()),
        };
        let body = Body {
            name: client.name.clone(),
            scopes: client.scopes.iter().map(|s| s.as_str().to_owned()).collect(),
            audiences: client.audiences.iter().map(|a| a.as_str().to_owned()).collect(),
            may_assert: client.may_assert.iter().map(|p| p.as_str().to_owned()).collect(),
            alg: client.alg.map(|a| a.name().to_owned()),
            jwks: client.jwks.clone(),
            origins: client.origins.clone(),
            handoff_url: client.handoff_url.clone(),
            profile: client.profile.as_str().to_owned(),
            live: client.kind == SecretKind::Live,
            secrets: client.secrets.iter().map(secret).collect(),
        };
        let mut row = Self {
            id: client.id.as_str().to_owned(),
            body: serde_json::to_string(&body).expect("texts, lists and numbers always serialise"),
            mac: Vec::new(),
            created_at_us: client.created_at.timestamp_micros(),
            disabled_at_us: client.disabled_at.map(|t| t.timestamp_micros()),
            version: client.version,
        };
        row.mac = master.mac(Purpose::CLIENT_ROW, &row.authenticated()).to_vec();
        row
    }

    /// The same row's tag under another master key, if it is authentic under `old`.
    pub fn retagged(&self, old: &MasterKey, new: &MasterKey) -> Result<Retagged, ClientError> {
        let id = self
            .open(old)
            .map(|client| client.id)
            .ok_or_else(|| ClientError::NotReadable(self.id.clone()))?;
        let mac = new.mac(Purpose::CLIENT_ROW, &self.authenticated()).to_vec();
        Ok(Retagged { id, mac, version: self.version })
    }

    /// The client, if the row is authentic and readable.
    pub fn open(&self, master: &MasterKey) -> Option<Client> {
        if !master.verify_mac(Purpose::CLIENT_ROW, &self.authenticated(), &self.mac) {
            return None;
        }
        let body: Body = serde_json::from_str(&self.body).ok()?;
        let read =
            |texts: &[String]| texts.iter().map(|t| AssertPattern::parse(t).ok()).collect::<Option<_>>();
        let alg = match &body.alg {
            Some(name) => Some(Alg::from_name(name)?),
            None => None,
        };
        Some(Client {
            id: ClientId::try_from(self.id.as_str()).ok()?,
            name: body.name,
            scopes: body.scopes.iter().map(|s| ClientScope::from_word(s)).collect::<Option<_>>()?,
            audiences: body.audiences.iter().map(|a| a.as_str().try_into().ok()).collect::<Option<_>>()?,
            may_assert: read(&body.may_assert)?,
            alg,
            jwks: body.jwks,
            origins: body.origins,
            handoff_url: body.handoff_url,
            profile: Profile::from_word(&body.profile)?,
            kind: if body.live { SecretKind::Live } else { SecretKind::Test },
            secrets: body.secrets.iter().map(SecretBody::open).collect::<Option<_>>()?,
            created_at: DateTime::from_timestamp_micros(self.created_at_us)?,
            disabled_at: time(self.disabled_at_us)?,
            version: self.version,
        })
    }

    fn authenticated(&self) -> Vec<u8> {
        let disabled = self.disabled_at_us.map(i64::to_be_bytes);
        frame(&[
            self.id.as_bytes(),
            self.body.as_bytes(),
            &self.created_at_us.to_be_bytes(),
            disabled.as_ref().map_or(&[][..], |bytes| bytes),
            &self.version.to_be_bytes(),
        ])
    }

    fn from_columns((id, body, mac, created_at_us, disabled_at_us, version): Columns) -> Self {
        Self { id, body, mac, created_at_us, disabled_at_us, version }
    }
}

impl SecretBody {
    fn open(&self) -> Option<StoredSecret> {
        let hash = URL_SAFE_NO_PAD.decode(&self.hash).ok()?;
        Some(StoredSecret {
            hash: SecretHash(hash.try_into().ok()?),
            created_at: DateTime::from_timestamp_micros(self.created_at_us)?,
            expires_at: time(self.expires_at_us)?,
        })
    }
}

/// A time that may be absent; the outer `None` says that it cannot be one.
#[expect(clippy::option_option, reason = "absent and impossible are different answers")]
fn time(us: Option<i64>) -> Option<Option<DateTime<Utc>>> {
    match us {
        None => Some(None),
        Some(us) => DateTime::from_timestamp_micros(us).map(Some),
    }
}

/// Every row, oldest first.
pub(super) async fn all(db: &Db) -> Result<Vec<Row>, StoreError> {
    let rows: Vec<Columns> = on_db!(
        db,
        read(pool) => {
            sqlx::query_as(
                "SELECT id, row, mac, created_at_us, disabled_at_us, version FROM client ORDER BY id",
            )
            .fetch_all(pool)
            .await
        }
    )?;
    Ok(rows.into_iter().map(Row::from_columns).collect())
}

/// One row.
pub(super) async fn one(db: &Db, id: &ClientId) -> Result<Option<Row>, StoreError> {
    let row: Option<Columns> = on_db!(
        db,
        read(pool) => {
            sqlx::query_as(
                "SELECT id, row, mac, created_at_us, disabled_at_us, version FROM client WHERE id = $1",
            )
            .bind(id.as_str())
            .fetch_optional(pool)
            .await
        }
    )?;
    Ok(row.map(Row::from_columns))
}

/// Counts the changes that running servers must see; they look at it twice a second.
pub(in crate::server) const CONFIG_VERSION: &str = "config_version";

pub(in crate::server) const BUMP: &str = "INSERT INTO meta (key, value) VALUES ('config_version', '1') \
     ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(meta.value AS BIGINT) + 1 AS TEXT)";

/// Adds a row, and lets running servers know.
pub(super) async fn insert(db: &Db, row: &Row) -> Result<(), StoreError> {
    on_db!(
        db,
        write(pool) => {
            let mut tx = pool.begin().await?;
            sqlx::query(
                "INSERT INTO client (id, row, mac, created_at_us, disabled_at_us, version) \
             VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(&row.id)
            .bind(&row.body)
            .bind(&row.mac)
            .bind(row.created_at_us)
            .bind(row.disabled_at_us)
            .bind(row.version)
            .execute(&mut *tx)
            .await?;
            sqlx::query(BUMP).execute(&mut *tx).await?;
            tx.commit().await?;
        }
    );
    Ok(())
}

/// Replaces the row of the version before, and lets running servers know; false when that version is gone.
pub(super) async fn replace(db: &Db, row: &Row) -> Result<bool, StoreError> {
    let changed = on_db!(
        db,
        write(pool) => {
            let mut tx = pool.begin().await?;
            let done = sqlx::query(
                "UPDATE client SET row = $2, mac = $3, disabled_at_us = $4, version = $5 \
             WHERE id = $1 AND version = $6",
            )
            .bind(&row.id)
            .bind(&row.body)
            .bind(&row.mac)
            .bind(row.disabled_at_us)
            .bind(row.version)
            .bind(row.version - 1)
            .execute(&mut *tx)
            .await?;
            sqlx::query(BUMP).execute(&mut *tx).await?;
            tx.commit().await?;
            done.rows_affected()
        }
    );
    Ok(changed == 1)
}
