"""One run of an engine: spawn it, watch it become ready, stop it, explain its end.

Any number of runs share a process: no signal handlers and no terminal here, except in `supervise`.
"""
