//! A batch's rows go in: the only statements of an append that differ between the databases, side by side.

use sqlx::{Arguments as _, AssertSqlSafe, PgConnection, SqliteConnection, sqlite::SqliteArguments};

use super::append::{Batch, StoredGrant, StoredHead, StoredPrivate, Tx};
use super::stop::{Changes, StoredCode, StoredFacts, StoredRedeem};
use super::{StoreError, json};
use crate::server::log::body::Encoded;

/// SQLite: statements take this many rows or a multiple of it, rows that are not there being NULL. A text for
/// every number of rows would be prepared anew for most batches; one that takes JSON spends twice the time.
const STEP: usize = 8;

/// SQLite: a statement takes 32 766 parameters at the most.
const MANY: usize = 1000;

const HEAD: &str = "INSERT INTO audit_head (size, prev, root, frontier, t_us, replica, signature)";
const CODES: &str = "INSERT INTO handoff_code (grant_id, code_hash, redeem_client, code_challenge, sealed, exp_us, \
     keep_until_us)";
const FACTS: &str = "INSERT INTO grant_facts (grant_id, sealed, keep_until_us)";
const SUBTREE: &str = "INSERT INTO audit_subtree (level, n, hash)";
const PRIVATE: &str = "INSERT INTO audit_private (idx, disclosures, actor, actor_iss, subject, ticket)";

impl Tx<'_> {
    /// Inserts a batch and those of its changes that are rows: entries first, then the head, whose trigger counts
    /// them.
    ///
    /// # Errors
    /// A key that exists, or the database could not do it.
    pub async fn insert(&mut self, batch: Batch<'_>, changes: &Changes) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => {
                let mut many = Many::default();
                many.batch(batch, changes);
                many.execute(tx).await
            }
            Self::Postgres(tx) => {
                postgres(tx, &batch).await?;
                postgres_changes(tx, changes, batch.head.t_us).await
            }
        }
    }

    /// [`Self::insert`] and [`Self::commit`] in one: on SQLite one way to its thread and back.
    ///
    /// # Errors
    /// As those two.
    pub async fn insert_and_commit(mut self, batch: Batch<'_>, changes: &Changes) -> Result<(), StoreError> {
        if let Self::Sqlite(tx) = self {
            let mut many = Many::default();
            many.batch(batch, changes);
            many.script("COMMIT");
            return many.execute(tx).await;
        }
        self.insert(batch, changes).await?;
        self.commit().await
    }

    /// Inserts rows of personal data.
    pub(super) async fn insert_private(&mut self, rows: Vec<(i64, StoredPrivate)>) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        match self {
            Self::Sqlite(tx) => {
                for rows in rows.chunks(MANY) {
                    let mut many = Many::default();
                    many.private(rows.len(), rows.iter().cloned());
                    many.execute(tx).await?;
                }
                Ok(())
            }
            Self::Postgres(tx) => {
                sqlx::query(AssertSqlSafe(format!(
                    "{PRIVATE} SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], \
                     $5::text[], $6::text[])"
                )))
                .bind(rows.iter().map(|(idx, _)| *idx).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, p)| p.disclosures.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, p)| p.actor.as_deref()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, p)| p.actor_iss.as_deref()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, p)| p.subject.as_deref()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, p)| p.ticket.as_deref()).collect::<Vec<_>>())
                .execute(&mut **tx)
                .await?;
                Ok(())
            }
        }
    }
}

/// Several statements of SQLite in one text, which is one way to its thread and back.
#[derive(Default)]
pub(super) struct Many {
    sql: String,
    arguments: SqliteArguments,
    refused: Option<sqlx::error::BoxDynError>,
}

impl Many {
    /// Begins a statement that inserts `rows` rows of `columns` values, those whose first is NULL left out.
    fn statement(&mut self, insert: &str, columns: usize, rows: usize) {
        let values = values(columns, rows);
        for part in [insert, " SELECT * FROM ", &values, " WHERE column1 IS NOT NULL;\n"] {
            self.sql.push_str(part);
        }
    }

