-- The log's key over each head: whoever can write the database but lacks the key cannot continue or rewrite the log. NULL in
-- heads of versions before this one.
ALTER TABLE audit_head ADD COLUMN signature BLOB CHECK (length(signature) = 64);
