"""The HTTP server of the simulator, with the faults a network has.

It knows no path of the API.
"""
