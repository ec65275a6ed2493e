"""Terminal output shared by `models` and `adapters`: facts, verifications, confirmations."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from garrison.base.errors import DeclinedError
from garrison.base.exit_codes import ExitCode
from garrison.cli.asker import asked
from garrison.cli.json_answer import answer

if TYPE_CHECKING:
    from garrison.models.verify import Verification

__all__ = ["confirm", "print_facts", "print_verification"]

_MARKS = {
    "ok": "[green]✓[/]",
    "recorded": "[green]+[/]",
    "changed": "[red]✗[/]",
    "missing": "[red]✗[/]",
    "extra": "[dim]·[/]",
}


def confirm(question: str) -> None:
    """Ask at the terminal, and return if the answer is yes.

    Raises:
        UsageError: standard input is not a terminal.
        DeclinedError: the answer is not yes.
        KeyboardInterrupt: Ctrl-C.
    """
    if not asked(question):
        raise DeclinedError("Nothing was done.")


def print_facts(facts: Sequence[tuple[str, Any]]) -> None:
    """Print lines of `name  value`; None values are skipped."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        if value is not None:
            print(f"{name:<{width}}  {value}")


def print_verification(verification: "Verification", *, json: bool) -> int:
    """Print one line per file, and return the exit code: 11 if a file changed or is missing."""
    code = ExitCode.OK if verification.ok else ExitCode.MODEL_INVALID
    if json:
        from dataclasses import asdict

        files = [asdict(file) for file in verification.files]
        print(answer({"path": str(verification.path), "files": files}, code=code))
    else:
        from rich.console import Console
        from rich.markup import escape

        console = Console(highlight=False, soft_wrap=True)
        for file in verification.files:
            console.print(f"{_MARKS[file.state]} {file.state:<9} {escape(file.name)}")
        console.print(_verdict(verification))
    return code


def _verdict(verification: "Verification") -> str:
    if verification.faults:
        return f"[bold red]{len(verification.faults)} of {len(verification.files)} files changed or are missing[/]"
    if verification.source is None:
        return "[green]no digests were on record; they are now[/]"
    return f"[bold green]all {len(verification.files)} files match {verification.source}[/]"
