//! A signing key as a database row: public half, sealed private half, and the tag over all of it.

use chrono::{DateTime, Duration, Utc};
use zeroize::Zeroizing;

use super::{KeyPurpose, KeyState, PUBLISHED_AFTER_SECONDS};
use crate::server::clients::{BUMP, CONFIG_VERSION, Retagged};
use crate::server::master_key::{MasterKey, Purpose, frame};
use crate::server::store::{Db, StoreError, on_db};
use crate::token::{Alg, Entropy, Kid, LocalSigner, Signer as _, VerifyingKey};

/// What is known of a key without its private half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// RFC 7638 thumbprint.
    pub kid: Kid,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// What it signs with.
    pub alg: Alg,
    /// Its public half.
    pub public: VerifyingKey,
    /// Published from.
    pub created_at: DateTime<Utc>,
    /// Signs from.
    pub activated_at: DateTime<Utc>,
    /// Signs until; `None`: not planned.
    pub retired_at: Option<DateTime<Utc>>,
    /// Compromised.
    pub revoked: bool,
}

impl KeyInfo {
    /// Where the key is in its life at `now`.
    #[must_use]
    pub fn state(&self, now: DateTime<Utc>) -> KeyState {
        if self.revoked {
            KeyState::Revoked
        } else if self.retired_at.is_some_and(|end| end <= now) {
            KeyState::Retired
        } else if self.activated_at <= now {
            KeyState::Active
        } else {
            KeyState::Next
        }
    }

    /// Whether verifiers should have the key at `now`.
    #[must_use]
    pub fn is_published(&self, now: DateTime<Utc>) -> bool {
        let kept = Duration::seconds(PUBLISHED_AFTER_SECONDS);
        !self.revoked && self.retired_at.is_none_or(|end| now < end + kept)
    }
}

/// The columns of table `signing_key`.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub kid: String,
    purpose: String,
    alg: String,
    public_jwk: String,
    sealed: Vec<u8>,
    state: String,
    created_at_us: i64,
    activated_at_us: Option<i64>,
    retired_at_us: Option<i64>,
    mac: Vec<u8>,
}

type Columns = (String, String, String, String, Vec<u8>, String, i64, Option<i64>, Option<i64>, Vec<u8>);

/// A key taken out of its row.
pub(super) struct Opened {
    pub info: KeyInfo,
    pub signer: LocalSigner,
    pub pkcs8: Zeroizing<Vec<u8>>,
}

impl Row {
    /// The row that stands for a key as of `now`.
    pub fn seal(
        info: &KeyInfo,
        pkcs8: &[u8],
        master: &MasterKey,
        now: DateTime<Utc>,
        entropy: &dyn Entropy,
    ) -> Self {
        let (kid, purpose, alg) =
            (info.kid.to_string(), info.purpose.to_string(), info.alg.name().to_owned());
        let sealed = master.seal(Purpose::KEY_SEAL, &context(&kid, &alg, &purpose), pkcs8, entropy);
        let mut row = Self {
            kid,
            purpose,
            alg,
            public_jwk: info.public.to_jwk().to_string(),
            sealed,
            state: info.state(now).as_str().to_owned(),
            created_at_us: info.created_at.timestamp_micros(),
            activated_at_us: Some(info.activated_at.timestamp_micros()),
            retired_at_us: info.retired_at.map(|t| t.timestamp_micros()),
            mac: Vec::new(),
        };
        row.mac = master.mac(Purpose::KEY_ROW, &row.authenticated()).to_vec();
        row
    }

    /// The key, if the row is authentic, its private half opens, and both halves and the name belong together.
    pub fn open(&self, master: &MasterKey) -> Option<Opened> {
        if !master.verify_mac(Purpose::KEY_ROW, &self.authenticated(), &self.mac) {
            return None;
        }
        let alg = Alg::from_name(&self.alg)?;
        let public = VerifyingKey::from_jwk(&serde_json::from_str(&self.public_jwk).ok()?).ok()?;
        let context = context(&self.kid, &self.alg, &self.purpose);
        let pkcs8 = master.open(Purpose::KEY_SEAL, &context, &self.sealed).ok()?;
        let signer = LocalSigner::from_pkcs8(alg, &pkcs8).ok()?;
        let named = public.thumbprint().as_str() == self.kid && public.kid().as_str() == self.kid;
        if !named || signer.verifying_key() != &public {
            return None;
        }
        let info = KeyInfo {
            kid: public.kid().clone(),
            purpose: KeyPurpose::from_word(&self.purpose)?,
            alg,
            public,
            created_at: DateTime::from_timestamp_micros(self.created_at_us)?,
            activated_at: DateTime::from_timestamp_micros(self.activated_at_us?)?,
            retired_at: match self.retired_at_us {
                Some(us) => Some(DateTime::from_timestamp_micros(us)?),
                None => None,
            },
            revoked: self.state == KeyState::Revoked.as_str(),
        };
        Some(Opened { info, signer, pkcs8 })
    }

