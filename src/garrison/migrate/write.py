"""Writes what a migration found as a manifest, with what has no equivalent as comments."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from garrison.base.output.plain_text import plain
from garrison.base.yaml_text import yaml_text
from garrison.fleet.manifest.load import STANDARD_INPUT, load_declaration
from garrison.fleet.values.declaration import Declaration
from garrison.migrate.values import Found

__all__ = ["manifest_text", "read_back"]


def manifest_text(found: Found, source: str) -> str:
    """Return the manifest. `source` names what it was made from."""
    return "\n".join([*_comments(found, source), *_blocks(found.body())])


def read_back(text: str, directory: Path) -> Declaration:
    """Load a manifest that was made here. Its variables need not be set.

    Raises:
        InvalidError: it is not valid, which is a bug.
    """
    loaded = load_declaration([STANDARD_INPUT], environ=_Anything(), stdin=io.StringIO(text), directory=directory)
    return loaded.declaration


class _Anything(Mapping[str, str]):
    """An environment in which every variable is set."""

    def __getitem__(self, name: str) -> str:
        return "1"

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _comments(found: Found, source: str) -> Iterator[str]:
    yield f"# Made by `garrison migrate` from {plain(source)}."
    if found.settings:
        yield "#"
        yield "# Settings of the server, for its environment or its config file:"
        yield from (f"#   {name}={plain(text)}" for name, text in sorted(found.settings.items()))
    if found.remarks:
        yield "#"
        yield "# Without an equivalent, or not quite the same:"
        yield from (f"#   {plain(one.where)}: {plain(one.text)}" for one in found.remarks)


def _blocks(body: Mapping[str, Any]) -> Iterator[str]:
    for key, value in body.items():
        style = None if isinstance(value, dict) else False
        yield yaml_text({key: value}, flow=style)
