#!/usr/bin/env bash
# Builds the executables of the cluster and nothing else, and prints the folder that holds them:
#
#   bin=$(compose/build-executables.sh [OPTION OF swift build ...])
#
# Installs missing system packages. Every module is compiled once; Tests/run.sh and a plain `swift build -c release` continue from it.
set -euo pipefail
cd "$(dirname "$0")/.."

./compose/install-packages.sh >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export QWEN_IMAGE_WITHOUT_TESTS=1
if [ -t 2 ]; then
  swift build -c release "$@" >&2
else
  swift build -c release "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2; exit 1; }
fi
swift build -c release "$@" --show-bin-path
