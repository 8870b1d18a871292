//! The keys in memory: who signs now, and what is published.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use chrono::{DateTime, TimeDelta, Utc};
use zeroize::Zeroizing;

use super::row::{self, KeyInfo};
use super::{KeyPurpose, KeyState, KeyringError};
use crate::server::clients::{CONFIG_VERSION, FOLLOW_EVERY, READ_ANYWAY_AFTER};
use crate::server::master_key::MasterKey;
use crate::server::store::{Db, StoreError};
use crate::token::{Alg, ClientId, Clock, Entropy, KeySet, Kid, LocalSigner, Signer};

/// What the probe signs: no JWS begins like this, so the signature is good for nothing else.
const PROBE: &[u8] = b"\0stagedoor start-up probe";
/// Where the seed stands in an Ed25519 key's PKCS#8 of 48 bytes.
const SEED_AT: usize = 16;

/// Every key that is there. Signers are prepared once: signing parses nothing.
pub struct Keyring {
    now: ArcSwap<Snapshot>,
    master: MasterKey,
    clock: Arc<dyn Clock>,
    ignored: AtomicU64,
}

#[derive(Default)]
struct Snapshot {
    keys: Vec<Key>,
    version: Option<String>,
}

struct Key {
    info: KeyInfo,
    signer: Arc<LocalSigner>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.now.load().keys.iter().map(|k| &k.info.kid)).finish()
    }
}

impl Keyring {
    /// Reads every key, and has each one that signs prove that it does. Rows that are not authentic are ignored
    /// and alarmed.
    ///
    /// # Errors
    /// Nothing signs tokens, checkpoints or the feed; a probe fails; or the database could not be asked.
    pub async fn load(db: &Db, master: &MasterKey, clock: Arc<dyn Clock>) -> Result<Self, KeyringError> {
        let keyring =
            Self { now: ArcSwap::default(), master: master.clone(), clock, ignored: AtomicU64::new(0) };
        keyring.reload(db).await?;
        for purpose in [KeyPurpose::Token, KeyPurpose::Log, KeyPurpose::Feed] {
            keyring.signer(&purpose).ok_or(KeyringError::NoSigner(purpose))?;
        }
        for key in &keyring.now.load().keys {
            probe(key)?;
        }
        Ok(keyring)
    }

    /// The key that signs for `purpose` now.
    #[must_use]
    pub fn signer(&self, purpose: &KeyPurpose) -> Option<Arc<LocalSigner>> {
        let now = self.clock.now();
        let snapshot = self.now.load();
        let active = |k: &&Key| k.info.purpose == *purpose && k.info.state(now) == KeyState::Active;
        snapshot.keys.iter().filter(active).max_by_key(|k| k.info.activated_at).map(|k| Arc::clone(&k.signer))
    }

    /// The key that signs actor tokens now.
    ///
    /// # Errors
    /// There is none any more: nothing is minted then.
    pub fn token_signer(&self) -> Result<Arc<dyn Signer>, KeyringError> {
        match self.signer(&KeyPurpose::Token) {
            Some(signer) => Ok(signer),
            None => Err(KeyringError::NoSigner(KeyPurpose::Token)),
        }
    }

    /// The key that signs tokens of one client in profile `clerk`; `None`: it has none.
    #[must_use]
    pub fn clerk_signer(&self, client: &ClientId) -> Option<Arc<dyn Signer>> {
        self.signer(&KeyPurpose::Clerk(client.clone())).map(|signer| signer as Arc<dyn Signer>)
    }

    /// A key that signed tokens and is still published, to sign what it signed before once more.
    #[must_use]
    pub fn signer_named(&self, kid: &Kid) -> Option<Arc<dyn Signer>> {
        let (now, snapshot) = (self.clock.now(), self.now.load());
        let tokens = |k: &&Key| matches!(k.info.purpose, KeyPurpose::Token | KeyPurpose::Clerk(_));
        let mut named =
            snapshot.keys.iter().filter(|k| k.info.kid == *kid && k.info.is_published(now)).filter(tokens);
        named.next().map(|k| Arc::clone(&k.signer) as Arc<dyn Signer>)
    }

    /// The Ed25519 seed that signs checkpoints.
    ///
    /// # Errors
    /// There is none, or it is of another kind.
    pub fn log_seed(&self) -> Result<Zeroizing<[u8; 32]>, KeyringError> {
        let missing = || KeyringError::NoSigner(KeyPurpose::Log);
        let signer = self.signer(&KeyPurpose::Log).filter(|s| s.alg() == Alg::EdDsa).ok_or_else(missing)?;
        let pkcs8 = signer.to_pkcs8()?;
        let mut seed = Zeroizing::new([0u8; 32]);
        seed.copy_from_slice(pkcs8.get(SEED_AT..SEED_AT + 32).ok_or_else(missing)?);
        Ok(seed)
    }

