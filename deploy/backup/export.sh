#!/bin/sh
# Appends what is new in the audit record of a database to a file, and its newest checkpoint to another: what a restore needs to
# know that the copies don't. For a timer, every minute, on a machine other than the database's.
#
#   export.sh FILE
#
# ACCORD_AUDIT_DATABASE_URL is the URL of the service's database. The checkpoints are in FILE.checkpoints.
set -eu
umask 077
file=$1
touch "$file"
# The first export of a large record outlasts the timer.
exec 9>"$file.lock"
flock -n 9 || exit 0
# A line without an end was cut, as by a full disk, and is exported again.
[ -z "$(tail -c 1 "$file")" ] || sed -i '$d' "$file"
last=$(tail -n 1 "$file" | sed -n 's/^{"position":"\([0-9/]*\)".*/\1/p')
accord audit export ${last:+--after "$last"} >>"$file"
accord audit checkpoint >>"$file.checkpoints"
