"""A worker: the process that owns the public port. One event loop, no disk, no database, no lock.

    inbound        connections of clients: requests in, answers out, one after the other
    exchange       one request to a model, from its head to the last byte of its answer
    account        what a request uses: tokens against limits, and what is reported at its end
    passing        one request to the control process, streamed both ways; other protocols after an upgrade
    outbound       connections to targets
    targets        what there is: routes by name, targets with their idle connections
    callers        keys and limits
    link           the connection to the control process
    worker         startup, main_loop, shutdown

A warm request costs callbacks only: no task is made for it, and nothing waits.
"""
