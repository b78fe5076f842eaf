#!/bin/sh
# `resight …` once a day at NIGHT_AT (HH:MM, UTC), ended after NIGHT_LIMIT. Exits on SIGTERM, and
# ends a night that is running the same way. A night that fails or is refused is told in the log and
# by the service's metrics; the next one comes all the same.
set -u
: "${NIGHT_AT:?HH:MM}" "${NIGHT_LIMIT:?such as 5h}"
running=
trap 'if [ -n "$running" ]; then kill -TERM "$running"; wait "$running"; fi 2>/dev/null; exit 0' TERM INT

told() { printf '{"time":"%s","logger":"night","message":"%s"}\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$1" >&2; }

background() { # so that the trap is not kept waiting
  "$@" &
  running=$!
  wait "$running"
  code=$?
  running=
  return "$code"
}

while true; do
  now=$(date -u +%s)
  next=$(date -u -d "today $NIGHT_AT" +%s) || exit 2
  if [ "$next" -le "$now" ]; then
    next=$(date -u -d "tomorrow $NIGHT_AT" +%s)
  fi
  told "next night at $(date -u -d "@$next" +%Y-%m-%dT%H:%M:%SZ)"
  background sleep "$((next - now))"
  told "begins"
  background timeout --signal=TERM --kill-after=60 "$NIGHT_LIMIT" resight "$@"
  told "ended with exit code $?"
done
