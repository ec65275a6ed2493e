"""The HTTP server of the simulator, with the faults a network has.

Nothing here knows a path of the API.
"""
