#!/usr/bin/env bash
# llama.cpp: examples/llama_cpp.sh FILE.gguf [engine arguments]
here=$(dirname "$0")
model=${1:?"name a GGUF file, or ORG/REPO/FILE.gguf on the hub"}
shift
exec "$here/serve-and-smoke.sh" llama_cpp "$model" "$@"
