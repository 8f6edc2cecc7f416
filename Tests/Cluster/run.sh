#!/usr/bin/env bash
# Runs the cluster as its users do: real processes, real keys, OpenAI's own Python client. Needs the release build.
set -euo pipefail
cd "$(dirname "$0")/../.."
binaries=${1:-.build/release}
venv=.build/cluster-venv
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import openai, numpy, PIL' 2>/dev/null ||
  "$venv/bin/pip" install --quiet --disable-pip-version-check openai numpy pillow
"$venv/bin/python" Tests/NanoModel/reader_test.py
"$venv/bin/python" Tests/Cluster/cluster_test.py "$binaries"
"$venv/bin/python" Tests/Cluster/prompt_following_test.py "$binaries"
if [ -n "${CHROMIUM:-$(command -v chromium || true)}" ]; then
  "$venv/bin/python" -c 'import playwright' 2>/dev/null || "$venv/bin/pip" install --quiet --disable-pip-version-check playwright
  "$venv/bin/python" Tests/Cluster/page_test.py "$binaries"
else
  echo "page_test.py is left out: there is no chromium (apt-get install chromium, or set CHROMIUM)"
fi
exec "$venv/bin/python" Tests/Cluster/faults_test.py "$binaries"
