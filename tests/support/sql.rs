//! A hand in the database.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

/// Executes a statement over a connection of its own; how many rows it changed.
pub async fn execute(url: &str, sql: &str) -> u64 {
    try_execute(url, sql).await.unwrap()
}

/// As [`execute`], where the database may refuse.
pub async fn try_execute(url: &str, sql: &str) -> Result<u64, sqlx::Error> {
    let sql = AssertSqlSafe(sql.to_owned());
    Ok(if url.starts_with("sqlite:") {
        SqliteConnection::connect(url).await?.execute(sql).await?.rows_affected()
    } else {
        PgConnection::connect(url).await?.execute(sql).await?.rows_affected()
    })
}
