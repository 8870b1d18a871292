-- Stopping: revocations, cut-offs, handoff codes, idempotency keys. All of it is short-lived: rows go when
-- what they refuse has expired by itself, and the issuance log keeps what happened. No person's id stands
-- here: people are tags, HMACs under a key derived from the master key.

-- Earlier actors of a chain of delegation; the current one stands in audit_private. Sparse.
CREATE TABLE grant_chain (
    grant_id TEXT    NOT NULL,
    tag      TEXT    NOT NULL,
    exp_us   BIGINT  NOT NULL,
    PRIMARY KEY (tag, grant_id)
);
CREATE INDEX grant_chain_exp ON grant_chain (exp_us);

-- A grant that is over before its time, until it would have been over anyway.
CREATE TABLE revoked_grant (
    grant_id TEXT    NOT NULL PRIMARY KEY,
    -- the entry that revoked it
    idx      BIGINT  NOT NULL,
    exp_us   BIGINT  NOT NULL
);
CREATE INDEX revoked_grant_idx ON revoked_grant (idx);
CREATE INDEX revoked_grant_exp ON revoked_grant (exp_us);

-- What refuses whole classes: of tokens issued at or before `until_iat`, and of mints until `hold_until_us`.
CREATE TABLE cutoff (
    -- all | client | kid | person; a person is only ever held, his grants are in revoked_grant
    kind          TEXT    NOT NULL CHECK (kind IN ('all', 'client', 'kid', 'person')),
    -- '' | client id | kid | tag
    target        TEXT    NOT NULL,
    -- seconds; NULL: nothing issued is refused by this row
    until_iat     BIGINT,
    hold_until_us BIGINT,
    -- the entry that made it what it is, and its time
    idx           BIGINT  NOT NULL,
    t_us          BIGINT  NOT NULL,
    PRIMARY KEY (kind, target)
);
CREATE INDEX cutoff_idx ON cutoff (idx);

-- A handoff code that may still be used, or was used. The code itself is not stored, only what finds it.
CREATE TABLE handoff_code (
    grant_id       TEXT    NOT NULL PRIMARY KEY,
    code_hash      TEXT    NOT NULL UNIQUE,
    redeem_client  TEXT    NOT NULL,
    code_challenge TEXT,
    -- facts for asking the policy again, sealed under the master key to this grant; gone with the row
    sealed         BYTEA   NOT NULL,
    -- until when it can be used, and until when the row is kept so that a second use is noticed
    exp_us         BIGINT  NOT NULL,
    keep_until_us  BIGINT  NOT NULL,
    used_idx       BIGINT
);
CREATE INDEX handoff_code_keep ON handoff_code (keep_until_us);

-- A request that was answered: a retry is given the same grant's claims again. Only HMACs of key and body.
CREATE TABLE idempotency (
    key_tag  TEXT    NOT NULL PRIMARY KEY,
    body_tag TEXT    NOT NULL,
    grant_id TEXT    NOT NULL,
    exp_us   BIGINT  NOT NULL
);
CREATE INDEX idempotency_exp ON idempotency (exp_us);
