#!/bin/sh
# Random passwords and keys for compose.yaml, as files in ./secrets (or the folder given). What is
# there already is kept. The folder is this user's alone; the files are readable, because the
# container's user is another one and compose mounts them as they are. (So the service warns of
# bootstrap-key's mode: it sees the file and not the folder.)
set -eu
folder=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$folder"

make() { # NAME COMMAND…: the command's output, once
  if [ ! -s "$folder/$1" ]; then
    name=$1
    shift
    "$@" > "$folder/$name.new"
    chmod 0444 "$folder/$name.new"
    mv "$folder/$name.new" "$folder/$name"
  fi
}

make postgres-password openssl rand -hex 32
make database-url printf 'postgresql+psycopg://resight:%s@postgres/resight\n' \
  "$(cat "$folder/postgres-password")"
make bootstrap-key openssl rand -hex 32
make audit-signing-key openssl genpkey -algorithm ed25519
make grafana-password openssl rand -hex 32
echo "made in $folder; keep a copy of audit-signing-key elsewhere"
