//! Revocations, cut-offs, handoff codes and idempotency keys as rows: what an append asks and changes.

use std::collections::HashMap;

use sqlx::AssertSqlSafe;

use super::append::{Tx, on_tx};
use super::approval::{StoredApproval, StoredDecision};
use super::read::{Halving, NEXT_HEAD};
use super::{StoreError, json};

/// No grant lives longer than an hour after at most half an hour's wait for approval; this much is looked at, so that clocks and waits do not matter.
const LIVE_US: i64 = 2 * 3600 * 1_000_000;
/// The channel on which replicas tell each other that something was revoked (PostgreSQL).
pub const CHANNEL: &str = "stagedoor_revoked";
/// Whether the cut-off `c` covers a grant.
pub(super) const COVERS: &str = "(c.kind = 'all' AND actor_grant.iat_us <= c.until_iat * 1000000 \
     OR c.kind = 'client' AND c.target = actor_grant.client AND actor_grant.iat_us <= c.until_iat * 1000000 \
     OR c.kind = 'kid' AND c.target = actor_grant.kid)";

/// What a row of `cutoff` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CutOffKind {
    /// Everything.
    All,
    /// A client.
    Client,
    /// A key: refused whatever it signed.
    Kid,
    /// A person, by tag: only ever held.
    Person,
}

impl CutOffKind {
    /// The word in the column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Client => "client",
            Self::Kid => "kid",
            Self::Person => "person",
        }
    }

    fn parse(word: &str) -> Result<Self, StoreError> {
        [Self::All, Self::Client, Self::Kid, Self::Person]
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or(StoreError::Corrupt("the kind of a cut-off"))
    }
}

/// A row of `cutoff`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOff {
    /// What it is about.
    pub kind: CutOffKind,
    /// Which one.
    pub target: String,
    /// What was issued up to this second is refused.
    pub until_iat: Option<i64>,
    /// Nothing is minted until then, microseconds.
    pub hold_until_us: Option<i64>,
}

/// Kind, target, until, hold.
pub(super) type CutOffRow = (String, String, Option<i64>, Option<i64>);

impl TryFrom<CutOffRow> for CutOff {
    type Error = StoreError;

    fn try_from((kind, target, until_iat, hold_until_us): CutOffRow) -> Result<Self, StoreError> {
        Ok(Self { kind: CutOffKind::parse(&kind)?, target, until_iat, hold_until_us })
    }
}

/// A row of `handoff_code`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCode {
    /// Whose.
    pub grant_id: String,
    /// What finds it.
    pub code_hash: String,
    /// Who may use it.
    pub redeem_client: String,
    /// S256 of a verifier.
    pub code_challenge: Option<String>,
    /// Facts for the policy, sealed.
    pub sealed: Vec<u8>,
    /// Usable until, microseconds.
    pub exp_us: i64,
    /// Kept until, microseconds.
    pub keep_until_us: i64,
    /// The entry that used it.
    pub used_idx: Option<i64>,
}

/// A row of `grant_facts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFacts {
    /// Whose.
    pub grant_id: String,
    /// Facts for the policy, sealed.
    pub sealed: Vec<u8>,
    /// Kept until, microseconds.
    pub keep_until_us: i64,
}

/// A row of `idempotency`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StoredKey {
    /// HMAC of the key and to whom it belongs.
    pub key_tag: String,
    /// HMAC of the body.
    pub body_tag: String,
    /// What it was answered with.
    pub grant_id: String,
    /// Kept until, microseconds.
    pub exp_us: i64,
}

/// A use of a handoff code.
#[derive(Debug, serde::Serialize)]
pub struct StoredRedeem {
    /// The entry.
    pub idx: i64,
    /// The grant.
    pub grant_id: String,
    /// What the token says.
    pub kid: String,
    /// What the token says.
    pub scope: String,
    /// What the token says, microseconds.
    pub iat_us: i64,
    /// What the token says, microseconds.
    pub exp_us: i64,
}

/// Whose grants end.
#[derive(Debug)]
pub enum StoredSelector {
    /// One.
    Grant(String),
    /// Those in whose chain this actor stands; any issuer when it is empty.
    Actor {
        /// His id.
        sub: String,
        /// Who names him, or empty.
        iss: String,
        /// His tag in chains.
        chain: String,
    },
    /// Those on a target.
    Subject(String),
    /// A client's.
    Client(String),
    /// A key's.
    Kid(String),
    /// All.
    All,
}

