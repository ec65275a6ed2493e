"""The config file: where it is, and the names and values in it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garrison.base.errors import InvalidError
from garrison.base.home import expanded, home_directory

if TYPE_CHECKING:
    from garrison.base.documents import Document

__all__ = ["ConfigFile", "config_path", "read_config_file"]


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The values of the config file by name; none where there is no file."""

    path: str
    _document: "Document | None" = None

    def get(self, name: str) -> Any:
        """The value of `name`; None where the file has none, or nothing after the colon."""
        return None if self._document is None or self._document.content is None else self._document.content.get(name)

    def where(self, name: str) -> str:
        """`file:line:column` of `name`."""
        return self.path if self._document is None else self._document.where((name,))


def config_path(environ: Mapping[str, str]) -> Path | None:
    """`GARRISON_CONFIG`, or `garrison/config.yaml` under the XDG config directory; None for a user without a home."""
    if explicit := environ.get("GARRISON_CONFIG"):
        return expanded(explicit)
    if shared := environ.get("XDG_CONFIG_HOME"):
        return expanded(shared) / "garrison" / "config.yaml"
    home = home_directory()
    return None if home is None else home / ".config" / "garrison" / "config.yaml"


def read_config_file(environ: Mapping[str, str], known: Collection[str], former: Collection[str]) -> ConfigFile:
    """Read the config file.

    Args:
        known: names of settings.
        former: earlier names of settings, which still work.

    Raises:
        InvalidError: the file that `GARRISON_CONFIG` names is missing, or a file cannot be read, is not a mapping, or
            holds an unknown name.
    """
    path = config_path(environ)
    if path is None:
        return ConfigFile("no config file")
    try:
        present, why = path.is_file(), "is not a file"
    except OSError as error:  # below a directory of another user, whose HOME a service or a container may have
        present, why = False, f"cannot be read: {error.strerror}"
    if not present:
        if environ.get("GARRISON_CONFIG"):
            raise InvalidError(f"GARRISON_CONFIG names {path}, which {why}", hint="Unset it, or create the file.")
        return ConfigFile(str(path))
    from garrison.base.documents import read_document  # slow to import, and needed only where there is a config file

    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidError(f"cannot read {path}: {reason}", hint="Correct or remove the file.") from None
    document = read_document(text, str(path), suffix=".yaml")
    content = document.content or {}
    if not isinstance(content, dict):
        raise InvalidError(f"{path} must contain `name: value` lines", hint="`garrison config show` lists the names.")
    if unknown := sorted(str(key) for key in content if key not in known and key not in former):
        import difflib

        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"Did you mean {close[0]}?" if close else "`garrison config show` lists the names."
        raise InvalidError(f"{document.where((unknown[0],))}: unknown setting {unknown[0]!r}", hint=hint)
    return ConfigFile(str(path), document)
