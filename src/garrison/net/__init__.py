"""The network: HTTP/1.1 in both directions, TLS, names and secrets.

This package exchanges bytes with peers and does not know what they mean: `http1` (the framing that the client, the
simulator and the gateway share), the client with its streams and its pool, the resolver, TLS contexts, and references
to the secrets that requests carry. Nothing here knows the fleet, engines, the store, or a server of Garrison's own; the
package imports only `base`.
"""
