"""One run of an engine: spawn it, watch it become ready, stop it, explain its exit.

Any number of runs share a process, so there are no signal handlers and no terminal here, except in `supervise`.
"""
