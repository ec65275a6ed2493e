"""Parse a command line that a user pasted: shell words, containers, options.

Nothing here runs what it reads.
"""
