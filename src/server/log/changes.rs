//! From effects to rows: what a batch changes besides its entries and grants.

use super::approval::ApprovalState;
use super::clock_guard::micros;
use super::record::Effect;
use super::stopping::{Hold, RedeemRow, Revoke, Selector, Tag};
use crate::server::store::approval::{StoredApproval, StoredDecision};
use crate::server::store::stop::{
    Changes, StoredCode, StoredFacts, StoredKey, StoredRedeem, StoredRevoke, StoredSelector,
};

/// The changes of effects, each with the global position of its entry, recorded at `t_us`.
pub(super) fn of<'e>(effects: impl Iterator<Item = (i64, &'e [Effect])>, t_us: i64) -> Changes {
    let mut changes = Changes::default();
    for (idx, effect) in effects.flat_map(|(idx, effects)| effects.iter().map(move |effect| (idx, effect))) {
        match effect {
            Effect::InsertGrant(_) => {}
            Effect::InsertChain { grant, exp, people } => {
                let row = |Tag(tag): &Tag| (grant.as_str().to_owned(), tag.to_string(), micros(*exp));
                changes.chains.extend(people.iter().map(row));
            }
            Effect::InsertCode(row) => changes.codes.push(StoredCode {
                grant_id: row.grant.as_str().to_owned(),
                code_hash: row.code_hash.0.to_string(),
                redeem_client: row.redeem_client.as_str().to_owned(),
                code_challenge: row.code_challenge.clone(),
                sealed: row.sealed.clone(),
                exp_us: micros(row.exp),
                keep_until_us: micros(row.keep_until),
                used_idx: None,
            }),
            Effect::InsertFacts { grant, sealed, exp } => changes.facts.push(StoredFacts {
                grant_id: grant.as_str().to_owned(),
                sealed: sealed.clone(),
                keep_until_us: micros(*exp),
            }),
            Effect::InsertKey(row) => changes.keys.push(StoredKey {
                key_tag: row.key.0.to_string(),
                body_tag: row.body.0.to_string(),
                grant_id: row.grant.as_str().to_owned(),
                exp_us: micros(row.exp),
            }),
            Effect::Redeem(row) => changes.redeemed.push(redeemed(idx, row)),
            Effect::InsertApproval(row) => changes.approvals.push(StoredApproval {
                grant_id: row.grant.as_str().to_owned(),
                state: row.state.as_str(),
                lapses_us: micros(row.lapses_at),
                lifetime_seconds: row.lifetime_seconds,
                asker_tag: row.asker.as_ref().map(|Tag(tag)| tag.to_string()),
            }),
            Effect::Decide { grant, approved } => changes.decisions.push(StoredDecision {
                idx,
                grant_id: grant.as_str().to_owned(),
                state: decided(*approved).as_str(),
            }),
            Effect::Release(row) => changes.released.push(redeemed(idx, row)),
            Effect::Revoke(revoke) => changes.revocations.push(stored(idx, revoke, t_us)),
        }
    }
    changes
}

/// What a colleague's word makes of a request.
pub(super) const fn decided(approved: bool) -> ApprovalState {
    if approved { ApprovalState::Approved } else { ApprovalState::Refused }
}

fn redeemed(idx: i64, row: &RedeemRow) -> StoredRedeem {
    StoredRedeem {
        idx,
        grant_id: row.grant.as_str().to_owned(),
        kid: row.kid.as_str().to_owned(),
        scope: row.scope.to_string(),
        iat_us: micros(row.iat),
        exp_us: micros(row.exp),
    }
}

fn stored(idx: i64, revoke: &Revoke, t_us: i64) -> StoredRevoke {
    StoredRevoke {
        idx,
        selector: match &revoke.selector {
            Selector::Grant(grant) => StoredSelector::Grant(grant.as_str().to_owned()),
            Selector::Actor { sub, iss, chain } => StoredSelector::Actor {
                sub: sub.as_str().to_owned(),
                iss: iss.as_ref().map_or_else(String::new, |iss| iss.as_str().to_owned()),
                chain: chain.0.to_string(),
            },
            Selector::Subject(sub) => StoredSelector::Subject(sub.as_str().to_owned()),
            Selector::Client(client) => StoredSelector::Client(client.as_str().to_owned()),
            Selector::Kid(kid) => StoredSelector::Kid(kid.as_str().to_owned()),
            Selector::All => StoredSelector::All,
        },
        of_client: revoke.of_client.as_ref().map_or_else(String::new, |client| client.as_str().to_owned()),
        hold_until_us: revoke.hold.as_ref().map(|hold| t_us + i64::from(hold.seconds) * 1_000_000),
        held_person: match &revoke.hold {
            Some(Hold { person: Some(Tag(person)), .. }) => Some(person.to_string()),
            _ => None,
        },
    }
}
