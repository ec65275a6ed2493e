"""Reads the files that a migration is given, under limits, and hands them to the system that they belong to."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from garrison.base.documents import read_document
from garrison.base.errors import InvalidError, NotFoundError
from garrison.base.home import expanded
from garrison.migrate import llama_swap, llamactl, ollama
from garrison.migrate.llamactl_database import MAGIC, read_instances
from garrison.migrate.modelfile import is_modelfile, parse_modelfile
from garrison.migrate.values import Found

__all__ = ["SYSTEMS", "migrate"]

SYSTEMS = ("llamactl", "llama-swap", "ollama")
_MOST_BYTES = 16 * 1024 * 1024


def migrate(system: str, files: Sequence[Path], home: str) -> Found:
    """Return what the files of one of `SYSTEMS` say.

    Args:
        home: the user's home directory, where llamactl keeps its data by default.

    Raises:
        NotFoundError: a file is not there.
        InvalidError: a file cannot be read, or is not one of this system.
    """
    found = Found(stack=system)
    if system == "llamactl":
        _llamactl(files, home, found)
    elif system == "llama-swap":
        for file in files:
            llama_swap.add_config(_mapping(file), found)
    else:
        _ollama(files, found)
    return found


def _llamactl(files: Sequence[Path], home: str, found: Found) -> None:
    databases = [file for file in files if _begins_with(file, MAGIC)]
    local = "main"
    for file in files:
        if file in databases:
            continue
        content = _document(file)
        entries = content if isinstance(content, list) else [content]
        if all(isinstance(one, dict) and isinstance(one.get("options"), dict) for one in entries):
            for one in entries:
                llamactl.add_instance(str(one.get("name", file.stem)), one["options"], found, local_node=local)
        elif isinstance(content, dict):
            local = str(content.get("local_node") or local)
            llamactl.add_config(content, found)
            if not databases and len(files) == 1:
                databases += _its_database(content, home, found)
        else:
            raise InvalidError(f"{file} is neither a config nor an instance of llamactl")
    for database in databases:
        for name, options in read_instances(database):
            llamactl.add_instance(name, options, found, local_node=local)


def _its_database(config: Mapping[str, Any], home: str, found: Found) -> list[Path]:
    path = expanded(llamactl.database_path(config, home))
    if path.is_file():
        return [path]
    found.remark("database.path", f"instances are in llamactl's database, and {path} is not there; name it as well")
    return []


def _ollama(files: Sequence[Path], found: Found) -> None:
    texts = [(file, _text(file)) for file in files]
    environ: dict[str, str] = {}
    for _, text in texts:
        if not is_modelfile(text):
            environ |= ollama.read_environment(text)
    ollama.add_environment(environ, found)
    for file, text in texts:
        if is_modelfile(text):
            modelfile = parse_modelfile(text)
            name = _name_of(file, modelfile.model)
            ollama.add_modelfile(name, modelfile, environ, file.absolute().parent, found)


def _name_of(file: Path, model: str) -> str:
    """Return what a model is called: `mario` for `Modelfile.mario` and `mario.Modelfile`, else as its origin."""
    stem, _, suffix = file.name.partition(".")
    if stem == "Modelfile" and suffix:
        return suffix
    if stem != "Modelfile":
        return stem
    last = model.rstrip("/").rpartition("/")[2]
    return last.removesuffix(".gguf").partition(":")[0] or "model"


def _mapping(file: Path) -> dict[str, Any]:
    content = _document(file)
    if not isinstance(content, dict):
        raise InvalidError(f"{file} is not a mapping of keys to values", hint="Name the config file of the system.")
    return content


def _document(file: Path) -> Any:
    text = _text(file)
    if file.suffix == ".json":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidError(f"{file} is not valid JSON") from None
    return read_document(text, str(file), suffix=".yaml").content


def _text(file: Path) -> str:
    try:
        with file.open("rb") as handle:
            raw = handle.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {file}", hint="Name the config file of the system.") from None
    except OSError as error:
        raise InvalidError(f"cannot read {file}: {(error.strerror or 'failed').lower()}") from None
    if len(raw) > _MOST_BYTES:
        raise InvalidError(f"{file} is larger than {_MOST_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidError(f"{file} is not UTF-8 text") from None


def _begins_with(file: Path, magic: bytes) -> bool:
    try:
        with file.open("rb") as handle:
            return handle.read(len(magic)) == magic
    except OSError:
        return False
