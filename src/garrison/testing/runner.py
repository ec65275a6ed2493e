"""The twin of the runner of an installation's programs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ScriptedRunner"]


@dataclass
class ScriptedRunner:
    """`Runner` that starts nothing.

    Attributes:
        effect: called with each argv; returns the exit status and the output.
        ran: the argvs, in order; `environments` and `held` are what came with them.
    """

    effect: Callable[[Sequence[str]], tuple[int, str]] = lambda argv: (0, "")
    ran: list[tuple[str, ...]] = field(default_factory=list)
    environments: list[dict[str, str]] = field(default_factory=list)
    held: list[int | None] = field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        on_line: Callable[[str], None],
        hold: int | None,
    ) -> int:
        self.ran.append(tuple(argv))
        self.environments.append(dict(env))
        self.held.append(hold)
        status, output = self.effect(argv)
        with log.open("a", encoding="utf-8") as handle:
            handle.write(output + "\n")
        for line in output.splitlines():
            on_line(line)
        return status
