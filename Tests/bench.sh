#!/usr/bin/env bash
# Measures this project against the reference (torch, diffusers, transformers on the CPU), side by side:
#
#   ./Tests/bench.sh [--threads N] [--rounds N] [--only GROUP,...]     groups: see Tests/Benchmarks/reference/compare.py
#
# Prints Markdown; leaves .build/benchmarks/results.{md,json}. The reference comes from PyPI (Tests/NanoModel/requirements.txt),
# unless QWEN_IMAGE_REFERENCE_PYTHON names a Python that has it. Everything takes about an hour and 16 GB of memory.
set -euo pipefail
cd "$(dirname "$0")/.."

case " $* " in *" --help "* | *" -h "*) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;; esac
scratch=$PWD/.build/benchmarks
mkdir -p "$scratch"
./compose/install-packages.sh python3
compare=Tests/Benchmarks/reference/compare.py
# A mistyped group is found before half an hour of building.
python3 "$compare" --check --binary - --products - --scratch - "$@"
python=${QWEN_IMAGE_REFERENCE_PYTHON:-}
if [ -z "$python" ]; then
  # There, torch comes without CUDA.
  requirements=Tests/NanoModel/requirements.txt
  # Groups that need more packages; each makes an environment of its own packages only.
  case "$*" in
  *openvino*sdcpp* | *sdcpp*openvino*) echo "bench.sh: openvino and sdcpp need a run each" >&2; exit 2 ;;
  *openvino*) requirements=Tests/Benchmarks/reference/requirements-openvino.txt ;;
  *sdcpp*)
    requirements=Tests/Benchmarks/reference/requirements-sdcpp.txt
    ./compose/install-packages.sh --only g++
    # ggml's faster matrix products, which are off by default: half the time.
    export CMAKE_ARGS=-DGGML_LLAMAFILE=ON
    ;;
  esac
  python=$(PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu Tests/Support/python.sh "$requirements")
fi
swift build -c release
swift build -c release --package-path Tests/Benchmarks
"$python" "$compare" --binary "$(swift build -c release --package-path Tests/Benchmarks --show-bin-path)/ModelBenchmark" \
  --products "$(swift build -c release --show-bin-path)" --scratch "$scratch" --out "$scratch/results.json" "$@" | tee "$scratch/results.md"
