#!/usr/bin/env bash
# Prints the path of a Python that has the packages of a requirements file, in a virtual environment below .build:
#
#   python=$(Tests/Support/python.sh [REQUIREMENTS])        default: Tests/requirements.txt
#
# Makes the environment when it is missing or the file has changed. Instead of the default, QWEN_IMAGE_TEST_PYTHON may name a Python that
# has the packages.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ $# -eq 0 ] && [ -n "${QWEN_IMAGE_TEST_PYTHON:-}" ]; then echo "$QWEN_IMAGE_TEST_PYTHON"; exit; fi
requirements=${1:-Tests/requirements.txt}
environment=$PWD/.build/python/$(dirname "$requirements" | tr / -)
./compose/install-packages.sh --only python3 python3-venv >&2
if ! cmp -s "$requirements" "$environment/requirements.txt"; then
  echo "installing the Python packages of $requirements" >&2
  rm -rf "$environment"
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" >&2
  cp "$requirements" "$environment/requirements.txt"
fi
echo "$environment/bin/python"
