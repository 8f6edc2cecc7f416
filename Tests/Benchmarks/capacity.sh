#!/bin/sh
# Measures what gateways can serve, with simulated workers and clients; needs Linux, and a gateway that is built:
#
#   ./capacity.sh [--OPTION VALUE ...]        ./capacity.sh --help lists the options
#
# Without options: one gateway, 2,000 workers, 500 jobs a second, then a restart with 100,000 queued jobs.
set -eu
cd "$(dirname "$0")"
swift build -c release --product CapacityBenchmark >&2
tool="$(swift build -c release --show-bin-path)/CapacityBenchmark"
[ $# -gt 0 ] || set -- --recovery 100000
exec "$tool" --binaries "$(cd ../.. && pwd)/.build/release" "$@"
