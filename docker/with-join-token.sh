#!/bin/sh
# Runs a command with the stack's token, by which workers and masters know each other: what
# HARNESS_JOIN_TOKEN says, or one that the first to come draws for all, into a volume of theirs.
set -eu
if [ -z "${HARNESS_JOIN_TOKEN:-}" ]; then
  if ! [ -s /join/token ]; then
    drawn=$(mktemp /join/.drawn-XXXXXX)
    head -c 24 /dev/urandom | base64 >"$drawn"
    chmod 0444 "$drawn"
    ln "$drawn" /join/token 2>/dev/null || true # another was faster
    rm "$drawn"
  fi
  HARNESS_JOIN_TOKEN=$(cat /join/token)
fi
export HARNESS_JOIN_TOKEN
exec "$@"
