#!/usr/bin/env bash
# Prints the folder of `prometheus` and `promtool`: where they are installed, or else below .build, where Debian's package is unpacked to.
# It is not installed: that would start a system service.
set -euo pipefail
cd "$(dirname "$0")/../.."

if installed=$(command -v promtool) && command -v prometheus >/dev/null; then dirname "$installed"; exit; fi
folder=$PWD/.build/prometheus
if [ ! -x "$folder/usr/bin/promtool" ]; then
  echo "unpacking Debian's prometheus" >&2
  rm -rf "$folder.new"
  mkdir -p "$folder.new"
  sudo=(); [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  (
    cd "$folder.new"
    apt-get download -qq prometheus 2>/dev/null || { "${sudo[@]}" apt-get update -qq; apt-get download -qq prometheus; }
    dpkg-deb -x prometheus_*.deb .
    rm prometheus_*.deb
  ) >&2
  rm -rf "$folder"
  mv "$folder.new" "$folder"
fi
echo "$folder/usr/bin"
