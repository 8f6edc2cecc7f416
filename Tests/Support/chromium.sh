#!/usr/bin/env bash
# Prints the path of a Chromium for the test of the page: what CHROMIUM names, else Debian's, installed when it is missing, else (an empty
# line) the one that Playwright has downloaded for itself.
#
#   CHROMIUM=$(Tests/Support/chromium.sh PYTHON)       PYTHON has the package playwright
set -euo pipefail
cd "$(dirname "$0")/../.."

works() { [ -n "$1" ] && timeout 60 "$1" --version >/dev/null 2>&1; }
found=${CHROMIUM:-$(command -v chromium || true)}
if ! works "$found" && [ -z "${CHROMIUM:-}" ]; then
  # On distributions without the package, or whose package is a pointer to another store, Playwright brings its own.
  if ./compose/install-packages.sh --only chromium >&2; then found=$(command -v chromium || true); fi
  if ! works "$found"; then
    found=
    "$1" -m playwright install --with-deps chromium >&2
  fi
fi
echo "$found"
