#!/usr/bin/env bash
# The simulator: examples/sim.sh MODEL-DIRECTORY [simulator arguments]
here=$(dirname "$0")
model=${1:?"name a model directory; scripts/tiny_model.py makes one"}
shift
exec "$here/serve-and-smoke.sh" sim "$model" "$@"
