"""File formats: the headers of GGUF and safetensors files, and checksum lists.

Parsed under limits; no tensor data is read.
"""
