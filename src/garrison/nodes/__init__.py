"""Other servers: their addresses and keys, and what each was last seen to run.

A node is asked in the background, so that one that is out of reach slows nothing down: whoever lists instances gets
what was last seen, and since when.
"""
