#!/usr/bin/env bash
# Start an engine with a model, try every API, and stop it. The other scripts here call this one.
#
#   examples/serve-and-smoke.sh ENGINE MODEL [engine arguments]
set -euo pipefail
engine=$1 model=$2
shift 2
port=${PORT:-8000}
url=http://127.0.0.1:$port

garrison serve "$model" --engine "$engine" --port "$port" --no-logs -- "$@" &
server=$!
stop() { kill "$server" 2>/dev/null || true; wait "$server" || true; }
trap stop EXIT

# Stop waiting as soon as the server exits: a dead one will never be ready.
until garrison wait "$url" --timeout 2 --quiet 2>/dev/null; do
  kill -0 "$server" 2>/dev/null || { echo "the server exited before it was ready; see its output above" >&2; exit 1; }
done
garrison smoke "$url" ${SMOKE_MODEL:+--model "$SMOKE_MODEL"}
