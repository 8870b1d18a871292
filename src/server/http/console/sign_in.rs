//! `/console/sign-in`, `/console/callback`, `/console/sign-out`.

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web::{Bytes, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use super::form::{Form, cookie, set_cookie};
use super::page::{Trouble, answer, go_to};
use super::visit::{console, visit};
use crate::server::console::session::{self, SESSION_SECONDS, Session};
use crate::server::console::sign_in::{self, Callback, RelyingParty, SignInError, way_back};
use crate::server::console::{Console, SignIn, view};
use crate::server::directory::Directory;
use crate::server::http::App;
use crate::server::http::problem::chain;
use crate::server::policy::{ActorFacts, Person};
use crate::token::{Act, Assurance, Issuer, Sub};

/// People that the demo's page offers.
const DEMO_PEOPLE: usize = 50;

/// Where to go afterwards.
#[derive(Deserialize)]
pub struct Wanted {
    back: Option<String>,
}

/// GET `/console/sign-in`.
pub async fn door(app: App, wanted: Query<Wanted>) -> Result<HttpResponse, Trouble> {
    shown_door(&app, way_back(wanted.back.as_deref()), None).await
}

async fn shown_door(app: &App, back: &str, message: Option<&str>) -> Result<HttpResponse, Trouble> {
    let console = console(app)?;
    let status = if message.is_some() { StatusCode::FORBIDDEN } else { StatusCode::OK };
    let (body, dev) = match &console.sign_in {
        SignIn::Issuer(provider) => {
            (view::sign_in::at_the_provider(provider.issuer.as_str(), back, message), false)
        }
        SignIn::Local { .. } => {
            (view::sign_in::local(&demo_people(&app.desk.directory).await?, back, message), true)
        }
    };
    Ok(answer(status, &view::page("Sign in", None, "", dev, &body), &[]))
}

/// Everybody of the demo who is no customer first: the page is for those who work here.
async fn demo_people(directory: &Directory) -> Result<Vec<Person>, Trouble> {
    let everybody = directory.search("_", DEMO_PEOPLE).await;
    let mut people =
        everybody.map_err(|_| Trouble::Unavailable("The directory cannot be asked. Try again shortly."))?;
    people.retain(|person| person.active && !person.roles.iter().any(|role| role == "customer"));
    Ok(people)
}

/// POST `/console/sign-in`: the demo's page.
pub async fn local(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Trouble> {
    let console = console(&app)?;
    let SignIn::Local { iss } = &console.sign_in else {
        return Err(Trouble::NotThere("People sign in at the company's identity provider here."));
    };
    let form = Form::without_session(console, &request, &body)?;
    let back = way_back(Some(form.text("back")));
    let person = match Sub::try_from(form.text("sub")) {
        Ok(sub) => app.desk.directory.look_up(&sub).await.ok().flatten(),
        Err(_) => None,
    };
    let Some(sub) = person.filter(|p| p.active).and_then(|p| p.id) else {
        return shown_door(&app, back, Some("Nobody active in the directory has this id.")).await;
    };
    let session =
        Session::begin(console.seals.random_word(), of_the_demo(sub, iss), iss.clone(), app.clock.now());
    signed_in(console, &session, back)
}

/// A person of the demo: what he is stands in the directory.
fn of_the_demo(sub: Sub, iss: &Issuer) -> ActorFacts {
    ActorFacts {
        act: Act { sub: sub.clone(), iss: Some(iss.clone()), act: None },
        assurance: Assurance::Verified,
        roles: Vec::new(),
        groups: Vec::new(),
        org: None,
        acr: None,
        amr: Vec::new(),
        auth_time: None,
        directory_id: Some(sub),
        person: None,
    }
}

fn signed_in(console: &Console, session: &Session, back: &str) -> Result<HttpResponse, Trouble> {
    let sealed = session.seal(&console.seals).map_err(|_| {
        Trouble::Form(
            "Your identity provider names more roles and groups than fit a session. Ask for a shorter claim.",
        )
    })?;
    let mut response = go_to(back);
    append_cookie(&mut response, &set_cookie(session::COOKIE, &sealed, SESSION_SECONDS));
    append_cookie(&mut response, &set_cookie(sign_in::COOKIE, "", 0));
    Ok(response)
}

/// Adds a `Set-Cookie` header.
pub fn append_cookie(response: &mut HttpResponse, cookie: &str) {
    if let Ok(value) = header::HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

fn provider(console: &Console) -> Result<&RelyingParty, Trouble> {
    match &console.sign_in {
        SignIn::Issuer(provider) => Ok(provider),
        SignIn::Local { .. } => {
            Err(Trouble::NotThere("This is the demo: pick a person on the sign-in page."))
        }
    }
}

/// GET `/console/sign-in/start`: on to the provider.
pub async fn start(app: App, wanted: Query<Wanted>) -> Result<HttpResponse, Trouble> {
    let console = console(&app)?;
    let back = way_back(wanted.back.as_deref());
    match provider(console)?.begin(&console.seals, back, app.clock.now()).await {
        Ok(begun) => {
            let mut response = go_to(&begun.location);
            append_cookie(
                &mut response,
                &set_cookie(sign_in::COOKIE, &begun.cookie, sign_in::SIGN_IN_SECONDS),
            );
            Ok(response)
        }
        Err(error) => not_signed_in(&app, back, &error).await,
    }
}

/// GET `/console/callback`: back from the provider.
pub async fn callback(
    app: App,
    request: HttpRequest,
    callback: Query<Callback>,
) -> Result<HttpResponse, Trouble> {
    let console = console(&app)?;
    let pending = cookie(&request, sign_in::COOKIE);
    let finished =
        provider(console)?.finish(&console.seals, pending, callback.into_inner(), app.clock.now()).await;
    match finished {
        Ok((session, back)) => signed_in(console, &session, &back),
        Err(error) => not_signed_in(&app, "/console", &error).await,
    }
}

/// The reason goes to the operator in full, to the person in a sentence.
async fn not_signed_in(app: &App, back: &str, error: &SignInError) -> Result<HttpResponse, Trouble> {
    tracing::warn!(error = %chain(error), "nobody was signed in to the console");
    let message = match error {
        SignInError::Unreachable(_) => {
            "Your identity provider cannot be asked at the moment. Try again shortly."
        }
        SignInError::Refused => {
            "Your identity provider refused the sign-in. Try again, or ask whoever runs it."
        }
        SignInError::NotBegun => "This sign-in took too long or was begun in another window. Try again.",
        SignInError::Impersonated => "Whoever acts as somebody else cannot use the console. Stop that first.",
        SignInError::Malformed(_) | SignInError::Token(_) | SignInError::Nonce | SignInError::TooLong => {
            "Your identity provider's answer cannot be used. Try again; if it stays so, tell whoever runs Stagedoor."
        }
    };
    shown_door(app, back, Some(message)).await
}

/// POST `/console/sign-out`.
pub async fn sign_out(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Trouble> {
    let visit = visit(&app, &request).await?;
    let console = console(&app)?;
    Form::of(&visit, console, &request, &body)?;
    console.ended.end(&visit.viewer.session, app.clock.now());
    let mut response = go_to("/console/sign-in");
    for name in [session::COOKIE, crate::server::console::draft::COOKIE, sign_in::COOKIE] {
        append_cookie(&mut response, &set_cookie(name, "", 0));
    }
    // Not the storage: the auditor's checkpoint must outlive his session.
    let clear = header::HeaderValue::from_static(r#""cache""#);
    response.headers_mut().insert(header::HeaderName::from_static("clear-site-data"), clear);
    Ok(response)
}
