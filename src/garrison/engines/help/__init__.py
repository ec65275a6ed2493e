"""Reading `--help` of an engine into its catalogue of options.

Text in, values out: only `describe` runs a program.
"""
