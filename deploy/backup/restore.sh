#!/bin/sh
# Restores both databases from the copies of backup.sh, into empty databases or over older data. The services must not run.
#
#   restore.sh DIRECTORY REGISTRY_URL TOKEN_URL
#
# Afterwards, before anything serves: registry-service migrate --new-epoch; token-service migrate --new-epoch
set -eu
directory=$1 registry=$2 token=$3
for database in registry token; do
  eval "url=\$$database"
  # One transaction: a copy that can't be read changes nothing.
  pg_restore --single-transaction --clean --if-exists --no-owner --no-privileges --dbname="$url" \
    "$directory/$database.dump"
done
