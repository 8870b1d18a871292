//! `/console/support`, `/console/handoff`: find a user, see whether one may act, start, stop.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::form::{Form, cookie, set_cookie};
use super::page::{Trouble, answer, go_to, log_away};
use super::sign_in::append_cookie;
use super::visit::{Visit, console, visit};
use crate::server::clients::Client;
use crate::server::console::draft::{self, DRAFT_SECONDS, Draft, start_url};
use crate::server::console::view::support::{Answer, Filled, MAX_REASON, MAX_TICKET, MINUTES, Product, Wish};
use crate::server::console::{Console, products, view};
use crate::server::directory::MAX_SEARCH_BYTES;
use crate::server::http::App;
use crate::server::issue::{
    Ask, Caller, CodeChallenge, Explained, Handoff, IssueError, Outcome, Requested, Subject,
};
use crate::server::log::{Grant, GrantFilter, GrantStatus};
use crate::server::outbound::Url;
use crate::server::policy::{LIFETIME_CAP_SECONDS, Person, Verdict};
use crate::token::{GrantId, Scope, Sub};

/// People that a search shows.
const FOUND: usize = 20;
/// Running impersonations that are shown.
const RUNNING: u32 = 20;
/// Requests looked through for the visitor's own.
const MOST_REQUESTS: u32 = 200;
/// Stands in explain entries where no reason was given yet.
const NO_REASON_YET: &str = "(asked on the support page, before a reason was given)";

/// The query of the support page.
#[derive(Deserialize)]
pub struct Search {
    q: Option<String>,
    stopped: Option<String>,
}

async fn agent(app: &App, request: &HttpRequest) -> Result<Visit, Trouble> {
    let visit = visit(app, request).await?;
    visit.require(|may| may.support)?;
    Ok(visit)
}

/// GET `/console/support`.
pub async fn front(app: App, request: HttpRequest, search: Query<Search>) -> Result<HttpResponse, Trouble> {
    let visit = agent(&app, &request).await?;
    let console = console(&app)?;
    let query = search.q.as_deref().unwrap_or("").trim();
    let query: String = query
        .char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= MAX_SEARCH_BYTES)
        .map(|(_, c)| c)
        .collect();
    let found = if query.is_empty() { None } else { Some(find(&app, &query).await?) };
    if let Some(found) = &found {
        visit.record_view(&app, "search", found.len(), None).await?;
    }
    let running = running(&app, &visit).await?;
    let waiting = waiting(&app, &visit).await?;
    let stopped = search.stopped.is_some().then(|| ("good", view::support::stopped(visit.now)));
    let message = stopped.as_ref().map(|(class, text)| (*class, text.as_str()));
    let body =
        view::support::front(&query, found.as_deref(), (&running, &waiting), &visit.word(console), message);
    Ok(visit.show(console, "Support", &body, &[]))
}

/// Whoever the directory finds, and whoever has exactly this id: not every directory finds by id.
async fn find(app: &App, query: &str) -> Result<Vec<Person>, Trouble> {
    let away = |error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "the directory could not be asked");
        Trouble::Unavailable("The directory cannot be asked at the moment. Try again shortly.")
    };
    let mut found = app.desk.directory.search(query, FOUND).await.map_err(away)?;
    if let Ok(id) = Sub::try_from(query)
        && !found.iter().any(|person| person.id.as_ref() == Some(&id))
        && let Some(person) = app.desk.directory.look_up(&id).await.map_err(away)?
    {
        found.insert(0, person);
    }
    Ok(found)
}

/// The visitor's own live grants; another person of the same name at another issuer is somebody else.
async fn running(app: &App, visit: &Visit) -> Result<Vec<Grant>, Trouble> {
    let session = &visit.viewer.session;
    let filter = GrantFilter {
        actor: Some(session.sub.clone()),
        status: Some(GrantStatus::Active),
        ..GrantFilter::default()
    };
    let page = app.log.grants(&filter, None, RUNNING, visit.now).await.map_err(log_away)?;
    Ok(page.rows.into_iter().filter(|grant| is_his(grant, visit)).collect())
}

