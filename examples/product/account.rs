//! The customer's pages as support sees them: one to read, one to change with the scope for it, one for himself only.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{self, Data, ServiceConfig};
use maud::html;
use stagedoor::guard::{Impersonable, InPerson, Refusal};

use crate::Product;
use crate::pages::{go_to, page};
use crate::people;

stagedoor::action!(Read = "read");
stagedoor::action!(Write = "write");

/// The routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .route("/", web::get().to(orders))
        .route("/address", web::get().to(address))
        .route("/address", web::post().to(change_address))
        .route("/password", web::get().to(password));
}

/// GET `/`: whoever acts as the customer may read it.
async fn orders(product: Data<Product>, who: Result<Impersonable<Read>, Refusal>) -> HttpResponse {
    let who = match who {
        Ok(who) => who,
        Err(refusal) => return refused(&product, &refusal),
    };
    let customer = people::user(who.user.as_str());
    page(
        StatusCode::OK,
        &format!("Orders of {}", customer.map_or(who.user.as_str(), |c| c.name)),
        Some(product.host.home()),
        &html! {
            nav { a href="/" { "Orders" } a href="/address" { "Address" } a href="/password" { "Password" } }
            @match customer {
                Some(customer) => ul { @for order in customer.orders { li { (order) } } },
                None => p { "This user has no account in the shop." },
            }
        },
    )
}

/// GET `/address`: to read.
async fn address(product: Data<Product>, who: Result<Impersonable<Read>, Refusal>) -> HttpResponse {
    let who = match who {
        Ok(who) => who,
        Err(refusal) => return refused(&product, &refusal),
    };
    page(
        StatusCode::OK,
        "Address",
        Some(product.host.home()),
        &html! {
            nav { a href="/" { "Orders" } a href="/address" { "Address" } a href="/password" { "Password" } }
            p { "12 St James's Square, London" }
            form method="post" action="/address" {
                label { "New address " input name="address" required; }
                button type="submit" { "Change" }
            }
            @if !who.has_scope("write") { p { "You may look only: this grant has no scope " code { "write" } "." } }
        },
    )
}

/// POST `/address`: needs the scope `write`.
async fn change_address(product: Data<Product>, who: Result<Impersonable<Write>, Refusal>) -> HttpResponse {
    match who {
        Err(refusal) => refused(&product, &refusal),
        Ok(who) => {
            // Both identities belong into every record.
            let actor = who.actor.as_ref().map(|actor| actor.sub.to_string());
            page(
                StatusCode::OK,
                "Address changed",
                Some(product.host.home()),
                &html! { p { "Recorded as a change of " (who.user.as_str()) " by " (actor.unwrap_or_default()) "." } p { a href="/address" { "Back" } } },
            )
        }
    }
}

/// GET `/password`: nobody but the customer himself, whatever a token says.
async fn password(product: Data<Product>, who: Result<InPerson, Refusal>) -> HttpResponse {
    match who {
        Ok(_) => page(StatusCode::OK, "Password", None, &html! { p { "Change it here." } }),
        Err(refusal) => refused(&product, &refusal),
    }
}

/// A refusal as a page: over, not allowed to an impersonator, or a scope is missing.
fn refused(product: &Product, refusal: &Refusal) -> HttpResponse {
    let text = match refusal {
        Refusal::NoCredentials => return go_to(product.host.home()),
        Refusal::Token(invalid) if !invalid.is_ours() => return go_to("/over"),
        Refusal::ImpersonationRefused => {
            "This page is for the customer alone: nobody who acts as him sees it."
        }
        Refusal::ScopeMissing(_) => {
            "You may look only. To change something, start again with the right to write."
        }
        _ => "This cannot be shown at the moment. Try again shortly.",
    };
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::FORBIDDEN);
    page(
        status,
        "Not while acting as somebody else",
        Some(product.host.home()),
        &html! { p role="alert" { (text) } p { a href="/" { "Back to the orders" } } },
    )
}
