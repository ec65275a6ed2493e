"""The in-memory twins of Garrison's seams, for tests of Garrison and of programs built on it.

Nothing in Garrison imports this package.
"""
