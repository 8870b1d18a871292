//! Making, rotating, retiring and re-sealing keys: what the command line does.

use chrono::{DateTime, TimeDelta, Utc};
use zeroize::Zeroizing;

use super::import::read_private_key;
use super::row::{self, KeyInfo, Opened, Row};
use super::{KeyPurpose, KeyState, KeyringError, PUBLISHED_BEFORE_SECONDS, signs_with};
use crate::server::clients;
use crate::server::master_key::MasterKey;
use crate::server::store::Db;
use crate::token::signer::SignerError;
use crate::token::{Alg, Entropy, Kid, LocalSigner, Signer as _};

/// Makes the keys a new service needs: for tokens (`alg`), for the log, for the feed. Those that are there stay.
///
/// # Errors
/// A key could not be made, or the database.
pub async fn make_initial(
    db: &Db,
    master: &MasterKey,
    alg: Alg,
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<Vec<KeyInfo>, KeyringError> {
    let mut made = Vec::new();
    let keys = opened(db, master).await?;
    for (purpose, alg) in
        [(KeyPurpose::Token, alg), (KeyPurpose::Log, Alg::EdDsa), (KeyPurpose::Feed, Alg::Es256)]
    {
        if signing(&keys, &purpose, now).is_none() {
            made.push(create(db, master, purpose, alg, now, entropy).await?);
        }
    }
    Ok(made)
}

/// Makes a key that signs from now on.
///
/// # Errors
/// The key could not be made, or the database.
pub async fn create(
    db: &Db,
    master: &MasterKey,
    purpose: KeyPurpose,
    alg: Alg,
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<KeyInfo, KeyringError> {
    let (info, pkcs8) = new_key(purpose, alg, now, now, entropy)?;
    row::write(db, &[Row::seal(&info, &pkcs8, master, now, entropy)]).await?;
    Ok(info)
}

/// Publishes a new key that takes over `PUBLISHED_BEFORE_SECONDS` from now, and plans the end of those that
/// sign until then.
///
/// # Errors
/// A rotation is under way, there is nothing to rotate, the log's key was meant, or the database.
pub async fn rotate(
    db: &Db,
    master: &MasterKey,
    purpose: KeyPurpose,
    alg: Option<Alg>,
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<KeyInfo, KeyringError> {
    let start = now + TimeDelta::seconds(PUBLISHED_BEFORE_SECONDS);
    rotate_at(db, master, purpose, alg, start, now, entropy).await
}

/// As [`rotate`], with another moment at which the new key takes over: verifiers that may keep a key set for
/// longer than until then do not know it in time.
///
/// # Errors
/// As [`rotate`].
pub async fn rotate_at(
    db: &Db,
    master: &MasterKey,
    purpose: KeyPurpose,
    alg: Option<Alg>,
    start: DateTime<Utc>,
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<KeyInfo, KeyringError> {
    let (version, keys) = opened_at(db, master).await?;
    let alg = alg.or_else(|| signing(&keys, &purpose, now).map(|k| k.info.alg));
    let alg = alg.ok_or_else(|| KeyringError::NoSigner(purpose.clone()))?;
    let (info, pkcs8) = new_key(purpose, alg, now, start, entropy)?;
    take_over(db, master, (version, &keys), info, &pkcs8, now, entropy).await
}

/// Rotates the keys for tokens and the feed that have signed for `max_age` or longer and that nothing follows
/// yet. Clients' keys for profile `clerk` stay: their verifiers may have the key pinned. Every replica may call
/// it at the same moment; one of them rotates.
///
/// # Errors
/// As [`rotate`].
pub async fn rotate_aged(
    db: &Db,
    master: &MasterKey,
    max_age: TimeDelta,
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<Vec<KeyInfo>, KeyringError> {
    let mut made = Vec::new();
    for purpose in [KeyPurpose::Token, KeyPurpose::Feed] {
        let keys = opened(db, master).await?;
        if signing(&keys, &purpose, now).is_none_or(|k| now - k.info.activated_at < max_age) {
            continue;
        }
        match rotate(db, master, purpose, None, now, entropy).await {
            Ok(info) => made.push(info),
            // another replica was faster, or somebody at the command line
            Err(KeyringError::Pending(_) | KeyringError::Changing) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(made)
}

/// Takes in a private key that was made elsewhere (PEM, DER or JWK), to sign as a rotated one would.
///
/// # Errors
/// Not a private key this service signs with, one that is there already, or as [`rotate`].
pub async fn import(
    db: &Db,
    master: &MasterKey,
    purpose: KeyPurpose,
    file: &[u8],
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<KeyInfo, KeyringError> {
    let signer = read_private_key(file)?;
    let (version, keys) = opened_at(db, master).await?;
    if keys.iter().any(|k| k.info.kid == *signer.kid()) {
        return Err(KeyringError::Exists(signer.kid().clone()));
    }
    let start = match signing(&keys, &purpose, now) {
        Some(_) => now + TimeDelta::seconds(PUBLISHED_BEFORE_SECONDS),
        None => now,
    };
    let pkcs8 = signer.to_pkcs8()?;
    let info = info(purpose, &signer, now, start);
    take_over(db, master, (version, &keys), info, &pkcs8, now, entropy).await
}

/// Ends a key that signs no more, or that a newer one follows.
///
/// # Errors
/// No such key, the only one that signs, the log's, or the database.
pub async fn retire(
    db: &Db,
    master: &MasterKey,
    kid: &Kid,
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<KeyInfo, KeyringError> {
    let (version, keys) = opened_at(db, master).await?;
    let key = named(&keys, kid)?;
    if key.info.purpose == KeyPurpose::Log {
        return Err(KeyringError::LogKey);
    }
    if signing(&keys, &key.info.purpose, now).is_some_and(|k| k.info.kid == *kid) {
        return Err(KeyringError::InUse(kid.clone()));
    }
    let mut info = key.info.clone();
    info.retired_at = Some(info.retired_at.map_or(now, |end| end.min(now)));
    let mut rows = vec![Row::seal(&info, &key.pkcs8, master, now, entropy)];
    rows.extend(resumed(&keys, &key.info, master, now, entropy));
    write_unless_changed(db, &rows, version).await?;
    Ok(info)
}

/// How often a revocation is tried while others change the keys.
const REVOKE_TRIES: usize = 10;

/// Revokes a compromised key at once: it is published no more and nothing it signed is valid. If it was the one
/// that signs, another takes over at once; gives it back.
///
/// # Errors
/// No such key, the log's, a key could not be made, or the database.
pub async fn revoke(
    db: &Db,
    master: &MasterKey,
    kid: &Kid,
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<(KeyInfo, Option<KeyInfo>), KeyringError> {
    // who changes the keys meanwhile does not make the red button fail
    for _ in 0..REVOKE_TRIES {
        match revoke_once(db, master, kid, now, entropy).await {
            Err(KeyringError::Changing) => {}
            revoked => return revoked,
        }
    }
    Err(KeyringError::Changing)
}

async fn revoke_once(
    db: &Db,
    master: &MasterKey,
    kid: &Kid,
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<(KeyInfo, Option<KeyInfo>), KeyringError> {
    let (version, keys) = opened_at(db, master).await?;
    let key = named(&keys, kid)?;
    if key.info.purpose == KeyPurpose::Log {
        return Err(KeyringError::LogKey);
    }
    let mut info = key.info.clone();
    info.revoked = true;
    info.retired_at = Some(info.retired_at.map_or(now, |end| end.min(now)));
    let mut rows = vec![Row::seal(&info, &key.pkcs8, master, now, entropy)];
    rows.extend(resumed(&keys, &key.info, master, now, entropy));
    let mut follower = None;
    if signing(&keys, &info.purpose, now).is_some_and(|k| k.info.kid == *kid) {
        let rest = || keys.iter().filter(|k| k.info.kid != *kid && k.info.purpose == info.purpose);
        // A key that is published already is one that verifiers already have.
        let next = rest().find(|k| k.info.state(now) == KeyState::Next);
        let (mut taking, pkcs8) = match next {
            Some(next) => (next.info.clone(), next.pkcs8.clone()),
            None => new_key(info.purpose.clone(), info.alg, now, now, entropy)?,
        };
        taking.activated_at = now;
        rows.push(Row::seal(&taking, &pkcs8, master, now, entropy));
        follower = Some(taking);
    }
    write_unless_changed(db, &rows, version).await?;
    Ok((info, follower))
}

/// Whether the database holds any key, authentic or not.
///
/// # Errors
/// The database.
pub async fn exist(db: &Db) -> Result<bool, KeyringError> {
    Ok(!row::all(db).await?.is_empty())
}

/// Every authentic key, oldest first, and the names of rows that are not authentic.
///
/// # Errors
/// The database.
pub async fn list(db: &Db, master: &MasterKey) -> Result<(Vec<KeyInfo>, Vec<String>), KeyringError> {
    let (mut keys, mut ignored) = (Vec::new(), Vec::new());
    for row in row::all(db).await? {
        match row.open(master) {
            Some(key) => keys.push(key.info),
            None => ignored.push(row.kid),
        }
    }
    Ok((keys, ignored))
}

/// Writes every key and client again under another master key, all or none; gives back how many keys and
/// clients. Servers that run under the old one must be started again with the new one.
///
/// # Errors
/// A row that is not authentic under the old key (nothing is changed then), or the database.
pub async fn reseal(
    db: &Db,
    old: &MasterKey,
    new: &MasterKey,
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<(usize, usize), KeyringError> {
    let mut rows = Vec::new();
    for row in row::all(db).await? {
        let key = row.open(old).ok_or_else(|| KeyringError::NotAuthentic(row.kid.clone()))?;
        rows.push(Row::seal(&key.info, &key.pkcs8, new, now, entropy));
    }
    let tags = clients::retagged(db, old, new).await?;
    if !row::write_with(db, &rows, &tags, None).await? {
        return Err(KeyringError::Changing);
    }
    Ok((rows.len(), tags.len()))
}

/// The keys that were to end when `gone` took over: it never will, so they go on.
fn resumed(
    keys: &[Opened],
    gone: &KeyInfo,
    master: &MasterKey,
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Vec<Row> {
    let waits = |k: &&Opened| {
        gone.state(now) == KeyState::Next
            && k.info.purpose == gone.purpose
            && k.info.state(now) == KeyState::Active
            && k.info.retired_at == Some(gone.activated_at)
    };
    let resume = |k: &Opened| {
        let info = KeyInfo { retired_at: None, ..k.info.clone() };
        Row::seal(&info, &k.pkcs8, master, now, entropy)
    };
    keys.iter().filter(waits).map(resume).collect()
}

async fn take_over(
    db: &Db,
    master: &MasterKey,
    (version, keys): (Option<String>, &[Opened]),
    info: KeyInfo,
    pkcs8: &[u8],
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<KeyInfo, KeyringError> {
    if info.purpose == KeyPurpose::Log {
        return Err(KeyringError::LogKey);
    }
    let same = || keys.iter().filter(|k| k.info.purpose == info.purpose);
    if let Some(pending) = same().find(|k| k.info.state(now) == KeyState::Next) {
        return Err(KeyringError::Pending(pending.info.kid.clone()));
    }
    let mut rows = vec![Row::seal(&info, pkcs8, master, now, entropy)];
    for key in same().filter(|k| k.info.state(now) == KeyState::Active) {
        let mut ending = key.info.clone();
        ending.retired_at =
            Some(ending.retired_at.map_or(info.activated_at, |end| end.min(info.activated_at)));
        rows.push(Row::seal(&ending, &key.pkcs8, master, now, entropy));
    }
    write_unless_changed(db, &rows, version).await?;
    Ok(info)
}

fn new_key(
    purpose: KeyPurpose,
    alg: Alg,
    created_at: DateTime<Utc>,
    activated_at: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<(KeyInfo, Zeroizing<Vec<u8>>), KeyringError> {
    if !signs_with(alg) {
        return Err(SignerError::Algorithm(alg).into());
    }
    let signer = match alg {
        Alg::EdDsa => {
            let mut seed = Zeroizing::new([0u8; 32]);
            entropy.fill(&mut *seed);
            LocalSigner::from_pkcs8(alg, &super::import::ed25519_pkcs8(&seed))?
        }
        _ => LocalSigner::generate(alg)?,
    };
    Ok((info(purpose, &signer, created_at, activated_at), signer.to_pkcs8()?))
}

fn info(
    purpose: KeyPurpose,
    signer: &LocalSigner,
    created_at: DateTime<Utc>,
    activated_at: DateTime<Utc>,
) -> KeyInfo {
    KeyInfo {
        kid: signer.kid().clone(),
        purpose,
        alg: signer.alg(),
        public: signer.verifying_key().clone(),
        created_at,
        activated_at,
        retired_at: None,
        revoked: false,
    }
}

/// The authentic keys; a row that fails is ignored, as everywhere.
async fn opened(db: &Db, master: &MasterKey) -> Result<Vec<Opened>, KeyringError> {
    Ok(row::all(db).await?.iter().filter_map(|row| row.open(master)).collect())
}

/// As [`opened`], with what [`write_unless_changed`] compares.
async fn opened_at(db: &Db, master: &MasterKey) -> Result<(Option<String>, Vec<Opened>), KeyringError> {
    // The version first: a change between the two reads is then a change.
    let version = row::version(db).await?;
    Ok((version, opened(db, master).await?))
}

/// Rows that follow from keys as they were at `version`: written over a change meanwhile, they could let a
/// revoked key sign again, or two keys follow one.
async fn write_unless_changed(db: &Db, rows: &[Row], version: Option<String>) -> Result<(), KeyringError> {
    if row::write_if(db, rows, version.as_deref()).await? { Ok(()) } else { Err(KeyringError::Changing) }
}

fn named<'a>(keys: &'a [Opened], kid: &Kid) -> Result<&'a Opened, KeyringError> {
    keys.iter().find(|k| k.info.kid == *kid).ok_or_else(|| KeyringError::Unknown(kid.clone()))
}

fn signing<'a>(keys: &'a [Opened], purpose: &KeyPurpose, now: DateTime<Utc>) -> Option<&'a Opened> {
    keys.iter()
        .filter(|k| k.info.purpose == *purpose && k.info.state(now) == KeyState::Active)
        .max_by_key(|k| k.info.activated_at)
}
