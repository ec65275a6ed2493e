"""Processes of this machine: read, signalled by identity, and ordered into trees.

`process` is the seam, `procfs` implements it for Linux, `portable` for other systems. `tree` is pure. A process is a
`ProcessId` from `base.identity`, checked again before every signal. Sockets, ports, GPUs and anything that knows what
an engine is do not belong here.
"""
