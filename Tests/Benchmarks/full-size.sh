#!/usr/bin/env bash
# The full-size model, really run: writes a checkpoint with random weights at the published sizes, starts a gateway and the four
# stages on it as processes of their own, draws one 512×512 image in 4 steps without guidance, prints what it took, and
# cleans up. Its arguments are those of full_size.py.
#
#   Tests/Benchmarks/full-size.sh                                    needs 21 GB of disk and 24 GiB of memory
#   PRECISION=int8 STEPS=8 DIR=/data Tests/Benchmarks/full-size.sh   int8 takes 30 GB of disk, bf16 56 GB
#   OUTPUT=image.png IMAGES=2 Tests/Benchmarks/full-size.sh          keeps the image; draws it again with everything warm
#   QWEN_IMAGE_MODEL_RESIDENT_WEIGHT_BYTES=3000000000 PRECISION=bf16 Tests/Benchmarks/full-size.sh   layers beyond 3 GB come from disk
#   MODEL=/models/Qwen-Image-q4 Tests/Benchmarks/full-size.sh        a checkpoint that is there already, and stays
#   CONFIG=qwen-image-2.1-turbo PRECISION=int8 SIZE=1024x1024 Tests/Benchmarks/full-size.sh   another model
#   CONFIG=qwen-image-edit-2511 PRECISION=int8 Tests/Benchmarks/full-size.sh --references 1   edits an image of 1024²
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${BIN:-.build/release}
for program in gateway text-encoder vae-encoder denoiser vae-decoder qwen-image; do
  [ -x "$bin/$program" ] || { echo "$bin/$program is missing: swift build -c release" >&2; exit 1; }
done
work=$(mktemp -d "${DIR:-${TMPDIR:-/tmp}}/full-size.XXXXXX")
trap 'rm -rf "$work"' EXIT

if [ -z "${MODEL:-}" ]; then
  MODEL=$work/model
  echo "== writing a checkpoint with random weights (${PRECISION:-q4})"
  start=$(date +%s)
  "$bin/qwen-image" synth --config "${CONFIG:-qwen-image}" --seed 1 --precision "${PRECISION:-q4}" --packed "$MODEL"
  echo "$(du -sm "$MODEL" | cut -f1) MiB in $(($(date +%s) - start)) s"
fi
python3 Tests/Benchmarks/full_size.py "$bin" "$MODEL" --output "${OUTPUT:-$work/image.png}" --steps "${STEPS:-4}" \
  --size "${SIZE:-512x512}" --images "${IMAGES:-1}" "$@"
