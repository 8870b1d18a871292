//! A service that reads both identities, in actix-web.
//!
//! ```text
//! cargo run -- dev                                      # in one terminal: Stagedoor on http://127.0.0.1:8080
//! cargo run --example downstream_actix -- http://127.0.0.1:8080 https://api.example.com 127.0.0.1:3000
//! curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:3000/orders
//! ```
//!
//! Two more arguments, an issuer and the address of its keys, add the company's own issuer, whose ordinary
//! tokens `/me` takes.

use std::sync::Arc;

use actix_web::{App, HttpServer, web};
use stagedoor::guard::{
    Identity, Impersonable,
    actix::Guard,
    remote::{RemoteKeys, RemoteRevocations},
};
use stagedoor::token::{Issuer, TrustedIssuer, Verifier};

stagedoor::action!(Read = "read");

/// Refuses everybody who acts as somebody else: it says nothing about impersonation.
async fn me(who: Identity) -> String {
    format!("you are {}\n", who.user)
}

/// Opted in: support may look, with the scope `read`.
async fn orders(who: Impersonable<Read>) -> String {
    let by = who.actor.as_ref().map_or(String::new(), |actor| format!(" (shown to {})", actor.sub));
    format!("the orders of {}{by}\n", who.user)
}

async fn health() -> &'static str {
    "fine\n"
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut arg = |default: &str| args.next().unwrap_or_else(|| default.to_owned());
    let issuer: Issuer = arg("http://127.0.0.1:8080").parse()?;
    let audience = arg("https://api.example.com").parse::<stagedoor::token::Audience>()?;
    let listen = arg("127.0.0.1:3000");
    let (home, home_keys) = (arg(""), arg(""));

    // what is revoked is refused within a second, and every actor token where nothing is heard of it for five
    let revocations = RemoteRevocations::of(&issuer, issuer.as_str())?;
    let trusted = TrustedIssuer::stagedoor(issuer.clone()).audience(audience.clone());
    let mut builder = Verifier::builder().issuer(trusted).revocations(revocations.knowledge());
    if !home.is_empty() {
        builder = builder.issuer(TrustedIssuer::home(home.parse()?).audience(audience));
    }
    let verifier = Arc::new(builder.build()?);
    let mut keys = RemoteKeys::of(&verifier).jwks(&issuer, &format!("{issuer}/.well-known/jwks.json"))?;
    if !home.is_empty() {
        keys = keys.jwks(&home.parse()?, &home_keys)?;
    }
    let _keys = keys.start().await?;
    let _revocations = revocations.start().await?;

    let server = HttpServer::new(move || {
        App::new()
            .app_data(verifier.clone())
            .wrap(Guard::observe())
            .route("/me", web::get().to(me))
            .route("/orders", web::get().to(orders))
            .route("/health", web::get().to(health))
    })
    .bind(&listen)?;
    for address in server.addrs() {
        println!("listening on http://{address}");
    }
    Ok(server.run().await?)
}
