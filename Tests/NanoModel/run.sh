#!/usr/bin/env bash
# Makes the small checkpoint anew, or trains it on:
#
#   ./Tests/NanoModel/run.sh OUT                             from nothing: tokenizer, autoencoder, networks, checks, scores
#   ./Tests/NanoModel/run.sh OUT --from CHECKPOINT           from a checkpoint in diffusers layout, e.g. compose/models/nano-qwen-image
#
# OUT is a folder for the checkpoint and everything else. Options: --minutes M (of the joint training, 44), --vae-minutes M (14): of work, on each core.
# Stop it with Ctrl-C and start it with the same options: it resumes exactly where it was. Python: $PYTHON, or a virtual environment
# in OUT/venv that is made from requirements.txt.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

[ $# -ge 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
out=$1 from= minutes=44 vae_minutes=14
shift
while [ $# -gt 0 ]; do
  case $1 in
    --from) from=$2 ;;
    --minutes) minutes=$2 ;;
    --vae-minutes) vae_minutes=$2 ;;
    *) echo "run.sh: unknown option $1" >&2; exit 2 ;;
  esac
  shift 2
done
checkpoint=$out/checkpoint
mkdir -p "$out"

if [ -z "${PYTHON:-}" ]; then
  PYTHON=$out/venv/bin/python
  [ -x "$PYTHON" ] || { python3 -m venv "$out/venv" && "$PYTHON" -m pip install --quiet -r "$here/requirements.txt"; }
fi

# Each stage is done once; a stopped one is resumed.
stage() {
  local name=$1
  shift
  [ -e "$out/$name.done" ] && return
  echo "== $name"
  "$@"
  touch "$out/$name.done"
}

if [ -n "$from" ]; then
  stage copy cp -rT "$from" "$checkpoint"
else
  stage tokenizer "$PYTHON" "$here/tokenizer.py" "$checkpoint"
  stage vae "$PYTHON" "$here/train_vae.py" --checkpoint "$checkpoint" --state "$out/vae.pt" --minutes "$vae_minutes"
fi
stage train "$PYTHON" "$here/train.py" --checkpoint "$checkpoint" --state "$out/train.pt" --minutes "$minutes"
stage check "$PYTHON" "$here/checkpoint.py" --check "$checkpoint"
"$PYTHON" "$here/evaluate.py" --checkpoint "$checkpoint" --stock --wide
