"""The routes that load and unload adapters: vLLM's own, and their SageMaker twins, which no API key protects."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from garrison.sim.api.bodies import error, invalid, plain
from garrison.sim.api.calls import json_object
from garrison.sim.engine import Refusal
from garrison.sim.http.messages import Later, Request, Response
from garrison.sim.state import ServerState

__all__ = ["load", "load_twin", "unload", "unload_twin"]


def load(state: ServerState, request: Request) -> Response | Later:
    """`POST /v1/load_lora_adapter {lora_name, lora_path, load_inplace?}`. A `base_model_name` is ignored."""
    return _load(state, request, "lora_name", "lora_path", "Success: LoRA adapter '{}' added successfully.")


def load_twin(state: ServerState, request: Request) -> Response | Later:
    """`POST /adapters {name, src, load_inplace?}`."""
    return _load(state, request, "name", "src", "Adapter {} registered")


def unload(state: ServerState, request: Request) -> Response:
    """`POST /v1/unload_lora_adapter {lora_name}`."""
    fields = _fields(request, ("lora_name",))
    if isinstance(fields, Refusal):
        return error(fields, state.config.error_shape)
    name = fields["lora_name"]
    return _unload(state, name, f"Success: LoRA adapter '{name}' removed successfully.")


def unload_twin(state: ServerState, name: str) -> Response:
    """`DELETE /adapters/{name}`."""
    return _unload(state, name, f"Adapter {name} unregistered")


def _load(state: ServerState, request: Request, name_key: str, path_key: str, success: str) -> Response | Later:
    fields = _fields(request, (name_key, path_key))
    if isinstance(fields, Refusal):
        return error(fields, state.config.error_shape)
    name, path, in_place = fields[name_key], fields[path_key], bool(fields.get("load_inplace"))
    finish = partial(_loaded, state, name, path, in_place, success.format(name))
    if not state.faults.load_delay:
        return finish()

    async def later() -> Response:
        await state.sleep(state.faults.load_delay)
        return finish()

    return later


def _loaded(state: ServerState, name: str, path: str, in_place: bool, success: str) -> Response:
    refusal = state.engine.load(name, path, in_place=in_place)
    return _refused(state, refusal) if refusal else plain(success)


def _unload(state: ServerState, name: str, success: str) -> Response:
    refusal = state.engine.unload(name)
    return _refused(state, refusal) if refusal else plain(success)


def _refused(state: ServerState, refusal: Refusal) -> Response:
    shape = state.config.error_shape
    if shape == "flat" and refusal.type == "NotFoundError":
        refusal = Refusal(400, "InvalidUserInput", refusal.message)
    return error(refusal, shape)


def _fields(request: Request, required: tuple[str, ...]) -> Mapping[str, Any] | Refusal:
    body = json_object(request)
    if isinstance(body, Refusal):
        return body
    for name in required:
        if name not in body:
            return invalid("missing", f"body.{name}", "Field required", body)
        if not isinstance(body[name], str):
            return invalid("string_type", f"body.{name}", "Input should be a valid string", body[name])
    return body
