"""The network: HTTP/1.1 in both directions, TLS, names and secrets.

What lives here reads and writes bytes for peers and knows nothing about what they mean: `http1` (the framing that the
client, the simulator and the gateway share), the client with its streams and its pool, the resolver, TLS contexts, and
the references to secrets that requests carry. No fleet, no engine, no store, and no listening server of Garrison's own
may be known here; the room imports `base` alone.
"""
