//! One entry against everything stored beside it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::Finding;
use crate::server::log::body::{open_disclosure, searchable, signed8};
use crate::server::log::head::locate;
use crate::server::log::tree::{Hash, leaf_hash, sha256};
use crate::server::store::append::StoredPrivate;
use crate::server::store::whole::{FullEntry, FullIndex};

/// How far `iat` may lie from the time of the record, microseconds: what the append allows, and the second
/// that `iat` is cut to.
const IAT_TOLERANCE_US: u64 = 31_000_000;

/// What a body says, as far as it is compared.
#[derive(Debug, Deserialize)]
struct Body<'b> {
    #[serde(borrow)]
    act_sd: Option<Cow<'b, str>>,
    #[serde(borrow)]
    addr_sd: Option<Cow<'b, str>>,
    #[serde(borrow)]
    client: Option<Cow<'b, str>>,
    #[serde(borrow)]
    clock: Option<Cow<'b, str>>,
    #[serde(borrow)]
    decision: Option<Cow<'b, str>>,
    detail: Option<Value>,
    #[serde(borrow)]
    grant: Option<Cow<'b, str>>,
    iat: Option<i64>,
    #[serde(borrow)]
    jti: Option<Cow<'b, str>>,
    #[serde(borrow)]
    reason_sd: Option<Cow<'b, str>>,
    #[serde(borrow)]
    rule: Option<Cow<'b, str>>,
    #[serde(borrow)]
    signed_sha256: Option<Cow<'b, str>>,
    #[serde(borrow)]
    sub_sd: Option<Cow<'b, str>>,
    t: i64,
    #[serde(borrow)]
    ticket_sd: Option<Cow<'b, str>>,
    #[serde(borrow)]
    typ: Cow<'b, str>,
    v: u8,
}

/// What an entry says was taken out of the log on purpose, and of which epoch (`None`: its own).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Removal {
    pub epoch: Option<u32>,
    pub what: Removed,
}

/// See [`Removal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Removed {
    /// Disclosures of these names are gone from these indexes (ranges, ends included).
    Erase(Vec<String>, Vec<(u64, u64)>),
    /// Everything below this index is gone but for its hashes.
    Prune(u64),
}

/// The outcome of checking one entry.
#[derive(Debug)]
pub(super) struct Checked {
    pub index: u64,
    pub t_us: i64,
    pub leaf: Hash,
    pub findings: Vec<Finding>,
    /// Disclosures that are not there.
    pub gone: Vec<&'static str>,
    pub removal: Option<Removal>,
}

/// Recomputes everything about one entry but its place in the tree.
pub(super) fn check(entry: &FullEntry) -> Checked {
    let (_, index) = locate(entry.idx);
    let computed = leaf_hash(&entry.body);
    // the tree goes on with the stored leaf: then the heads tell whether the leaf is what was sealed
    let leaf = entry.leaf.as_slice().try_into().unwrap_or(computed);
    let mut out =
        Checked { index, t_us: entry.t_us, leaf, findings: Vec::new(), gone: Vec::new(), removal: None };
    if leaf != computed {
        out.findings.push(Finding::Body(index));
    }
    let Some(body) = serde_json::from_slice::<Body<'_>>(&entry.body).ok().filter(|body| body.v == 1) else {
        out.findings.push(Finding::Form(index));
        return out;
    };
    if body.t != entry.t_us {
        out.findings.push(Finding::Time(index));
        out.t_us = body.t;
    }
    let releases = body.signed_sha256.is_some() && matches!(&*body.typ, "issue" | "redeem");
    if let (true, "issue", None, Some(iat)) = (releases, &*body.typ, &body.clock, body.iat)
        && iat.saturating_mul(1_000_000).abs_diff(body.t) > IAT_TOLERANCE_US
    {
        out.findings.push(Finding::IssuedAt(index));
    }
    match &entry.index {
        None => out.findings.push(Finding::IndexMissing(index)),
        Some(stored) if !index_matches(stored, &body, releases) => out.findings.push(Finding::Index(index)),
        Some(_) => {}
    }
    check_private(entry.private.as_ref(), &body, &mut out);
    out.removal = removal(&body);
    out
}

