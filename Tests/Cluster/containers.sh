#!/usr/bin/env bash
# Runs the cluster of compose/compose.yaml in a real container engine and tries what operators do with it:
#
#   Tests/Cluster/containers.sh [DIRECTORY]
#
# DIRECTORY holds executables built on Debian 12; by default they are built here. The engine is the one that `docker` reaches; if there is
# none and this is root on Debian 12, a private one is installed and started. Otherwise the test is skipped.
# CONTAINERS_PRIVATE_ENGINE=1 takes a private engine in any case.
set -euo pipefail
cd "$(dirname "$0")/../.."
source Tests/Cluster/containers-engine.sh
source Tests/Support/checks.sh
bin=${1:-}
model=$PWD/compose/models/nano-qwen-image
work=$(mktemp -d "${TMPDIR:-/var/tmp}/qwen-image-containers.XXXXXX")
project=qwen-image-test-$$
remote=$project-remote

say() { echo "containers: $*" >&2; }

compose() { timeout 300 docker compose -p "$project" -f compose/compose.yaml -f compose/remote-workers.yaml "$@"; }
up() { compose up --detach --wait --wait-timeout 180 --quiet-pull "$@" >>"$work/compose.log" 2>&1; }

stop() {
  trap - EXIT INT TERM
  for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done
  if [ "${started:-no}" = yes ]; then
    docker ps --all --quiet --filter "name=^$project-" | xargs --no-run-if-empty docker rm --force --volumes >/dev/null 2>&1 || true
    docker compose -p "$remote" -f compose/compose.yaml down --volumes --timeout 5 >/dev/null 2>&1 || true
    compose down --volumes --timeout 5 >/dev/null 2>&1 || true
    docker image rm "$project" >/dev/null 2>&1 || true
  fi
  stop_engine
  rm -rf "$work"
  [ -n "${ended:-}" ] || echo "$passed passed, $failed failed, then the test broke off" >&2
}

# A port that is free now.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("0.0.0.0", 0)); print(s.getsockname()[1])'; }