    fn authenticated(&self) -> Vec<u8> {
        let time = |us: Option<i64>| us.map_or(Vec::new(), |us| us.to_be_bytes().to_vec());
        frame(&[
            self.kid.as_bytes(),
            self.purpose.as_bytes(),
            self.alg.as_bytes(),
            self.public_jwk.as_bytes(),
            &self.sealed,
            self.state.as_bytes(),
            &self.created_at_us.to_be_bytes(),
            &time(self.activated_at_us),
            &time(self.retired_at_us),
        ])
    }
}

/// What a private key is sealed to.
fn context(kid: &str, alg: &str, purpose: &str) -> Vec<u8> {
    frame(&[kid.as_bytes(), alg.as_bytes(), purpose.as_bytes()])
}

/// Every row, oldest first.
pub(super) async fn all(db: &Db) -> Result<Vec<Row>, StoreError> {
    let rows: Vec<Columns> = on_db!(
        db,
        read(pool) => {
            sqlx::query_as(
                "SELECT kid, purpose, alg, public_jwk, sealed, state, created_at_us, activated_at_us, \
             retired_at_us, mac FROM signing_key ORDER BY created_at_us, kid",
            )
            .fetch_all(pool)
            .await
        }
    )?;
    let row =
        |(kid, purpose, alg, public_jwk, sealed, state, created, activated, retired, mac): Columns| Row {
            kid,
            purpose,
            alg,
            public_jwk,
            sealed,
            state,
            created_at_us: created,
            activated_at_us: activated,
            retired_at_us: retired,
            mac,
        };
    Ok(rows.into_iter().map(row).collect())
}

/// How often clients and keys were changed; read before them, for [`write_if`].
pub(super) async fn version(db: &Db) -> Result<Option<String>, StoreError> {
    db.meta(CONFIG_VERSION).await
}

/// Writes rows, new or changed, all or none, and lets running servers know.
pub(super) async fn write(db: &Db, rows: &[Row]) -> Result<(), StoreError> {
    write_with(db, rows, &[], None).await.map(drop)
}

/// As [`write`]; false, and nothing is written, when anything was changed since `version`.
pub(super) async fn write_if(db: &Db, rows: &[Row], version: Option<&str>) -> Result<bool, StoreError> {
    write_with(db, rows, &[], version).await
}

/// As [`write`], together with clients' new tags; false, and nothing is written, when a client was changed
/// meanwhile, or anything since `version`.
pub(super) async fn write_with(
    db: &Db,
    rows: &[Row],
    clients: &[Retagged],
    version: Option<&str>,
) -> Result<bool, StoreError> {
    on_db!(
        db,
        write(pool) => {
            let mut tx = pool.begin().await?;
            if let Some(version) = version {
                // whoever changes something has this row, and the next one waits for it
                let same = "UPDATE meta SET value = value WHERE key = $1 AND value = $2";
                let done = sqlx::query(same).bind(CONFIG_VERSION).bind(version).execute(&mut *tx).await?;
                if done.rows_affected() != 1 {
                    tx.rollback().await?;
                    return Ok(false);
                }
            }
            for client in clients {
                let done = sqlx::query("UPDATE client SET mac = $2 WHERE id = $1 AND version = $3")
                    .bind(client.id.as_str())
                    .bind(&client.mac)
                    .bind(client.version)
                    .execute(&mut *tx)
                    .await?;
                if done.rows_affected() != 1 {
                    tx.rollback().await?;
                    return Ok(false);
                }
            }
            for row in rows {
                sqlx::query(
                    "INSERT INTO signing_key (kid, purpose, alg, public_jwk, sealed, state, created_at_us, \
                 activated_at_us, retired_at_us, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
                 ON CONFLICT (kid) DO UPDATE SET sealed = excluded.sealed, state = excluded.state, \
                 activated_at_us = excluded.activated_at_us, retired_at_us = excluded.retired_at_us, \
                 mac = excluded.mac",
                )
                .bind(&row.kid)
                .bind(&row.purpose)
                .bind(&row.alg)
                .bind(&row.public_jwk)
                .bind(&row.sealed)
                .bind(&row.state)
                .bind(row.created_at_us)
                .bind(row.activated_at_us)
                .bind(row.retired_at_us)
                .bind(&row.mac)
                .execute(&mut *tx)
                .await?;
            }
            sqlx::query(BUMP).execute(&mut *tx).await?;
            tx.commit().await?;
        }
    );
    Ok(true)
}
