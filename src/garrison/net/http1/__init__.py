"""HTTP/1.1 framing for both directions, over httptools; used by the client, the simulator and the gateway.

    requests.RequestReader     bytes of a client  -> heads, body pieces, ends; refusals with a status
    responses.ResponseReader   bytes of a server  -> the same, with 1xx, HEAD, bodies that end with the connection
    writing                    heads and chunks as bytes
    flow.FlowControl           when to stop reading and when to stop writing

The readers do not know sockets. They call a sink for what they find, so that a body costs no object but its bytes, and
they never raise for anything a peer sends. Both rely on llhttp in strict mode for the grammar (line ends, folded
headers, space before a colon, repeated or malformed lengths, a length beside chunks) and add what it does not check:
sizes, transfer codings other than chunked, versions, and trailers, which never count as headers.
"""
