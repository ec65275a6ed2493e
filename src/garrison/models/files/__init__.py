"""Files of models and adapters as bytes: reading beneath a directory, copying, unpacking, hashing, free space; and what
long work needs: progress, stopping.

Nothing here knows what a model is.
"""
