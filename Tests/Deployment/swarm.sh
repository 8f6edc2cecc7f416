#!/usr/bin/env bash
# Deploys compose/swarm/stack.yaml to a real swarm of one node and tries what operators do with it:
#
#   Tests/Deployment/swarm.sh [DIRECTORY]
#
# DIRECTORY holds executables built on Debian 12; by default they are built here. In a private engine, which takes root and Debian 12, unless
# CONTAINERS_PRIVATE_ENGINE is set and empty: the engine that `docker` reaches then becomes a swarm, and leaves it in the end. Elsewhere the
# test is skipped. It takes some minutes, so Tests/run.sh does not run it.
set -euo pipefail
cd "$(dirname "$0")/../.."
source Tests/Cluster/containers-engine.sh
source Tests/Support/checks.sh
bin=${1:-}
model=$PWD/compose/models/nano-qwen-image
work=$(mktemp -d "${TMPDIR:-/var/tmp}/qwen-image-swarm.XXXXXX")
project=qwen-image-swarm-$$
stack=$project

say() { echo "swarm: $*" >&2; }

stop() {
  trap - EXIT INT TERM
  for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done
  if [ "${started:-no}" = yes ]; then
    docker stack rm "$stack" >/dev/null 2>&1 || true
    within 90 nothing_runs || true
    docker swarm leave --force >/dev/null 2>&1 || true
  fi
  stop_engine
  rm -rf "$work" 2>/dev/null || true
  [ -n "${ended:-}" ] || echo "$passed passed, $failed failed, then the test broke off" >&2
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("0.0.0.0", 0)); print(s.getsockname()[1])'; }
nothing_runs() { test -z "$(docker ps --quiet --filter "label=com.docker.stack.namespace=$stack")"; }
deploy() { timeout 500 docker stack deploy --detach=false --compose-file compose/swarm/stack.yaml "$stack" >>"$work/deploy.log" 2>&1; }
# The containers of a service that are healthy.
healthy() {
  docker ps --quiet --filter "label=com.docker.swarm.service.name=${stack}_$1" --filter health=healthy
}
has_healthy() { test "$(healthy "$1" | wc -l)" -eq "$2"; }
ready() { curl -fsS --max-time 5 "http://127.0.0.1:$QWEN_IMAGE_PORT/readyz"; }
status_without_key() {
  curl -s -o /dev/null -w '%{http_code}' --max-time 10 "http://127.0.0.1:$QWEN_IMAGE_PORT/v1/images/generations" \
    -H 'content-type: application/json' -d '{"prompt": "a red star"}'
}

at=()
local_image() { "$bin/qwen-image" local --model "$model" --output "$work/local-$1.png" --seed "$@" >/dev/null; }
cluster_image() {
  timeout 300 "$bin/qwen-image" generate "${at[@]}" --output "$work/cluster-$1.png" --seed "$@" \
    >"$work/generate-$1.log" 2>&1 || { tail -n 3 "$work/generate-$1.log" >&2; return 1; }
}
same_image() { cmp "$work/local-$1.png" "$work/cluster-$1.png"; }
draws_the_same() { local_image "$@" && cluster_image "$@" && same_image "$1"; }

build_image() {
  if [ -z "$bin" ]; then
    say "building the executables"
    bin=$(./compose/build-executables.sh)
  fi
  bin=$(cd "$bin" && pwd)
  ./compose/pack-executables.sh "$bin"
  say "building the image"
  docker build --target prebuilt --build-arg "RUNTIME_IMAGE=$base_image" --tag "$QWEN_IMAGE_IMAGE" --file compose/Dockerfile . \
    >"$work/image.log" 2>&1 || { tail -n 40 "$work/image.log" >&2; exit 1; }
}

make_secrets() { PATH=$bin:$PATH ./compose/swarm/make-secrets.sh "$work/keys$1" "$1" >>"$work/secrets$1.log" 2>&1; }
key_of() { grep -o 'qwk-[0-9a-z-]*' "$work/secrets$1.log" | head -n 1; }

test_start() {
  docker swarm init --advertise-addr 127.0.0.1 --listen-addr "127.0.0.1:$(free_port)" >/dev/null
  started=yes
  docker node update --label-add qwen-image.journal=true "$(docker node ls --quiet)" >/dev/null
  check "secrets and configs are made" make_secrets ""
  check "a second run keeps them" make_secrets ""
  check "the stack is deployed, and all its services converge" deploy
  for service in gateway text-encoder vae-encoder denoiser vae-decoder; do check "$service is healthy" within 60 has_healthy "$service" 1; done
  check "the gateway is ready" within 60 ready
  QWEN_IMAGE_API_KEY=$(key_of "")
  export QWEN_IMAGE_API_KEY
  at=(--gateway "http://127.0.0.1:$QWEN_IMAGE_PORT")
  check "a request without a key is refused" test "$(status_without_key)" = 401
  check "a request gives the bytes that one process gives" draws_the_same 1 --prompt "a red star on a white background"
}

