"""A pasted command line as the JSON that llamactl's `parse-command` answers: type, options, environment, remarks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from garrison.engines import registry
from garrison.engines.catalogue import Catalogue
from garrison.engines.findings import check_args
from garrison.engines.options import to_options
from garrison.engines.parse.command import ParsedCommand, parse_command
from garrison.engines.parse.pasted import unwrap

__all__ = ["ParsedBackend", "parse_backend"]


@dataclass(frozen=True, slots=True)
class ParsedBackend:
    """What a command line says.

    Attributes:
        backend_type: the engine.
        backend_options: its options as JSON, `model` among them; `extra_args` holds those that are not known.
        environment: variables in front of the command.
        docker_enabled: it was the command of a container.
        notes: what could not be kept or is not known to the engine, in sentences.
    """

    backend_type: str
    backend_options: Mapping[str, Any] = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    docker_enabled: bool = False
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As llamactl answers; what is empty is left out, and the notes are not part of it."""
        body: dict[str, Any] = {"backend_type": self.backend_type, "backend_options": dict(self.backend_options)}
        if self.environment:
            body["environment"] = dict(self.environment)
        if self.docker_enabled:
            body["docker_enabled"] = True
        return body


def parse_backend(text: str, backend: str | None = None) -> ParsedBackend:
    """Translate a command line that starts an engine. Nothing is run.

    Args:
        backend: the engine that is expected, in any spelling, such as `llama-cpp`; with it, arguments alone are
            accepted too. None takes whichever it starts.

    Raises:
        InvalidError: it is empty or malformed, needs a shell, or starts another engine than `backend`.
    """
    found = parse_command(unwrap(text), None if backend is None else registry.engine(backend).name)
    catalogue = registry.engine("vllm" if found.engine == "sim" else found.engine).catalogue()
    findings = (finding.message for finding in check_args(catalogue, found.args, strays=False))
    return ParsedBackend(
        backend_type=found.engine,
        backend_options=to_options(found, catalogue),
        environment=dict(found.env),
        docker_enabled=found.container is not None,
        notes=tuple(dict.fromkeys((*found.notes, *_remarks(found, catalogue), *findings))),
    )


def _remarks(found: ParsedCommand, catalogue: Catalogue) -> list[str]:
    known = catalogue.by_spelling()
    notes = [f"{word!r} belongs to no option and was left out" for word in found.stray if word != "--"]
    if found.container is not None:
        image = found.container.image
        notes.append(f"the image {image} is not part of the options; set it for the whole engine, or in the executable")
    switches = (flag for flag in found.options if flag in known and known[flag].nargs == "0")
    notes += [f"{flag} takes no value; it was read as on or off" for flag in switches if any(found.options[flag])]
    # llama-server has more ways to name one, and vLLM's config file may.
    if found.model is None and found.engine != "llama_cpp" and "--config" not in found.options:
        notes.append("it names no model, without which it cannot start")
    return notes
