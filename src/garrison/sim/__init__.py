"""The vLLM simulator: an OpenAI-compatible server that behaves as vLLM 0.32 was observed to, misfeatures included.

`garrison.sim.simulator.Simulator` runs one in the caller's event loop; `garrison sim` and `python -m garrison.sim` run
one as a process. `engine` is the state machine, `api` the routes, `http` the server with the faults a network has,
`faults` what goes wrong on purpose. It imports `base` and `net` alone, so that nothing it imitates can leak into it.

Nothing is imported here, so that importing the package costs nothing.
"""
