#!/usr/bin/env bash
# Installs what the tests need and runs all of them:
#
#   ./Tests/run.sh            everything
#   ./Tests/run.sh FILTER     only the Swift tests whose name matches
set -euo pipefail
cd "$(dirname "$0")/.."

./compose/install-packages.sh python3 python3-venv
swift build -c release --build-tests
swift test -c release --skip-build ${1:+--filter "$1"}
[ $# -eq 0 ] || exit 0

Tests/Cluster/run.sh
Tests/Cluster/containers.sh
