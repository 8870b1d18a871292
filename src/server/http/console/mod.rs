//! `/console`: pages for people. A handler reads, makes one call and shows; what it shows stands in `server::console`.

mod approvals;
mod assets;
mod audit;
mod ending;
mod form;
mod page;
mod security;
mod sign_in;
mod support;
mod visit;

use actix_web::web::{self, ServiceConfig};

pub use assets::{banner, banner_by_hash};
pub(super) use page::Trouble;

/// Mounts the pages.
pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::scope("/console")
            .route("", web::get().to(visit::front))
            .route("/", web::get().to(visit::front))
            .route("/assets/{name}", web::get().to(assets::asset))
            .route("/sign-in", web::get().to(sign_in::door))
            .route("/sign-in", web::post().to(sign_in::local))
            .route("/sign-in/start", web::get().to(sign_in::start))
            .route("/callback", web::get().to(sign_in::callback))
            .route("/sign-out", web::post().to(sign_in::sign_out))
            .route("/support", web::get().to(support::front))
            .route("/support/user", web::get().to(support::user))
            .route("/support/start", web::post().to(support::start))
            .route("/support/stop", web::post().to(support::stop))
            .route("/support/request", web::get().to(support::request))
            .route("/support/go-on", web::post().to(support::go_on))
            .route("/approvals", web::get().to(approvals::page))
            .route("/approvals/decide", web::post().to(approvals::decide))
            .route("/handoff", web::get().to(support::handoff))
            .route("/audit", web::get().to(audit::list))
            .route("/audit/export", web::get().to(audit::export))
            .route("/audit/proof", web::get().to(audit::proof))
            .route("/audit/entry/{index}", web::get().to(audit::entry))
            .route("/audit/entry/{index}/proof", web::get().to(audit::receipt))
            .route("/audit/grant/{id}", web::get().to(audit::grant))
            .route("/security", web::get().to(security::page))
            .route("/security/revoke", web::post().to(security::revoke))
            .route("/security/stop", web::post().to(security::stop_everything))
            .default_service(web::to(page::no_such_page)),
    );
}
