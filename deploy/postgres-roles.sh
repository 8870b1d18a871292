#!/bin/sh
# Makes the service role beside the owner: it may log in and nothing more until `stagedoor init` grants it.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    -v password="$(cat /run/secrets/service-password)" <<'SQL'
CREATE ROLE stagedoor LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT PASSWORD :'password';
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
SQL
