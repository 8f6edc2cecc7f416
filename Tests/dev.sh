#!/usr/bin/env bash
# What a developer does with the sources. Each command installs what it needs itself.
#
#   Tests/dev.sh build [--release]                         build everything, tests included; for debugging unless --release
#   Tests/dev.sh test [--release] [FILTER]                 run the Swift tests whose names match FILTER, or all; the seed is printed
#   Tests/dev.sh lint                                      check format and style
#   Tests/dev.sh fuzz TARGET [--seed N] [--seconds N]      fuzz one reader of bytes from outside (15 seconds), see Tests/Fuzzing
#   Tests/dev.sh simulate [--seed N] [OPTION ...]          run the cluster in virtual time; a seed is shown step by step, see Tests/Simulation
#   Tests/dev.sh bench [kernels | GROUP]                   measure the kernels alone, or beside the reference, see Tests/bench.sh
#   Tests/dev.sh sanitize address|thread [SUITE ...]       run tests under a sanitizer, see Tests/sanitize.sh
#   Tests/dev.sh ci                                        what must pass before a change lands
#
# ./Tests/run.sh runs all tests: these, real clusters with faults, the page in a browser, containers.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; }
fail() {
  echo "dev.sh: $*; see Tests/dev.sh --help" >&2
  exit 64
}

# Takes --release off the arguments; leaves the rest in `rest`.
configuration=debug
rest=()
take_configuration() {
  local argument
  for argument in "$@"; do
    case $argument in
      --release) configuration=release ;;
      -*) fail "unknown option $argument" ;;
      *) rest+=("$argument") ;;
    esac
  done
}

build() {
  take_configuration "$@"
  [ ${#rest[@]} -eq 0 ] || fail "build takes no ${rest[*]}"
  ./compose/install-packages.sh
  swift build -c "$configuration" --build-tests
}

run_tests() {
  take_configuration "$@"
  [ ${#rest[@]} -le 1 ] || fail "test takes one FILTER, a regular expression"
  ./compose/install-packages.sh
  QWEN_IMAGE_TEST_PYTHON=$(Tests/Support/python.sh)
  export QWEN_IMAGE_TEST_PYTHON QWEN_IMAGE_TEST_SEED=${QWEN_IMAGE_TEST_SEED:-$((RANDOM << 15 | RANDOM))}
  swift test -c "$configuration" --filter "${rest[0]:-.}" ||
    fail_tests "QWEN_IMAGE_TEST_SEED=$QWEN_IMAGE_TEST_SEED Tests/dev.sh test --$configuration ${rest[*]}"
}

fail_tests() {
  echo "to repeat it: ${1/ --debug/}" >&2
  exit 1
}

lint() {
  swift format lint --strict --recursive --parallel Package.swift Services Shared Tests
  if [ -d Tests/TidyTests ]; then run_tests '^TidyTests\.'; fi
}

fuzz() {
  ./compose/install-packages.sh
  exec Tests/Fuzzing/run.sh "$@"
}

# A single seed is shown with every event.
simulate() {
  ./compose/install-packages.sh
  if [ "${1:-}" = --seed ] && [ $# -eq 2 ]; then set -- "$@" --trace; fi
  exec Tests/Simulation/run.sh "$@"
}

bench() {
  if [ "${1:-}" = kernels ]; then
    shift
    ./compose/install-packages.sh
    exec Tests/Benchmarks/run.sh "$@"
  fi
  if [ $# -gt 0 ] && [[ $1 != -* ]]; then set -- --only "$@"; fi
  exec Tests/bench.sh "$@"
}

sanitize() {
  [ -x Tests/sanitize.sh ] || fail "there is no Tests/sanitize.sh"
  ./compose/install-packages.sh
  exec Tests/sanitize.sh "$@"
}

command=${1:---help}
shift || true
if [[ $command =~ ^(build|test|lint|ci)$ ]] && [[ ${1:-} =~ ^(-h|--help)$ ]]; then command=help; fi
case $command in
  build) build "$@" ;;
  test) run_tests "$@" ;;
  lint) [ $# -eq 0 ] || fail "lint takes no $*"; lint ;;
  fuzz) [ $# -gt 0 ] || fail "fuzz needs a TARGET: $(cd Tests/Fuzzing/corpus && echo *)"; fuzz "$@" ;;
  simulate) simulate "$@" ;;
  bench) bench "$@" ;;
  sanitize) sanitize "$@" ;;
  ci) [ $# -eq 0 ] || fail "ci takes no $*"; exec .ci/run ;;
  --help | -h | help) usage ;;
  *) fail "unknown command $command" ;;
esac
