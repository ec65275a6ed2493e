"""Before an engine starts: its port is free or made free, the GPUs are fit.

`check` is the whole preflight, `port_lock` keeps a second one out, `proxy` runs the downstream command. The judging is
in files without I/O (`addresses`, `classify`, `holders`, `gpu.gpus`); sockets, processes, GPUs and the child are
reached through the protocols in `listeners`, `processes.process`, `gpu.probe` and `downstream`.
"""
