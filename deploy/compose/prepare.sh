#!/usr/bin/env bash
# Creates what compose.yaml reads, in the directory `secrets` beside it: keys, passwords, configuration files, and the
# gateway's configuration for a public host name. Keeps files that exist, so it can run again.
#
#   sudo compose/prepare.sh auth.example
#
# The certificate of the gateway is yours: put chain and key into `secrets/certificate.pem` and `secrets/private-key.pem`
# first. Without them this creates a pair for trying it, which no browser trusts.
set -euo pipefail
host=${1:?usage: prepare.sh HOST}
[[ $host =~ ^[a-z0-9.-]+$ ]] || { echo "prepare.sh: not a host name in lower case: $host" >&2; exit 1; }
cd "$(dirname "$0")/.."
umask 077
mkdir -p secrets

create() { # create NAME COMMAND...: writes the command's output, unless the file exists.
  [ -e "secrets/$1" ] && return
  "${@:2}" >"secrets/$1.new"
  mv "secrets/$1.new" "secrets/$1"
}
configuration() { printf 'database_url = "postgres://%s@127.0.0.1/%s"\n' "$1" "$1"; }
# What PGPASSFILE names, which a service reads again when the database refuses the password.
passfile() { printf '*:*:*:%s:%s\n' "$1" "$(cat "secrets/$1-password")"; }

for service in registry token; do
  create "$service.key" openssl rand 32
  create "$service-password" openssl rand -hex 32
  create "$service.toml" configuration "$service"
  create "$service-pgpass" passfile "$service"
done
create postgres-password openssl rand -hex 32
# Holds the token of token-service once it has one.
create registry-token true
if [ ! -e secrets/certificate.pem ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj "/CN=$host" \
    -addext "subjectAltName=DNS:$host" -addext basicConstraints=critical,CA:FALSE \
    -addext keyUsage=critical,digitalSignature -addext extendedKeyUsage=serverAuth \
    -keyout secrets/private-key.pem -out secrets/certificate.pem
fi

# The gateway listens for other machines, for this host name.
sed -e 's/address: 127.0.0.1, port_value: 8443 /address: "::", port_value: 8443, ipv4_compat: true /' \
  -e "s/domains: \[localhost\]/domains: [\"$host\"]/" \
  -e 's#proto_descriptor: accord.bin#proto_descriptor: /contract/accord.bin#' \
  envoy.yaml >secrets/envoy.yaml
cat public-certificate.yaml >secrets/public-certificate.yaml

# Readable by root and by group 65532, in which the containers run.
chown -R root:65532 secrets
chmod 0750 secrets
chmod 0440 secrets/*
