#!/bin/sh
# Prints what goes over compose.yaml on a machine with several memory nodes (NUMA): a denoiser on each, on the node's processors.
#
#   ./memory-nodes.sh > memory-nodes.local.yaml
#   docker compose -f compose.yaml -f memory-nodes.local.yaml up --detach --wait
#
# memory-nodes.yaml is what it prints for two nodes of 16 processors. Another argument than /sys/devices/system/node is for tests.
set -eu
case "${1:-}" in -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | sed '$d'; exit ;; esac
nodes=${1:-/sys/devices/system/node}

echo "# Over compose.yaml: a denoiser on each memory node of a machine, on the node's processors. Made by memory-nodes.sh."
echo "services:"
name=
for node in $(ls -d "$nodes"/node[0-9]* 2>/dev/null | sed 's/.*node//' | sort -n); do
  processors=$(cat "$nodes/node$node/cpulist")
  [ -n "$processors" ] || continue # memory alone
  if [ -z "$name" ]; then
    name=denoiser
    echo "  $name:"
  else
    name=denoiser-$node
    echo "  $name:"
    echo "    extends: {file: compose.yaml, service: denoiser}"
  fi
  echo "    cpuset: \"$processors\""
done
if [ -z "$name" ]; then echo "memory-nodes.sh: $nodes has no nodes with processors" >&2; exit 1; fi
