#!/usr/bin/env bash
# Runs the cluster as its users do: real processes, real keys, OpenAI's own Python client. Needs the release build.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=.build/cluster-venv
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import openai' 2>/dev/null || "$venv/bin/pip" install --quiet --disable-pip-version-check openai
"$venv/bin/python" Tests/Cluster/cluster_test.py "${1:-.build/release}"
exec "$venv/bin/python" Tests/Cluster/faults_test.py "${1:-.build/release}"
