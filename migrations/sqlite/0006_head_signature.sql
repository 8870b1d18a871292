-- The log's key over each head: whoever can write the database but lacks the key cannot continue or rewrite the log. NULL in
-- heads of versions before this one, which this one does not continue: no `expand_`, so that none runs beside it.
ALTER TABLE audit_head ADD COLUMN signature BLOB CHECK (length(signature) = 64);
