#!/usr/bin/env bash
# MLX: examples/mlx_lm.sh [MODEL] [engine arguments]
# mlx_lm.server takes any model name it does not know for one on the hub; it knows the one it serves as default_model.
here=$(dirname "$0")
model=${1:-mlx-community/Qwen2.5-0.5B-Instruct-4bit}
[ $# = 0 ] || shift
SMOKE_MODEL=default_model exec "$here/serve-and-smoke.sh" mlx_lm "$model" "$@"
