#!/usr/bin/env bash
# Makes what the manifests need and no repository may hold: CURVE keys, an API key, a database password.
#
#   make-secrets.sh DIRECTORY [NAMESPACE] | kubectl apply -f -
#
# DIRECTORY keeps them as files that only their owner may read, and is what to back up. What is there already is kept, so a second run
# prints the same objects. A new API key is printed once, on standard error. Needs qwen-image and kubectl.
set -euo pipefail
case "${1:-}" in '' | -*) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '$d' >&2; exit 64 ;; esac
directory=$1
namespace=${2:-qwen-image}
umask 077
mkdir -p "$directory"
qwen-image keygen "$directory/keys" >&2
[ -s "$directory/api-keys" ] || qwen-image api-key default >"$directory/api-keys"
[ -s "$directory/postgresql-password" ] || od -An -vtx1 -N24 /dev/urandom | tr -d ' \n' >"$directory/postgresql-password"

object() {
  kubectl create "$@" --namespace "$namespace" --dry-run=client --output yaml
  echo ---
}

object namespace "$namespace"
object secret generic gateway-keys --from-file="$directory/keys/gateway/gateway.secret"
object configmap worker-public-keys --from-file="$directory/keys/gateway/workers"
object secret generic worker-keys --from-file="$directory/keys/worker/worker.secret" --from-file="$directory/keys/worker/gateway.public"
object secret generic api-keys --from-file="$directory/api-keys"
object secret generic postgresql --from-file=password="$directory/postgresql-password"
