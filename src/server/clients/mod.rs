//! API clients: who they are, what they may call, and their secrets.
//!
//! A client is a row authenticated under the master key: whoever can write the database but lacks that key
//! cannot add a client or widen one. A row that fails is ignored and alarmed, never repaired.

mod client;
mod directory;
mod manage;
mod pattern;
mod row;
mod scope;
mod secret;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientForm, InvalidClient, MAX_SECRETS, Profile, StoredSecret};
pub(super) use directory::READ_ANYWAY_AFTER;
pub use directory::{AcceptedSecrets, Clients, FOLLOW_EVERY};
pub(super) use manage::retagged;
pub use manage::{Created, create, disable, find, list, refuse_used_name, rotate_secret, update};
pub use pattern::AssertPattern;
pub(super) use row::{BUMP, CONFIG_VERSION, Retagged};
pub use scope::{ClientScope, ClientScopes};
pub use secret::{ClientSecret, SECRET_BYTES, SecretHash, SecretKind};

use super::store::StoreError;
use crate::token::ClientId;

/// Why a client could not be made, found or changed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// What was asked for is not possible.
    #[error(transparent)]
    Invalid(#[from] InvalidClient),
    /// There is no such client.
    #[error("there is no client {0}; `stagedoor client list` shows those there are")]
    Unknown(ClientId),
    /// Another client has that name, and a policy that names its clients would take one for the other.
    #[error(
        "the name \"{name}\" is that of client {id}, and a policy's @client(\"{name}\") would mean both; choose another, or disable \
         that client first"
    )]
    NameInUse {
        /// The name.
        name: String,
        /// Whose it is.
        id: ClientId,
    },
    /// The client's row fails authentication: it was changed without the master key, or the key is another.
    #[error(
        "the row of client {0} is not authentic; restore the database or the master key it was written under"
    )]
    NotAuthentic(ClientId),
    /// As before, where not even the id can be trusted.
    #[error(
        "a client's row ({0:?}) is not authentic; restore the database or the master key it was written under"
    )]
    NotReadable(String),
    /// The client is disabled, for good.
    #[error("client {0} is disabled; create another")]
    Disabled(ClientId),
    /// Somebody else changed the client at the same moment.
    #[error("client {0} was changed by somebody else just now; look at it and try again")]
    Conflict(ClientId),
    /// The database could not be asked.
    #[error(
        "the clients could not be read or written; check that the database answers and its role may do this"
    )]
    Store(#[from] StoreError),
}
