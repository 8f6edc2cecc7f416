#!/usr/bin/env bash
# Runs the cluster in virtual time, see README.md:
#
#   Tests/Simulation/run.sh --seeds 100000 [--first S] [--mutation NAME]
#   Tests/Simulation/run.sh --seed S --trace [--mutation NAME]
#   Tests/Simulation/run.sh --replicas …                              several gateways over one journal
#   Tests/Simulation/run.sh --load JOBS [--workers N] [--answers N]   how long the scheduler's events take
set -euo pipefail
cd "$(dirname "$0")/../.."

swift build -c release --product simulate >&2
exec "$(swift build -c release --show-bin-path)/simulate" "$@"
