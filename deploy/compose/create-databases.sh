#!/usr/bin/env bash
# Creates both databases, each with a role that owns it alone. The image of PostgreSQL runs this once, on an empty
# volume, as its superuser.
set -euo pipefail

for service in registry token; do
  # psql reads the password itself, so that no argument list holds it.
  psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres \
    --set=service="$service" --set=file="${SECRETS:-/run/secrets}/$service-password" <<'SQL'
\set password `cat :file`
CREATE ROLE :"service" LOGIN PASSWORD :'password';
CREATE DATABASE :"service" OWNER :"service";
REVOKE ALL ON DATABASE :"service" FROM PUBLIC;
SQL
done
