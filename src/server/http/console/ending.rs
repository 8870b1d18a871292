//! What ends impersonations from the console: always by a named person.

use super::page::{Trouble, log_away};
use super::visit::Visit;
use crate::server::http::App;
use crate::server::log::Grant;
use crate::server::revoke::{Ask, ByPerson, Refused, RevokeError, Target};
use crate::token::{ClientId, GrantId, Kid, Sub};

/// Whose grants end.
pub enum Whose {
    /// One grant.
    Grant(GrantId),
    /// Somebody's or something's.
    Of(Target),
    /// Everybody's.
    All,
}

impl Whose {
    /// Reads a form's two fields; `None`: no id of that kind.
    pub fn read(kind: &str, value: &str) -> Option<Self> {
        Some(match kind {
            "grant" => Self::Grant(GrantId::try_from(value).ok()?),
            "actor" => Self::Of(Target::Actor { sub: Sub::try_from(value).ok()?, iss: None }),
            "user_id" => Self::Of(Target::User(Sub::try_from(value).ok()?)),
            "client_id" => Self::Of(Target::Client(ClientId::try_from(value).ok()?)),
            "kid" => Self::Of(Target::Kid(Kid::try_from(value).ok()?)),
            _ => return None,
        })
    }
}

fn by(visit: &Visit) -> ByPerson<'_> {
    ByPerson { act: visit.viewer.session.act(), request: &visit.request, address: visit.address }
}

/// Ends one grant; that it is over already is as good.
pub async fn end_grant(app: &App, visit: &Visit, grant: &Grant) -> Result<(), Trouble> {
    let reason = "stopped on the support page".to_owned();
    app.revoker.revoke_grant_by_person(by(visit), &grant.row.id, reason).await.map(drop).map_err(log_away)
}

/// Ends what `whose` names: how many grants, and the entry; or why not, in words.
pub async fn end(
    app: &App,
    visit: &Visit,
    whose: Whose,
    reason: &str,
) -> Result<Result<(u64, u64), &'static str>, Trouble> {
    let target = match whose {
        Whose::Grant(id) => {
            let ended = app.revoker.revoke_grant_by_person(by(visit), &id, reason.to_owned()).await;
            return ended.map_err(log_away).map(|ended| ended.map(|index| (1, index)).map_err(in_words));
        }
        Whose::Of(target) => target,
        Whose::All => Target::All,
    };
    let ask = Ask { target, reason: reason.to_owned(), hold_seconds: None };
    match app.revoker.revoke_by_person(by(visit), ask).await {
        Ok(Ok(done)) => Ok(Ok((done.matched, done.index))),
        Ok(Err(refused)) => Ok(Err(in_words(refused))),
        Err(RevokeError::Log(error)) => Err(log_away(error)),
        Err(error @ RevokeError::Key(_)) => {
            tracing::error!(error = %crate::server::http::problem::chain(&error), "a key was refused but still signs");
            Err(Trouble::Unavailable(
                "It is revoked, but the key still signs, so that nothing can be minted. Try again.",
            ))
        }
    }
}

const fn in_words(refused: Refused) -> &'static str {
    match refused {
        Refused::Scope(_) => "The policy does not let you revoke this. Nothing was revoked.",
        Refused::Unknown => "There is no grant by this id. Nothing was revoked.",
        Refused::Over => "This grant is over already.",
        Refused::UnknownKey => "No key of this id signs tokens. Nothing was revoked.",
        Refused::UnknownClient => "There is no client by this id. Nothing was revoked.",
        Refused::TooOften(_) => "Too many attempts. Nothing was revoked. Try again in a minute.",
    }
}
