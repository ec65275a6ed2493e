"""Ollama: Modelfiles, and the variables of its server from an environment file or a systemd unit."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from garrison.migrate.modelfile import Modelfile
from garrison.migrate.values import FOREVER, Found, idle_text, literal

__all__ = ["add_environment", "add_modelfile", "is_unit", "read_environment"]

_SETTINGS = {
    "OLLAMA_MAX_LOADED_MODELS": "GARRISON_MAX_RUNNING_INSTANCES",
    "OLLAMA_MAX_QUEUE": "GARRISON_START_QUEUE",
    "OLLAMA_ORIGINS": "GARRISON_ALLOWED_ORIGINS",
}
_FOR_INSTANCES = (
    "OLLAMA_KEEP_ALIVE", "OLLAMA_NUM_PARALLEL", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_FLASH_ATTENTION",
    "OLLAMA_KV_CACHE_TYPE", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
_PARAMETERS = {
    "num_gpu": "gpu_layers", "num_thread": "threads", "num_batch": "batch_size", "num_keep": "keep",
    "num_predict": "predict", "main_gpu": "main_gpu", "temperature": "temp", "top_k": "top_k", "top_p": "top_p",
    "min_p": "min_p", "typical_p": "typical", "seed": "seed", "repeat_last_n": "repeat_last_n",
    "repeat_penalty": "repeat_penalty", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty", "mirostat": "mirostat", "mirostat_eta": "mirostat_lr",
    "mirostat_tau": "mirostat_ent",
}  # fmt: skip
"""PARAMETER to the option of llama-server that sets its default for requests."""
_ANSWERS = {
    "template": "no equivalent; the chat template in the GGUF file is used, see the option chat_template_file",
    "system": "no equivalent; clients send their system prompt",
    "message": "no equivalent; clients send their messages",
    "license": "not part of a manifest",
}
_KEEP_ALIVE_SECONDS = 300.0
_PORT = "11434"
_DURATION = re.compile(r"(-?\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_LIBRARY = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?(:[A-Za-z0-9._-]+)?\Z")


def is_unit(text: str) -> bool:
    """Return whether a text is a systemd unit, or a drop-in of one."""
    return re.search(r"^\[Service\]\s*$", text, re.MULTILINE) is not None


def read_environment(text: str) -> dict[str, str]:
    """Return the variables of a systemd unit's `Environment=` lines, or of a file of `NAME=VALUE` lines."""
    found: dict[str, str] = {}
    unit = is_unit(text)
    for line in text.replace("\\\n", " ").splitlines():
        rest = line.strip()
        if unit:
            key, equals, rest = rest.partition("=")
            if key.strip() != "Environment" or not equals:
                continue
            rest = rest.replace("%%", "%")
        elif not rest or rest.startswith("#"):
            continue
        try:
            words = shlex.split(rest.removeprefix("export "))
        except ValueError:
            continue
        for word in words:
            name, equals, value = word.partition("=")
            if equals and name.isidentifier():
                found[name] = value
    return found


def add_environment(environ: Mapping[str, str], found: Found) -> None:
    """Take over the variables of Ollama's server that concern the whole server; `add_modelfile` takes the others."""
    for name, value in environ.items():
        if name == "OLLAMA_HOST":
            _host(value, found)
        elif name == "OLLAMA_LOAD_TIMEOUT":
            found.set(name, "GARRISON_ON_DEMAND_START_TIMEOUT", f"{_seconds(value) or 300:g}")
        elif name == "OLLAMA_DEBUG" and value not in ("", "0", "false"):
            found.set(name, "GARRISON_LOG_LEVEL", "debug")
        elif name in _SETTINGS:
            if (name, value) == ("OLLAMA_MAX_LOADED_MODELS", "0"):
                continue  # as many as there is room for, as here
            found.set(name, _SETTINGS[name], value)
        elif name.startswith("OLLAMA_") and name not in (*_FOR_INSTANCES, "OLLAMA_MODELS", "OLLAMA_DEBUG"):
            found.remark(name, "no equivalent")


