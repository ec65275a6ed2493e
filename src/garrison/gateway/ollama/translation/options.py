"""`options` of Ollama's requests as parameters of OpenAI's API, with those that vLLM and llama.cpp add to it.

Options that shape an engine (`num_gpu`, `num_batch`, `use_mmap`, …) are ignored: a request never changes an engine. So
are options that nobody knows, as in Ollama.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from garrison.base.errors import InvalidError

__all__ = ["Options", "check_context", "read_options"]

_Kind = Literal["number", "whole"]
_PARAMETERS: Mapping[str, tuple[_Kind, tuple[str, ...]]] = {
    "temperature": ("number", ("temperature",)),
    "top_p": ("number", ("top_p",)),
    "top_k": ("whole", ("top_k",)),
    "min_p": ("number", ("min_p",)),
    "typical_p": ("number", ("typical_p",)),
    "seed": ("whole", ("seed",)),
    "presence_penalty": ("number", ("presence_penalty",)),
    "frequency_penalty": ("number", ("frequency_penalty",)),
    "repeat_penalty": ("number", ("repetition_penalty", "repeat_penalty")),  # vLLM's and mlx_lm's name, llama.cpp's
    "repeat_last_n": ("whole", ("repeat_last_n",)),
    "num_keep": ("whole", ("n_keep",)),
    "mirostat": ("whole", ("mirostat",)),
    "mirostat_tau": ("number", ("mirostat_tau",)),
    "mirostat_eta": ("number", ("mirostat_eta",)),
    "num_predict": ("whole", ("max_tokens",)),
    "num_ctx": ("whole", ()),
}


@dataclass(frozen=True, slots=True)
class Options:
    """What options say.

    Attributes:
        parameters: for the engine.
        num_ctx: the context that the client counts on, in tokens; None where it does not say.
    """

    parameters: Mapping[str, Any]
    num_ctx: int | None = None


def read_options(given: Mapping[str, Any] | None) -> Options:
    """Translate options.

    Raises:
        InvalidError: one has the wrong type.
    """
    parameters: dict[str, Any] = {}
    num_ctx = None
    for name, value in (given or {}).items():
        if value is None:
            continue
        if name == "stop":
            parameters["stop"] = _stop(value)
        elif name in _PARAMETERS:
            kind, targets = _PARAMETERS[name]
            number = _number(name, value, kind)
            if name == "num_ctx":
                num_ctx = int(number) if number > 0 else None
            elif name != "num_predict" or number > 0:  # -1 and -2 set no limit
                parameters |= dict.fromkeys(targets, number)
    return Options(parameters, num_ctx)


def check_context(model: str, num_ctx: int | None, served: int | None) -> None:
    """Refuse a context that is longer than the one served.

    Args:
        served: in tokens; None where the engine does not say.

    Raises:
        InvalidError: it is; the message names the one that is served.
    """
    if num_ctx is not None and served is not None and num_ctx > served:
        raise InvalidError(
            f"num_ctx is {num_ctx}, but {model!r} is served with a context of {served} tokens",
            hint=f"Set num_ctx to {served} or less, or leave it out.",
        )


def _number(name: str, value: Any, kind: _Kind) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        what = "an integer" if kind == "whole" else "a number"
        raise InvalidError(f"option {name!r} must be {what}, not {_shown(value)}", hint="Leave it out for the default.")
    return int(value) if kind == "whole" else value


def _stop(value: Any) -> list[str]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(one, str) for one in words):
        raise InvalidError(f"option 'stop' must be a list of strings, not {_shown(value)}", hint='Send ["\\n"].')
    return words


def _shown(value: Any) -> str:
    return repr(value)[:80]
