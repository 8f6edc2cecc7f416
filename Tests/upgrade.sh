#!/usr/bin/env bash
# Upgrades real clusters from an earlier version to this one while requests run, in both orders: see
# Tests/Cluster/upgrade_test.py.
#
#   Tests/upgrade.sh [GIT-REF]                    from a tag or commit; default: the latest tag, else the last commit
#                                                 before workers served several gateways
#   --old-executables DIR                         of that version, if they are built already
#   --executables DIR                             of this version, if they are built already
#   --jobs N, --seed N, --only TEST               see the script
#
# Builds this version and, in a worktree below .build/upgrade, the earlier one: ten minutes on two cores the first time;
# the tests take five.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
  exit 64
}

first=b4434ce
ref=
old=
new=
options=()
while [ $# -gt 0 ]; do
  case $1 in
    --old-executables) old=$(cd "${2:?--old-executables needs a directory}" && pwd); shift ;;
    --executables) new=$(cd "${2:?--executables needs a directory}" && pwd); shift ;;
    --jobs | --seed | --only) options+=("$1" "${2:?$1 needs a value}"); shift ;;
    -*) usage ;;
    *) [ -z "$ref" ] || usage; ref=$1 ;;
  esac
  shift
done

./compose/install-packages.sh
if [ -z "$old" ]; then
  ref=${ref:-$(git describe --tags --abbrev=0 2>/dev/null || echo "$first")}
  commit=$(git rev-parse --verify --quiet "$ref^{commit}") || { echo "upgrade.sh: there is no commit $ref" >&2; exit 64; }
  tree=$PWD/.build/upgrade/$commit
  [ -d "$tree" ] || git worktree add --detach "$tree" "$commit"
  echo "building $ref in $tree" >&2
  (cd "$tree" && QWEN_IMAGE_WITHOUT_TESTS=1 swift build -c release)
  old=$tree/.build/release
fi
if [ -z "$new" ]; then
  swift build -c release
  new=$(swift build -c release --show-bin-path)
fi
python=$(Tests/Support/python.sh)
exec "$python" Tests/Cluster/upgrade_test.py "$old" "$new" "${options[@]}"
