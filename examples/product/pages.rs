//! How the product looks, and the headers of every page.

use actix_web::body::MessageBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, web};
use maud::{DOCTYPE, Markup, html};

use crate::Product;

/// A page of the product. `impersonated` puts the banner on top.
pub fn page(status: StatusCode, title: &str, impersonated: Option<&str>, body: &Markup) -> HttpResponse {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Example shop" }
                link rel="stylesheet" href="/product.css";
                link rel="icon" href="data:,";
                script src="/banner.js" defer {}
                script src="/product.js" defer {}
            }
            body {
                @if let Some(home) = impersonated {
                    stagedoor-banner src="/impersonation/state" stop="/impersonation/stop" home=(home) {}
                }
                header { strong { "Example shop" } }
                main { h1 { (title) } (body) }
            }
        }
    };
    HttpResponse::build(status).content_type("text/html; charset=utf-8").body(page.0)
}

/// Security headers for everything; nothing of an impersonated session stays in a cache.
pub fn with_headers<B: MessageBody>(mut answer: ServiceResponse<B>) -> ServiceResponse<B> {
    let stagedoor = answer.request().app_data::<web::Data<Product>>().map(|p| p.stagedoor.url().to_owned());
    let host = answer
        .request()
        .app_data::<web::Data<Product>>()
        .map(|p| (p.host.origin().to_owned(), p.host.home().to_owned()));
    let (own, home) = host.unwrap_or_default();
    // A form of the home host leads to the host of impersonated sessions and back.
    let csp = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self' {own} {home} {}; base-uri 'none'; frame-ancestors 'none'",
        stagedoor.unwrap_or_default()
    );
    let headers = answer.headers_mut();
    for (name, value) in [
        ("content-security-policy", csp.as_str()),
        ("referrer-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    answer
}

/// A short answer for people.
pub fn message(status: StatusCode, title: &str, text: &str, back: &str) -> HttpResponse {
    page(status, title, None, &html! { p role="alert" { (text) } p { a href=(back) { "Back" } } })
}

/// 303.
pub fn go_to(place: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((header::LOCATION, place)).finish()
}

/// GET `/product.css`.
pub async fn css() -> HttpResponse {
    HttpResponse::Ok().content_type("text/css").body(include_str!("product.css"))
}

/// GET `/product.js`.
pub async fn js() -> HttpResponse {
    HttpResponse::Ok().content_type("text/javascript").body(include_str!("product.js"))
}

/// GET `/banner.js`: the very file that Stagedoor serves, built in, so that it comes from this origin.
pub async fn banner() -> HttpResponse {
    HttpResponse::Ok().content_type("text/javascript").body(include_str!("../../src/server/web/banner.js"))
}
