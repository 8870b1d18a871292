//! A small web product with users and roles of its own, into which support steps under a banner.
//!
//! Beside `stagedoor dev`:
//!
//! ```text
//! cargo run --example product -- http://127.0.0.1:8080
//! ```
//!
//! `http://localhost:4000` is the product; impersonated sessions live at `http://as.localhost:4000`, a host of
//! their own. Sign in as `admin_7`, `agent_1` or `user_42`; every password is `demo`.

mod account;
mod home;
mod impersonation;
mod pages;
mod people;
mod stagedoor_api;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{App, HttpServer, guard, middleware, web};
use stagedoor::guard::remote::{RemoteKeys, RemoteRevocations};
use stagedoor::guard::session::SessionHost;
use stagedoor::token::{Issuer, TrustedIssuer, Verifier};

use people::Sessions;
use stagedoor_api::Stagedoor;

/// Whom the tokens of the demo are for.
const AUDIENCE: &str = "https://api.example.com";

/// What the handlers work with.
pub struct Product {
    /// The host of impersonated sessions, and the one to go back to.
    pub host: SessionHost,
    /// What judges tokens, by keys and revocations that are kept fresh in the background.
    pub verifier: Arc<Verifier>,
    /// Where to ask.
    pub stagedoor: Stagedoor,
    /// Who is signed in as himself.
    pub sessions: Sessions,
    /// Starts on their way.
    pub drafts: home::Drafts,
    /// A front end on another port that may use this one with cookies.
    pub front_end: Option<String>,
}

struct Arguments {
    stagedoor: String,
    listen: SocketAddr,
    client_file: PathBuf,
    front_end: Option<String>,
}

fn arguments() -> Result<Arguments, String> {
    let usage = "usage: product STAGEDOOR_URL [--listen 127.0.0.1:4000] [--client-file .stagedoor/dev-client.json] [--front-end http://localhost:5173]";
    let mut out = Arguments {
        stagedoor: "http://127.0.0.1:8080".into(),
        listen: SocketAddr::from(([127, 0, 0, 1], 4000)),
        client_file: ".stagedoor/dev-client.json".into(),
        front_end: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(usage);
        match word.as_str() {
            "--listen" => out.listen = value()?.parse().map_err(|_| usage)?,
            "--client-file" => out.client_file = value()?.into(),
            "--front-end" => out.front_end = Some(value()?),
            url if url.starts_with("http") => url.trim_end_matches('/').clone_into(&mut out.stagedoor),
            _ => return Err(usage.into()),
        }
    }
    Ok(out)
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = arguments()?;
    let stagedoor = Stagedoor::new(&arguments.stagedoor, &arguments.client_file)?;
    let issuer: Issuer = stagedoor.issuer().await?.parse()?;
    let trusted = TrustedIssuer::stagedoor(issuer.clone()).audience(AUDIENCE.parse()?);
    let revocations = RemoteRevocations::of(&issuer, &arguments.stagedoor)?.client_secret(stagedoor.secret());
    let verifier = Verifier::builder().issuer(trusted).revocations(revocations.knowledge()).build()?;
    let verifier = Arc::new(verifier);
    let _keys = RemoteKeys::of(&verifier)
        .jwks(&issuer, &format!("{}/.well-known/jwks.json", arguments.stagedoor))?
        .start()
        .await?;
    let _revocations = revocations.start().await?;

    let port = arguments.listen.port();
    let host = SessionHost::new(&format!("http://as.localhost:{port}"), &format!("http://localhost:{port}"))?;
    let product = web::Data::new(Product {
        host,
        verifier,
        stagedoor,
        sessions: Sessions::default(),
        drafts: home::Drafts::default(),
        front_end: arguments.front_end,
    });
    println!("the product: http://localhost:{port}   impersonated sessions: http://as.localhost:{port}");
    HttpServer::new(move || {
        let verifier = Arc::clone(&product.verifier);
        App::new()
            .app_data(product.clone())
            .route("/product.css", web::get().to(pages::css))
            .route("/product.js", web::get().to(pages::js))
            .route("/banner.js", web::get().to(pages::banner))
            .service(
                web::scope("")
                    .guard(guard::Host("as.localhost"))
                    .app_data(verifier)
                    .wrap(middleware::from_fn(impersonation::own_only))
                    .configure(impersonation::configure)
                    .configure(account::configure),
            )
            .configure(home::configure)
            .wrap_fn(|request, service| {
                use actix_web::dev::Service as _;
                let answer = service.call(token_from_cookie(request));
                async move { answer.await.map(pages::with_headers) }
            })
    })
    .workers(2)
    .bind(arguments.listen)?
    .run()
    .await?;
    Ok(())
}

/// The guard reads `Authorization`. On the host of impersonated sessions the token comes in that host's cookie,
/// and only from there: what a browser sends as `Authorization` counts nowhere.
fn token_from_cookie(mut request: ServiceRequest) -> ServiceRequest {
    request.headers_mut().remove(header::AUTHORIZATION);
    let token = request.app_data::<web::Data<Product>>().and_then(|product| {
        let cookies = request.headers().get_all(header::COOKIE).filter_map(|h| h.to_str().ok());
        product.host.token(cookies).and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok())
    });
    if let Some(value) = token {
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    request
}
