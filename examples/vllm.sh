#!/usr/bin/env bash
# vLLM: examples/vllm.sh [MODEL] [engine arguments]
here=$(dirname "$0")
model=${1:-Qwen/Qwen2.5-0.5B-Instruct}
[ $# = 0 ] || shift
exec "$here/serve-and-smoke.sh" vllm "$model" "$@"
