"""The console scripts `vllm-preflight`, `vllm-resolve-model` and `vllm-serve`.

Their names, flags, variables, exit codes and output are a contract of their own.
"""
