#!/usr/bin/env bash
# Copies the executables in DIRECTORY, with the parts of the Swift runtime that they load, to docker-bin/, where the image's target
# `prebuilt` takes them from:
#
#   ./compose/pack-executables.sh "$(swift build -c release --show-bin-path)"
#
# They must have been built on Debian 12, whose libraries the image has.
set -euo pipefail
bin=${1:?usage: pack-executables.sh DIRECTORY}
target=$(cd "$(dirname "$0")" && pwd)/docker-bin
executables=(gateway text-encoder vae-encoder denoiser vae-decoder qwen-image)

find "$target" -type f ! -name .gitignore -delete
for name in "${executables[@]}"; do strip --strip-debug -o "$target/$name" "$bin/$name"; done
# Executables look for the runtime beside themselves, too. Those built with --static-swift-stdlib need none.
for name in "${executables[@]}"; do ldd "$bin/$name"; done | awk '$3 ~ "/swift/linux/" {print $3}' | sort -u |
  while read -r library; do cp -L "$library" "$target/"; done
