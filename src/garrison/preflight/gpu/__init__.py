"""GPUs before an engine starts: how they are read, what their values mean, and whether they are fit.

`gpus` judges values and does no I/O; `probe` is the seam to the driver, and `nvml` and `nvidia_smi`
implement it. Nothing here is imported when the GPU check is skipped. What concerns ports stays outside.
"""
