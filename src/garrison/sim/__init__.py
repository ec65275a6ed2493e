"""The vLLM simulator: an OpenAI-compatible server that behaves as vLLM 0.32 was seen to behave, faults included.

`garrison.sim.simulator.Simulator` runs one in the caller's event loop; `garrison sim` and `python -m garrison.sim` run
one as a process. Nothing is imported here, so that the name costs nothing.
"""
