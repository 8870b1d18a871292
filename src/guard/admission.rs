//! What a route accepts: nobody who impersonates, unless it says so in one visible word.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::Deref;

use crate::token::{Assurance, Invalid};

use super::identity::Identity;
use super::refusal::Refusal;

/// What a route, a scope of routes or a whole application accepts.
///
/// The default refuses every actor token. Guards stack: each one around a route must admit, so an inner
/// one can only be stricter.
///
/// ```
/// use stagedoor::guard::Admission;
/// let support_reads = Admission::default().impersonable().actor_scope("read");
/// let payouts = Admission::default().impersonable().actor_scope("payout").verified_actors();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    impersonable: bool,
    verified_actors: bool,
    stale_tolerated: bool,
    scopes: Vec<Cow<'static, str>>,
    actor_scopes: Vec<Cow<'static, str>>,
}

impl Admission {
    /// Opts in: somebody who acts as the user is let in.
    #[must_use]
    pub fn impersonable(mut self) -> Self {
        self.impersonable = true;
        self
    }

    /// Opts out again: only the user himself.
    #[must_use]
    pub fn in_person(mut self) -> Self {
        self.impersonable = false;
        self
    }

    /// An impersonator needs this scope; the user himself does not.
    #[must_use]
    pub fn actor_scope(mut self, scope: impl Into<Cow<'static, str>>) -> Self {
        self.actor_scopes.push(scope.into());
        self
    }

    /// Everybody needs this scope, the user himself too.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<Cow<'static, str>>) -> Self {
        self.scopes.push(scope.into());
        self
    }

    /// An impersonator must have proved who he is ([`Assurance::Verified`]); one that a client merely
    /// named is refused, and so is one whose issuer does not say.
    #[must_use]
    pub fn verified_actors(mut self) -> Self {
        self.verified_actors = true;
        self
    }

    /// Lets actor tokens in also while revocations are known too little to rely on: for routes where
    /// being reachable counts for more than a stop that takes effect at once.
    #[must_use]
    pub fn tolerate_stale_revocations(mut self) -> Self {
        self.stale_tolerated = true;
        self
    }

    /// Whether `who` is let in. Asked in this order: are revocations known, may he impersonate here, is
    /// he known well enough, does the token allow it.
    pub fn check(&self, who: &Identity) -> Result<(), Refusal> {
        if who.revocations_stale() && !self.stale_tolerated {
            return Err(Refusal::Token(Invalid::RevocationsStale));
        }
        if who.is_impersonated() {
            if !self.impersonable {
                return Err(Refusal::ImpersonationRefused);
            }
            if self.verified_actors && who.assurance != Some(Assurance::Verified) {
                return Err(Refusal::ActorNotVerified);
            }
        }
        let of_actors = self.actor_scopes.iter().filter(|_| who.is_impersonated());
        match self.scopes.iter().chain(of_actors).find(|scope| !who.has_scope(scope)) {
            Some(missing) => Err(Refusal::ScopeMissing(missing.clone())),
            None => Ok(()),
        }
    }
}

/// What somebody does who acts as a user: names the scope he needs for it. Made with [`action!`].
///
/// [`action!`]: crate::action
pub trait Action {
    /// The scope that an impersonator's token must have.
    const SCOPE: Option<&'static str>;
    /// Whether he must have proved who he is.
    const VERIFIED: bool = false;
}

/// Any action: no scope is demanded of an impersonator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnyAction;

impl Action for AnyAction {
    const SCOPE: Option<&'static str> = None;
}

/// Names an [`Action`] by the scope it needs, and optionally demands an actor who proved himself:
///
/// ```
/// stagedoor::action!(pub Read = "read");
/// stagedoor::action!(pub Refund = "billing:write", verified);
/// ```
#[macro_export]
macro_rules! action {
    ($(#[$doc:meta])* $vis:vis $name:ident = $scope:literal) => {
        $crate::action!(@ [$(#[$doc])*] $vis $name, $scope, false);
    };
    ($(#[$doc:meta])* $vis:vis $name:ident = $scope:literal, verified) => {
        $crate::action!(@ [$(#[$doc])*] $vis $name, $scope, true);
    };
    (@ [$($doc:tt)*] $vis:vis $name:ident, $scope:literal, $verified:literal) => {
        #[doc = concat!("What needs the scope `", $scope, "` when somebody acts as a user.")]
        $($doc)*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis struct $name;

        impl $crate::guard::Action for $name {
            const SCOPE: ::core::option::Option<&'static str> = ::core::option::Option::Some($scope);
            const VERIFIED: bool = $verified;
        }
    };
}

/// An argument that opts a handler in: the user, or somebody acting as him who may do `A`.
#[derive(Debug, Clone, PartialEq)]
pub struct Impersonable<A: Action = AnyAction>(
    /// Who is calling. Look at [`Identity::actor`] before you write a record.
    pub Identity,
    pub(super) PhantomData<A>,
);

/// An argument that lets in the user himself only: for changing a password, deleting an account, paying
/// out. It refuses every impersonator even where a guard around the route admits them.
#[derive(Debug, Clone, PartialEq)]
pub struct InPerson(
    /// Who is calling; never impersonated.
    pub Identity,
);

impl<A: Action> Deref for Impersonable<A> {
    type Target = Identity;
    fn deref(&self) -> &Identity {
        &self.0
    }
}

impl Deref for InPerson {
    type Target = Identity;
    fn deref(&self) -> &Identity {
        &self.0
    }
}
