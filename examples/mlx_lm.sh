#!/usr/bin/env bash
# MLX: examples/mlx_lm.sh [MODEL] [engine arguments]
# mlx_lm.server looks up any unknown model name on the hub; the model it serves is called default_model.
here=$(dirname "$0")
model=${1:-mlx-community/Qwen2.5-0.5B-Instruct-4bit}
[ $# = 0 ] || shift
SMOKE_MODEL=default_model exec "$here/serve-and-smoke.sh" mlx_lm "$model" "$@"
