#!/usr/bin/env bash
# Builds the tests with a sanitizer and runs those that it is for:
#
#   ./Tests/sanitize.sh address [SUITE ...]   accesses outside of what was allocated, use after free
#   ./Tests/sanitize.sh thread [SUITE ...]    data races
#
# SUITE is a test target or a part of one: KernelsTests, KernelsTests.ThreadPoolTests. Everything is compiled again,
# into .build-asan or .build-tsan: half an hour on two cores, minutes when little has changed; then the tests take five
# minutes. JOBS limits how many compilers run at a time. The build ends after 3 hours, each suite after 30 minutes.
#
# Tests/Sanitizers/runtime.c shows ThreadSanitizer how the Swift runtime orders threads; that races are still found
# with it is tried first (races.swift). What is reported in error is kept in thread.suppressions, with reasons.
#
# Not under ThreadSanitizer: the models (QwenImageTests and the like, but for the two suites that stream weights and
# share passes), whose arithmetic would take hours and whose threads are those of KernelsTests; suites without threads.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
  exit 64
}

case ${1:-} in
  address)
    scratch=.build-asan
    suites=(KernelsTests WeightsTests ImageCodecTests WireTests)
    # Leaks are not looked for: the runtime keeps what it makes for the life of the process.
    export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}
    ;;
  thread)
    scratch=.build-tsan
    suites=(KernelsTests WeightsTests HTTPClientTests ObservabilityTests SchedulingTests TransportTests
      StageRuntimeTests StageSupportTests JournalTests GatewayTests QwenImageTests.WeightStreamingTests
      QwenImageTests.SharedPassTests)
    suppressions=$PWD/Tests/Sanitizers/thread.suppressions
    export TSAN_OPTIONS=suppressions=$suppressions:exitcode=66${TSAN_OPTIONS:+:$TSAN_OPTIONS}
    ;;
  *) usage ;;
esac
sanitizer=$1
shift
[ $# -eq 0 ] || suites=("$@")

./compose/install-packages.sh
options=(-c release --sanitize "$sanitizer" --scratch-path "$scratch" -Xswiftc "-D${sanitizer^^}_SANITIZER")

# races NAME STATUS: what ends so (66: something was reported) with what the tests are run with.
races() {
  local status=0
  LD_PRELOAD=$preload timeout 60 "$scratch/races" "$1" >"$scratch/races.log" 2>&1 || status=$?
  [ $status -eq "$2" ] || {
    cat "$scratch/races.log" >&2
    echo "sanitize.sh: Tests/Sanitizers/races.swift ended $1 with $status, expected $2" >&2
    exit 1
  }
}

preload=
if [ "$sanitizer" = thread ]; then
  mkdir -p "$scratch"
  clang=$(dirname "$(readlink -f "$(command -v swift)")")/clang
  [ -x "$clang" ] || clang=clang
  preload=$PWD/$scratch/runtime.so
  "$clang" -O2 -Wall -Wextra -Werror -shared -fPIC Tests/Sanitizers/runtime.c -o "$preload"
  swiftc -O -parse-as-library -sanitize=thread Tests/Sanitizers/races.swift -o "$scratch/races"
  races racing 66
  races copy-on-write 0
  races continuation 0
fi
timeout --kill-after=60 10800 swift build "${options[@]}" --build-tests ${JOBS:+--jobs "$JOBS"}

log=$scratch/sanitize.log
failed=()
for suite in "${suites[@]}"; do
  echo "== $suite under the $sanitizer sanitizer"
  LD_PRELOAD=$preload timeout --kill-after=60 1800 \
    swift test "${options[@]}" --skip-build --filter "^${suite//./\\.}[./]" 2>&1 | tee "$log" || failed+=("$suite")
  grep -Eq 'Test run with [1-9]' "$log" || {
    echo "sanitize.sh: no test ran whose name begins with $suite" >&2
    failed+=("$suite")
  }
done
echo "$sanitizer sanitizer: ${#suites[@]} suites, ${#failed[@]} failed${failed[*]:+: ${failed[*]}}"
[ ${#failed[@]} -eq 0 ]
