"""YAML that people read and change: text of several lines is written as a block."""

from typing import Any

import yaml

__all__ = ["yaml_text"]


class _Dumper(yaml.SafeDumper):
    """Falls back to quotes where a block could not hold the text."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def yaml_text(content: Any, *, flow: bool | None = False, width: int = 120) -> str:
    """Return `content` as YAML, its keys in their own order.

    Args:
        flow: as PyYAML's `default_flow_style`: None writes collections without others inside on one line.
    """
    found: str = yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=width
    )
    return found