    pub fn bind<'q, T: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(&mut self, value: T) {
        if let Err(error) = self.arguments.add(value) {
            self.refused = Some(error);
        }
    }

    fn nulls(&mut self, count: usize) {
        for _ in 0..count {
            self.bind(None::<i64>);
        }
    }

    fn subtrees(&mut self, subtrees: &[(i64, i64, [u8; 32])]) {
        for (level, n, hash) in subtrees {
            self.statement(SUBTREE, 3, 1);
            self.bind(*level);
            self.bind(*n);
            self.bind(hash.to_vec());
        }
    }

    fn entries(&mut self, rows: usize, first: i64, t_us: i64, entries: &mut [Encoded]) {
        self.statement("INSERT INTO audit_entry (idx, t_us, leaf, body)", 4, rows);
        for (idx, entry) in (first..).zip(&mut *entries) {
            self.bind(idx);
            self.bind(t_us);
            self.bind(entry.leaf.to_vec());
            self.bind(std::mem::take(&mut entry.body));
        }
        self.nulls(4 * (rows - entries.len()));
        self.statement(
            "INSERT INTO audit_index (idx, jti, signed8, typ, decision, client, rule, grant_id)",
            8,
            rows,
        );
        for (idx, entry) in (first..).zip(&mut *entries) {
            let index = &mut entry.index;
            self.bind(idx);
            self.bind(index.jti.take());
            self.bind(index.signed8);
            self.bind(index.typ);
            self.bind(index.decision);
            self.bind(index.client.take());
            self.bind(index.rule.take());
            self.bind(index.grant_id.take());
        }
        self.nulls(8 * (rows - entries.len()));
    }

    fn private(&mut self, rows: usize, given: impl Iterator<Item = (i64, StoredPrivate)>) {
        self.statement(PRIVATE, 6, rows);
        let mut bound = 0;
        for (idx, row) in given {
            self.bind(idx);
            self.bind(row.disclosures);
            self.bind(row.actor);
            self.bind(row.actor_iss);
            self.bind(row.subject);
            self.bind(row.ticket);
            bound += 1;
        }
        self.nulls(6 * (rows - bound));
    }

    fn grants(&mut self, rows: usize, grants: Vec<StoredGrant>) {
        self.statement(
            "INSERT INTO actor_grant (id, idx, jti, client, kid, aud, scope, assurance, iat_us, exp_us, \
             created_at_us, updated_at_us, parent)",
            13,
            rows,
        );
        let missing = rows - grants.len();
        for grant in grants {
            self.bind(grant.id);
            self.bind(grant.idx);
            self.bind(grant.jti);
            self.bind(grant.client);
            self.bind(grant.kid);
            self.bind(grant.aud);
            self.bind(grant.scope);
            self.bind(grant.assurance);
            self.bind(grant.iat_us);
            self.bind(grant.exp_us);
            self.bind(grant.created_at_us);
            self.bind(grant.created_at_us);
            self.bind(grant.parent);
        }
        self.nulls(13 * missing);
    }

    fn head(&mut self, prev: i64, head: StoredHead, replica: &str) {
        self.statement(HEAD, 7, 1);
        self.bind(head.size);
        self.bind(prev);
        self.bind(head.root);
        self.bind(head.frontier);
        self.bind(head.t_us);
        self.bind(replica.to_owned());
        self.bind(head.signature);
    }

    /// What a batch changes, as far as it is rows. Lists go in as JSON, so that their length makes no other text.
    fn changes(&mut self, rows: usize, changes: &Changes, t_us: i64) {
        if !changes.chains.is_empty() {
            self.script(&insert_chains("json_each(?)"));
            self.bind(json(&changes.chains));
        }
        if !changes.keys.is_empty() {
            self.script(&insert_keys("json_each(?)"));
            self.bind(json(&changes.keys));
        }
        self.codes(rows, &changes.codes);
        self.facts(rows, &changes.facts);
        self.redeemed(rows, &changes.redeemed, t_us);
    }

    /// Rows that are not there meet no grant.
    fn redeemed(&mut self, rows: usize, redeemed: &[StoredRedeem], t_us: i64) {
        if redeemed.is_empty() {
            return;
        }
        let missing = rows - redeemed.len();
        self.script(&use_codes(&values(2, rows), ["column1", "column2"]));
        for row in redeemed {
            self.bind(row.grant_id.clone());
            self.bind(row.idx);
        }
        self.nulls(2 * missing);
        let columns = ["column1", "column2", "column3", "column4", "column5"];
        self.script(&accept_grants(&values(5, rows), "?", columns));
        self.bind(t_us);
        self.bind(t_us);
        for row in redeemed {
            self.bind(row.grant_id.clone());
            self.bind(row.kid.clone());
            self.bind(row.scope.clone());
            self.bind(row.iat_us);
            self.bind(row.exp_us);
        }
        self.nulls(5 * missing);
    }

    pub fn script(&mut self, statement: &str) {
        self.sql.push_str(statement);
        self.sql.push_str(";\n");
    }

    fn codes(&mut self, rows: usize, codes: &[StoredCode]) {
        if codes.is_empty() {
            return;
        }
        self.statement(CODES, 7, rows);
        for code in codes {
            self.bind(code.grant_id.clone());
            self.bind(code.code_hash.clone());
            self.bind(code.redeem_client.clone());
            self.bind(code.code_challenge.clone());
            self.bind(code.sealed.clone());
            self.bind(code.exp_us);
            self.bind(code.keep_until_us);
        }
        self.nulls(7 * (rows - codes.len()));
    }

    fn facts(&mut self, rows: usize, facts: &[StoredFacts]) {
        if facts.is_empty() {
            return;
        }
        self.statement(FACTS, 3, rows);
        for facts in facts {
            self.bind(facts.grant_id.clone());
            self.bind(facts.sealed.clone());
            self.bind(facts.keep_until_us);
        }
        self.nulls(3 * (rows - facts.len()));
    }

    /// A batch's rows, and those of its changes that are rows.
    pub fn batch(&mut self, batch: Batch<'_>, changes: &Changes) {
        let Batch { prev, head, replica, mut entries, subtrees, grants } = batch;
        let t_us = head.t_us;
        let lengths = [grants.len(), changes.codes.len(), changes.facts.len(), changes.redeemed.len()];
        let most = lengths.into_iter().fold(entries.len(), usize::max);
        let rows = if most == 1 { 1 } else { most.next_multiple_of(STEP) };
        self.subtrees(&subtrees);
        self.entries(rows, prev, t_us, &mut entries);
        self.grants(rows, grants);
        let private = (prev..).zip(entries).filter_map(|(idx, entry)| Some((idx, entry.private?)));
        self.private(rows, private);
        self.head(prev, head, replica);
        self.changes(rows, changes, t_us);
    }

    pub async fn execute(self, conn: &mut SqliteConnection) -> Result<(), StoreError> {
        if let Some(error) = self.refused {
            return Err(sqlx::Error::Encode(error).into());
        }
        sqlx::query_with(AssertSqlSafe(self.sql), self.arguments).execute(conn).await?;
        Ok(())
    }
}

