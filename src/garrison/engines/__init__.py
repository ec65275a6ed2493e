"""What each engine is: how it is found, started, queried, diagnosed and installed.

engine, registry                       the protocol, and engines by name
vllm, llama_cpp, mlx_lm, sim           one module per engine; vllm_config, vllm_control
argv, catalogue, parse/, help/         arguments: reading, checking, pasted commands, catalogues from --help
control, metrics, memory               sleep, wake, drain | what metrics mean | when GPU memory is back
phases, diagnose, system_libraries     what a log says: progress of a start, causes of death
environments, executable, version, install/

Engines are values and pure functions here. Starting, watching and stopping their processes is the work of `launch`;
ports, GPUs and the resolving of models are not known.
"""
