"""The management API: llamactl's paths and JSON, and what Garrison adds to them. One package or module a noun.

Routes parse, call one function and render. What they call is in `Services`; what is decided elsewhere stays there.
"""