def add_modelfile(name: str, modelfile: Modelfile, environ: Mapping[str, str], directory: Path, found: Found) -> None:
    """Take over one model.

    Args:
        name: what clients call it.
        environ: the variables of Ollama's server.
        directory: base of the paths in the Modelfile.
    """
    where = f"Modelfile {name}"
    options: dict[str, Any] = {}
    body: dict[str, Any] = {"model": literal(_model(modelfile.model, directory, found, where)), "engine": "llama_cpp"}
    parameters = dict(modelfile.parameters)
    slots = _whole(environ.get("OLLAMA_NUM_PARALLEL"))
    context = _whole(parameters.pop("num_ctx", None)) or _whole(environ.get("OLLAMA_CONTEXT_LENGTH"))
    if context:
        options["ctx_size"] = context * (slots or 1)  # Ollama counts it for each request, llama-server for all
    if slots:
        options["parallel"] = slots
    if environ.get("OLLAMA_FLASH_ATTENTION", "") not in ("", "0", "false"):
        options["flash_attn"] = "on"
    if kind := environ.get("OLLAMA_KV_CACHE_TYPE"):
        options |= {"cache_type_k": kind, "cache_type_v": kind}
    for parameter, value in parameters.items():
        if (option := _PARAMETERS.get(parameter)) is not None:
            options[option] = _number(value)
        elif parameter == "use_mmap" and value == "false":
            options["load_mode"] = "none"
        elif parameter != "use_mmap":
            found.remark(f"{where}: PARAMETER {parameter}", "no equivalent; clients send it with a request")
    if modelfile.adapters:
        options["lora"] = literal([_beside(one, directory) for one in modelfile.adapters])
    if options:
        body["options"] = options
    body["idle"] = _idle(environ.get("OLLAMA_KEEP_ALIVE"), found)
    if devices := [one.strip() for one in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]:
        body["devices"] = devices
    for instruction in modelfile.others:
        found.remark(f"{where}: {instruction.upper()}", _ANSWERS.get(instruction, "no equivalent"))
    found.add_instance(name, body, where)


def _model(text: str, directory: Path, found: Found, where: str) -> str:
    for prefix in ("hf.co/", "huggingface.co/", "https://huggingface.co/"):
        if text.startswith(prefix):
            name, colon, tag = text.removeprefix(prefix).partition(":")
            if colon:
                found.remark(where, f"the tag {tag!r} is not looked up; name the file: model: {name}/FILE.gguf")
            return name
    if text.startswith((".", "/", "~")) or text.endswith((".gguf", ".safetensors")):
        return _beside(text, directory)
    if _LIBRARY.match(text):
        found.remark(
            where,
            f"{text} is a name in Ollama's library, which Garrison does not know; name a GGUF file, or ORG/NAME on the "
            "hub",
        )
    return text


def _beside(text: str, directory: Path) -> str:
    return text if text.startswith("~") else str(directory / text)


def _idle(text: str | None, found: Found) -> str:
    seconds = _KEEP_ALIVE_SECONDS if text is None else _seconds(text)
    if seconds is None:
        found.remark("OLLAMA_KEEP_ALIVE", f"{text!r} is no duration; Ollama's default is taken")
        seconds = _KEEP_ALIVE_SECONDS
    if seconds < 0:
        return FOREVER
    return idle_text(max(seconds, 1.0))


def _seconds(text: str) -> float | None:
    """Return a duration as Go writes it: `5m`, `1h30m`, `-1`; None if it is none."""
    parts = list(_DURATION.finditer(text.strip()))
    if not parts or "".join(one[0] for one in parts) != text.strip():
        return None
    return sum(float(one[1]) * _UNITS[one[2]] for one in parts)


def _host(value: str, found: Found) -> None:
    """Have Ollama's API where Ollama had it, so that its clients find it there."""
    host, colon, port = value.removeprefix("http://").removeprefix("https://").rstrip("/").rpartition(":")
    if not colon or not port.isdecimal():
        host, port = value, ""
    if host:
        found.set("OLLAMA_HOST", "GARRISON_GATEWAY_OLLAMA_HOST", host)
    found.set("OLLAMA_HOST", "GARRISON_GATEWAY_OLLAMA_PORT", port or _PORT)


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 and int(text) else None


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