/// `list`: the rows of a JSON array in one column `value`.
fn insert_chains(list: &str) -> String {
    format!(
        "INSERT INTO grant_chain (grant_id, tag, exp_us) \
         SELECT value ->> 0, value ->> 1, CAST(value ->> 2 AS BIGINT) FROM {list}"
    )
}

/// An expired row may still be there; that the key is free was a condition.
fn insert_keys(list: &str) -> String {
    format!(
        "INSERT INTO idempotency (key_tag, body_tag, grant_id, exp_us) \
         SELECT value ->> 'key_tag', value ->> 'body_tag', value ->> 'grant_id', CAST(value ->> 'exp_us' AS BIGINT) \
         FROM {list} WHERE true \
         ON CONFLICT (key_tag) DO UPDATE SET body_tag = excluded.body_tag, \
         grant_id = excluded.grant_id, exp_us = excluded.exp_us"
    )
}

/// `rows` rows, at least one, of `columns` parameters.
fn values(columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    let before = format!("{row},").repeat(rows - 1);
    format!("(VALUES {before}{row})")
}

/// `list` has the grant and the entry in these columns.
fn use_codes(list: &str, [id, idx]: [&str; 2]) -> String {
    format!("UPDATE handoff_code SET used_idx = v.{idx} FROM {list} v WHERE handoff_code.grant_id = v.{id}")
}

