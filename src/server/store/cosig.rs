//! Cosignatures of witnesses: which checkpoint sizes (global positions) each has signed, append-only.

use sqlx::AssertSqlSafe;

use super::{Db, StoreError, json, on_db};

/// Keeps a cosignature line; one that is there already stays.
///
/// # Errors
/// The database could not keep it.
pub async fn add(db: &Db, size: i64, witness: &str, line: &str) -> Result<(), StoreError> {
    // looked at first: a trigger refuses an INSERT of a key that exists, conflict clause or not
    on_db!(
        db,
        write(pool) => {
            sqlx::query(
                "INSERT INTO audit_cosig (size, witness, line) SELECT $1, $2, $3 \
                 WHERE NOT EXISTS (SELECT 1 FROM audit_cosig WHERE size = $1 AND witness = $2) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(size)
            .bind(witness)
            .bind(line)
            .execute(pool)
            .await
            .map(drop)
        }
    )?;
    Ok(())
}

/// The newest sizes in `(after, below]` that anybody cosigned, with witness and line; newest first, at most
/// `limit` lines.
///
/// # Errors
/// The database could not be asked.
pub async fn newest(
    db: &Db,
    after: i64,
    below: i64,
    limit: i64,
) -> Result<Vec<(i64, String, String)>, StoreError> {
    Ok(on_db!(
        db,
        read(pool) => {
            sqlx::query_as(
                "SELECT size, witness, line FROM audit_cosig WHERE size > $1 AND size <= $2 \
                 ORDER BY size DESC, witness LIMIT $3",
            )
            .bind(after)
            .bind(below)
            .bind(limit)
            .fetch_all(pool)
            .await
        }
    )?)
}

/// The sizes after `after` that `witness` is said to have cosigned, with its lines; newest first, at most `limit`.
///
/// # Errors
/// The database could not be asked.
pub async fn newest_of(
    db: &Db,
    witness: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, String)>, StoreError> {
    Ok(on_db!(
        db,
        read(pool) => {
            sqlx::query_as(
                "SELECT size, line FROM audit_cosig WHERE witness = $1 AND size > $2 \
                 ORDER BY size DESC LIMIT $3",
            )
            .bind(witness)
            .bind(after)
            .bind(limit)
            .fetch_all(pool)
            .await
        }
    )?)
}

/// The newest sizes in `(after, below]` that at least `required` of `witnesses` are said to have cosigned (of anybody,
/// where none is named); newest first, at most `limit`.
///
/// # Errors
/// The database could not be asked.
pub async fn signed_by(
    db: &Db,
    witnesses: &[&str],
    required: usize,
    (after, below): (i64, i64),
    limit: i64,
) -> Result<Vec<i64>, StoreError> {
    let of_them = if witnesses.is_empty() {
        "CAST($5 AS TEXT) <> ''".to_owned()
    } else {
        format!("witness {}", db.in_list(5, "text"))
    };
    let sql = format!(
        "SELECT size FROM audit_cosig WHERE size > $1 AND size <= $2 AND {of_them} \
         GROUP BY size HAVING COUNT(*) >= $3 ORDER BY size DESC LIMIT $4"
    );
    let required = i64::try_from(required).unwrap_or(i64::MAX);
    Ok(on_db!(
        db,
        read(pool) => {
            sqlx::query_scalar(AssertSqlSafe(sql))
                .bind(after)
                .bind(below)
                .bind(required)
                .bind(limit)
                .bind(json(&witnesses))
                .fetch_all(pool)
                .await
        }
    )?)
}
