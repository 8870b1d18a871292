-- The final data layout of the issuance log (audit-log.md §2) and the tables the service keeps beside it.
-- Append-only is held by triggers: UPDATE, DELETE, and INSERT of a key that exists, because
-- INSERT OR REPLACE passes a DELETE trigger unseen. The file's owner can drop them; `audit verify` and
-- checkpoints held elsewhere are for him.
--
-- idx = (epoch - 1) * 2^40 + index in the epoch's tree, so one key orders everything ever recorded.

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE client (
    id             TEXT    NOT NULL PRIMARY KEY,
    row            TEXT    NOT NULL CHECK (json_valid(row)),
    mac            BLOB    NOT NULL,
    created_at_us  INTEGER NOT NULL,
    -- NULL while the client may call; checked under the log's lock, so it stands outside the JSON
    disabled_at_us INTEGER,
    version        INTEGER NOT NULL
) STRICT;

CREATE TABLE signing_key (
    kid             TEXT    NOT NULL PRIMARY KEY,
    purpose         TEXT    NOT NULL,
    alg             TEXT    NOT NULL,
    public_jwk      TEXT    NOT NULL,
    sealed          BLOB    NOT NULL,
    state           TEXT    NOT NULL,
    created_at_us   INTEGER NOT NULL,
    activated_at_us INTEGER,
    retired_at_us   INTEGER,
    mac             BLOB    NOT NULL
) STRICT;

CREATE TABLE audit_entry (
    idx  INTEGER NOT NULL PRIMARY KEY CHECK (idx >= 0),
    t_us INTEGER NOT NULL,
    leaf BLOB    NOT NULL CHECK (length(leaf) = 32),
    body BLOB    NOT NULL CHECK (length(body) BETWEEN 2 AND 65535)
) STRICT;

CREATE TABLE audit_head (
    size     INTEGER NOT NULL PRIMARY KEY,
    -- the fork guard: two appends cannot both continue the same head
    prev     INTEGER NOT NULL UNIQUE,
    root     BLOB    NOT NULL CHECK (length(root) = 32),
    frontier BLOB    NOT NULL CHECK (length(frontier) % 32 = 0),
    t_us     INTEGER NOT NULL,
    replica  TEXT    NOT NULL
) STRICT;

CREATE TABLE audit_subtree (
    level INTEGER NOT NULL CHECK (level BETWEEN 1 AND 5),
    n     INTEGER NOT NULL CHECK (n >= 0),
    hash  BLOB    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, n)
) STRICT, WITHOUT ROWID;

-- The only erasable table. Columns beside the disclosures exist to be searched.
CREATE TABLE audit_private (
    idx         INTEGER NOT NULL PRIMARY KEY,
    disclosures TEXT    NOT NULL CHECK (json_valid(disclosures)),
    actor       TEXT,
    actor_iss   TEXT,
    subject     TEXT,
    ticket      TEXT
) STRICT;
-- People's ids are random to an index: keyed by (4096 entries, value), inserts stay within a few hot pages
-- whatever the size of the log; readers walk the buckets from the newest.
CREATE INDEX audit_private_actor   ON audit_private ((idx >> 12), actor)   WHERE actor   IS NOT NULL;
CREATE INDEX audit_private_subject ON audit_private ((idx >> 12), subject) WHERE subject IS NOT NULL;
CREATE INDEX audit_private_ticket  ON audit_private ((idx >> 12), ticket)  WHERE ticket  IS NOT NULL;

