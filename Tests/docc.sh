#!/usr/bin/env bash
# Builds the documentation of the Shared modules with DocC, from what `swift build -c release` has left:
#
#   Tests/docc.sh [MODULE ...]       default: all modules that have a catalogue (Shared/MODULE/MODULE.docc)
#
# Archives lie in .build/docc; `docc preview` and any web server show them. A warning, such as a link to a symbol that is not there, is a
# failure; only undocumented parameters are not. Nothing is added to builds: symbol graphs are taken from their modules.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(swift build -c release --show-bin-path)
output=$PWD/.build/docc
modules=("$@")
if [ $# -eq 0 ]; then for catalogue in Shared/*/*.docc; do modules+=("$(basename "$catalogue" .docc)"); done; fi

target=$(swiftc -print-target-info | python3 -c 'import json, sys; print(json.load(sys.stdin)["target"]["unversionedTriple"])')
imports=(-I "$bin/Modules")
for folder in Shared/C*/include .build/checkouts/*/Sources/*/include; do imports+=(-I "$folder"); done
for map in "$bin"/*.build/module.modulemap Shared/C*/module.modulemap .build/checkouts/GRDB.swift/Sources/*/module.modulemap; do
  [ ! -f "$map" ] || imports+=(-Xcc "-fmodule-map-file=$(realpath "$map")")
done

passed=0
failed=0
for module in "${modules[@]}"; do
  [ -d "Shared/$module/$module.docc" ] || { echo "there is no Shared/$module/$module.docc" >&2; exit 64; }
  [ -f "$bin/Modules/$module.swiftmodule" ] || { echo "$module is not built: swift build -c release" >&2; exit 66; }
  symbols=$output/symbols/$module
  rm -rf "$symbols"
  mkdir -p "$symbols"
  swift symbolgraph-extract -module-name "$module" "${imports[@]}" -target "$target" -minimum-access-level public -output-dir "$symbols"
  docc convert "Shared/$module/$module.docc" --additional-symbol-graph-dir "$symbols" --fallback-display-name "$module" \
    --fallback-bundle-identifier "qwen-image.$module" --diagnostics-file "$symbols/diagnostics.json" \
    --output-path "$output/$module.doccarchive" >"$symbols/log" 2>&1 || {
    cat "$symbols/log"
    echo '{"diagnostics": [{"summary": "docc ended badly"}]}' >"$symbols/diagnostics.json"
  }
  if python3 - "$symbols/diagnostics.json" <<'CHECK'; then
import json, pathlib, sys
# Parameters whose name says all are not documented here.
found = [d for d in json.loads(pathlib.Path(sys.argv[1]).read_text())["diagnostics"] if not d["summary"].endswith("is missing documentation")]
for d in found:
    print(f"{d.get('source', '')}:{d.get('range', {}).get('start', {}).get('line', '')}: {d['summary']}")
sys.exit(1 if found else 0)
CHECK
    echo "ok   $module"
    passed=$((passed + 1))
  else
    echo "FAIL $module"
    failed=$((failed + 1))
  fi
done
echo "docc: $passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
