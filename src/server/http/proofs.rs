//! The log as auditors prove it: tiles, inclusion and consistency proofs, and whether a token is in it.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use actix_web::web::{Bytes, Path};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::App;
use super::actor_tokens::{json_answer, log_unreadable};
use super::audit::{record_view, row, tells};
use super::caller::authenticate;
use super::edge::json_body;
use super::fields::{Fields, missing};
use super::problem::{Code, Problem};
use super::query::{Query, bad};
use crate::server::clients::ClientScope;
use crate::server::log::tile_path::TilePath;
use crate::server::log::{Lookup, ReadError, Tile};
use crate::token::jws::{MAX_TOKEN_BYTES, UnverifiedJws};
use crate::token::signer::sha256;

/// A full tile never changes (C2SP tlog-tiles).
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// What a read of the tree could not give; `param` is what asked for it.
fn unreadable(error: ReadError, param: &'static str) -> Problem {
    match error {
        ReadError::Range(what) => Problem::new(Code::ResourceNotFound, capitalised(what)).param(param),
        ReadError::Pruned => Problem::not_found(
            "The bodies of these entries were dropped by `audit prune`; their hashes still stand.",
        ),
        ReadError::Log(error) => log_unreadable(error),
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

/// GET `/v1/audit/entries/{idx}/proof`: `c2sp.org/tlog-proof@v1` under the newest checkpoint.
pub async fn inclusion(app: App, request: HttpRequest, idx: Path<String>) -> Result<HttpResponse, Problem> {
    authenticate(&app, &request)?.require(ClientScope::AuditRead)?;
    let index: u64 = idx.parse().map_err(|_| bad("idx", "must be a whole number, zero or more"))?;
    let proof = app.log.proof(index).await.map_err(|e| unreadable(e, "idx"))?;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/plain; charset=utf-8")).body(proof))
}

/// GET `/v1/audit/consistency?from=&to=`: the hashes of RFC 6962 §2.1.2.
pub async fn consistency(app: App, request: HttpRequest) -> Result<HttpResponse, Problem> {
    authenticate(&app, &request)?.require(ClientScope::AuditRead)?;
    let query = Query::parse(request.query_string(), &["from", "to"])?;
    let from = query.number("from")?.ok_or_else(|| bad("from", "is missing: name the size you know"))?;
    let proof = app.log.consistency(from, query.number("to")?).await.map_err(|e| match e {
        ReadError::Range(what) => Problem::new(Code::QueryInvalid, capitalised(what)).param("to"),
        other => unreadable(other, "to"),
    })?;
    json_answer(&json!({
        "object": "consistency_proof",
        "from": proof.from,
        "to": proof.to,
        "proof": proof.hashes,
        "checkpoint": proof.checkpoint,
    }))
}

/// GET `/v1/audit/lookup?jti=` or `?signed_sha256=`.
pub async fn look_up(app: App, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = authenticate(&app, &request)?;
    caller.require(ClientScope::AuditRead)?;
    let query = Query::parse(request.query_string(), &["jti", "signed_sha256"])?;
    let personal = caller.client.may(ClientScope::AuditReadPersonal);
    let found = match (query.text("jti"), query.text("signed_sha256")) {
        (Some(jti), None) if !jti.is_empty() && jti.len() <= 255 => app.log.find_jti(jti, personal).await,
        (None, Some(text)) => {
            let hash = read_hash(text).ok_or_else(|| {
                bad("signed_sha256", "must be a SHA-256: 64 hex digits, or 43 characters of base64url")
            })?;
            app.log.find_signed(&hash, personal).await
        }
        _ => return Err(bad("jti", "or `signed_sha256` must be given, one of the two")),
    };
    let found = found.map_err(|e| unreadable(e, "jti"))?;
    record_view(&app, &caller, found.as_ref().is_some_and(|found| tells(&found.entry)), 1).await?;
    json_answer(&looked_up(found.as_ref(), None))
}

/// POST `/v1/audit/lookup`: is this very token in the log? What was signed counts, not the signature: a malleated
/// or repeated one is no alarm. A token that verifies under one of our keys and is not there is.
pub async fn look_up_token(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Problem> {
    let caller = authenticate(&app, &request)?;
    caller.require(ClientScope::AuditRead)?;
    json_body(&request, &body)?;
    let mut fields = Fields::parse(&body)?;
    let token = fields.text("token", MAX_TOKEN_BYTES)?;
    fields.finish(&["token"])?;
    let token = token.ok_or_else(|| missing("token", "Send the token to look for."))?;
    let personal = caller.client.may(ClientScope::AuditReadPersonal);
    let Ok(jws) = UnverifiedJws::parse(&token, MAX_TOKEN_BYTES) else {
        return json_answer(&looked_up(None, Some(false)));
    };
    let found = app.log.find_signed(&sha256(jws.signing_input()), personal).await;
    let found = found.map_err(|e| unreadable(e, "token"))?;
    let verifies = jws.verify(&app.keyring.every_token_key()).is_ok();
    if found.is_none() && verifies {
        tracing::error!("ALARM: a token that verifies under one of our keys is not in the log");
    }
    record_view(&app, &caller, found.as_ref().is_some_and(|found| tells(&found.entry)), 1).await?;
    json_answer(&looked_up(found.as_ref(), Some(verifies)))
}

fn looked_up(found: Option<&Lookup>, verifies: Option<bool>) -> Value {
    let mut body = json!({
        "object": "audit_lookup",
        "found": found.is_some(),
        "alarm": found.is_none() && verifies == Some(true),
    });
    if let Some(verifies) = verifies {
        body["verifies"] = verifies.into();
    }
    if let Some(found) = found {
        body["entry"] = row(&found.entry);
        body["proof"] = found.proof.as_str().into();
    }
    body
}

fn read_hash(text: &str) -> Option<[u8; 32]> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        return Some(hash);
    }
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// GET `/v1/audit/log/tile/<L>/<N>[.p/<W>]`: hashes, for everybody.
pub async fn hash_tile(app: App, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let path = tile_path(&request)?;
    let level = path.level.ok_or_else(no_such_tile)?;
    tile(app.log.tile(level, path.n, path.width).await, IMMUTABLE)
}

/// GET `/v1/audit/log/tile/entries/<N>[.p/<W>]`: bodies as they were hashed, for auditors.
pub async fn entry_bundle(app: App, request: HttpRequest) -> Result<HttpResponse, Problem> {
    authenticate(&app, &request)?.require(ClientScope::AuditRead)?;
    let path = tile_path(&request)?;
    tile(app.log.entry_bundle(path.n, path.width).await, "no-store")
}

fn no_such_tile() -> Problem {
    Problem::not_found(
        "There is no such tile. Paths are written as C2SP tlog-tiles says: tile/0/x001/067.p/12.",
    )
}

fn tile_path(request: &HttpRequest) -> Result<TilePath, Problem> {
    let path = request.path().strip_prefix("/v1/audit/log/").and_then(TilePath::parse);
    path.ok_or_else(no_such_tile)
}

fn tile(tile: Result<Tile, ReadError>, full: &'static str) -> Result<HttpResponse, Problem> {
    let tile = tile.map_err(|e| unreadable(e, "n"))?;
    let kept = if tile.full { full } else { "no-store" };
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .insert_header((CACHE_CONTROL, HeaderValue::from_static(kept)))
        .body(tile.bytes))
}
