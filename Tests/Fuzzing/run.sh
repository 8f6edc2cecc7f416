#!/usr/bin/env bash
# Feeds the readers of bytes from outside with what libFuzzer makes up, see README.md:
#
#   Tests/Fuzzing/run.sh [--seconds N] [--seed N] [--keep] [TARGET ...]
#
# N seconds for each target (15). What crashes, hangs or takes too much memory is left in Tests/Fuzzing/found/; the other targets still
# run, and the last line counts. The seed (from 1, of 32 bits) is drawn and printed unless given. --keep adds to the corpus what reached new code.
set -euo pipefail
cd "$(dirname "$0")"

seconds=15
seed=$(((RANDOM << 15 | RANDOM) + 1))
keep=no
targets=()
fail() {
  echo "fuzz: $*" >&2
  exit 64
}
# number OPTION VALUE LARGEST: libFuzzer takes other text for 0, which means without end, and a seed of its own.
number() { [[ $2 =~ ^[1-9][0-9]{0,9}$ ]] && [ "$2" -le "$3" ] || fail "$1 is \"$2\", but must be a number from 1 to $3"; }
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) number "$1" "${2:-}" 604800; seconds=$2; shift ;;
    --seed) number "$1" "${2:-}" 4294967295; seed=$2; shift ;;
    --keep) keep=yes ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' run.sh; exit ;;
    -*) fail "unknown option $1; there are --seconds, --seed and --keep" ;;
    *) targets+=("$1") ;;
  esac
  shift
done
for target in "${targets[@]}"; do
  [ -d "corpus/$target" ] || fail "there is no target $target; there are $(cd corpus && echo *)"
done
if [ ${#targets[@]} -eq 0 ]; then for corpus in corpus/*/; do targets+=("$(basename "$corpus")"); done; fi

swift build -c release --sanitize fuzzer --product fuzz
fuzz=$(swift build -c release --sanitize fuzzer --show-bin-path)/fuzz
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p found
limits=(-max_len=2048 -timeout=20 -rss_limit_mb=2048)
# One core for each target.
export fuzz work seed seconds
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I {} bash -c '
  mkdir -p "$work/$1"
  FUZZ_TARGET=$1 "$fuzz" "${@:2}" -seed="$seed" -max_total_time="$seconds" -print_final_stats=1 \
    -artifact_prefix="found/$1-" "$work/$1" "corpus/$1" >"$work/$1.log" 2>&1 || true' _ {} "${limits[@]}"

passed=0
failed=0
for target in "${targets[@]}"; do
  echo "== $target"
  grep -E '^(Done|stat::|SUMMARY|==)' "$work/$target.log" || true
  if ! grep -q '^Done' "$work/$target.log"; then
    failed=$((failed + 1))
    echo "FAIL $target: seed $seed; to repeat it: Tests/Fuzzing/run.sh --seed $seed $target, or FUZZ_TARGET=$target $fuzz INPUT"
    tail -40 "$work/$target.log"
    continue
  fi
  passed=$((passed + 1))
  echo "ok   $target: seed $seed"
  if [ $keep = yes ]; then
    # Inputs are merged smallest first, and only those stay that add something.
    mkdir "$work/merged"
    FUZZ_TARGET=$target "$fuzz" "${limits[@]}" -merge=1 "$work/merged" "corpus/$target" "$work/$target" 2>&1 | tail -1
    find "corpus/$target" -type f ! -name 'seed-*' ! -name 'found-*' -delete
    cp -n "$work/merged"/* "corpus/$target/"
    rm -r "$work/merged"
  fi
done
rmdir found 2>/dev/null || true
echo "fuzz: $passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
