//! `/v1/actor_tokens/redeem`: a handoff code becomes its token, once.

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use zeroize::Zeroizing;

use super::App;
use super::actor_tokens::{denied, issue_caller, malformed, minted_answer, not_answered};
use super::caller::authenticate;
use super::fields::{Fields, invalid, missing};
use super::once;
use super::problem::Problem;
use crate::server::issue::RedeemAsk;
use crate::server::log::EventType;
use crate::token::Sub;

/// The longest code looked at, bytes.
const MAX_CODE: usize = 255;

/// POST `/v1/actor_tokens/redeem`.
pub async fn redeem(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Problem> {
    let caller = authenticate(&app, &request)?;
    super::edge::json_body(&request, &body)?;
    let fields = Fields::parse(&body)?;
    let read = read_ask(fields).and_then(|ask| Ok((ask, once::key(&app, &caller.client, &request, &body)?)));
    let (ask, key) = match read {
        Ok(read) => read,
        Err(problem) => return Err(malformed(&app, &caller, EventType::Redeem, problem).await),
    };
    let redeemed = app.desk.redeem(&issue_caller(&caller), ask, key).await.map_err(not_answered)?;
    minted_answer(&redeemed.map_err(denied)?)
}

fn read_ask(mut fields: Fields) -> Result<RedeemAsk, Problem> {
    let code = fields.text("code", MAX_CODE)?.map(Zeroizing::new);
    let code_verifier = fields.text("code_verifier", 128)?.map(Zeroizing::new);
    let expected_actor = fields.id::<Sub>("expected_actor")?;
    fields.finish(&["code", "code_verifier", "expected_actor"])?;
    let code = code.ok_or_else(|| missing("code", "Send the handoff code."))?;
    if code.is_empty() {
        return Err(invalid("code", "must not be empty"));
    }
    if code_verifier.as_ref().is_some_and(|verifier| !is_verifier(verifier)) {
        return Err(invalid("code_verifier", "must be 43 to 128 of A-Z a-z 0-9 - . _ ~ (RFC 7636)"));
    }
    Ok(RedeemAsk { code, code_verifier, expected_actor })
}

/// RFC 7636 §4.1.
fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
}
