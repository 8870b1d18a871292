//! A service that reads both identities: built in CI from the very line the README shows.

use std::sync::Arc;

use actix_web::{App, HttpServer, Responder, get};
use stagedoor::guard::{Identity, Impersonable};
use stagedoor::token::{TrustedIssuer, Verifier};

stagedoor::action!(Read = "read");

/// Whoever this route belongs to; an actor token is refused, since nothing here says otherwise.
#[get("/me")]
async fn me(who: Identity) -> impl Responder {
    who.user.to_string()
}

/// The user himself, or somebody acting as him with the scope `read`.
#[get("/orders")]
async fn orders(who: Impersonable<Read>) -> impl Responder {
    match &who.actor {
        Some(actor) => format!("orders of {}, seen by {}", who.user, actor.sub),
        None => format!("orders of {}", who.user),
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let issuer = TrustedIssuer::stagedoor("https://stagedoor.example".parse()?);
    let issuer = issuer.audience("https://api.example.com".parse()?);
    let verifier = Arc::new(Verifier::builder().issuer(issuer).build()?);
    let server = HttpServer::new(move || App::new().app_data(verifier.clone()).service(me).service(orders));
    server.bind(("127.0.0.1", 0))?.run().await?;
    Ok(())
}
