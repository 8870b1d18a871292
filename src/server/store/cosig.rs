//! Cosignatures of witnesses: which checkpoint sizes (global positions) each has signed, append-only.

use super::{Db, StoreError, on_db};

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
