#!/usr/bin/env bash
# Installs what the tests need and runs all of them:
#
#   ./Tests/run.sh                       everything; ends with "N passed, N failed, N skipped"
#   ./Tests/run.sh --list                the parts that there are
#   ./Tests/run.sh PART ...              only these parts
#   ./Tests/run.sh FILTER                only the Swift tests whose name matches a regular expression
#
#   --seed N                             the random numbers of an earlier run (or QWEN_IMAGE_TEST_SEED=N)
#   --fuzz SECONDS                       also fuzz every target for so long
#
# A part that fails does not keep the others from running; what failed is printed again at the end. Logs: .build/test-logs.
set -euo pipefail
cd "$(dirname "$0")/.."

suites=()
for folder in Tests/*Tests; do suites+=("$(basename "$folder")"); done
scripts=(
  scripts reader quickstart cluster jobs templates images adapters families step-caches provenance content-filter enhancement assistance monitoring
  openapi a1111 mcp prompts objects deploy backup docs page page-families page-images page-form page-gallery page-access docc arm64 faults replicas
  containers
)
fuzz_seconds=
chosen=()
while [ $# -gt 0 ]; do
  case $1 in
    --list) printf '%s\n' "${suites[@]}" "${scripts[@]}" fuzz; exit ;;
    --seed) export QWEN_IMAGE_TEST_SEED=${2:?--seed needs a number}; shift ;;
    --fuzz) fuzz_seconds=${2:?--fuzz needs a number of seconds}; shift ;;
    -*) echo "unknown option $1; there are --list, --seed, --fuzz" >&2; exit 64 ;;
    *) chosen+=("$1") ;;
  esac
  shift
done
export QWEN_IMAGE_TEST_SEED=${QWEN_IMAGE_TEST_SEED:-$((RANDOM << 15 | RANDOM))}

is_part() { [[ " ${suites[*]} ${scripts[*]} fuzz " == *" $1 "* ]]; }
filter=
if [ ${#chosen[@]} -eq 1 ] && ! is_part "${chosen[0]}"; then
  filter=${chosen[0]}
  chosen=(filter)
fi
for name in "${chosen[@]}"; do
  [ -n "$filter" ] || is_part "$name" || { echo "there is no part $name; --list prints them" >&2; exit 64; }
done
is_chosen() { [ ${#chosen[@]} -eq 0 ] || [[ " ${chosen[*]} " == *" $1 "* ]]; }

logs=$PWD/.build/test-logs
rm -rf "$logs"
mkdir -p "$logs"
passed=0
failed=0
skipped=0
failures=()
# Processes of the parts that run, and when they began, by their names.
declare -A running=() began=()

stop() {
  trap - EXIT INT TERM
  for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
}
trap stop EXIT
trap 'stop; exit 130' INT
trap 'stop; exit 143' TERM

# part NAME SECONDS COMMAND...: runs one part of the tests, for so long at most, and counts.
part() {
  begin "$@"
  finish "$1"
}

# beside NAME SECONDS COMMAND...: begins a part that takes what processor time the next ones leave, until it is finished.
beside() {
  local name=$1 limit=$2
  shift 2
  begin "$name" "$limit" nice -n 19 "$@"
}

begin() {
  local name=$1 limit=$2 log=$logs/$1.log
  shift 2
  is_chosen "$name" || return 0
  : >"$log"
  timeout --kill-after=60 "$limit" "$@" >"$log" 2>&1 &
  running[$name]=$!
  began[$name]=$SECONDS
}

# finish NAME: shows what a part prints until it ends, and counts.
finish() {
  local name=$1 log=$logs/$1.log status=0 counts
  is_chosen "$name" || return 0
  echo "== $name"
  tail --follow --lines=+1 --sleep-interval=0.3 --pid="${running[$name]}" "$log"
  wait "${running[$name]}" || status=$?
  unset "running[$name]"
  [ $status -ne 124 ] || echo "FAIL $name: it took too long" | tee -a "$log"
  read -ra counts < <(python3 Tests/Support/test_log.py count "$log" "$status")
  passed=$((passed + counts[0]))
  failed=$((failed + counts[1]))
  skipped=$((skipped + counts[2]))
  [ "${counts[1]}" -eq 0 ] || failures+=("$name")
  echo "-- $name: ${counts[0]} passed, ${counts[1]} failed, ${counts[2]} skipped in $((SECONDS - began[$name])) s"
}

# Tests start servers of their own: the one that the package would make is not wanted.
if [ ! -e /etc/postgresql-common/createcluster.conf ] && [ "$(id -u)" -eq 0 ]; then
  mkdir -p /etc/postgresql-common
  echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
fi
./compose/install-packages.sh curl jq openssl postgresql python3 python3-venv
needs_python=no
for name in GatewayTests "${scripts[@]}"; do if is_chosen "$name"; then needs_python=yes; fi; done
if [ -n "$filter" ] || [ $needs_python = yes ]; then
  # GatewayTests run OpenAI's client by it.
  QWEN_IMAGE_TEST_PYTHON=$(Tests/Support/python.sh)
  export QWEN_IMAGE_TEST_PYTHON
fi
if [ -n "$filter" ] || is_chosen ObjectsTests || is_chosen objects; then
  # A server of S3.
  QWEN_IMAGE_TEST_S3_PYTHON=$(Tests/Support/python.sh Tests/Objects/requirements.txt)
  export QWEN_IMAGE_TEST_S3_PYTHON
fi
if [[ " ${chosen[*]:-page} " == *" page"* ]]; then
  CHROMIUM=$(Tests/Support/chromium.sh "$QWEN_IMAGE_TEST_PYTHON")
  export CHROMIUM
fi
swift build -c release --build-tests
bin=$(swift build -c release --show-bin-path)

# One process for each suite: tests of arithmetic fill all cores, and would starve the tests that watch sockets and clocks.
for suite in "${suites[@]}"; do part "$suite" 1800 swift test -c release --skip-build --filter "^$suite\."; done
if [ -n "$filter" ]; then part filter 3600 swift test -c release --skip-build --filter "$filter"; fi
python=${QWEN_IMAGE_TEST_PYTHON:-}
part scripts 600 "$python" Tests/Support/test_log_test.py
part reader 1800 "$python" Tests/NanoModel/reader_test.py
part quickstart 1200 "$python" Tests/Cluster/quickstart_test.py "$bin"
part cluster 3600 "$python" Tests/Cluster/cluster_test.py "$bin"
part jobs 3600 "$python" Tests/Cluster/jobs_test.py "$bin"
part templates 3600 "$python" Tests/Cluster/templates_test.py "$bin"
part images 3600 "$python" Tests/Cluster/images_test.py "$bin"
part adapters 3600 "$python" Tests/Cluster/adapters_test.py "$bin"
part families 3600 "$python" Tests/Cluster/families_test.py "$bin"
part step-caches 3600 "$python" Tests/Cluster/step_cache_test.py "$bin"
part provenance 3600 "$python" Tests/Cluster/provenance_test.py "$bin"
part content-filter 1200 "$python" Tests/Cluster/filter_test.py "$bin"
part enhancement 1200 "$python" Tests/Cluster/enhancement_test.py "$bin"
part assistance 1200 "$python" Tests/Cluster/assistance_test.py "$bin"
part monitoring 600 "$python" Tests/Cluster/monitoring_test.py "$bin"
if is_chosen openapi; then
  part openapi 600 "$(Tests/Support/python.sh Tests/OpenAPI/requirements.txt)" Tests/OpenAPI/openapi_test.py "$bin"
fi
part a1111 3600 "$python" Tests/Cluster/a1111_test.py "$bin"
part mcp 3600 "$python" Tests/Cluster/mcp_test.py "$bin"
part prompts 3600 "$python" Tests/Cluster/prompt_following_test.py "$bin"
# The parts until they are finished wait most of the time, for servers and clocks.
beside docc 900 Tests/docc.sh
beside arm64 900 Tests/check-arm64.sh
if is_chosen objects; then part objects 1200 "$python" Tests/Cluster/objects_test.py "$bin" "$QWEN_IMAGE_TEST_S3_PYTHON"; fi
if is_chosen deploy; then
  ./compose/install-packages.sh --only haproxy 'kubernetes-client|kubectl' systemd
  part deploy 600 "$(Tests/Support/python.sh Tests/Deployment/requirements.txt)" Tests/Deployment/deploy_test.py "$bin"
fi
if is_chosen backup; then
  ./compose/install-packages.sh --only postgresql sqlite3
  part backup 600 "$python" Tests/Deployment/backup_test.py "$bin"
fi
finish docc
finish arm64
part docs 1800 "$python" Tests/Cluster/docs_test.py "$bin"
part page 3600 "$python" Tests/Cluster/page_test.py "$bin"
part page-families 3600 "$python" Tests/Cluster/page_families_test.py "$bin"
part page-images 3600 "$python" Tests/Cluster/page_images_test.py "$bin"
part page-form 3600 "$python" Tests/Cluster/page_form_test.py "$bin"
part page-gallery 3600 "$python" Tests/Cluster/page_gallery_test.py "$bin"
part page-access 3600 "$python" Tests/Cluster/page_access_test.py "$bin"
# Mostly waits for its engine.
beside containers 7200 Tests/Cluster/containers.sh "$bin"
part faults 3600 "$python" Tests/Cluster/faults_test.py "$bin"
if is_chosen replicas; then
  ./compose/install-packages.sh --only postgresql
  part replicas 600 "$python" Tests/Cluster/replicas_test.py "$bin"
fi
finish containers
if [ -n "$fuzz_seconds" ] || [[ " ${chosen[*]} " == *" fuzz "* ]]; then
  part fuzz 7200 Tests/Fuzzing/run.sh --seconds "${fuzz_seconds:-15}" --seed "$QWEN_IMAGE_TEST_SEED"
fi

for log in "$logs"/*.log; do
  python3 Tests/Support/test_log.py skipped "$log" | sed "s|^|skipped: $(basename "$log" .log): |"
done
for name in "${failures[@]}"; do
  echo "== failures of $name ($logs/$name.log)"
  python3 Tests/Support/test_log.py failures "$logs/$name.log"
  if [ "$name" = filter ]; then name="'$filter'"; fi
  echo "-- to repeat it: ./Tests/run.sh --seed $QWEN_IMAGE_TEST_SEED $name"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
