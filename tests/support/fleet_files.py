"""Manifests for the commands that work on the fleet in memory."""

import json
from pathlib import Path

MANIFEST = {
    "stack": "lab",
    "targets": {"edge-1": {"base_url": "http://edge-1:8000"}, "edge-2": {"base_url": "http://edge-2:8000"}},
    "adapters": {
        "sql": {"targets": ["edge-1", "edge-2"], "lora_path": "/models/sql"},
        "chat": {"target": "edge-1", "lora_path": "/models/chat"},
    },
}


def write(path: Path, **changes) -> Path:
    """`MANIFEST` with other top-level values."""
    path.write_text(json.dumps(MANIFEST | changes), encoding="utf-8")
    return path
