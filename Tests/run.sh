#!/usr/bin/env bash
# Installs what the tests need and runs all of them:
#
#   ./Tests/run.sh            everything
#   ./Tests/run.sh FILTER     only the Swift tests whose name matches
set -euo pipefail
cd "$(dirname "$0")/.."

./compose/install-packages.sh python3 python3-venv
swift build -c release --build-tests
if [ $# -gt 0 ]; then exec swift test -c release --skip-build --filter "$1"; fi

# One process per room: tests of arithmetic fill all cores, and would starve the tests that watch sockets and clocks.
for suite in Tests/*Tests; do
  suite=$(basename "$suite")
  echo "== $suite"
  timeout 900 swift test -c release --skip-build --filter "^$suite\."
done

Tests/Cluster/run.sh
Tests/Cluster/containers.sh "$(swift build -c release --show-bin-path)"
