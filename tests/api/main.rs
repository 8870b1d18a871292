//! The service as its callers see it: the real server, real HTTP, every reply held to `openapi.yaml`.
//!
//! Each test runs on SQLite and on PostgreSQL; where PostgreSQL cannot be started it says `SKIP` and why.

/// Makes of each `async fn name(app: TestApp)` two tests, `name::sqlite` and `name::postgres`.
macro_rules! on_both_databases {
    ($($(#[doc = $doc:expr])* async fn $name:ident($app:ident: TestApp) $body:block)+) => {$(
        $(#[doc = $doc])*
        mod $name {
            use super::*;
            use crate::support::app::Database;

            async fn run($app: TestApp) $body

            #[tokio::test]
            async fn sqlite() {
                if let Some(app) = TestApp::start(Database::Sqlite).await {
                    run(app).await;
                }
            }

            #[tokio::test]
            async fn postgres() {
                if let Some(app) = TestApp::start(Database::Postgres).await {
                    run(app).await;
                }
            }
        }
    )+};
}

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod confinement;
mod contract;
mod credentials;
mod ending;
mod explain;
mod forward_auth;
mod fuzz;
mod hostile;
mod list;
mod mint;
mod oauth;
mod overload;
mod proofs;
mod public;
mod verify;