CREATE TABLE audit_index (
    idx      INTEGER NOT NULL PRIMARY KEY,
    -- of the entry that released a token; ids are time-ordered, so this index grows at its end
    jti      TEXT UNIQUE,
    -- the first eight bytes of signed_sha256, big-endian
    signed8  INTEGER,
    typ      TEXT NOT NULL,
    decision TEXT,
    client   TEXT,
    rule     TEXT,
    grant_id TEXT
) STRICT;
CREATE INDEX audit_index_signed   ON audit_index ((idx >> 12), signed8)  WHERE signed8  IS NOT NULL;
CREATE INDEX audit_index_client   ON audit_index ((idx >> 12), client)   WHERE client   IS NOT NULL;
CREATE INDEX audit_index_rule     ON audit_index ((idx >> 12), rule)     WHERE rule     IS NOT NULL;
CREATE INDEX audit_index_typ      ON audit_index ((idx >> 12), typ);
CREATE INDEX audit_index_decision ON audit_index ((idx >> 12), decision) WHERE decision IS NOT NULL;
CREATE INDEX audit_index_grant    ON audit_index (grant_id)              WHERE grant_id IS NOT NULL;

CREATE TABLE audit_pruned_tile (
    n      INTEGER NOT NULL PRIMARY KEY,
    hashes BLOB    NOT NULL CHECK (length(hashes) = 8192)
) STRICT;

CREATE TABLE audit_cosig (
    size    INTEGER NOT NULL,
    witness TEXT    NOT NULL,
    line    TEXT    NOT NULL,
    PRIMARY KEY (size, witness)
) STRICT, WITHOUT ROWID;

CREATE TABLE actor_grant (
    id             TEXT    NOT NULL PRIMARY KEY,
    -- the entry that issued it; actor and subject stand in audit_private under the same idx
    idx            INTEGER NOT NULL UNIQUE,
    jti            TEXT    NOT NULL,
    client         TEXT    NOT NULL,
    kid            TEXT    NOT NULL,
    aud            TEXT    NOT NULL CHECK (json_valid(aud)),
    scope          TEXT    NOT NULL,
    assurance      TEXT    NOT NULL,
    iat_us         INTEGER NOT NULL,
    exp_us         INTEGER NOT NULL,
    created_at_us  INTEGER NOT NULL,
    updated_at_us  INTEGER NOT NULL,
    accepted_at_us INTEGER,
    revoked_at_us  INTEGER,
    -- the grant this one was delegated from
    parent         TEXT
) STRICT;
CREATE INDEX actor_grant_client   ON actor_grant (client, idx);
CREATE INDEX actor_grant_revoked  ON actor_grant (idx) WHERE revoked_at_us  IS NOT NULL;
CREATE INDEX actor_grant_accepted ON actor_grant (idx) WHERE accepted_at_us IS NOT NULL;
CREATE INDEX actor_grant_parent   ON actor_grant (parent) WHERE parent IS NOT NULL;

-- append-only -------------------------------------------------------------------------------------

CREATE TRIGGER audit_entry_no_update BEFORE UPDATE ON audit_entry
BEGIN SELECT RAISE(ABORT, 'audit_entry is append-only'); END;
CREATE TRIGGER audit_entry_no_delete BEFORE DELETE ON audit_entry
BEGIN SELECT RAISE(ABORT, 'audit_entry is append-only'); END;
CREATE TRIGGER audit_entry_no_replace BEFORE INSERT ON audit_entry
WHEN EXISTS (SELECT 1 FROM audit_entry WHERE idx = NEW.idx)
  OR NEW.idx < COALESCE((SELECT max(size) FROM audit_head), 0)
BEGIN SELECT RAISE(ABORT, 'audit_entry is append-only'); END;

CREATE TRIGGER audit_head_no_update BEFORE UPDATE ON audit_head
BEGIN SELECT RAISE(ABORT, 'audit_head is append-only'); END;
CREATE TRIGGER audit_head_no_delete BEFORE DELETE ON audit_head
BEGIN SELECT RAISE(ABORT, 'audit_head is append-only'); END;
CREATE TRIGGER audit_head_no_replace BEFORE INSERT ON audit_head
WHEN EXISTS (SELECT 1 FROM audit_head WHERE size = NEW.size OR prev = NEW.prev)
BEGIN SELECT RAISE(ABORT, 'audit_head is append-only'); END;
-- A head continues the last one (or opens an epoch at a multiple of 2^40), and every entry it seals is there.
CREATE TRIGGER audit_head_contiguous BEFORE INSERT ON audit_head
WHEN NEW.size <= NEW.prev
  OR NOT (NEW.prev = COALESCE((SELECT max(size) FROM audit_head), 0)
          OR (NEW.prev % 1099511627776 = 0 AND NEW.prev > COALESCE((SELECT max(size) FROM audit_head), 0)))
  OR (SELECT count(*) FROM audit_entry WHERE idx >= NEW.prev) <> NEW.size - NEW.prev
  OR (SELECT max(idx) FROM audit_entry) <> NEW.size - 1
