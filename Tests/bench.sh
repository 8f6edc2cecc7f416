#!/usr/bin/env bash
# Measures this project against the reference (torch, diffusers, transformers on the CPU), side by side:
#
#   ./Tests/bench.sh [--threads N] [--rounds N] [--only GROUP,...]     groups: see Tests/Benchmarks/reference/compare.py
#
# Prints Markdown; leaves .build/benchmarks/results.{md,json}. The reference comes from PyPI into .build/benchmarks/venv, unless
# QWEN_IMAGE_REFERENCE_PYTHON names a Python that has it. Everything takes about half an hour and 14 GB of memory.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$PWD/.build/benchmarks
mkdir -p "$scratch"
python=${QWEN_IMAGE_REFERENCE_PYTHON:-}
if [ -z "$python" ]; then
  ./compose/install-packages.sh python3 python3-venv
  python=$scratch/venv/bin/python
  [ -x "$python" ] || python3 -m venv "$scratch/venv"
  if ! "$python" -c 'import torch, diffusers, transformers' 2>/dev/null; then
    "$python" -m pip install --quiet --disable-pip-version-check --index-url https://download.pytorch.org/whl/cpu torch ||
      "$python" -m pip install --quiet --disable-pip-version-check torch
    "$python" -m pip install --quiet --disable-pip-version-check diffusers transformers accelerate safetensors pillow numpy
  fi
else
  ./compose/install-packages.sh
fi
swift build -c release
swift build -c release --package-path Tests/Benchmarks
"$python" Tests/Benchmarks/reference/compare.py --binary "$(swift build -c release --package-path Tests/Benchmarks --show-bin-path)/ModelBenchmark" \
  --products "$(swift build -c release --show-bin-path)" --scratch "$scratch" --out "$scratch/results.json" "$@" | tee "$scratch/results.md"
