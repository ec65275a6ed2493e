"""From a model, an engine, its options and its adapters to a checked command, and from the command to an engine that
serves.

`manifest` and `spec` say what to serve, `engine_command` makes the command, `serve` is the whole flow. `run` supervises
an engine, `shim` is its parent process, `doctor` checks the machine. What an engine is belongs to `engines`, what its
port and GPUs need to `preflight`; nothing here knows the fleet.
"""