/// `at`: the parameter of the time, twice, before the list's. `list` has the grant, the token's key, scope, `iat` and
/// `exp` in these columns.
fn accept_grants(list: &str, at: &str, [id, kid, scope, iat, exp]: [&str; 5]) -> String {
    format!(
        "UPDATE actor_grant SET accepted_at_us = {at}, updated_at_us = {at}, kid = v.{kid}, scope = v.{scope}, \
         iat_us = v.{iat}, exp_us = v.{exp} FROM {list} v WHERE actor_grant.id = v.{id}"
    )
}

/// Everything but the head and rare subtrees in one statement: under the lock each round trip is paid by all replicas.
async fn postgres(conn: &mut PgConnection, batch: &Batch<'_>) -> Result<(), StoreError> {
    for (level, n, hash) in &batch.subtrees {
        sqlx::query(AssertSqlSafe(format!("{SUBTREE} VALUES ($1, $2, $3)")))
            .bind(level)
            .bind(n)
            .bind(&hash[..])
            .execute(&mut *conn)
            .await?;
    }
    let (rows, g) = (&batch.entries, &batch.grants);
    let indexes: Vec<i64> = (batch.prev..).take(rows.len()).collect();
    let private: Vec<(i64, &StoredPrivate)> =
        (batch.prev..).zip(rows).filter_map(|(idx, row)| Some((idx, row.private.as_ref()?))).collect();
    sqlx::query(
        "WITH entries AS (
            INSERT INTO audit_entry (idx, t_us, leaf, body)
            SELECT idx, $2, leaf, body FROM unnest($1::bigint[], $3::bytea[], $4::bytea[]) AS u (idx, leaf, body)
        ), private AS (
            INSERT INTO audit_private (idx, disclosures, actor, actor_iss, subject, ticket)
            SELECT * FROM unnest($12::bigint[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[])
        ), grants AS (
            INSERT INTO actor_grant (id, idx, jti, client, kid, aud, scope, assurance, iat_us, exp_us,
                created_at_us, updated_at_us, parent)
            SELECT id, idx, jti, client, kid, aud, scope, assurance, iat, exp, created, created, parent
            FROM unnest($18::text[], $19::bigint[], $20::text[], $21::text[], $22::text[], $23::text[],
                $24::text[], $25::text[], $26::bigint[], $27::bigint[], $28::bigint[], $29::text[])
                AS u (id, idx, jti, client, kid, aud, scope, assurance, iat, exp, created, parent)
        )
        INSERT INTO audit_index (idx, jti, signed8, typ, decision, client, rule, grant_id)
        SELECT * FROM unnest($1::bigint[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::text[])",
    )
    .bind(indexes)
    .bind(batch.head.t_us)
    .bind(rows.iter().map(|r| &r.leaf[..]).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| &r.body[..]).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.index.jti.as_deref()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.index.signed8).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.index.typ).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.index.decision).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.index.client.as_deref()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.index.rule.as_deref()).collect::<Vec<_>>())
    .bind(rows.iter().map(|r| r.index.grant_id.as_deref()).collect::<Vec<_>>())
    .bind(private.iter().map(|(idx, _)| *idx).collect::<Vec<_>>())
    .bind(private.iter().map(|(_, p)| p.disclosures.as_str()).collect::<Vec<_>>())
    .bind(private.iter().map(|(_, p)| p.actor.as_deref()).collect::<Vec<_>>())
    .bind(private.iter().map(|(_, p)| p.actor_iss.as_deref()).collect::<Vec<_>>())
    .bind(private.iter().map(|(_, p)| p.subject.as_deref()).collect::<Vec<_>>())
    .bind(private.iter().map(|(_, p)| p.ticket.as_deref()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.id.as_str()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.idx).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.jti.as_str()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.client.as_str()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.kid.as_str()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.aud.as_str()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.scope.as_str()).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.assurance).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.iat_us).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.exp_us).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.created_at_us).collect::<Vec<_>>())
    .bind(g.iter().map(|g| g.parent.as_deref()).collect::<Vec<_>>())
    .execute(&mut *conn)
    .await?;
    let head = &batch.head;
    sqlx::query(AssertSqlSafe(format!("{HEAD} VALUES ($1, $2, $3, $4, $5, $6, $7)")))
        .bind(head.size)
        .bind(batch.prev)
        .bind(&head.root)
        .bind(&head.frontier)
        .bind(head.t_us)
        .bind(batch.replica)
        .bind(&head.signature)
        .execute(conn)
        .await?;
    Ok(())
}

