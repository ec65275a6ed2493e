"""The fleet manifest: reads a file into a `Declaration`, and writes a `Declaration` back as a file.

Parsing, validation, the JSON Schema and import from formae and Pkl live here. Nothing here talks to a target or to the
store.
"""