/// The visitor's own requests that wait, for a colleague or, approved, for himself.
async fn waiting(app: &App, visit: &Visit) -> Result<Vec<Grant>, Trouble> {
    let open = app.log.open_requests(visit.now, false, MOST_REQUESTS).await.map_err(log_away)?;
    Ok(open.into_iter().filter(|grant| is_his(grant, visit) && !app.revocations.covers(&grant.row)).collect())
}

fn is_his(grant: &Grant, visit: &Visit) -> bool {
    let session = &visit.viewer.session;
    grant.actor.as_ref().is_some_and(|act| act.sub == session.sub && act.iss.as_ref() == Some(&session.iss))
}

/// The query of a user's page.
#[derive(Deserialize)]
pub struct Whom {
    id: Option<String>,
}

/// GET `/console/support/user?id=`.
pub async fn user(app: App, request: HttpRequest, whom: Query<Whom>) -> Result<HttpResponse, Trouble> {
    let visit = agent(&app, &request).await?;
    let id = whom.id.as_deref().and_then(|id| Sub::try_from(id).ok());
    let id = id.ok_or(Trouble::NotThere("This is no user's id. Search for the user."))?;
    let filled = Filled { minutes: MINUTES[1], wish: Wish::Look, ..Filled::default() };
    user_page(&app, &visit, &id, &filled, None, None).await
}

/// The page of one user: asks the policy anew each time.
async fn user_page(
    app: &App,
    visit: &Visit,
    id: &Sub,
    filled: &Filled,
    chosen: Option<&Client>,
    message: Option<&str>,
) -> Result<HttpResponse, Trouble> {
    let console = console(app)?;
    // The one look-up of this page; it fills the cache that the question reads.
    let person = app.desk.directory.look_up(id).await.map_err(|_| {
        Trouble::Unavailable("The directory cannot be asked at the moment. Try again shortly.")
    })?;
    visit.record_view(app, "user", usize::from(person.is_some()), Some(id.clone())).await?;
    let all = products(&app.clients.all());
    let product = chosen.map(|c| c.id.clone()).or_else(|| all.first().map(|c| c.id.clone()));
    let chosen = all.iter().find(|c| Some(&c.id) == product.as_ref());
    let answer = match chosen {
        Some(client) => explain(app, visit, client, id).await?,
        None => Answer::MayNot {
            rule: "no-product".into(),
            message: "No product says where an impersonation opens. An operator can: stagedoor client update ID --handoff-url URL".into(),
        },
    };
    let products: Vec<_> =
        all.iter().map(|client| Product { client, chosen: Some(&client.id) == product.as_ref() }).collect();
    let body = view::support::user(
        id.as_str(),
        person.as_ref(),
        &products,
        &answer,
        filled,
        &visit.word(console),
        message,
    );
    Ok(visit.show(console, "Support: user", &body, &origins(&all)))
}

async fn explain(app: &App, visit: &Visit, client: &Arc<Client>, id: &Sub) -> Result<Answer, Trouble> {
    let caller = Caller { client, request: &visit.request, address: visit.address };
    let would = async |seconds| {
        let nothing_yet = ask(visit, id.clone(), NO_REASON_YET.to_owned(), None, seconds, None);
        app.desk.explain(&caller, nothing_yet).await.map_err(log_away)
    };
    // As long as the policy lets him: the page offers what is within it. A rule may say no to so long a time alone.
    let explained = match would(Some(LIFETIME_CAP_SECONDS)).await? {
        Explained::Answer { verdict: Verdict::Denied { .. }, .. } => would(None).await?,
        explained => explained,
    };
    Ok(match explained {
        Explained::Refused(denial) => Answer::MayNot { rule: denial.rule, message: denial.message },
        Explained::Answer { verdict: Verdict::Denied { rule, message, .. }, .. } => {
            Answer::MayNot { rule, message }
        }
        Explained::Answer { verdict: Verdict::Granted { limits, .. }, .. } => Answer::May(limits),
    })
}

