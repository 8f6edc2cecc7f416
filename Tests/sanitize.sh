#!/usr/bin/env bash
# Builds the tests with a sanitizer and runs those that it is for:
#
#   ./Tests/sanitize.sh address [SUITE ...]   accesses outside of what was allocated, use after free
#   ./Tests/sanitize.sh thread [SUITE ...]    data races
#
# SUITE is a test target or a part of one: KernelsTests, KernelsTests.ThreadPoolTests. Everything is compiled again,
# into .build-asan or .build-tsan: half an hour on two cores, minutes when little has changed. JOBS limits how many
# compilers run at a time.
#
# What ThreadSanitizer reports in error is kept in Tests/Sanitizers/thread.suppressions, with reasons.
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
    suites=(KernelsTests.ThreadPoolTests KernelsTests.BlockRecyclerTests KernelsTests.DeterminismTests TransportTests
      StageRuntimeTests StageSupportTests JournalTests GatewayTests)
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
swift build "${options[@]}" --build-tests ${JOBS:+--jobs "$JOBS"}

preload=
if [ "$sanitizer" = thread ]; then
  clang=$(dirname "$(readlink -f "$(command -v swift)")")/clang
  [ -x "$clang" ] || clang=clang
  preload=$PWD/$scratch/mutex.so
  "$clang" -O2 -Wall -Wextra -Werror -shared -fPIC Tests/Sanitizers/mutex.c -o "$preload"
fi

log=$scratch/sanitize.log
status=0
for suite in "${suites[@]}"; do
  echo "== $suite under the $sanitizer sanitizer"
  LD_PRELOAD=$preload timeout 1800 swift test "${options[@]}" --skip-build --filter "^${suite//./\\.}[./]" 2>&1 |
    tee "$log" || status=1
  grep -Eq 'Test run with [1-9]' "$log" || {
    echo "sanitize.sh: no test ran whose name begins with $suite" >&2
    status=1
  }
done
exit $status
