"""A worker: the process that owns the public port. One event loop, no disk, no database, no lock.

    worker         startup, main_loop, shutdown
    link           the connection to the control process; `reporting` says there what was used, and what is in progress
    plane          what all connections share: settings, tables, callers, and the limits of time
    exchange       one request to a model, from its head to the last byte of its answer
    connections    of clients, to targets, and requests that are passed on as they are
    table          what there is: routes, targets with their idle connections, callers
    accounts       what a request uses, and what is kept of it until it is reported
    heads          what is read in heads, and what is passed on of them

Each imports those below it. A warm request costs callbacks only: no task is made for it, and nothing waits.
"""
