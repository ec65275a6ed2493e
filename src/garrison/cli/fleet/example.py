"""`garrison example`: what a first look at the fleet needs, with no hardware and no download."""

import json
import random
import struct
from pathlib import Path
from typing import Annotated

import typer

from garrison.base.errors import ConflictError, InvalidError
from garrison.base.files import is_disk_full
from garrison.base.presence import exists
from garrison.cli.options import app as make_app

app = make_app("Write a small fleet to try: a manifest and a LoRA adapter for the simulator.")

_BASE = "acme/tiny"
_RANK, _HIDDEN, _LAYERS = 8, 64, 2
_PORT = 8009
_MANIFEST = f"""\
# A fleet of one server, which is simulated:
#
#     garrison sim {_BASE} --port {_PORT} --enable-lora --allow-runtime-lora-updating
#
stack: tour
targets:
  sim: {{base_url: "http://127.0.0.1:{_PORT}"}}
adapters:
  sql: {{targets: [sim], lora_path: ./adapters/sql}}
policy: {{on_drift: restore, interval: 5s}}
"""
_CONFIG = {
    "base_model_name_or_path": _BASE,
    "bias": "none",
    "lora_alpha": 2 * _RANK,
    "lora_dropout": 0.0,
    "peft_type": "LORA",
    "r": _RANK,
    "target_modules": ["q_proj", "v_proj"],
    "task_type": "CAUSAL_LM",
}


@app.command()
def example(
    directory: Annotated[Path, typer.Argument(help="A new directory.", show_default=False)] = Path("garrison-example"),
) -> int:
    """Write a small fleet to try: a manifest and a LoRA adapter for the simulator."""
    from garrison.cli.views.page import plain

    if exists(directory):
        raise ConflictError(f"{directory} exists already", hint="Name a new directory: garrison example ./tour")
    adapter = directory / "adapters" / "sql"
    try:
        adapter.mkdir(parents=True)
        (directory / "fleet.yaml").write_text(_MANIFEST, encoding="utf-8")
        (adapter / "adapter_config.json").write_text(json.dumps(_CONFIG, indent=2) + "\n", encoding="utf-8")
        (adapter / "adapter_model.safetensors").write_bytes(_weights())
    except OSError as error:
        if is_disk_full(error):
            raise
        raise InvalidError(f"cannot write {directory}: {error.strerror}", hint="Name another directory.") from None
    print(f"wrote {plain(str(directory))}: fleet.yaml and adapters/sql")
    print("next:")
    print(f"  cd {plain(str(directory))}")
    print(f"  garrison sim {_BASE} --port {_PORT} --enable-lora --allow-runtime-lora-updating    # in another terminal")
    print("  garrison plan -f fleet.yaml")
    return 0


def _weights() -> bytes:
    """LoRA weights as safetensors, float32. They are random: the simulator does not compute with them."""
    draw = random.Random(1)  # noqa: S311 - no secret
    shapes = {
        f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_{side}.weight": shape
        for layer in range(_LAYERS)
        for module in ("q_proj", "v_proj")
        for side, shape in (("A", (_RANK, _HIDDEN)), ("B", (_HIDDEN, _RANK)))
    }
    header, data = {}, b""
    for name, (rows, columns) in shapes.items():
        values = struct.pack(f"<{rows * columns}f", *(draw.gauss(0, 0.5) for _ in range(rows * columns)))
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data
