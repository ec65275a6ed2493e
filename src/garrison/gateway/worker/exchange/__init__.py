"""One request to a model, from its head to the last byte of its answer.

The steps are classes, each on top of the one before: `state`, `failing`, `waiting`, `answering`, `sending`, `exchange`.
"""
