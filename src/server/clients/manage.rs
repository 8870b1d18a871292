//! Making and changing clients: what the command line does.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::ClientError;
use super::client::{Client, ClientForm, InvalidClient, MAX_SECRETS, Profile, StoredSecret};
use super::row::{self, Retagged, Row};
use super::scope::ClientScopes;
use super::secret::{ClientSecret, SecretKind};
use crate::server::master_key::MasterKey;
use crate::server::store::Db;
use crate::token::{ClientId, Entropy};

/// A client with a new secret, which is never shown again.
#[derive(Debug)]
pub struct Created {
    /// The client.
    pub client: Client,
    /// Its new secret.
    pub secret: ClientSecret,
}

/// Makes a client with one secret.
///
/// # Errors
/// A value that is not possible, or the database.
pub async fn create(
    db: &Db,
    master: &MasterKey,
    form: &ClientForm,
    kind: SecretKind,
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<Created, ClientError> {
    let secret = ClientSecret::generate(kind, entropy);
    let mut client = Client {
        id: ClientId::generate(now, entropy),
        name: "unnamed".to_owned(),
        scopes: ClientScopes::default(),
        audiences: Vec::new(),
        may_assert: Vec::new(),
        alg: None,
        jwks: None,
        origins: Vec::new(),
        handoff_url: None,
        profile: Profile::Standard,
        kind,
        secrets: vec![stored(&secret, now)],
        created_at: now,
        disabled_at: None,
        version: 1,
    };
    form.apply(&mut client)?;
    row::insert(db, &Row::seal(&client, master)).await?;
    Ok(Created { client, secret })
}

/// Changes a client as asked; its secrets stay.
///
/// # Errors
/// No such client, a value that is not possible, or the database.
pub async fn update(
    db: &Db,
    master: &MasterKey,
    id: &ClientId,
    form: &ClientForm,
) -> Result<Client, ClientError> {
    change(db, master, id, |client| {
        if form.profile.as_deref().is_some_and(|p| p != client.profile.as_str()) {
            return Err(InvalidClient::new("--profile", "cannot change; create another client with it"));
        }
        form.apply(client)
    })
    .await
}

/// Disables a client for good. Disabling it again changes nothing.
///
/// # Errors
/// No such client, or the database.
pub async fn disable(
    db: &Db,
    master: &MasterKey,
    id: &ClientId,
    now: DateTime<Utc>,
) -> Result<Client, ClientError> {
    let client = find(db, master, id).await?;
    if !client.is_active() {
        return Ok(client);
    }
    change(db, master, id, |client| {
        client.disabled_at = Some(now);
        Ok(())
    })
    .await
}

/// Gives a client a new secret; those it has are accepted for `overlap` more, and no longer than before.
///
/// # Errors
/// No such client, too many secrets at a time, or the database.
pub async fn rotate_secret(
    db: &Db,
    master: &MasterKey,
    id: &ClientId,
    overlap: Duration,
    now: DateTime<Utc>,
    entropy: &dyn Entropy,
) -> Result<Created, ClientError> {
    let too_long = || InvalidClient::new("--overlap", "is too long; write at most 90d");
    let overlap = chrono::Duration::from_std(overlap).map_err(|_| too_long())?;
    if overlap > chrono::Duration::days(90) {
        return Err(too_long().into());
    }
    let secret = ClientSecret::generate(find(db, master, id).await?.kind, entropy);
    let client = change(db, master, id, |client| {
        let end = now + overlap;
        for old in &mut client.secrets {
            old.expires_at = Some(old.expires_at.map_or(end, |before| before.min(end)));
        }
        client.secrets.retain(|old| old.is_valid(now));
        if client.secrets.len() >= MAX_SECRETS {
            let why = format!("would leave more than {MAX_SECRETS} secrets valid; write --overlap 0s");
            return Err(InvalidClient::new("--overlap", why));
        }
        client.secrets.push(stored(&secret, now));
        Ok(())
    })
    .await?;
    Ok(Created { client, secret })
}

/// Refuses a name that an active client other than `of` has. The command line asks before it makes or renames one.
///
/// # Errors
/// The name is in use, or the database.
pub async fn refuse_used_name(
    db: &Db,
    master: &MasterKey,
    name: &str,
    of: Option<&ClientId>,
) -> Result<(), ClientError> {
    let (clients, _) = list(db, master).await?;
    match clients.into_iter().find(|c| c.is_active() && c.name == name && Some(&c.id) != of) {
        Some(client) => Err(ClientError::NameInUse { name: client.name, id: client.id }),
        None => Ok(()),
    }
}

/// One client, disabled or not.
///
/// # Errors
/// No such client, a row that is not authentic, or the database.
pub async fn find(db: &Db, master: &MasterKey, id: &ClientId) -> Result<Client, ClientError> {
    let row = row::one(db, id).await?.ok_or_else(|| ClientError::Unknown(id.clone()))?;
    row.open(master).ok_or_else(|| ClientError::NotAuthentic(id.clone()))
}

/// Every authentic client, oldest first, and the ids of rows that are not authentic.
///
/// # Errors
/// The database.
pub async fn list(db: &Db, master: &MasterKey) -> Result<(Vec<Client>, Vec<String>), ClientError> {
    let (mut clients, mut ignored) = (Vec::new(), Vec::new());
    for row in row::all(db).await? {
        match row.open(master) {
            Some(client) => clients.push(client),
            None => ignored.push(row.id),
        }
    }
    Ok((clients, ignored))
}

async fn change(
    db: &Db,
    master: &MasterKey,
    id: &ClientId,
    how: impl FnOnce(&mut Client) -> Result<(), InvalidClient>,
) -> Result<Client, ClientError> {
    let mut client = find(db, master, id).await?;
    if !client.is_active() {
        return Err(ClientError::Disabled(id.clone()));
    }
    how(&mut client)?;
    client.version += 1;
    if row::replace(db, &Row::seal(&client, master)).await? {
        Ok(client)
    } else {
        Err(ClientError::Conflict(id.clone()))
    }
}

fn stored(secret: &ClientSecret, now: DateTime<Utc>) -> StoredSecret {
    StoredSecret { hash: secret.hash(), created_at: now, expires_at: None }
}

/// The tags of all rows under another master key, for whoever writes them with the keys' rows.
///
/// # Errors
/// A row that is not authentic under the old one, or the database.
pub(in crate::server) async fn retagged(
    db: &Db,
    old: &MasterKey,
    new: &MasterKey,
) -> Result<Vec<Retagged>, ClientError> {
    row::all(db).await?.iter().map(|row| row.retagged(old, new)).collect()
}
