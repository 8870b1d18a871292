-- Nobody adds an entry below the newest head: between two epochs, or where bodies were pruned, no key stands in the way.
-- Versions before this one take the trigger for somebody else's: no `expand_`, so that none starts beside it.
CREATE FUNCTION audit_entry_follows() RETURNS trigger LANGUAGE plpgsql
    SET search_path = public, pg_temp
AS $$
BEGIN
    IF (SELECT min(idx) FROM added) < (SELECT max(size) FROM audit_head) THEN
        RAISE EXCEPTION 'audit_entry is append-only' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER audit_entry_follows AFTER INSERT ON audit_entry
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION audit_entry_follows();
ALTER TABLE audit_entry ENABLE ALWAYS TRIGGER audit_entry_follows;
