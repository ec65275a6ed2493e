"""Line and column of the values in a document, and what to say of one that does not parse. `documents` uses it.

It parses no values.
"""
