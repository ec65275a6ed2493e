"""Commands: parse arguments, call one function, render its result.

`table` lists the commands, `main` finds one and runs it. Each command has a module of its own, imported only when it
runs, so that `garrison --help` costs a few interpreter starts instead of forty. `*_view` modules render results.

Decisions about models, processes and targets do not belong here.
"""
