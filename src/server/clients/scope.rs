//! What a client may call: the scopes of contract.md §3, and no others.

use std::fmt;

/// One permission of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientScope {
    /// `actor_tokens:issue`: mint, and `/oauth/token`.
    Issue,
    /// `actor_tokens:assert_actor`: name an actor who did not prove himself, within `may_assert`.
    AssertActor,
    /// `actor_tokens:redeem`: redeem handoff codes that others minted.
    Redeem,
    /// `actor_tokens:read`: list and read grants.
    Read,
    /// `actor_tokens:revoke`: revoke grants.
    Revoke,
    /// `tokens:verify`: verify and introspect tokens.
    Verify,
    /// `audit:read`: read the log.
    AuditRead,
    /// `audit:read_personal`: with the ids of people in it.
    AuditReadPersonal,
    /// `admin`: beyond the client's own grants and audiences.
    Admin,
}

impl fmt::Display for ClientScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ClientScope {
    /// All of them, in the contract's order.
    pub const ALL: [Self; 9] = [
        Self::Issue,
        Self::AssertActor,
        Self::Redeem,
        Self::Read,
        Self::Revoke,
        Self::Verify,
        Self::AuditRead,
        Self::AuditReadPersonal,
        Self::Admin,
    ];

    /// The contract's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issue => "actor_tokens:issue",
            Self::AssertActor => "actor_tokens:assert_actor",
            Self::Redeem => "actor_tokens:redeem",
            Self::Read => "actor_tokens:read",
            Self::Revoke => "actor_tokens:revoke",
            Self::Verify => "tokens:verify",
            Self::AuditRead => "audit:read",
            Self::AuditReadPersonal => "audit:read_personal",
            Self::Admin => "admin",
        }
    }

    /// The scope of this exact word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A set of client scopes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientScopes(u16);

impl ClientScopes {
    /// Whether the set holds `scope`.
    #[must_use]
    pub const fn contains(self, scope: ClientScope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes, in the contract's order.
    pub fn iter(self) -> impl Iterator<Item = ClientScope> {
        ClientScope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }

    /// Every scope there is.
    #[must_use]
    pub fn all() -> Self {
        ClientScope::ALL.into_iter().collect()
    }
}

impl FromIterator<ClientScope> for ClientScopes {
    fn from_iter<I: IntoIterator<Item = ClientScope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | scope.bit()))
    }
}

impl fmt::Debug for ClientScopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(ClientScope::as_str)).finish()
    }
}
