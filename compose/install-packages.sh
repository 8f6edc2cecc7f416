#!/usr/bin/env bash
# Installs the Debian packages that building and running need, those that are missing only:
#
#   install-packages.sh [--only] [PACKAGE ...]      the PACKAGEs as well; --only: nothing but them
#
# A|B: either will do, and A is installed when neither is there.
set -euo pipefail
packages=(
  'libcurl4-openssl-dev|libcurl4-gnutls-dev' 'libjpeg62-turbo-dev|libjpeg-turbo8-dev' libopenblas-dev libpng-dev
  libpq-dev libprotobuf-c-dev libsqlite3-dev libssl-dev libwebp-dev libzmq3-dev protobuf-c-compiler protobuf-compiler
  zlib1g-dev
)
if [ "${1:-}" = --only ]; then packages=(); shift; fi
packages+=("$@")

is_there() { dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }
missing=()
for package in "${packages[@]}"; do
  found=no
  for alternative in ${package//|/ }; do if is_there "$alternative"; then found=yes; fi; done
  [ $found = yes ] || missing+=("${package%%|*}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
echo "installing ${missing[*]}"
sudo=(); [ "$(id -u)" -eq 0 ] || sudo=(sudo)
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
