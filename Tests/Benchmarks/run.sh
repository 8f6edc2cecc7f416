#!/bin/sh
# Builds and runs the kernel benchmark: ./run.sh [--threads N] [--isa NAME] [linear|attention|convolution|elementwise ...]
set -eu
cd "$(dirname "$0")"
exec swift run -c release KernelBenchmark "$@"
