"""Before an engine starts: its port is free or is freed, and the GPUs are within their limits.

`check` is the whole preflight, `port_lock` keeps a second one out, `downstream` runs the command that follows.
Decisions are in modules without I/O (`policy`, `addresses`, `classify`, `holders`, `gpu.gpus`); sockets, processes,
GPUs, servers and the child process are reached through the protocols in `listeners`, `processes.process`, `gpu.probe`,
`servers` and `downstream.child`. The API of an engine is not known here: a room above answers through `servers`.
"""
