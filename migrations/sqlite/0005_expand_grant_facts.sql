-- What the policy is asked again with when a token is verified online (`[policy] on_verify`): one row a grant, sealed
-- under the master key to it, gone when it ends. Nothing stands here where that is off.
CREATE TABLE grant_facts (
    grant_id      TEXT    NOT NULL PRIMARY KEY,
    sealed        BLOB    NOT NULL,
    keep_until_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX grant_facts_keep ON grant_facts (keep_until_us);
