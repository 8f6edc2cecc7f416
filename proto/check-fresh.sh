#!/bin/sh
# Fails when the committed Shared/CWire is not what proto/generate.sh makes of the .proto files.
set -eu
proto=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$proto/generate.sh" "$work"
if ! diff -ru --exclude=module.modulemap "$proto/../Shared/CWire" "$work"; then
  echo "check-fresh.sh: Shared/CWire is stale: run proto/generate.sh and commit the result" >&2
  exit 1
fi