# workers EXPRESSION: prints a Python expression over `d`, the answer of /v1/workers, and `denoisers`; fails when it is false.
workers() {
  python3 - "$port" "$1" <<'PYTHON'
import json, sys, urllib.request
d = json.load(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/v1/workers", timeout=10))
denoisers = [w for w in d["data"] if w["stage"] == "denoiser"]
value = eval(sys.argv[2])
print(value)
sys.exit(0 if value else 1)
PYTHON
}

local_image() { "$bin/qwen-image" local --model "$model" --output "$work/local-$1.png" --seed "$@" >/dev/null; }
cluster_image() {
  timeout 600 "$bin/qwen-image" generate --gateway "http://127.0.0.1:$port" --output "$work/cluster-$1.png" --seed "$@" \
    >"$work/generate-$1.log" 2>&1 || { tail -n 3 "$work/generate-$1.log" >&2; return 1; }
}
same_image() { cmp "$work/local-$1.png" "$work/cluster-$1.png"; }
# Takes a seed and further flags: the cluster's image has the bytes of the one made without a cluster.
draws_the_same() { local_image "$@" && cluster_image "$@" && same_image "$1"; }

health_of() { docker inspect --format '{{.State.Health.Status}}' "$(compose ps --quiet "$1")"; }
is_healthy() { [ "$(health_of "$1")" = healthy ]; }
# The process of a service under the container's init.
signal() { compose exec -T "$2" sh -c "kill -$1 \$(cat /proc/1/task/1/children)"; }
key_sums() { compose run --rm -T --no-deps keys sh -c 'cd /keys && sha256sum gateway/gateway.secret gateway/workers/*.public worker/*'; }

build_image() {
  if [ -z "$bin" ]; then
    say "building the executables"
    bin=$(./compose/build-executables.sh)
  fi
  ./compose/pack-executables.sh "$bin"
  say "building the image"
  compose build --build-arg "RUNTIME_IMAGE=$base_image" >"$work/image.log" 2>&1 || { tail -n 40 "$work/image.log" >&2; exit 1; }
}

test_start() {
  check "the compose file is right" compose config --quiet
  check "so is that of several gateways" \
    docker compose -f compose/compose.yaml -f compose/replicas.yaml --profile postgres config --quiet
  check "all services start" up
  for service in gateway text-encoder vae-encoder denoiser vae-decoder; do check "$service is healthy" is_healthy "$service"; done
  check "a request gives the bytes that one process gives" draws_the_same 1 --prompt "a red star on a white background"
  check "so does another size, without guidance" \
    draws_the_same 2 --prompt "福" --width 96 --height 64 --true-cfg-scale 1 --steps 7
}

# A frozen process must show in its health check, and a thawed one must recover.
test_health() {
  local service=$1
  check "$service: --health succeeds" quietly compose exec -T "$service" "$service" --health
  signal STOP "$service"
  check "$service: --health notices a frozen process" within 40 not compose exec -T "$service" "$service" --health
  signal CONT "$service"
  check "$service: --health notices that it runs again" within 40 compose exec -T "$service" "$service" --health
}

test_isolation() {
  for service in gateway text-encoder vae-encoder denoiser vae-decoder; do
    check "$service: runs as an ordinary user" test "$(compose exec -T "$service" id -u)" = 10001
    check "$service: has no capabilities" compose exec -T "$service" grep -q '^CapEff:[[:space:]]*0*$' /proc/1/status
    check "$service: cannot gain privileges" compose exec -T "$service" grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/1/status
    check "$service: cannot write to its image" not compose exec -T "$service" touch /usr/local/bin/x
  done
  local private=(stat -c %a:%u)
  check "the gateway reads its secret, which is private" \
    test "$(compose exec -T gateway "${private[@]}" /keys/gateway/gateway.secret)" = 600:10001
  check "the gateway has no worker's secret" test -z "$(compose exec -T gateway find / -xdev -name 'worker.secret' 2>/dev/null)"
  check "the gateway cannot change its keys" not compose exec -T gateway touch /keys/gateway/workers/x.public
  for service in text-encoder vae-encoder denoiser vae-decoder; do
    check "$service: reads its secret, which is private" \
      test "$(compose exec -T "$service" "${private[@]}" /keys/worker/worker.secret)" = 600:10001
    check "$service: cannot read the gateway's secret" not compose exec -T "$service" cat /keys/gateway/gateway.secret
    check "$service: has no volume of the gateway" not grep -q gateway-keys \
      <(docker inspect --format '{{range .Mounts}}{{.Name}} {{end}}' "$(compose ps --quiet "$service")")
    check "$service: cannot change the model" not compose exec -T "$service" touch /models/model/x
  done
  check "packed weights are kept in their volume" \
    compose exec -T denoiser sh -c 'ls -d /weights/text_encoder-* && ls -d /weights/transformer-*'
}

# start_denoiser NAME COMMAND: a further denoiser with settings of its own.
start_denoiser() {
  compose run --detach --no-deps --name "$project-$1" denoiser sh -c "$2" >/dev/null 2>>"$work/compose.log"
  # Health report: it has loaded, and tries to connect.
  within 30 docker exec "$project-$1" grep -q '"state":' /run/qwen-image/health.json
}
denoiser_is() { docker exec "$project-$1" grep -q "\"state\":\"$2\"" /run/qwen-image/health.json; }

test_strangers() {
  start_denoiser plain 'unset QWEN_IMAGE_WORKER_SECRET_KEY_FILE QWEN_IMAGE_WORKER_GATEWAY_KEY_FILE
    exec denoiser --worker-allow-plaintext true'
  start_denoiser stranger 'qwen-image keygen /run/qwen-image/own >/dev/null
    exec denoiser --worker-secret-key-file /run/qwen-image/own/worker/worker.secret'
  sleep 8 # the one that is allowed was there within a second
  check "a worker with an unlisted key is refused" denoiser_is stranger connecting
  check "a worker without encryption is refused" denoiser_is plain connecting
  check "neither is among the workers" quietly workers 'len(denoisers) == 1'
  check "their health checks fail" not docker exec "$project-stranger" denoiser --health
  check "the cluster serves on" draws_the_same 3 --prompt "a blue ring"

  docker exec "$project-stranger" cat /run/qwen-image/own/gateway/workers/worker.public |
    compose run --rm -T --no-deps keys sh -c 'cat > /keys/gateway/workers/stranger.public' 2>>"$work/compose.log"
  check "once its key is listed it joins, without a restart" within 40 denoiser_is stranger ready
  check "it is among the workers" quietly workers 'len(denoisers) == 2'
  docker rm --force "$project-stranger" "$project-plain" >/dev/null
  compose run --rm -T --no-deps keys rm /keys/gateway/workers/stranger.public 2>>"$work/compose.log"
  check "a worker that is gone is forgotten" within 60 workers 'len(denoisers) == 1'
}

test_keys() {
  local before
  before=$(key_sums)
  compose down >>"$work/compose.log" 2>&1
  check "starts again" up
  check "the keys survive a restart" test "$before" = "$(key_sums)"
  check "requests are served after it" draws_the_same 4 --prompt "a green cross"

  up --no-deps --force-recreate gateway
  check "workers find a gateway that was replaced" within 60 workers 'len(d["data"]) == 4'
  check "requests are served after that" draws_the_same 5 --prompt "a white heart on a black background"

  compose run --rm -T --no-deps keys rm /keys/worker/worker.secret /keys/gateway/workers/worker.public 2>>"$work/compose.log"
  compose run --rm -T --no-deps keys >>"$work/compose.log" 2>&1
  compose restart text-encoder vae-encoder denoiser vae-decoder >>"$work/compose.log" 2>&1
  check "workers come back with a new key" within 60 workers 'len([w for w in d["data"] if w["session_seconds"] < 60]) == 4'
  check "it is another one" not test "$before" = "$(key_sums)"
  check "requests are served with it" draws_the_same 6 --prompt "a purple square"
}

# Requests that last, given QWEN_IMAGE_DENOISER_CPUS below: scaling takes some seconds.
slow=(--width 256 --height 256 --steps 60)

# Sixteen requests at once while denoisers come and go.
test_scaling() {
  local seeds pids=() served=0 same=0 seed
  seeds=$(seq 101 116)
  for seed in $seeds; do local_image "$seed" --prompt "a yellow star $seed" "${slow[@]}"; done
  for seed in $seeds; do
    cluster_image "$seed" --prompt "a yellow star $seed" "${slow[@]}" &
    pids+=($!)
  done
  within 120 workers 'd["started_jobs"] > 0' || true
  compose up --detach --no-recreate --scale denoiser=3 >>"$work/compose.log" 2>&1
  check "three denoisers work at a time" within 180 workers 'sum(len(w["running"]) for w in denoisers) == 3'
  check "requests wait when two are taken away" quietly workers 'd["queued_jobs"] + d["started_jobs"] >= 4'
  compose up --detach --no-recreate --scale denoiser=1 >>"$work/compose.log" 2>&1
  check "one denoiser is left" within 180 workers 'len(denoisers) == 1'
  for pid in "${pids[@]}"; do if wait "$pid"; then served=$((served + 1)); fi; done
  for seed in $seeds; do if same_image "$seed"; then same=$((same + 1)); fi; done
  check "all 16 requests were served ($served)" test "$served" = 16
  check "each with its own image, to the byte ($same)" test "$same" = 16
}

test_kill() {
  local request victim
  up --scale denoiser=2
  check "there are two denoisers" within 60 workers 'len(denoisers) == 2'
  local_image 200 --prompt "a red circle" --width 256 --height 256 --steps 200
  cluster_image 200 --prompt "a red circle" --width 256 --height 256 --steps 200 &
  request=$!
  check "one makes steps" within 180 workers 'any(t["step"] >= 5 for w in denoisers for t in w["running"])'
  victim=$(workers '[w["host"] for w in denoisers if w["running"]][0]')
  docker kill "$victim" >/dev/null
  check "the request was running when its denoiser was killed" kill -0 "$request"
  check "it is served by the other one" wait "$request"
  check "with the same bytes" same_image 200
  check "the dead one is forgotten" within 60 workers 'len(denoisers) == 1'
}

# The gateway's container is killed while it has a job; a new container finds the job in the volume.
test_gateway_kill() {
  local job at=(--gateway "http://127.0.0.1:$port")
  local request=(--prompt "a blue circle" --width 256 --height 256 --steps 200)
  local_image 300 "${request[@]}"
  job=$("$bin/qwen-image" jobs submit "${at[@]}" --seed 300 "${request[@]}" --key containers)
  check "a job makes steps" within 180 workers 'any(t["step"] >= 5 for w in denoisers for t in w["running"])'
  docker kill "$(compose ps --quiet gateway)" >/dev/null
  up --no-deps --force-recreate gateway
  check "another gateway's container resumes it" timeout 600 "$bin/qwen-image" jobs watch "${at[@]}" "$job"
  check "its key still finds it" \
    test "$("$bin/qwen-image" jobs submit "${at[@]}" --seed 300 "${request[@]}" --key containers)" = "$job"
  check "its image can be fetched" quietly "$bin/qwen-image" jobs fetch "${at[@]}" "$job" --output "$work/cluster-300.png"
  check "it has the same bytes" same_image 300
}

# compose/README.md, "Several machines", with a second project in place of a second machine.
test_remote() {
  local gateway
  gateway=$(docker network inspect --format '{{(index .IPAM.Config 0).Gateway}}' "${project}_default")
  elsewhere() {
    QWEN_IMAGE_GATEWAYS="tcp://$gateway:$QWEN_IMAGE_CLUSTER_PORT" QWEN_IMAGE_WORKER_KEY=east \
      timeout 300 docker compose -p "$remote" -f compose/compose.yaml "$@" 2>>"$work/compose.log"
  }
  compose run --rm -T --no-deps keys qwen-image keygen /keys --worker east >>"$work/compose.log" 2>&1
  compose run --rm -T --no-deps keys tar -cC /keys/worker gateway.public east.secret 2>>"$work/compose.log" |
    elsewhere run --rm -T --no-deps keys tar -xC /keys/worker
  compose run --rm -T --no-deps keys rm /keys/worker/east.secret 2>>"$work/compose.log"
  elsewhere up --detach --wait --wait-timeout 120 --no-deps --scale denoiser=2 denoiser
  check "denoisers of another machine join" within 30 workers 'len(denoisers) == 3'
  up --scale denoiser=0
  check "they serve alone" within 60 workers 'len(denoisers) == 2'
  check "with the same bytes" draws_the_same 7 --prompt "大"
  elsewhere down --volumes >/dev/null
}

test_stop() {
  check "the cluster stops" compose --progress quiet down --volumes
  check "no container is left" test -z "$(docker ps --all --quiet --filter "label=com.docker.compose.project=$project")"
  check "no volume is left" test -z "$(docker volume ls --quiet --filter "label=com.docker.compose.project=$project")"
}

trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
ended=skipped
require_engine
ended=
export QWEN_IMAGE_IMAGE=$project QWEN_IMAGE_BUILD=prebuilt QWEN_IMAGE_MODEL=$model QWEN_IMAGE_CLUSTER_ADDRESS=0.0.0.0
export QWEN_IMAGE_PORT QWEN_IMAGE_CLUSTER_PORT QWEN_IMAGE_DENOISER_CPUS=0.15 QWEN_IMAGE_DENOISER_THREADS=1
QWEN_IMAGE_PORT=$(free_port)
QWEN_IMAGE_CLUSTER_PORT=$(free_port)
port=$QWEN_IMAGE_PORT
started=yes
build_image
test_start
test_health gateway
test_health vae-encoder
test_health vae-decoder
test_isolation
test_strangers
test_keys
test_scaling
test_kill
test_gateway_kill
test_remote
test_stop
ended=yes
echo "containers: $passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
