"""Files of models and adapters as bytes: reading beneath a directory, copying, unpacking, hashing, free space.

Nothing here knows what a model is.
"""
