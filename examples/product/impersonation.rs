//! The host of impersonated sessions: the way in, the banner's state, the way out.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::{self, Data, Form, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};
use maud::html;
use serde::Deserialize;
use serde_json::json;
use stagedoor::guard::{Impersonable, Refusal, identify};
use stagedoor::token::{Clock as _, SystemClock, SystemEntropy};

use crate::Product;
use crate::home::set_cookie;
use crate::pages::{go_to, message, page};
use crate::stagedoor_api::Refused;

/// The routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .route("/impersonation", web::get().to(begin))
        .route("/impersonation", web::post().to(arrive))
        .route("/impersonation/enter", web::post().to(enter))
        .route("/impersonation/state", web::get().to(state))
        .route("/impersonation/stop", web::post().to(stop))
        .route("/over", web::get().to(over));
}

#[derive(Deserialize)]
struct Begin {
    draft: String,
    from: Option<String>,
}

/// GET `/impersonation`: makes the verifier, and goes back with its challenge to whoever sent the browser: the
/// console, or this product's own list of users. Both addresses are configured, never taken from the request.
async fn begin(product: Data<Product>, begin: Query<Begin>) -> HttpResponse {
    let begun = product.host.begin(&SystemEntropy);
    let back = match begin.from.as_deref() {
        Some("home") => format!("{}/impersonate/ready", product.host.home()),
        _ => format!("{}/console/handoff", product.stagedoor.url()),
    };
    let plain = begin.draft.len() <= 64
        && begin.draft.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !plain {
        return message(StatusCode::BAD_REQUEST, "Not started", "This is no start.", product.host.home());
    }
    let mut answer = go_to(&format!(
        "{back}?draft={}&code_challenge={}&code_challenge_method=S256",
        begin.draft, begun.code_challenge
    ));
    set_cookie(&mut answer, &begun.set_cookie);
    answer
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

/// POST `/impersonation`: the code arrives from another site, so the verifier's cookie is not there yet; this
/// page posts it once more, from here.
async fn arrive(form: Form<Code>) -> HttpResponse {
    page(
        StatusCode::OK,
        "On the way",
        None,
        &html! {
            form method="post" action="/impersonation/enter" data-send-at-once="" {
                input type="hidden" name="code" value=(form.code);
                button type="submit" { "Go on" }
            }
        },
    )
}

/// POST `/impersonation/enter`: code and verifier become the session.
async fn enter(product: Data<Product>, request: HttpRequest, form: Form<Code>) -> HttpResponse {
    let refused = |text: &str| message(StatusCode::FORBIDDEN, "Not started", text, product.host.home());
    let cookies = request.headers().get_all(header::COOKIE).filter_map(|h| h.to_str().ok());
    let Some(word) = product.host.verifier(cookies) else {
        return refused("This start was begun in another window or took too long. Start again.");
    };
    let token = match product.stagedoor.redeem(&form.code, word).await {
        Ok(token) => token,
        Err(Refused::No(why)) => return refused(&why),
        Err(Refused::Away) => return refused("Stagedoor cannot be asked at the moment. Try again shortly."),
    };
    let bearer = format!("Bearer {token}");
    let Ok(who) = identify(&product.verifier, [bearer.as_bytes()]) else {
        return refused("Stagedoor's token is not for this product.");
    };
    match product.host.enter(&token, who.expires_at, SystemClock::default().now()) {
        Ok(cookies) => {
            let mut answer = go_to("/");
            for cookie in cookies {
                set_cookie(&mut answer, &cookie);
            }
            answer
        }
        Err(_) => refused("This impersonation is over already."),
    }
}

/// GET `/impersonation/state`: what the banner shows. Where nobody can judge the token now, that is said: "over" would be
/// shown for good, while the session may live on.
async fn state(who: Result<Impersonable, Refusal>) -> HttpResponse {
    match who {
        Ok(who) => HttpResponse::Ok().json(json!({
            "impersonated": who.is_impersonated(),
            "user": who.user.as_str(),
            "actor": who.actor.as_ref().map(|actor| actor.sub.as_str()),
            "expires_at": who.expires_at.timestamp_millis(),
            "expires_in": (who.expires_at - SystemClock::default().now()).as_seconds_f64(),
        })),
        Err(refusal) if refusal.status() >= 500 => refusal.error_response(),
        Err(_) => HttpResponse::Ok().json(json!({ "impersonated": false })),
    }
}

/// POST `/impersonation/stop`: ended at Stagedoor, forgotten here.
async fn stop(product: Data<Product>, request: HttpRequest) -> HttpResponse {
    let cookies = request.headers().get_all(header::COOKIE).filter_map(|h| h.to_str().ok());
    if let Some(token) = product.host.token(cookies)
        && let Err(Refused::Away) = product.stagedoor.stop(token).await
    {
        // The token would live on: better to say so than to look stopped.
        return HttpResponse::ServiceUnavailable()
            .json(json!({ "message": "Stagedoor cannot be asked. Try again." }));
    }
    let mut answer = HttpResponse::Ok().json(json!({ "home": product.host.home() }));
    forget(&product, &mut answer);
    answer
}

/// GET `/over`: where a session lands that ended by itself or was ended. Never silently in the admin's own.
async fn over(product: Data<Product>) -> HttpResponse {
    let mut answer = page(
        StatusCode::OK,
        "The impersonation is over",
        None,
        &html! {
            p { "Nothing of the customer's is kept in this browser." }
            p { a href=(product.host.home()) { "Go on as yourself" } }
        },
    );
    forget(&product, &mut answer);
    answer
}

fn forget(product: &Product, answer: &mut HttpResponse) {
    let left = product.host.leave();
    for cookie in &left.set_cookies {
        set_cookie(answer, cookie);
    }
    answer.headers_mut().insert(
        header::HeaderName::from_static("clear-site-data"),
        HeaderValue::from_static(left.clear_site_data),
    );
}

/// Around every route of this host: what changes something comes from its own pages. `SameSite=Lax` does not see to that, as
/// the product's other hosts are the same site. Only the code comes from elsewhere, and [`arrive`] changes nothing.
pub async fn own_only(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse, actix_web::Error> {
    let text = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    let product = request.app_data::<Data<Product>>().expect("the application has it");
    if request.method().is_safe()
        || request.path() == "/impersonation"
        || product.host.is_own(text("origin"), text("sec-fetch-site"))
    {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    let refused =
        message(StatusCode::FORBIDDEN, "Not done", "This came from another site.", product.host.home());
    Ok(request.into_response(refused))
}
