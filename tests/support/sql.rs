//! A hand in the database.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

/// Executes a statement over a connection of its own; how many rows it changed.
pub async fn execute(url: &str, sql: &str) -> u64 {
    let sql = AssertSqlSafe(sql.to_owned());
    if url.starts_with("sqlite:") {
        SqliteConnection::connect(url).await.unwrap().execute(sql).await.unwrap().rows_affected()
    } else {
        PgConnection::connect(url).await.unwrap().execute(sql).await.unwrap().rows_affected()
    }
}