fn ask(
    visit: &Visit,
    user: Sub,
    reason: String,
    ticket: Option<String>,
    seconds: Option<u32>,
    scope: Option<Scope>,
) -> Ask {
    Ask {
        subject: Subject::Id(user),
        actor: Requested::SignedIn(Box::new(visit.viewer.session.facts())),
        reason: Some(reason),
        ticket,
        expires_in_seconds: seconds,
        audience: None,
        scope,
        approval: None,
        by_code: true,
    }
}

/// Where forms of these pages may lead: a browser follows a form's redirects only to places that are named.
fn origins(products: &[Arc<Client>]) -> Vec<String> {
    let mut out: Vec<String> = products.iter().filter_map(|c| origin(c.handoff_url.as_deref()?)).collect();
    out.sort();
    out.dedup();
    out
}

fn origin(address: &str) -> Option<String> {
    Some(Url::parse(address).ok()?.origin().ascii_serialization())
}

/// POST `/console/support/start`: keeps what is asked for and sends the browser to the product.
pub async fn start(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Trouble> {
    let visit = agent(&app, &request).await?;
    let console = console(&app)?;
    let form = Form::of(&visit, console, &request, &body)?;
    let user = Sub::try_from(form.text("user"))
        .map_err(|_| Trouble::Form("It names no user. Search for the user."))?;
    let all = products(&app.clients.all());
    let product = all.iter().find(|c| c.id.as_str() == form.text("product"));
    let product = product
        .ok_or(Trouble::Form("This product cannot be opened any more. Open the user's page again."))?;
    let minutes = form.text("minutes").parse().ok().filter(|m| MINUTES.contains(m)).unwrap_or(MINUTES[1]);
    let wish = Wish::read(form.text("scope"));
    let filled =
        Filled { reason: form.text("reason").into(), ticket: form.text("ticket").into(), minutes, wish };
    if let Some(message) = not_usable(&filled) {
        return user_page(&app, &visit, &user, &filled, Some(product), Some(message)).await;
    }
    let draft = Draft {
        id: console.seals.random_word(),
        session: visit.viewer.session.id.clone(),
        client: product.id.clone(),
        user: user.clone(),
        reason: filled.reason.clone(),
        ticket: Some(filled.ticket.clone()).filter(|t| !t.is_empty()),
        seconds: minutes * 60,
        scope: wish.scope().and_then(|scope| Scope::parse(scope).ok()),
        approval: None,
        exp: Draft::ends(visit.now),
    };
    match to_product(console, product, &draft)? {
        Some(response) => Ok(response),
        None => user_page(&app, &visit, &user, &filled, Some(product), Some("The reason is too long.")).await,
    }
}

/// Sends the browser to the product with the draft; `None`: it does not fit a cookie.
fn to_product(console: &Console, product: &Client, draft: &Draft) -> Result<Option<HttpResponse>, Trouble> {
    let Ok(sealed) = draft.seal(&console.seals) else { return Ok(None) };
    let begin = product.handoff_url.as_deref().map(|url| start_url(url, &draft.id));
    let mut response = go_to(&begin.ok_or(Trouble::Form("This product takes no codes."))?);
    append_cookie(&mut response, &set_cookie(draft::COOKIE, &sealed, DRAFT_SECONDS));
    Ok(Some(response))
}

/// GET `/console/support/request?id=`: one's own request while a colleague thinks about it.
pub async fn request(app: App, request: HttpRequest, which: Query<Whom>) -> Result<HttpResponse, Trouble> {
    let visit = agent(&app, &request).await?;
    let console = console(&app)?;
    let grant = own_request(&app, &visit, which.id.as_deref().unwrap_or("")).await?;
    let all = products(&app.clients.all());
    let body = view::support::request(&grant, visit.now, &visit.word(console));
    Ok(visit.show(console, "Support: your request", &body, &origins(&all)))
}

async fn own_request(app: &App, visit: &Visit, id: &str) -> Result<Grant, Trouble> {
    let not_there = Trouble::NotThere("There is no such request of yours.");
    let id = GrantId::try_from(id).map_err(|_| not_there.clone())?;
    let grant = app.log.grant(&id).await.map_err(log_away)?.ok_or(not_there.clone())?;
    let is_request = grant.approval.is_some() && !grant.is_break_glass();
    if is_request && is_his(&grant, visit) { Ok(app.revoker.seen(grant)) } else { Err(not_there) }
}

/// POST `/console/support/go-on`: an approved request goes the way of every start, under its own name.
pub async fn go_on(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Trouble> {
    let visit = agent(&app, &request).await?;
    let console = console(&app)?;
    let form = Form::of(&visit, console, &request, &body)?;
    let grant = own_request(&app, &visit, form.text("grant")).await?;
    let product = products(&app.clients.all()).into_iter().find(|client| client.id == grant.row.client);
    let product =
        product.ok_or(Trouble::Form("This product cannot be opened any more. Tell whoever runs it."))?;
    let (Some(user), Some(approval)) = (grant.subject, grant.approval) else {
        return Err(Trouble::NotThere("There is no such request of yours."));
    };
    let draft = Draft {
        id: console.seals.random_word(),
        session: visit.viewer.session.id.clone(),
        client: product.id.clone(),
        user,
        reason: grant.reason.unwrap_or_default(),
        ticket: grant.ticket,
        seconds: approval.lifetime_seconds,
        scope: Some(grant.row.scope),
        approval: Some(grant.row.id),
        exp: Draft::ends(visit.now),
    };
    to_product(console, &product, &draft)?.ok_or(Trouble::Form("The reason is too long."))
}

/// What is wrong with a form, in words; the policy has its own say later.
fn not_usable(filled: &Filled) -> Option<&'static str> {
    let controls = |text: &str| text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'));
    if filled.reason.is_empty() {
        Some("Give a reason.")
    } else if filled.reason.chars().count() > MAX_REASON {
        Some("The reason is too long.")
    } else if filled.ticket.chars().count() > MAX_TICKET {
        Some("The ticket is too long.")
    } else if controls(&filled.reason) || controls(&filled.ticket) {
        Some("The reason or the ticket has invisible control characters.")
    } else {
        None
    }
}

/// The product's answer: which draft, and the challenge of the verifier it keeps.
#[derive(Deserialize)]
pub struct Return {
    draft: Option<String>,
    code_challenge: Option<String>,
    code_challenge_method: Option<String>,
}

/// GET `/console/handoff`: the product has its verifier; now the grant is minted and the code goes to it.
pub async fn handoff(app: App, request: HttpRequest, back: Query<Return>) -> Result<HttpResponse, Trouble> {
    let visit = agent(&app, &request).await?;
    let console = console(&app)?;
    let challenge = back.code_challenge.as_deref().and_then(CodeChallenge::parse);
    let challenge = challenge.filter(|_| back.code_challenge_method.as_deref() == Some("S256"));
    let challenge = challenge.ok_or(Trouble::Form(
        "The product sent no S256 challenge, so nothing was started. Tell whoever runs the product.",
    ))?;
    let session = &visit.viewer.session.id;
    let draft = cookie(&request, draft::COOKIE)
        .and_then(|text| Draft::open(text, back.draft.as_deref()?, session, &console.seals, visit.now))
        .ok_or(Trouble::Form(
            "This start was begun in another window, took too long, or was used already. Start again.",
        ))?;
    if !console.used_drafts.first_use(&draft, visit.now) {
        return Err(Trouble::Form("This start was used already. Start again."));
    }
    let client = products(&app.clients.all()).into_iter().find(|c| c.id == draft.client);
    let client = client.ok_or(Trouble::Form("This product cannot be opened any more. Start again."))?;
    let mut response = match code(&app, &visit, &client, &draft, challenge).await? {
        Ok(Outcome::Granted(code)) => handed_over(console, &visit, &client, &draft, &code),
        Ok(Outcome::Waiting(waiting)) => go_to(&format!("/console/support/request?id={}", waiting.id)),
        Err(message) => {
            let filled = Filled {
                reason: draft.reason.clone(),
                ticket: draft.ticket.clone().unwrap_or_default(),
                minutes: draft.seconds / 60,
                wish: Wish::of(draft.scope.as_ref()),
            };
            user_page(&app, &visit, &draft.user, &filled, Some(&client), Some(&message)).await?
        }
    };
    append_cookie(&mut response, &set_cookie(draft::COOKIE, "", 0));
    Ok(response)
}

fn handed_over(console: &Console, visit: &Visit, client: &Client, draft: &Draft, code: &str) -> HttpResponse {
    let url = client.handoff_url.as_deref().unwrap_or_default();
    let delivery = draft::delivery(url, code);
    let body = view::support::handoff(&client.name, draft.user.as_str(), code, &draft.id, &delivery);
    let page = view::page("On the way", Some(&visit.viewer), &visit.word(console), false, &body);
    answer(StatusCode::OK, &page, &origin(url).into_iter().collect::<Vec<_>>())
}

/// Mints the grant and makes the code; or why not, in words. Recorded either way.
async fn code(
    app: &App,
    visit: &Visit,
    client: &Arc<Client>,
    draft: &Draft,
    challenge: CodeChallenge,
) -> Result<Result<Outcome<Zeroizing<String>>, String>, Trouble> {
    let caller = Caller { client, request: &visit.request, address: visit.address };
    let (user, reason) = (draft.user.clone(), draft.reason.clone());
    let ask = Ask {
        approval: draft.approval.clone(),
        ..ask(visit, user, reason, draft.ticket.clone(), Some(draft.seconds), draft.scope.clone())
    };
    let handoff = Handoff { redeem_client: None, code_challenge: Some(challenge) };
    match app.desk.mint_code(&caller, ask, handoff, None).await {
        Ok(Ok(Outcome::Granted(handed))) => {
            app.metrics.mint("granted");
            Ok(Ok(Outcome::Granted(handed.code)))
        }
        Ok(Ok(Outcome::Waiting(waiting))) => {
            app.metrics.mint("pending");
            Ok(Ok(Outcome::Waiting(waiting)))
        }
        Ok(Err(denial)) => {
            app.metrics.mint("denied");
            Ok(Err(denial.message))
        }
        Err(IssueError::Log(error)) => Err(log_away(error)),
        Err(error) => {
            tracing::error!(error = %crate::server::http::problem::chain(&error), "a code could not be made");
            Err(Trouble::Unavailable("Nothing can be issued at the moment. Tell whoever runs Stagedoor."))
        }
    }
}

/// POST `/console/support/stop`: ends one's own impersonation.
pub async fn stop(app: App, request: HttpRequest, body: Bytes) -> Result<HttpResponse, Trouble> {
    let visit = agent(&app, &request).await?;
    let form = Form::of(&visit, console(&app)?, &request, &body)?;
    let not_there = Trouble::NotThere("There is no such impersonation of yours.");
    let id = GrantId::try_from(form.text("grant")).map_err(|_| not_there.clone())?;
    let grant = app.log.grant(&id).await.map_err(log_away)?.ok_or(not_there.clone())?;
    if !is_his(&grant, &visit) {
        return Err(not_there);
    }
    super::ending::end_grant(&app, &visit, &grant).await?;
    Ok(go_to("/console/support?stopped=1"))
}
