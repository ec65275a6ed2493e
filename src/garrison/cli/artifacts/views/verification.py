"""Terminal output shared by `models` and `adapters`: verifications."""

from typing import TYPE_CHECKING

from garrison.base.exit_codes import ExitCode
from garrison.cli.json_answer import answer

if TYPE_CHECKING:
    from garrison.models.verify import Verification

__all__ = ["print_verification"]

_MARKS = {
    "ok": "[green]✓[/]",
    "recorded": "[green]+[/]",
    "changed": "[red]✗[/]",
    "missing": "[red]✗[/]",
    "extra": "[dim]·[/]",
}


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