BEGIN SELECT RAISE(ABORT, 'audit_head must continue the log'); END;

CREATE TRIGGER audit_subtree_no_update BEFORE UPDATE ON audit_subtree
BEGIN SELECT RAISE(ABORT, 'audit_subtree is append-only'); END;
CREATE TRIGGER audit_subtree_no_delete BEFORE DELETE ON audit_subtree
BEGIN SELECT RAISE(ABORT, 'audit_subtree is append-only'); END;
CREATE TRIGGER audit_subtree_no_replace BEFORE INSERT ON audit_subtree
WHEN EXISTS (SELECT 1 FROM audit_subtree WHERE level = NEW.level AND n = NEW.n)
BEGIN SELECT RAISE(ABORT, 'audit_subtree is append-only'); END;

CREATE TRIGGER audit_private_no_update BEFORE UPDATE ON audit_private
BEGIN SELECT RAISE(ABORT, 'audit_private is append-only'); END;
CREATE TRIGGER audit_private_no_delete BEFORE DELETE ON audit_private
BEGIN SELECT RAISE(ABORT, 'audit_private is append-only: use audit erase'); END;
CREATE TRIGGER audit_private_no_replace BEFORE INSERT ON audit_private
WHEN EXISTS (SELECT 1 FROM audit_private WHERE idx = NEW.idx)
BEGIN SELECT RAISE(ABORT, 'audit_private is append-only'); END;

CREATE TRIGGER audit_index_no_update BEFORE UPDATE ON audit_index
BEGIN SELECT RAISE(ABORT, 'audit_index is append-only'); END;
CREATE TRIGGER audit_index_no_delete BEFORE DELETE ON audit_index
BEGIN SELECT RAISE(ABORT, 'audit_index is append-only'); END;
CREATE TRIGGER audit_index_no_replace BEFORE INSERT ON audit_index
WHEN EXISTS (SELECT 1 FROM audit_index WHERE idx = NEW.idx)
  OR (NEW.jti IS NOT NULL AND EXISTS (SELECT 1 FROM audit_index WHERE jti = NEW.jti))
BEGIN SELECT RAISE(ABORT, 'audit_index is append-only'); END;

CREATE TRIGGER audit_pruned_tile_no_update BEFORE UPDATE ON audit_pruned_tile
BEGIN SELECT RAISE(ABORT, 'audit_pruned_tile is append-only'); END;
CREATE TRIGGER audit_pruned_tile_no_delete BEFORE DELETE ON audit_pruned_tile
BEGIN SELECT RAISE(ABORT, 'audit_pruned_tile is append-only'); END;
CREATE TRIGGER audit_pruned_tile_no_replace BEFORE INSERT ON audit_pruned_tile
WHEN EXISTS (SELECT 1 FROM audit_pruned_tile WHERE n = NEW.n)
BEGIN SELECT RAISE(ABORT, 'audit_pruned_tile is append-only'); END;

CREATE TRIGGER audit_cosig_no_update BEFORE UPDATE ON audit_cosig
BEGIN SELECT RAISE(ABORT, 'audit_cosig is append-only'); END;
CREATE TRIGGER audit_cosig_no_delete BEFORE DELETE ON audit_cosig
BEGIN SELECT RAISE(ABORT, 'audit_cosig is append-only'); END;
CREATE TRIGGER audit_cosig_no_replace BEFORE INSERT ON audit_cosig
WHEN EXISTS (SELECT 1 FROM audit_cosig WHERE size = NEW.size AND witness = NEW.witness)
BEGIN SELECT RAISE(ABORT, 'audit_cosig is append-only'); END;
