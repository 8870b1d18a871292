-- Requests that wait for a colleague, and grants that did without one in an emergency: sparse, beside
-- actor_grant, which stays as it is. Who approved stands in the log's `approve` entry, not here.
CREATE TABLE approval (
    grant_id         TEXT    NOT NULL PRIMARY KEY,
    -- waiting | approved | refused; released: its token was signed; waived: glass was broken
    state            TEXT    NOT NULL CHECK (state IN ('waiting', 'approved', 'refused', 'released', 'waived')),
    -- when the request lapses; the grant's own end until the token is signed
    lapses_us        INTEGER NOT NULL,
    -- the lifetime asked to be approved
    lifetime_seconds INTEGER NOT NULL,
    -- stands for the asker as the directory knows him, so that he is recognised under another login
    asker_tag        TEXT,
    -- the entry that approved or refused
    decided_idx      INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX approval_open ON approval (lapses_us) WHERE state IN ('waiting', 'approved');