/// A revocation.
#[derive(Debug)]
pub struct StoredRevoke {
    /// The entry.
    pub idx: i64,
    /// Whose grants end.
    pub selector: StoredSelector,
    /// Only this client's, or empty.
    pub of_client: String,
    /// Until when nothing new is minted, microseconds.
    pub hold_until_us: Option<i64>,
    /// Whom that holds, by tag, where it is a person.
    pub held_person: Option<String>,
}

/// What a batch changes besides entries and grants.
#[derive(Debug, Default)]
pub struct Changes {
    /// Grant, tag of an earlier actor, end.
    pub chains: Vec<(String, String, i64)>,
    /// New codes.
    pub codes: Vec<StoredCode>,
    /// New facts for asking again.
    pub facts: Vec<StoredFacts>,
    /// New keys.
    pub keys: Vec<StoredKey>,
    /// Codes used.
    pub redeemed: Vec<StoredRedeem>,
    /// Requests for approval, and grants that did without one.
    pub approvals: Vec<StoredApproval>,
    /// What colleagues decided.
    pub decisions: Vec<StoredDecision>,
    /// Approved requests whose token is signed.
    pub released: Vec<StoredRedeem>,
    /// Revocations, in order.
    pub revocations: Vec<StoredRevoke>,
}

impl Changes {
    /// Whether the changes are rows and nothing else: then [`Tx::insert`] makes them all.
    #[must_use]
    pub const fn are_rows(&self) -> bool {
        let Self { approvals, decisions, released, revocations, .. } = self;
        approvals.is_empty() && decisions.is_empty() && released.is_empty() && revocations.is_empty()
    }
}

