#!/usr/bin/env bash
# From a fresh Debian machine with a Swift toolchain to an image:
#
#   ./compose/quickstart.sh ["a prompt"]
#   ./compose/quickstart.sh --keep ["a prompt"]     leaves everything running until Ctrl-C: there is a page at http://127.0.0.1:8080
#
# Installs missing system packages, builds, starts the stages (in containers when an engine runs, else as local processes with
# the same settings), sends a request through the gateway, writes the PNG, says where and how to edit it, and stops everything.
#
# QWEN_IMAGE_MODEL is another checkpoint, QWEN_IMAGE_PORT another port; QWEN_IMAGE_BINARIES is a folder of executables that are built already.
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '$d'; exit ;; esac
keep=no
if [ "${1:-}" = --keep ]; then keep=yes; shift; fi
prompt=${1:-a green circle on a white background}
output=$PWD/qwen-image.png
cd "$(dirname "$0")/.."
model=${QWEN_IMAGE_MODEL:-$PWD/compose/models/nano-qwen-image}
port=${QWEN_IMAGE_PORT:-8080}
work=$(mktemp -d)
pids=()

say() { echo "quickstart: $*" >&2; }

stop() {
  if [ "${containers:-no}" = yes ]; then
    docker compose -f compose/compose.yaml -p "$project" down --volumes --timeout 10 >/dev/null 2>&1 || true
  fi
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap stop EXIT

build() {
  if [ -n "${QWEN_IMAGE_BINARIES:-}" ]; then bin=$QWEN_IMAGE_BINARIES; return; fi
  say "building (the first time takes some minutes)"
  bin=$(./compose/build-executables.sh)
}

start_processes() {
  "$bin/qwen-image" keygen "$work/keys" >/dev/null
  "$bin/gateway" --http-port "$port" --cluster-endpoints "ipc://$work/gateway.sock" --journal-path "$work/gateway.journal" \
    --cluster-secret-key-file "$work/keys/gateway/gateway.secret" \
    --cluster-allowed-keys-directory "$work/keys/gateway/workers" >"$work/gateway.log" 2>&1 &
  pids+=($!)
  for stage in text-encoder vae-encoder denoiser vae-decoder; do
    "$bin/$stage" --model-directory "$model" --worker-gateways "ipc://$work/gateway.sock" \
      --worker-secret-key-file "$work/keys/worker/worker.secret" \
      --worker-gateway-key-file "$work/keys/worker/gateway.public" >"$work/$stage.log" 2>&1 &
    pids+=($!)
  done
}

start_containers() {
  ./compose/pack-executables.sh "$bin"
  export QWEN_IMAGE_MODEL=$model QWEN_IMAGE_PORT=$port QWEN_IMAGE_BUILD=prebuilt
  project=qwen-image-quickstart
  containers=yes
  docker compose -f compose/compose.yaml -p "$project" up --build --detach --wait >&2
}

wait_until_ready() {
  for _ in $(seq 600); do
    if [ "$(ready)" = 200 ]; then return; fi
    for pid in "${pids[@]}"; do
      kill -0 "$pid" 2>/dev/null || { say "a stage has ended:"; tail -n 5 "$work"/*.log >&2; exit 1; }
    done
    sleep 0.5
  done
  say "the stages are not ready after five minutes"
  exit 1
}

# HTTP status of the readiness probe, without needing curl.
ready() {
  { exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n' >&3 && head -n1 <&3 | cut -d' ' -f2; } 2>/dev/null || true
}

# suggest NOTE COMMAND...: a command as it can be typed.
suggest() {
  say "$1"
  shift
  { printf ' '; printf ' %q' "$@"; echo; } >&2
}

build
if docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then
  say "starting the stages in containers"
  start_containers
else
  say "no container engine runs: starting the stages as processes"
  start_processes
fi
wait_until_ready
say "drawing: $prompt"
"$bin/qwen-image" generate --gateway "http://127.0.0.1:$port" --prompt "$prompt" --output "$output"
edit=(--image "$output" --prompt "make the background yellow" --output "${output%.png}-edited.png")
if [ "$keep" = yes ]; then
  suggest "to edit the image, in another terminal:" "$bin/qwen-image" edit --gateway "http://127.0.0.1:$port" "${edit[@]}"
  say "http://127.0.0.1:$port shows a page; Ctrl-C stops everything"
  trap 'exit 0' INT TERM
  sleep infinity &
  pids+=($!)
  wait $!
else
  suggest "to edit the image (--keep keeps the cluster running):" "$bin/qwen-image" local --model "$model" "${edit[@]}"
fi
