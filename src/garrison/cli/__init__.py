"""Commands: parse, call one function, render. No logic.

`table` lists the commands, `main` finds one and runs it, and each command has a file of its own, imported only when it
is asked for, so that `garrison --help` costs a few interpreter starts and not forty.
"""
