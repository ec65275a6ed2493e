"""Processes of this machine: read, signalled by identity, and ordered into trees.

`process` is the seam, `procfs` implements it for Linux and `portable` for other systems. `tree`
is pure. A process is a `ProcessId` from `base.identity`, checked again before every signal. Sockets, ports and GPUs do
not belong here, nor does anything that knows what an engine is.
"""
