"""A command line as the keys of an instance."""

import shlex
from collections.abc import Mapping
from typing import Any

from garrison.base.errors import InvalidError
from garrison.engines.catalogue import load
from garrison.engines.llama_router import is_router
from garrison.engines.options import to_options
from garrison.engines.parse.command import ParsedCommand, parse_command
from garrison.migrate.values import Found

__all__ = ["hub_model", "instance_of_command", "server_options"]

_OF_THE_SERVER = ("port", "host", "api_key", "api_key_file", "uds")
"""Options that a Garrison server sets itself."""


def server_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` without those that say where an engine listens, and with which key."""
    return {key: value for key, value in options.items() if key not in _OF_THE_SERVER}


def instance_of_command(command: str, found: Found, where: str) -> dict[str, Any] | None:
    """Return the keys of the instance that runs `command`; None if it starts no engine that Garrison knows.

    Adds remarks for what the command did and the instance will not do.
    """
    try:
        parsed = parse_command(command)
    except InvalidError:
        return None
    options = server_options(to_options(parsed, load(parsed.engine if parsed.engine != "sim" else "vllm")))
    body: dict[str, Any] = {"engine": parsed.engine}
    if not is_router(parsed.engine, options, preset=False):
        model = _model(parsed, options, found, where)
        if model is None:
            return None
        body["model"] = model
    if options:
        body["options"] = options
    if parsed.container is not None:
        body["container"] = True
        _container_remarks(parsed, found, where)
    elif parsed.executable is not None and "/" in parsed.executable:
        body["executable"] = parsed.executable
    elif parsed.executable is not None and parsed.executable.startswith(("python", "uv")):
        found.remark(where, f"{parsed.executable} is not taken over: the engine of that name is started")
    if parsed.env:
        body["env"] = found.env(parsed.env, where)
    return body


def _model(parsed: ParsedCommand, options: dict[str, Any], found: Found, where: str) -> str | None:
    named = options.pop("model", None)
    if isinstance(named, str) and named:
        return named
    if (url := options.pop("model_url", None)) is not None:
        found.remark(where, "a model by URL has no equivalent; download it, and name the file")
        return str(url)
    return hub_model(options, found, where)


def hub_model(options: dict[str, Any], found: Found, where: str) -> str | None:
    """Take llama.cpp's names of a repository out of `options`; return the model; None if there are none."""
    repo = options.pop("hf_repo", None) or options.pop("hf", None)
    file = options.pop("hf_file", None)
    if not isinstance(repo, str) or not repo:
        return None
    name, colon, tag = repo.partition(":")
    if isinstance(file, str) and file:
        return f"{name}/{file}"
    if colon:
        found.remark(where, f"the tag {tag!r} of {name} is not looked up; name the file: model: {name}/FILE.gguf")
    return name


def _container_remarks(parsed: ParsedCommand, found: Found, where: str) -> None:
    container = parsed.container
    assert container is not None
    variable = {"vllm": "GARRISON_VLLM_IMAGE", "llama_cpp": "GARRISON_LLAMA_IMAGE"}.get(parsed.engine)
    words = " ".join(shlex.join([flag] if value is None else [flag, value]) for flag, value in container.options
                     if flag not in ("--env", "--name", "--rm", "--publish"))  # fmt: skip
    image = f"the image is {container.image}" + (f" (set {variable})" if variable else "")
    found.remark(where, f"runs in a container; {image}" + (f"; options of the container: {words}" if words else ""))
    for note in parsed.notes:
        found.remark(where, note)
