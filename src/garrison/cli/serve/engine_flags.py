"""What `garrison serve` says of an option that it does not have: it may be the engine's, which goes after `--`."""

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand
from typer.exceptions import TyperException

from garrison.base.errors import InvalidError, UsageError
from garrison.engines import registry
from garrison.engines.argv import flag_of, is_flag, last_value, spelled_out
from garrison.engines.catalogue import Catalogue
from garrison.engines.nearest import nearest_flag, nearest_of

__all__ = ["KnowsEngineFlags", "unknown_option"]

_USUAL = "vllm"


class KnowsEngineFlags(TyperCommand):
    """A command that says of an unknown option whether an engine has it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer's.

        Raises:
            UsageError: it does not have an option.
            TyperException: the command line is wrong in another way.
        """
        given = list(args)  # the parser takes its words away
        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            # Typer has no public name for the error of an unknown option; that of a missing value names a known one.
            option = getattr(error, "option_name", None)
            if option is None or any(option in (*one.opts, *one.secondary_opts) for one in self.params):
                raise
            alike = tuple(getattr(error, "possibilities", None) or ())
            raise unknown_option(given, option, error.format_message(), alike=alike) from None


def unknown_option(argv: Sequence[str], option: str, message: str, *, alike: Sequence[str]) -> UsageError:
    """The error for an option that is not one of `garrison serve`.

    Args:
        argv: the command line up to `--`.
        option: as the parser names it; of `-tp` that is `-t`.
        message: what it says.
        alike: options of `garrison serve` that it names as alike.
    """
    flag = next((flag_of(word) for word in argv if is_flag(word) and flag_of(word).startswith(option)), option)
    chosen = _chosen(argv)
    for name in (chosen, *(name for name in registry.names() if name not in (chosen, "sim"))):
        engine = registry.engine(name)
        if _has(engine.catalogue(), flag):
            other = "" if name == chosen else f" --engine {name}"
            return UsageError(
                f"`{flag}` is an option of {engine.title}, and not of `garrison serve`",
                hint=f"Put it after --: garrison serve MODEL{other} -- {flag} …",
            )
    engine = registry.engine(chosen)
    near = nearest_flag(engine.catalogue(), flag)
    if near is not None and near not in alike and nearest_of(flag, [*alike, near], cutoff=0.0) == near:
        return UsageError(
            f"`garrison serve` has no option `{flag}`; {engine.title} has {near}",
            hint=f"Put it after --: garrison serve MODEL -- {near} …",
        )
    return UsageError(
        message,
        hint="`garrison serve --help` shows its options; those of the engine go after --: garrison serve MODEL -- --x",
    )


def _chosen(argv: Sequence[str]) -> str:
    """The engine that the command line names, if it is known; the simulator takes vLLM's flags."""
    try:
        name = registry.engine(last_value(argv, {"-e", "--engine"}) or _USUAL).name
    except InvalidError:
        return _USUAL
    return _USUAL if name == "sim" else name


def _has(catalogue: Catalogue, flag: str) -> bool:
    """Whether the engine has the option, perhaps abbreviated, or as a key of one: `--hf-overrides.rope_theta`."""
    known = catalogue.by_spelling()
    return spelled_out(flag.partition(".")[0], known) in known
