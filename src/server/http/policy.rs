//! `/v1/policy/explain`: what the policy would say to a mint, and why.

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::App;
use super::actor_tokens::{denied, issue_caller, json_answer, log_unavailable, read_ask, read_delivery};
use super::caller::authenticate;
use super::fields::Fields;
use super::problem::Problem;
use crate::server::issue::Explained;

/// POST `/v1/policy/explain`: the mint's body; recorded, but nothing is minted and nobody outside is asked.
pub async fn explain(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Problem> {
    let caller = authenticate(&app, &request)?;
    super::edge::json_body(&request, &body)?;
    let mut fields = Fields::parse(&body)?;
    let delivery = read_delivery(&mut fields)?;
    let ask = read_ask(fields, &delivery)?;
    match app.desk.explain(&issue_caller(&caller), ask).await.map_err(log_unavailable)? {
        Explained::Refused(denial) => Err(denied(denial)),
        Explained::Answer { verdict, unknown } => {
            let mut body = verdict.to_json();
            body["object"] = "policy_explanation".into();
            body["unknown"] = json!(unknown);
            json_answer(&body)
        }
    }
}
