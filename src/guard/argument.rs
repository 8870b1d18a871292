//! How an identity becomes a handler's argument, in any framework.

use std::marker::PhantomData;
use std::sync::Arc;

use super::admission::{Action, Admission, Impersonable, InPerson};
use super::identity::Identity;
use super::refusal::Refusal;
use crate::token::Verifier;

/// A handler's argument that is an identity let in by a rule.
pub(crate) trait Admitted: Sized {
    /// The rule, given the one of the innermost guard around the route.
    fn rule(around: Admission) -> Admission;
    /// The argument, once the rule has let the identity in.
    fn admitted(who: Identity) -> Self;

    /// The argument for `who`, or why not.
    fn admit(who: Identity, around: Option<&Admission>) -> Result<Self, Refusal> {
        Self::rule(around.cloned().unwrap_or_default()).check(&who)?;
        Ok(Self::admitted(who))
    }
}

impl Admitted for Identity {
    fn rule(around: Admission) -> Admission {
        around
    }

    fn admitted(who: Identity) -> Self {
        who
    }
}

impl<A: Action> Admitted for Impersonable<A> {
    fn rule(around: Admission) -> Admission {
        let mut rule = around.impersonable();
        if let Some(scope) = A::SCOPE {
            rule = rule.actor_scope(scope);
        }
        if A::VERIFIED { rule.verified_actors() } else { rule }
    }

    fn admitted(who: Identity) -> Self {
        Self(who, PhantomData)
    }
}

impl Admitted for InPerson {
    fn rule(around: Admission) -> Admission {
        around.in_person()
    }

    fn admitted(who: Identity) -> Self {
        Self(who)
    }
}

/// What a guard around a route found out, for the handlers' arguments inside.
#[derive(Clone)]
pub(crate) struct Around {
    /// Who is calling, or why that is not known.
    found: Result<Arc<Identity>, Refusal>,
    /// Whose word that is: another verifier trusts others, and is asked anew.
    verifier: usize,
    /// Of which `Authorization`: what came in between may have put another one there.
    read: Vec<Box<[u8]>>,
    /// What the innermost guard that refuses admits; none if all of them only observe.
    pub(crate) admission: Option<Admission>,
}

impl Around {
    pub(crate) fn new<'a>(
        found: Result<Arc<Identity>, Refusal>,
        verifier: &Verifier,
        authorization: impl Iterator<Item = &'a [u8]>,
        admission: Option<Admission>,
    ) -> Self {
        let read = authorization.map(Box::from).collect();
        Self { found, verifier: address(verifier), read, admission }
    }

    /// What `verifier` has found out of this `authorization`; `None`: another was asked, or of another.
    pub(crate) fn found_by<'a>(
        &self,
        verifier: &Verifier,
        authorization: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Result<Arc<Identity>, Refusal>> {
        let same =
            self.verifier == address(verifier) && authorization.eq(self.read.iter().map(|read| &**read));
        same.then(|| self.found.clone())
    }
}

fn address(verifier: &Verifier) -> usize {
    std::ptr::from_ref(verifier).addr()
}