    /// What is published for `purpose` now: the key that signs, the next one, and those whose tokens may live.
    #[must_use]
    pub fn published(&self, purpose: &KeyPurpose) -> KeySet {
        let now = self.clock.now();
        let snapshot = self.now.load();
        let published = |k: &&Key| k.info.purpose == *purpose && k.info.is_published(now);
        KeySet::new(snapshot.keys.iter().filter(published).map(|k| k.info.public.clone()))
    }

    /// What verifies our actor tokens: the JWKS is [`KeySet::to_jwks`] of it.
    #[must_use]
    pub fn token_keys(&self) -> KeySet {
        self.published(&KeyPurpose::Token)
    }

    /// Every key that ever signed tokens here, retired and revoked ones too: what an old token verifies under.
    #[must_use]
    pub fn every_token_key(&self) -> KeySet {
        let signs = |k: &&Key| matches!(k.info.purpose, KeyPurpose::Token | KeyPurpose::Clerk(_));
        KeySet::new(self.now.load().keys.iter().filter(signs).map(|k| k.info.public.clone()))
    }

    /// Keys whose signatures are worth nothing any more.
    #[must_use]
    pub fn revoked_kids(&self) -> Vec<Kid> {
        self.now.load().keys.iter().filter(|k| k.info.revoked).map(|k| k.info.kid.clone()).collect()
    }

    /// When the key that signs tokens began to, for the alarm about old keys.
    #[must_use]
    pub fn token_key_since(&self) -> Option<DateTime<Utc>> {
        let signer = self.signer(&KeyPurpose::Token)?;
        let snapshot = self.now.load();
        snapshot.keys.iter().find(|k| k.info.kid == *signer.kid()).map(|k| k.info.activated_at)
    }

    /// What is known of every key, the newest first.
    #[must_use]
    pub fn infos(&self) -> Vec<KeyInfo> {
        let mut all: Vec<_> = self.now.load().keys.iter().map(|key| key.info.clone()).collect();
        all.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.kid.cmp(&b.kid)));
        all
    }

    /// How many rows are ignored now because they are not authentic: anything but 0 is an alarm.
    #[must_use]
    pub fn ignored_rows(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    /// Rotates the keys that have signed for `max_age`; what it made (see [`super::rotate_aged`]).
    ///
    /// # Errors
    /// A key could not be made, or the database.
    pub async fn rotate_aged(
        &self,
        db: &Db,
        max_age: TimeDelta,
        entropy: &dyn Entropy,
    ) -> Result<Vec<KeyInfo>, KeyringError> {
        super::rotate_aged(db, &self.master, max_age, self.clock.now(), entropy).await
    }

    /// Reads the keys again if something changed; says whether it did.
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

    /// Keeps the keys fresh for as long as it is polled; calls `changed` whenever what is published may have
    /// changed, by a command or by the passing of time.
    pub async fn follow(&self, db: &Db, changed: impl Fn(&Self)) {
        let mut ticks = tokio::time::interval(FOLLOW_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut looks, mut failing) = (0u32, false);
        let mut told = Arc::downgrade(&self.now.load_full());
        loop {
            ticks.tick().await;
            looks = looks.wrapping_add(1);
            let seen = if looks.is_multiple_of(READ_ANYWAY_AFTER) {
                self.reload(db).await.map(|()| true)
            } else {
                self.refresh(db).await
            };
            // somebody else may have read the keys again meanwhile
            let now = Arc::downgrade(&self.now.load_full());
            let other = !now.ptr_eq(&told);
            told = now;
            match &seen {
                Ok(changes) if *changes || other => changed(self),
                Err(error) if !failing => {
                    tracing::error!(
                        error = error as &dyn std::error::Error,
                        "changes of keys cannot be seen"
                    );
                }
                Ok(_) | Err(_) => {}
            }
            failing = seen.is_err();
        }
    }

    async fn reload(&self, db: &Db) -> Result<(), StoreError> {
        // The version first: a change between the two reads is then seen again, never missed.
        let version = db.meta(CONFIG_VERSION).await?;
        let mut snapshot = Snapshot { version, keys: Vec::new() };
        let mut ignored = 0;
        let before = self.now.load();
        for row in row::all(db).await? {
            let Some(key) = row.open(&self.master) else {
                ignored += 1;
                tracing::error!(key.id = %row.kid.escape_debug(), "a key's row is not authentic and is ignored");
                continue;
            };
            let known = before.keys.iter().find(|k| k.info.kid == key.info.kid);
            let signer = known.map_or_else(|| Arc::new(key.signer), |k| Arc::clone(&k.signer));
            snapshot.keys.push(Key { info: key.info, signer });
        }
        self.ignored.store(ignored, Ordering::Relaxed);
        self.now.store(Arc::new(snapshot));
        Ok(())
    }
}

/// The signer signs and the verifier accepts, or we do not start.
fn probe(key: &Key) -> Result<(), KeyringError> {
    let failed =
        |source| KeyringError::Probe { purpose: key.info.purpose.clone(), kid: key.info.kid.clone(), source };
    let signature = key.signer.sign(PROBE).map_err(|e| failed(Some(e)))?;
    if key.info.public.verifies(PROBE, &signature) { Ok(()) } else { Err(failed(None)) }
}
