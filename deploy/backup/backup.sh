#!/bin/sh
# Copies both databases while the services serve.
#
#   backup.sh REGISTRY_URL TOKEN_URL DIRECTORY
#
# The URLs are those of PostgreSQL; a password belongs into PGPASSFILE. token-service's database is copied first: a copy of the
# registry that is newer knows every client of a grant, and every suspension. The master keys are not in the copies.
set -eu
umask 077
registry=$1 token=$2 directory=$3
mkdir -p "$directory"
for database in token registry; do
  eval "url=\$$database"
  # A copy that is not complete never has the name of one that is.
  pg_dump --format=custom --no-owner --no-privileges --file="$directory/$database.partial" --dbname="$url"
  mv "$directory/$database.partial" "$directory/$database.dump"
done
