#!/usr/bin/env bash
# Installs the Debian packages that building and running need, those that are missing only.
set -euo pipefail
packages=(libprotobuf-c-dev libzmq3-dev libopenblas-dev libpng-dev zlib1g-dev libsqlite3-dev protobuf-c-compiler protobuf-compiler "$@")
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
echo "installing ${missing[*]}"
sudo=(); [ "$(id -u)" -eq 0 ] || sudo=(sudo)
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
