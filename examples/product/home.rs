//! The product for people as themselves: signing in, their account, and the list of users that support starts from.

use std::collections::HashMap;
use std::sync::Mutex;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{self, Data, Form, Path, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use maud::html;
use serde::Deserialize;
use serde_json::json;
use stagedoor::token::{Entropy as _, SystemEntropy};

use crate::Product;
use crate::pages::{go_to, message, page};
use crate::people::{USERS, User, may_impersonate, user};
use crate::stagedoor_api::Refused;

/// A start on its way over the other host.
struct Draft {
    actor: &'static str,
    user: String,
    reason: String,
}

/// Starts on their way, by a random word.
#[derive(Default)]
pub struct Drafts(Mutex<HashMap<String, Draft>>);

impl Drafts {
    fn keep(&self, draft: Draft) -> String {
        let word: String = SystemEntropy.bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut kept = self.0.lock().expect("no holder of this lock panics");
        if kept.len() > 1000 {
            kept.clear();
        }
        kept.insert(word.clone(), draft);
        word
    }

    fn take(&self, word: &str, actor: &str) -> Option<Draft> {
        let mut kept = self.0.lock().expect("no holder of this lock panics");
        kept.remove(word).filter(|draft| draft.actor == actor)
    }
}

/// The routes of the home host.
pub fn configure(config: &mut ServiceConfig) {
    config
        .route("/", web::get().to(front))
        .route("/sign-in", web::post().to(sign_in))
        .route("/sign-out", web::post().to(sign_out))
        .route("/users", web::get().to(users))
        .route("/users/{id}/impersonate", web::post().to(start_form))
        .route("/impersonate/ready", web::get().to(ready))
        .route("/impersonate/{id}", web::method(actix_web::http::Method::OPTIONS).to(preflight))
        .route("/impersonate/{id}", web::post().to(start_json))
        .route("/me", web::get().to(me))
        .route("/me", web::method(actix_web::http::Method::OPTIONS).to(preflight));
}

async fn front(product: Data<Product>, request: HttpRequest) -> HttpResponse {
    let Some(who) = product.sessions.who(&request) else {
        return page(
            StatusCode::OK,
            "Sign in",
            None,
            &html! {
                form method="post" action="/sign-in" {
                    label { "User " input name="user" required autocomplete="username"; }
                    label { "Password " input name="password" type="password" required autocomplete="current-password"; }
                    button type="submit" { "Sign in" }
                }
                p { "Try admin_7, agent_1 or user_42; the password is demo." }
            },
        );
    };
    page(
        StatusCode::OK,
        &format!("Hello {}", who.name),
        None,
        &html! {
            p { "You are signed in as yourself: " strong { (who.id) } ", " (who.role) "." }
            @if may_impersonate(who) { nav { a href="/users" { "Users" } a href={ (product.stagedoor.url()) "/console" } { "Stagedoor console" } } }
            @if !who.orders.is_empty() { ul { @for order in who.orders { li { (order) } } } }
            form method="post" action="/sign-out" { button type="submit" { "Sign out" } }
        },
    )
}

#[derive(Deserialize)]
struct SignIn {
    user: String,
    password: String,
}

async fn sign_in(product: Data<Product>, request: HttpRequest, form: Form<SignIn>) -> HttpResponse {
    match user(&form.user).filter(|_| form.password == "demo" && is_home(&product, &request)) {
        Some(user) => {
            let mut answer = go_to("/");
            set_cookie(&mut answer, &product.sessions.begin(user));
            answer
        }
        None => message(StatusCode::UNAUTHORIZED, "Not signed in", "User and password do not fit.", "/"),
    }
}

async fn sign_out(product: Data<Product>, request: HttpRequest) -> HttpResponse {
    if !is_home(&product, &request) {
        return message(StatusCode::FORBIDDEN, "Not done", "This came from another site.", "/");
    }
    let mut answer = go_to("/");
    set_cookie(&mut answer, &product.sessions.end(&request));
    answer
}

/// Adds a `Set-Cookie` header.
pub fn set_cookie(answer: &mut HttpResponse, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        answer.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// Whether a request that changes something comes from the home host's own pages.
fn is_home(product: &Product, request: &HttpRequest) -> bool {
    origin(request) == Some(product.host.home())
}

fn origin(request: &HttpRequest) -> Option<&str> {
    request.headers().get(header::ORIGIN)?.to_str().ok()
}

/// Who asks, if he may act as others: 401 without a session, 403 for everybody else.
fn supporter(product: &Product, request: &HttpRequest) -> Result<&'static User, (StatusCode, &'static str)> {
    match product.sessions.who(request) {
        None => Err((StatusCode::UNAUTHORIZED, "Sign in first.")),
        Some(who) if may_impersonate(who) => Ok(who),
        Some(_) => Err((StatusCode::FORBIDDEN, "Only support and admins may act as other users.")),
    }
}

async fn users(product: Data<Product>, request: HttpRequest) -> HttpResponse {
    if let Err((status, text)) = supporter(&product, &request) {
        return message(status, "Users", text, "/");
    }
    page(
        StatusCode::OK,
        "Users",
        None,
        &html! {
            table {
                thead { tr { th { "User" } th { "Role" } th { "Act as" } } }
                tbody { @for user in USERS {
                    tr {
                        td { (user.name) " (" (user.id) ")" } td { (user.role) }
                        td {
                            form method="post" action={ "/users/" (user.id) "/impersonate" } {
                                input name="reason" required minlength="10" placeholder="Reason, with the ticket" aria-label={ "Reason to act as " (user.name) };
                                button type="submit" { "Impersonate " (user.name) }
                            }
                        }
                    }
                } }
            }
        },
    )
}

#[derive(Deserialize)]
struct Reason {
    reason: String,
}

/// POST `/users/{id}/impersonate`: the button.
async fn start_form(
    product: Data<Product>,
    request: HttpRequest,
    id: Path<String>,
    form: Form<Reason>,
) -> HttpResponse {
    if !is_home(&product, &request) {
        return message(StatusCode::FORBIDDEN, "Not started", "This came from another site.", "/");
    }
    match begin(&product, &request, &id, &form.reason) {
        Ok(place) => go_to(&place),
        Err((status, text)) => message(status, "Not started", text, "/users"),
    }
}

/// POST `/impersonate/{id}` with JSON `{"reason": …}`: the same for a front end on another port.
async fn start_json(
    product: Data<Product>,
    request: HttpRequest,
    id: Path<String>,
    body: web::Json<Reason>,
) -> HttpResponse {
    let allowed =
        origin(&request).is_some_and(|o| Some(o) == product.front_end.as_deref() || o == product.host.home());
    let begun = if allowed {
        begin(&product, &request, &id, &body.reason)
    } else {
        Err((StatusCode::FORBIDDEN, "This origin may not start an impersonation."))
    };
    let answer = match begun {
        Ok(place) => HttpResponse::Ok().json(json!({ "go_to": place })),
        Err((status, text)) => HttpResponse::build(status).json(json!({ "message": text })),
    };
    cors(&product, &request, answer)
}

/// Keeps what is wanted and says where the browser goes: over the other host, which makes its verifier.
fn begin(
    product: &Product,
    request: &HttpRequest,
    id: &str,
    reason: &str,
) -> Result<String, (StatusCode, &'static str)> {
    let actor = supporter(product, request)?;
    let Some(user) = user(id) else {
        return Err((StatusCode::NOT_FOUND, "There is no user by this id. Look at the list of users."));
    };
    let draft = Draft { actor: actor.id, user: user.id.to_owned(), reason: reason.to_owned() };
    Ok(format!("{}/impersonation?draft={}&from=home", product.host.origin(), product.drafts.keep(draft)))
}

#[derive(Deserialize)]
struct Ready {
    draft: String,
    code_challenge: String,
}

/// GET `/impersonate/ready`: the other host has its verifier; now the code is made and sent to it.
async fn ready(product: Data<Product>, request: HttpRequest, ready: Query<Ready>) -> HttpResponse {
    let who = match supporter(&product, &request) {
        Ok(who) => who,
        Err((status, text)) => return message(status, "Not started", text, "/"),
    };
    let Some(draft) = product.drafts.take(&ready.draft, who.id) else {
        return message(
            StatusCode::CONFLICT,
            "Not started",
            "This start was used already or took too long. Start again.",
            "/users",
        );
    };
    match product.stagedoor.code(draft.actor, &draft.user, &draft.reason, &ready.code_challenge).await {
        Ok(code) => page(
            StatusCode::OK,
            "On the way",
            None,
            &html! {
                form method="post" action={ (product.host.origin()) "/impersonation" } data-send-at-once="" {
                    input type="hidden" name="code" value=(code);
                    button type="submit" { "Go on" }
                }
            },
        ),
        Err(Refused::No(why)) => {
            message(StatusCode::FORBIDDEN, "You may not act as this user", &why, "/users")
        }
        Err(Refused::Away) => message(
            StatusCode::SERVICE_UNAVAILABLE,
            "Not started",
            "Stagedoor cannot be asked at the moment. Try again shortly.",
            "/users",
        ),
    }
}

/// GET `/me`: who is signed in, for a front end.
async fn me(product: Data<Product>, request: HttpRequest) -> HttpResponse {
    let answer = match product.sessions.who(&request) {
        Some(who) => HttpResponse::Ok().json(json!({ "user": who.id, "role": who.role })),
        None => HttpResponse::Unauthorized().json(json!({ "message": "Sign in first." })),
    };
    cors(&product, &request, answer)
}

async fn preflight(product: Data<Product>, request: HttpRequest) -> HttpResponse {
    let mut answer = cors(&product, &request, HttpResponse::NoContent().finish());
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "content-type"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// CORS with credentials for the one configured front end, by name: never `*`, never an echo of whoever asks.
fn cors(product: &Product, request: &HttpRequest, mut answer: HttpResponse) -> HttpResponse {
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(front_end) = product.front_end.as_deref().filter(|f| origin(request) == Some(*f))
        && let Ok(value) = HeaderValue::from_str(front_end)
    {
        answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
        answer
            .headers_mut()
            .insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    answer
}