impl Tx<'_> {
    /// Texts of a JSON array bound as `$1`, for `IN`.
    pub(super) const fn texts(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "IN (SELECT value FROM json_each($1))",
            Self::Postgres(_) => "= ANY (ARRAY (SELECT value FROM json_array_elements_text($1::json)))",
        }
    }

    /// The cut-offs of `targets`, of every kind.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn cut_offs(&mut self, targets: &[&str]) -> Result<Vec<CutOff>, StoreError> {
        let sql = format!(
            "SELECT kind, target, until_iat, hold_until_us FROM cutoff WHERE target {}",
            self.texts()
        );
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<CutOffRow> = on_tx!(self, (conn) => {
            sqlx::query_as(AssertSqlSafe(sql)).bind(json(&targets)).fetch_all(conn).await
        })?;
        rows.into_iter().map(CutOff::try_from).collect()
    }

    /// Those of `tags` under which something was answered.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn taken_keys(&mut self, tags: &[&str], t_us: i64) -> Result<Vec<String>, StoreError> {
        let sql = format!("SELECT key_tag FROM idempotency WHERE exp_us > $2 AND key_tag {}", self.texts());
        Ok(on_tx!(self, (conn) => {
            sqlx::query_scalar(AssertSqlSafe(sql)).bind(json(&tags)).bind(t_us).fetch_all(conn).await
        })?)
    }

    /// Makes those of a batch's changes at `t_us` that are more than rows, after its rows are in; how many grants
    /// each revocation ended, by the position of its entry.
    ///
    /// # Errors
    /// The database could not do it.
    pub async fn change(&mut self, changes: &Changes, t_us: i64) -> Result<HashMap<i64, u64>, StoreError> {
        self.approvals(changes, t_us).await?;
        let mut matched = HashMap::new();
        for revocation in &changes.revocations {
            let ended = self.revoke(revocation, t_us).await?;
            *matched.entry(revocation.idx).or_default() += ended;
        }
        if let (Self::Postgres(tx), false) = (&mut *self, matched.is_empty()) {
            // sent by the commit, and only by it
            sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(&mut **tx).await?;
        }
        Ok(matched)
    }

    async fn revoke(&mut self, revoke: &StoredRevoke, t_us: i64) -> Result<u64, StoreError> {
        // no token is recorded before the second it says it was issued in: this second covers them all
        let until = t_us.div_euclid(1_000_000);
        let matched = match &revoke.selector {
            StoredSelector::Grant(grant) => {
                let base = "SELECT g.id FROM actor_grant g WHERE g.id = $4 \
                            AND ($5 = '' OR g.client = $5)";
                self.end(revoke, t_us, base, [grant, &revoke.of_client, "", "", "[]"]).await?
            }
            StoredSelector::Actor { sub, iss, chain } => {
                let base = "SELECT g.id FROM audit_private p JOIN actor_grant g ON g.idx = p.idx \
                            WHERE p.actor = $4 AND ($6 = '' OR p.actor_iss = $6) AND (p.idx >> 12) BUCKETS \
                            AND ($5 = '' OR g.client = $5) \
                            UNION SELECT g.id FROM grant_chain c JOIN actor_grant g ON g.id = c.grant_id \
                            WHERE c.tag = $7 AND ($5 = '' OR g.client = $5)";
                let buckets = self.live_buckets(t_us).await?;
                self.end(revoke, t_us, base, [sub, &revoke.of_client, iss, chain, &buckets]).await?
            }
            StoredSelector::Subject(sub) => {
                let base = "SELECT g.id FROM audit_private p JOIN actor_grant g ON g.idx = p.idx \
                            WHERE p.subject = $4 AND (p.idx >> 12) BUCKETS AND ($5 = '' OR g.client = $5)";
                let buckets = self.live_buckets(t_us).await?;
                self.end(revoke, t_us, base, [sub, &revoke.of_client, "", "", &buckets]).await?
            }
            // What a cut-off covers needs no row of its own; what was delegated from it to others does.
            StoredSelector::Client(client) => {
                let covered = self.covered("client", client, t_us).await?;
                let base = "SELECT c.id FROM actor_grant c JOIN actor_grant p ON p.id = c.parent \
                            WHERE c.parent IS NOT NULL AND p.client = $4 AND c.client <> $4 AND p.exp_us > $2";
                covered + self.end(revoke, t_us, base, [client, "", "", "", "[]"]).await?
            }
            StoredSelector::Kid(kid) => {
                let covered = self.covered("kid", kid, t_us).await?;
                let base = "SELECT c.id FROM actor_grant c JOIN actor_grant p ON p.id = c.parent \
                            WHERE c.parent IS NOT NULL AND p.kid = $4 AND c.kid <> $4 AND p.exp_us > $2";
                covered + self.end(revoke, t_us, base, [kid, "", "", "", "[]"]).await?
            }
            StoredSelector::All => self.covered("''", "", t_us).await?,
        };
        let (kind, target) = match &revoke.selector {
            StoredSelector::All => (CutOffKind::All, ""),
            StoredSelector::Client(client) => (CutOffKind::Client, client.as_str()),
            StoredSelector::Kid(kid) => (CutOffKind::Kid, kid.as_str()),
            _ => match (&revoke.held_person, revoke.hold_until_us) {
                (Some(person), Some(_)) => (CutOffKind::Person, person.as_str()),
                _ => return Ok(matched),
            },
        };
        let until = (kind != CutOffKind::Person).then_some(until);
        self.put_cut_off(revoke, kind, target, until, t_us).await?;
        Ok(matched)
    }

    /// How many grants that are alive have `value` in `column`.
    async fn covered(&mut self, column: &'static str, value: &str, t_us: i64) -> Result<u64, StoreError> {
        let sql = format!(
            "SELECT COUNT(*) FROM actor_grant WHERE id >= $1 AND exp_us > $2 AND revoked_at_us IS NULL \
             AND {column} = $3 AND NOT EXISTS (SELECT 1 FROM cutoff c WHERE {COVERS})"
        );
        let count: i64 = on_tx!(self, (conn) => {
            sqlx::query_scalar(AssertSqlSafe(sql))
                .bind(first_live(t_us))
                .bind(t_us)
                .bind(value)
                .fetch_one(conn)
                .await
        })?;
        Ok(count.unsigned_abs())
    }

    /// As [`first_at_or_after`](super::read::first_at_or_after).
    async fn first_at_or_after(&mut self, t_us: i64) -> Result<Option<i64>, StoreError> {
        let newest: Option<(i64, i64)> = on_tx!(self, (conn) => {
            sqlx::query_as("SELECT size, t_us FROM audit_head ORDER BY size DESC LIMIT 1")
                .fetch_optional(conn)
                .await
        })?;
        let mut halving = Halving::of(newest, t_us);
        while let Some(after) = halving.asks() {
            let next = on_tx!(self, (conn) => {
                sqlx::query_as(NEXT_HEAD).bind(after).fetch_optional(conn).await
            })?;
            halving.told(next);
        }
        Ok(halving.found)
    }

    /// The buckets of `audit_private` (see the first migration) in which live grants' people stand, as JSON.
    async fn live_buckets(&mut self, t_us: i64) -> Result<String, StoreError> {
        // by the time of the entries, which never goes back: ids are made when a request begins, and in another order
        let low = self.first_at_or_after(t_us - LIVE_US).await?;
        let high: i64 = on_tx!(self, (conn) => {
            sqlx::query_scalar("SELECT COALESCE(MAX(idx), 0) FROM actor_grant").fetch_one(conn).await
        })?;
        let Some(low) = low else { return Ok("[]".into()) };
        Ok(json(&self.buckets(low, high).await?))
    }

    /// Ends what `base` finds and everything delegated from it. `base` uses `$4`–`$7`, and `BUCKETS` for `$8`.
    async fn end(
        &mut self,
        revoke: &StoredRevoke,
        t_us: i64,
        base: &str,
        arguments: [&str; 5],
    ) -> Result<u64, StoreError> {
        let buckets = match self {
            Self::Sqlite(_) => "IN (SELECT value FROM json_each($8))",
            Self::Postgres(_) => {
                "= ANY (ARRAY (SELECT value::bigint FROM json_array_elements_text($8::json)))"
            }
        };
        let base = base.replace("BUCKETS", buckets);
        // every parameter is named, so that both databases see the same eight
        let sql = format!(
            "WITH RECURSIVE named (a, b, c, d, e) AS (SELECT CAST($4 AS TEXT), CAST($5 AS TEXT), \
             CAST($6 AS TEXT), CAST($7 AS TEXT), CAST($8 AS TEXT)), hit (id) AS ({base} \
             UNION SELECT child.id FROM actor_grant child JOIN hit ON child.parent = hit.id) \
             INSERT INTO revoked_grant (grant_id, idx, exp_us) \
             SELECT g.id, $1, g.exp_us FROM actor_grant g \
             WHERE g.id IN (SELECT id FROM hit) AND g.exp_us > $2 AND g.revoked_at_us IS NULL AND g.id >= $3 \
             ON CONFLICT (grant_id) DO NOTHING"
        );
        let [a, b, c, d, e] = arguments;
        let ended = on_tx!(self, (conn) => {
            sqlx::query(AssertSqlSafe(sql))
                .bind(revoke.idx)
                .bind(t_us)
                .bind(first_live(t_us))
                .bind(a)
                .bind(b)
                .bind(c)
                .bind(d)
                .bind(e)
                .execute(conn)
                .await
                .map(|done| done.rows_affected())
        })?;
        if ended > 0 {
            on_tx!(self, (conn) => {
                sqlx::query(
                    "UPDATE actor_grant SET revoked_at_us = $2, updated_at_us = $2 \
                     WHERE id IN (SELECT grant_id FROM revoked_grant WHERE idx = $1)",
                )
                .bind(revoke.idx)
                .bind(t_us)
                .execute(conn)
                .await
                .map(drop)
            })?;
        }
        Ok(ended)
    }

    async fn put_cut_off(
        &mut self,
        revoke: &StoredRevoke,
        kind: CutOffKind,
        target: &str,
        until_iat: Option<i64>,
        t_us: i64,
    ) -> Result<(), StoreError> {
        on_tx!(self, (conn) => {
            sqlx::query(
                "INSERT INTO cutoff (kind, target, until_iat, hold_until_us, idx, t_us) \
                 VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (kind, target) DO UPDATE SET idx = excluded.idx, t_us = excluded.t_us, \
                 until_iat = excluded.until_iat, \
                 hold_until_us = CASE WHEN cutoff.hold_until_us IS NULL \
                 OR excluded.hold_until_us > cutoff.hold_until_us \
                 THEN excluded.hold_until_us ELSE cutoff.hold_until_us END",
            )
            .bind(kind.as_str())
            .bind(target)
            .bind(until_iat)
            .bind(revoke.hold_until_us)
            .bind(revoke.idx)
            .bind(t_us)
            .execute(conn)
            .await
            .map(drop)
        })?;
        Ok(())
    }
}

/// The least id of a grant that may be alive at `t_us`.
pub(super) fn first_live(t_us: i64) -> String {
    let at = chrono::DateTime::from_timestamp_micros(t_us - LIVE_US).unwrap_or_default();
    crate::token::GrantId::first_of(at).as_str().to_owned()
}
