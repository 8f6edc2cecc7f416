#!/usr/bin/env bash
# Feeds the readers of bytes from outside with what libFuzzer makes up, see README.md:
#
#   Tests/Fuzzing/run.sh [--seconds N] [--keep] [TARGET ...]
#
# N seconds for each target (15). What crashes, hangs or takes too much memory is left in Tests/Fuzzing/found/ and ends the run with an
# error. --keep adds to the corpus what reached new code.
set -euo pipefail
cd "$(dirname "$0")"

seconds=15
keep=no
targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift ;;
    --keep) keep=yes ;;
    -*) echo "unknown option $1; there are --seconds and --keep" >&2; exit 64 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
if [ ${#targets[@]} -eq 0 ]; then for corpus in corpus/*/; do targets+=("$(basename "$corpus")"); done; fi

swift build -c release --sanitize fuzzer --product fuzz
fuzz=$(swift build -c release --sanitize fuzzer --show-bin-path)/fuzz
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p found
for target in "${targets[@]}"; do
  echo "== $target"
  mkdir -p "$work/$target"
  limits=(-max_len=2048 -timeout=20 -rss_limit_mb=2048)
  FUZZ_TARGET=$target "$fuzz" "${limits[@]}" -max_total_time="$seconds" -print_final_stats=1 \
    -artifact_prefix="found/$target-" "$work/$target" "corpus/$target" 2>&1 | tee "$work/log" | grep -E '^(Done|stat::|SUMMARY|==)' || true
  if ! grep -q '^Done' "$work/log"; then tail -40 "$work/log" >&2; exit 1; fi
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
