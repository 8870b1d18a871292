//! `/v1/actor_tokens/verify`, and what introspection shares with it.

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value, json};

use super::App;
use super::actor_tokens::{denied, json_answer};
use super::caller::{Caller, authenticate};
use super::fields::{Fields, invalid, missing};
use super::problem::Problem;
use crate::server::clients::ClientScope;
use crate::server::issue::{Denial, DenialKind, Withdrawn};
use crate::server::log::sightings::RefusedUse;
use crate::token::{Audience, GrantId, Scope};

/// POST `/v1/actor_tokens/verify`.
pub async fn verify(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Problem> {
    let caller = authenticate(&app, &request)?;
    caller.require(ClientScope::Verify)?;
    super::edge::json_body(&request, &body)?;
    let mut fields = Fields::parse(&body)?;
    let token = fields.text("token", 16 * 1024)?;
    let audience = fields.id::<Audience>("audience")?;
    let scope = match fields.text("scope", 16 * 1024)? {
        None => Scope::default(),
        Some(text) => Scope::parse(&text).map_err(|e| invalid("scope", &e.to_string()))?,
    };
    fields.finish(&["token", "audience", "scope"])?;
    let token = token.ok_or_else(|| missing("token", "Send the token to verify."))?;
    let claims = match app.checker.check(&caller.client, &token, audience.as_ref(), &scope) {
        Ok(claims) => claims,
        Err(reason) => return json_answer(&inactive(reason)),
    };
    let granted = still_granted(&app, &caller, &claims, "verify").await.map_err(denied)?;
    json_answer(&if granted { active(claims) } else { inactive("policy_denied") })
}

/// Whether a valid token's grant stands under the policy of now, where that is asked; seen either way. Else who
/// cannot be asked.
pub(super) async fn still_granted(
    app: &App,
    caller: &Caller,
    claims: &Map<String, Value>,
    by: &'static str,
) -> Result<bool, Denial> {
    let Some(grant) = claims.get("sid").and_then(Value::as_str) else { return Ok(true) };
    let Ok(id) = GrantId::try_from(grant) else { return Ok(true) };
    let refused = match app.desk.still_granted(&id, &caller.arrival.id).await {
        Ok(()) => None,
        Err(Withdrawn { denial, .. }) if denial.kind == DenialKind::Unreachable => return Err(denial),
        Err(Withdrawn { denial, policy }) => Some(RefusedUse { rule: denial.rule, policy }),
    };
    let granted = refused.is_none();
    app.sightings.saw(grant, Some(&caller.client.id), by, refused, &*app.clock);
    Ok(granted)
}

/// `{active:true, claims…}` or `{active:false, reason}`.
pub(super) fn inactive(reason: &str) -> Value {
    json!({ "active": false, "reason": reason })
}

/// The claims of a valid token, as introspection shows them too.
pub(super) fn active(claims: Map<String, Value>) -> Value {
    let mut out = Map::with_capacity(claims.len() + 1);
    out.insert("active".into(), Value::Bool(true));
    out.extend(claims);
    Value::Object(out)
}