fn index_matches(stored: &FullIndex, body: &Body<'_>, releases: bool) -> bool {
    let signed = body.signed_sha256.as_deref().filter(|_| releases).and_then(|text| {
        let mut hash = [0; 33];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut hash).ok()?;
        let hash: &Hash = hash.get(..length)?.try_into().ok()?;
        Some(signed8(hash))
    });
    stored.typ == body.typ
        && stored.decision.as_deref() == body.decision.as_deref()
        && stored.client.as_deref() == body.client.as_deref()
        && stored.rule == body.rule.as_deref().map(searchable)
        && stored.grant_id.as_deref() == body.grant.as_deref()
        && stored.jti.as_deref() == body.jti.as_deref().filter(|_| releases)
        && stored.signed8 == signed
}

fn check_private(stored: Option<&StoredPrivate>, body: &Body<'_>, out: &mut Checked) {
    let mut bound = [
        ("act", body.act_sd.as_deref()),
        ("addr", body.addr_sd.as_deref()),
        ("reason", body.reason_sd.as_deref()),
        ("sub", body.sub_sd.as_deref()),
        ("ticket", body.ticket_sd.as_deref()),
    ];
    if let Some(stored) = stored
        && !row_matches(stored, &mut bound)
    {
        out.findings.push(Finding::Private(out.index));
    }
    out.gone.extend(bound.iter().filter(|(_, digest)| digest.is_some()).map(|(name, _)| *name));
}

/// Whether each disclosure is one the body binds, and each column what a disclosure says. What was found is
/// taken out of `bound`.
fn row_matches(stored: &StoredPrivate, bound: &mut [(&'static str, Option<&str>)]) -> bool {
    let owned: Vec<String>;
    let list = match serde_json::from_str::<Vec<&str>>(&stored.disclosures) {
        Ok(list) => list,
        // with escapes, which this service never writes
        Err(_) => match serde_json::from_str::<Vec<String>>(&stored.disclosures) {
            Ok(list) => {
                owned = list;
                owned.iter().map(String::as_str).collect()
            }
            Err(_) => return false,
        },
    };
    let (mut actor, mut actor_iss, mut subject, mut ticket) = (None, None, None, None);
    let mut buffer = Vec::with_capacity(256);
    for disclosure in &list {
        let Some((name, value)) = open(disclosure, &mut buffer) else { return false };
        let mut digest = [0; 43];
        let hash = sha256(disclosure.as_bytes());
        if URL_SAFE_NO_PAD.encode_slice(hash, &mut digest).is_err() {
            return false;
        }
        let is_bound = |d: Option<&str>| d.is_some_and(|d| d.as_bytes() == digest);
        let Some(slot) = bound.iter_mut().find(|(n, d)| *n == name && is_bound(*d)) else {
            return false;
        };
        slot.1 = None;
        let text = |value: &Value| value.as_str().map(searchable);
        match &*name {
            "act" => {
                actor = value.get("sub").and_then(text);
                actor_iss = value.get("iss").and_then(text);
            }
            "sub" => subject = text(&value),
            "ticket" => ticket = text(&value),
            _ => {}
        }
    }
    stored.actor == actor
        && stored.actor_iss == actor_iss
        && stored.subject == subject
        && stored.ticket == ticket
}

/// The name and value inside a disclosure. Millions are opened: nothing is copied that need not be.
fn open<'b>(disclosure: &str, buffer: &'b mut Vec<u8>) -> Option<(Cow<'b, str>, Value)> {
    buffer.clear();
    URL_SAFE_NO_PAD.decode_vec(disclosure, buffer).ok()?;
    if let Ok((_salt, name, value)) = serde_json::from_slice::<(&str, &str, Value)>(buffer) {
        return Some((Cow::Borrowed(name), value));
    }
    open_disclosure(disclosure).map(|(name, value)| (Cow::Owned(name), value))
}

fn removal(body: &Body<'_>) -> Option<Removal> {
    let detail = body.detail.as_ref()?;
    let what = match &*body.typ {
        "erase" => {
            let fields = detail.get("fields")?.as_array()?;
            let fields = fields.iter().filter_map(|field| Some(field.as_str()?.to_owned())).collect();
            let ranges = detail.get("indexes")?.as_array()?;
            let ranges =
                ranges.iter().filter_map(|range| Some((range.get(0)?.as_u64()?, range.get(1)?.as_u64()?)));
            Removed::Erase(fields, ranges.collect())
        }
        "prune" => Removed::Prune(detail.get("below")?.as_u64()?),
        _ => return None,
    };
    let epoch = detail.get("epoch").and_then(Value::as_u64).and_then(|epoch| u32::try_from(epoch).ok());
    Some(Removal { epoch, what })
}
