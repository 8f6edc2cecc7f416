#!/bin/sh
# Builds and runs the kernel benchmark:
#
#   ./run.sh [--threads N] [--repetitions N] [--isa NAME] [linear|attention|convolution|elementwise ...]
set -eu
case " $* " in *" --help "* | *" -h "*) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;; esac
cd "$(dirname "$0")"
exec swift run -c release KernelBenchmark "$@"
