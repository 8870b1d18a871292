-- The final data layout of the issuance log (audit-log.md §2) and the tables the service keeps beside it.
-- Append-only is held twice: the service role gets SELECT and INSERT only (granted by `init`, as it knows
-- the role's name), and ENABLE ALWAYS statement triggers stop owner and superuser accidents too, MERGE and
-- session_replication_role included.
--
-- idx = (epoch - 1) * 2^40 + index in the epoch's tree, so one key orders everything ever recorded.

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE client (
    id             TEXT   NOT NULL PRIMARY KEY,
    row            TEXT   NOT NULL CHECK (row::json IS NOT NULL),
    mac            BYTEA  NOT NULL,
    created_at_us  BIGINT NOT NULL,
    -- NULL while the client may call; checked under the log's lock, so it stands outside the JSON
    disabled_at_us BIGINT,
    version        BIGINT NOT NULL
);

CREATE TABLE signing_key (
    kid             TEXT   NOT NULL PRIMARY KEY,
    purpose         TEXT   NOT NULL,
    alg             TEXT   NOT NULL,
    public_jwk      TEXT   NOT NULL,
    sealed          BYTEA  NOT NULL,
    state           TEXT   NOT NULL,
    created_at_us   BIGINT NOT NULL,
    activated_at_us BIGINT,
    retired_at_us   BIGINT,
    mac             BYTEA  NOT NULL
);

CREATE TABLE audit_entry (
    idx  BIGINT NOT NULL PRIMARY KEY CHECK (idx >= 0),
    t_us BIGINT NOT NULL,
    leaf BYTEA  NOT NULL CHECK (octet_length(leaf) = 32),
    body BYTEA  NOT NULL CHECK (octet_length(body) BETWEEN 2 AND 65535)
);

CREATE TABLE audit_head (
    size     BIGINT NOT NULL PRIMARY KEY,
    -- the fork guard: two appends cannot both continue the same head
    prev     BIGINT NOT NULL UNIQUE,
    root     BYTEA  NOT NULL CHECK (octet_length(root) = 32),
    frontier BYTEA  NOT NULL CHECK (octet_length(frontier) % 32 = 0),
    t_us     BIGINT NOT NULL,
    replica  TEXT   NOT NULL
);

CREATE TABLE audit_subtree (
    level BIGINT NOT NULL CHECK (level BETWEEN 1 AND 5),
    n     BIGINT NOT NULL CHECK (n >= 0),
    hash  BYTEA  NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (level, n)
);

-- The only erasable table. Columns beside the disclosures exist to be searched.
CREATE TABLE audit_private (
    idx         BIGINT NOT NULL PRIMARY KEY,
    disclosures TEXT   NOT NULL CHECK (disclosures::json IS NOT NULL),
    actor       TEXT,
    actor_iss   TEXT,
    subject     TEXT,
    ticket      TEXT
);
-- People's ids are random to an index: keyed by (4096 entries, value), inserts stay within a few hot pages
-- whatever the size of the log; readers walk the buckets from the newest.
CREATE INDEX audit_private_actor   ON audit_private ((idx >> 12), actor)   WHERE actor   IS NOT NULL;
CREATE INDEX audit_private_subject ON audit_private ((idx >> 12), subject) WHERE subject IS NOT NULL;
CREATE INDEX audit_private_ticket  ON audit_private ((idx >> 12), ticket)  WHERE ticket  IS NOT NULL;

CREATE TABLE audit_index (
    idx      BIGINT NOT NULL PRIMARY KEY,
    -- of the entry that released a token; ids are time-ordered, so this index grows at its end
    jti      TEXT UNIQUE,
    -- the first eight bytes of signed_sha256, big-endian
    signed8  BIGINT,
    typ      TEXT NOT NULL,
    decision TEXT,
    client   TEXT,
    rule     TEXT,
    grant_id TEXT
);
CREATE INDEX audit_index_signed   ON audit_index ((idx >> 12), signed8)  WHERE signed8  IS NOT NULL;
CREATE INDEX audit_index_client   ON audit_index ((idx >> 12), client)   WHERE client   IS NOT NULL;
CREATE INDEX audit_index_rule     ON audit_index ((idx >> 12), rule)     WHERE rule     IS NOT NULL;
CREATE INDEX audit_index_typ      ON audit_index ((idx >> 12), typ);
CREATE INDEX audit_index_decision ON audit_index ((idx >> 12), decision) WHERE decision IS NOT NULL;
CREATE INDEX audit_index_grant    ON audit_index (grant_id)              WHERE grant_id IS NOT NULL;

CREATE TABLE audit_pruned_tile (
    n      BIGINT NOT NULL PRIMARY KEY,
    hashes BYTEA  NOT NULL CHECK (octet_length(hashes) = 8192)
);

CREATE TABLE audit_cosig (
    size    BIGINT NOT NULL,
    witness TEXT   NOT NULL,
    line    TEXT   NOT NULL,
    PRIMARY KEY (size, witness)
);

CREATE TABLE actor_grant (
    id             TEXT   NOT NULL PRIMARY KEY,
    -- the entry that issued it; actor and subject stand in audit_private under the same idx
    idx            BIGINT NOT NULL UNIQUE,
    jti            TEXT   NOT NULL,
    client         TEXT   NOT NULL,
    kid            TEXT   NOT NULL,
    aud            TEXT   NOT NULL CHECK (aud::json IS NOT NULL),
    scope          TEXT   NOT NULL,
    assurance      TEXT   NOT NULL,
    iat_us         BIGINT NOT NULL,
    exp_us         BIGINT NOT NULL,
    created_at_us  BIGINT NOT NULL,
    updated_at_us  BIGINT NOT NULL,
    accepted_at_us BIGINT,
    revoked_at_us  BIGINT,
    -- the grant this one was delegated from
    parent         TEXT
);
CREATE INDEX actor_grant_client   ON actor_grant (client, idx);
CREATE INDEX actor_grant_revoked  ON actor_grant (idx) WHERE revoked_at_us  IS NOT NULL;
CREATE INDEX actor_grant_accepted ON actor_grant (idx) WHERE accepted_at_us IS NOT NULL;
CREATE INDEX actor_grant_parent   ON actor_grant (parent) WHERE parent IS NOT NULL;

-- append-only -------------------------------------------------------------------------------------

CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

-- A head continues the last one (or opens an epoch at a multiple of 2^40), and every entry it seals is there.
-- The settings keep the count on the primary key: without statistics the planner took a parallel scan of the
-- whole table, which made three replicas five times slower than one.
CREATE FUNCTION audit_head_continues() RETURNS trigger LANGUAGE plpgsql
    SET search_path = public, pg_temp
    SET enable_seqscan = off
    SET max_parallel_workers_per_gather = 0
AS $$
DECLARE
    last BIGINT := COALESCE((SELECT max(size) FROM audit_head), 0);
BEGIN
    IF NEW.size <= NEW.prev
        OR NOT (NEW.prev = last OR (NEW.prev % 1099511627776 = 0 AND NEW.prev > last))
        OR (SELECT count(*) FROM audit_entry WHERE idx >= NEW.prev) <> NEW.size - NEW.prev
        OR (SELECT max(idx) FROM audit_entry) <> NEW.size - 1
    THEN
        RAISE EXCEPTION 'audit_head must continue the log' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER audit_head_contiguous BEFORE INSERT ON audit_head
    FOR EACH ROW EXECUTE FUNCTION audit_head_continues();
ALTER TABLE audit_head ENABLE ALWAYS TRIGGER audit_head_contiguous;

CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
ALTER TABLE audit_entry ENABLE ALWAYS TRIGGER audit_entry_append_only;
CREATE TRIGGER audit_head_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_head
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
ALTER TABLE audit_head ENABLE ALWAYS TRIGGER audit_head_append_only;
CREATE TRIGGER audit_subtree_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_subtree
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
ALTER TABLE audit_subtree ENABLE ALWAYS TRIGGER audit_subtree_append_only;
CREATE TRIGGER audit_private_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_private
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
ALTER TABLE audit_private ENABLE ALWAYS TRIGGER audit_private_append_only;
CREATE TRIGGER audit_index_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_index
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
ALTER TABLE audit_index ENABLE ALWAYS TRIGGER audit_index_append_only;
CREATE TRIGGER audit_pruned_tile_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_pruned_tile
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
ALTER TABLE audit_pruned_tile ENABLE ALWAYS TRIGGER audit_pruned_tile_append_only;
CREATE TRIGGER audit_cosig_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_cosig
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
ALTER TABLE audit_cosig ENABLE ALWAYS TRIGGER audit_cosig_append_only;
