#!/usr/bin/env bash
# Makes the secrets and configs that stack.yaml names, in the swarm that `docker` reaches: CURVE keys and an API key.
#
#   make-secrets.sh DIRECTORY [SUFFIX]
#
# DIRECTORY keeps them as files that only their owner may read, and is what to back up. Names end in SUFFIX, such as -2, when keys are
# rotated: Swarm's secrets do not change. A new API key is printed once, on standard error. Needs qwen-image on this machine.
set -euo pipefail
case "${1:-}" in '' | -*) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '$d' >&2; exit 64 ;; esac
directory=$1
suffix=${2:-}
umask 077
mkdir -p "$directory"
qwen-image keygen "$directory/keys" >&2
[ -s "$directory/api-keys" ] || qwen-image api-key default >"$directory/api-keys"

# object KIND NAME FILE: made unless it is there.
object() {
  docker "$1" inspect "qwen-image-$2$suffix" >/dev/null 2>&1 || docker "$1" create "qwen-image-$2$suffix" "$3" >/dev/null
}
object secret gateway-secret "$directory/keys/gateway/gateway.secret"
object secret worker-secret "$directory/keys/worker/worker.secret"
object secret api-keys "$directory/api-keys"
object config gateway-public "$directory/keys/worker/gateway.public"
object config worker-public "$directory/keys/gateway/workers/worker.public"