/// What a batch changes, as far as it is rows.
async fn postgres_changes(conn: &mut PgConnection, changes: &Changes, t_us: i64) -> Result<(), StoreError> {
    const LIST: &str = "json_array_elements($1::json)";
    if !changes.chains.is_empty() {
        let sql = insert_chains(LIST);
        sqlx::query(AssertSqlSafe(sql)).bind(json(&changes.chains)).execute(&mut *conn).await?;
    }
    if !changes.keys.is_empty() {
        let sql = insert_keys(LIST);
        sqlx::query(AssertSqlSafe(sql)).bind(json(&changes.keys)).execute(&mut *conn).await?;
    }
    for code in &changes.codes {
        sqlx::query(AssertSqlSafe(format!("{CODES} VALUES ($1, $2, $3, $4, $5, $6, $7)")))
            .bind(&code.grant_id)
            .bind(&code.code_hash)
            .bind(&code.redeem_client)
            .bind(&code.code_challenge)
            .bind(&code.sealed)
            .bind(code.exp_us)
            .bind(code.keep_until_us)
            .execute(&mut *conn)
            .await?;
    }
    for facts in &changes.facts {
        sqlx::query(AssertSqlSafe(format!("{FACTS} VALUES ($1, $2, $3)")))
            .bind(&facts.grant_id)
            .bind(&facts.sealed)
            .bind(facts.keep_until_us)
            .execute(&mut *conn)
            .await?;
    }
    if !changes.redeemed.is_empty() {
        const ROWS: &str = "(SELECT value ->> 'grant_id' AS id, value ->> 'kid' AS kid, value ->> 'scope' AS scope, \
             CAST(value ->> 'idx' AS BIGINT) AS idx, CAST(value ->> 'iat_us' AS BIGINT) AS iat, \
             CAST(value ->> 'exp_us' AS BIGINT) AS exp FROM json_array_elements($1::json))";
        let list = json(&changes.redeemed);
        sqlx::query(AssertSqlSafe(use_codes(ROWS, ["id", "idx"]))).bind(&list).execute(&mut *conn).await?;
        let sql = accept_grants(ROWS, "$2", ["id", "kid", "scope", "iat", "exp"]);
        sqlx::query(AssertSqlSafe(sql)).bind(&list).bind(t_us).execute(conn).await?;
    }
    Ok(())
}
