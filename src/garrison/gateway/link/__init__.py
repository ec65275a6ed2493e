"""The connection between the control process and the workers: messages, and their framing on a unix socket.

The control process tells what there is: settings, keys, targets and routes, first whole, then each change. A worker
asks for what is cold, counts its requests, and says when it lets no more through to a target. After either end was
killed, the other one goes on with what it knows, and both begin again with `Hello`.
"""
