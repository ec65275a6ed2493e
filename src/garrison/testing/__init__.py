"""The in-memory twins of Garrison's seams: a public part of the package, for its own tests and for those of others.

One module a seam: `clock` and `virtual_loop` (time), `processes`, `sockets`, `gpus` and `child` (a machine), `engines`
(started engines), `progress`, `sources` and `runner` (models and installations), `targets`, `artifacts` and
`adapter_traffic` (a fleet), `store` (the database), `views` (what is shown), `adapter_reader` (the simulator's disk). A
twin does no I/O, needs no event loop of its own, and lets a test see what was asked of it. Nothing in Garrison imports
this package.
"""
