"""Servers and certificates for the tests of the network room."""

from served import (
    Certificate,
    Certify,
    EveryAdapter,
    RawServer,
    StartRaw,
    StartSim,
    black_hole,
    certify,
    refusing_port,
    start_raw,
    start_sim,
)

__all__ = [
    "Certificate",
    "Certify",
    "EveryAdapter",
    "RawServer",
    "StartRaw",
    "StartSim",
    "black_hole",
    "certify",
    "refusing_port",
    "start_raw",
    "start_sim",
]