test_isolation() {
  local container
  for service in gateway denoiser; do
    container=$(healthy "$service")
    check "$service: runs as an ordinary user" test "$(docker exec "$container" id -u)" = 10001
    check "$service: has no capabilities" docker exec "$container" grep -q '^CapEff:[[:space:]]*0*$' /proc/1/status
    check "$service: cannot write to its image" not docker exec "$container" touch /usr/local/bin/x
  done
  check "a denoiser has no key of the gateway" not docker exec "$container" test -e /run/secrets/gateway.secret
}

# A denoiser is added, all are replaced while a request runs, and one is killed.
test_denoisers() {
  local request job
  check "denoisers are added" quietly timeout 200 docker service scale --detach=false "${stack}_denoiser=2"
  check "both are healthy, thus registered" within 60 has_healthy denoiser 2
  local_image 2 --prompt "a blue circle" --width 256 --height 256 --steps 200
  cluster_image 2 --prompt "a blue circle" --width 256 --height 256 --steps 200 &
  request=$!
  watch_denoisers >"$work/least" &
  local watching=$!
  check "they are replaced, the new ones first" quietly timeout 280 docker service update --force --detach=false "${stack}_denoiser"
  kill "$watching" 2>/dev/null || true
  check "two or more were healthy all the time" test "$(sort -n "$work/least" | head -n 1)" -ge 2
  check "the request that ran is served" wait "$request"
  check "with the same bytes" same_image 2
  docker kill "$(healthy denoiser | head -n 1)" >/dev/null
  check "a denoiser that dies is replaced" within 90 has_healthy denoiser 2
  check "requests are served after it" draws_the_same 3 --prompt "a green cross"
}
watch_denoisers() { while :; do healthy denoiser | wc -l; sleep 0.5; done; }

# The gateway's container dies with a job; the next one finds it in the volume.
test_gateway() {
  local job
  local_image 4 --prompt "a yellow ring" --width 256 --height 256 --steps 200
  job=$("$bin/qwen-image" jobs submit "${at[@]}" --seed 4 --prompt "a yellow ring" --width 256 --height 256 --steps 200)
  docker kill "$(healthy gateway)" >/dev/null
  check "another gateway's container is started" within 90 ready
  check "it resumes the job" timeout 300 "$bin/qwen-image" jobs watch "${at[@]}" "$job"
  check "the image can be fetched" quietly "$bin/qwen-image" jobs fetch "${at[@]}" "$job" --output "$work/cluster-4.png"
  check "it has the same bytes" same_image 4
}

# compose/swarm/README.md, "Keys": all keys are replaced.
test_rotation() {
  make_secrets -2
  export QWEN_IMAGE_GATEWAY_SECRET=qwen-image-gateway-secret-2 QWEN_IMAGE_GATEWAY_PUBLIC=qwen-image-gateway-public-2
  export QWEN_IMAGE_WORKER_SECRET=qwen-image-worker-secret-2 QWEN_IMAGE_WORKER_PUBLIC=qwen-image-worker-public-2
  export QWEN_IMAGE_API_KEYS=qwen-image-api-keys-2
  QWEN_IMAGE_API_KEY=$(key_of -2)
  check "new keys are deployed" deploy
  check "the gateway is ready with them" within 120 ready
  check "requests are served with them" draws_the_same 5 --prompt "a purple square"
}

test_stop() {
  check "the stack is removed" quietly docker stack rm "$stack"
  check "no container is left" within 120 nothing_runs
}

trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
ended=skipped
export CONTAINERS_PRIVATE_ENGINE=${CONTAINERS_PRIVATE_ENGINE-1}
require_engine
ended=
QWEN_IMAGE_PORT=$(free_port)
export QWEN_IMAGE_PORT QWEN_IMAGE_IMAGE=$project QWEN_IMAGE_MODEL=$model QWEN_IMAGE_DENOISERS=1 QWEN_IMAGE_START_PERIOD=1m
build_image
test_start
test_isolation
test_denoisers
test_gateway
test_rotation
test_stop
ended=yes
echo "swarm: $passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
