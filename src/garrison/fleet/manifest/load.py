"""Loads manifests from files, directories and standard input, in YAML, JSON, TOML or Pkl."""

import contextlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from garrison.base.documents import Document, read_document
from garrison.base.documents import Path as Place
from garrison.base.errors import InvalidError
from garrison.base.problems import Problems
from garrison.fleet.manifest.canonical import canonical
from garrison.fleet.manifest.declare import declare
from garrison.fleet.manifest.draft import Draft
from garrison.fleet.manifest.formae import is_forma, translate
from garrison.fleet.manifest.merge import merge
from garrison.fleet.manifest.pkl import Evaluate, evaluate
from garrison.fleet.manifest.short import expand, is_short
from garrison.fleet.values.declaration import Declaration

__all__ = ["DEFAULT_FILE", "STANDARD_INPUT", "SUFFIXES", "Loaded", "load_declaration"]

DEFAULT_FILE = "garrison.yaml"
STANDARD_INPUT = "-"
SUFFIXES = (".yaml", ".yml", ".json", ".toml", ".pkl")
_MOST_CHARACTERS = 16 * 1024 * 1024

_OF_SERVE = "serve.yaml"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A declaration with its origin.

    Attributes:
        warnings: suspicious values that do not prevent loading.
        sources: names of the documents that were read, in order.
        places: `file:line:column` by path.
    """

    declaration: Declaration
    warnings: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    places: Mapping[Place, str] = field(default_factory=dict)

    def where(self, *path: str | int) -> str:
        """Return `file:line:column` of the value at `path`, or of its nearest ancestor with a position.

        `path` is, for example, `"adapters", "sql", "lora_path"`.
        """
        return Draft(", ".join(self.sources), {}, self.places).where(path)


def load_declaration(
    sources: Sequence[str],
    *,
    environ: Mapping[str, str],
    stdin: TextIO | None = None,
    properties: Mapping[str, str] | None = None,
    directory: Path | None = None,
    run_pkl: Evaluate = evaluate,
) -> Loaded:
    """Load `sources` as one declaration.

    Args:
        sources: files, directories (all manifests directly in them, sorted by name) and `-` for `stdin`; when empty,
            `garrison.yaml`.
        environ: source of `${NAME}`.
        properties: values that `.pkl` files read as `prop:NAME`.
        directory: base of relative sources, and of paths in standard input; the current directory when None.

    Raises:
        InvalidError: a source cannot be read or is invalid; the message gives file, line and column of up to ten
            errors.
    """
    here = Path.cwd() if directory is None else directory
    problems = Problems()
    warnings: list[str] = []
    drafts = []
    for document, base in _documents(sources or (DEFAULT_FILE,), here, environ, stdin, properties or {}, run_pkl):
        forma = is_forma(document.content)
        checked = _mapping(document)
        if is_short(checked.content):
            checked = expand(checked, base, problems, warnings)
        if forma:
            checked = translate(checked, environ=environ, problems=problems, warnings=warnings)
        try:
            draft = canonical(
                checked,
                directory=str(base),
                environ=environ,
                problems=problems,
                warnings=warnings,
                variables=not forma,
            )
        except RecursionError:
            raise InvalidError(
                f"{document.name} is nested too deeply", hint="Check its brackets and indentation."
            ) from None
        drafts.append(draft)
    merged = merge(drafts, problems)
    return Loaded(
        declaration=declare(merged, problems),
        warnings=tuple(dict.fromkeys(warnings)),
        sources=tuple(draft.name for draft in drafts),
        places=merged.places,
    )


def _documents(
    sources: Sequence[str],
    here: Path,
    environ: Mapping[str, str],
    stdin: TextIO | None,
    properties: Mapping[str, str],
    run_pkl: Evaluate,
) -> list[tuple[Document, Path]]:
    """Return each document with the base directory of its relative paths."""
    found: list[tuple[Document, Path]] = []
    for source in sources:
        if source == STANDARD_INPUT:
            found.append((_standard_input(stdin), here))
            continue
        for name, file in _files(source, here):
            if file.suffix == ".pkl":
                text = run_pkl(file, environ=environ, properties=properties)
                content = read_document(text, name, suffix=".json").content
                found.append((Document(name, content), file.parent))
            else:
                found.append((read_document(_text(name, file), name), file.parent))
    return found


def _files(source: str, here: Path) -> list[tuple[str, Path]]:
    """Return the files that `source` stands for, each with its name for messages."""
    path = here / source
    try:
        if not path.is_dir():
            return [(source, path)]
        names = sorted(entry.name for entry in path.iterdir() if entry.suffix in SUFFIXES and entry.is_file())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise InvalidError(f"cannot read {source!r}: {reason}", hint="Name a manifest with --file.") from None
    # serve.yaml is what `garrison serve` reads here before garrison.yaml: one model, and no stack.
    names = [name for name in names if not name.startswith(".") and name != _OF_SERVE]
    if not names:
        raise InvalidError(
            f"no manifest in directory {source}", hint="Manifests have the suffix " + ", ".join(SUFFIXES) + "."
        )
    return [(str(Path(source) / name), path / name) for name in names]


def _text(name: str, file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as handle:
            return _bounded(name, handle)
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or not a valid file name
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        hint = "Name a file or a directory with --file."
        if name == DEFAULT_FILE and isinstance(error, FileNotFoundError):
            hint = "Name a file or a directory with --file; `garrison example` writes one to try."
        raise InvalidError(f"cannot read manifest {name!r}: {reason}", hint=hint) from None


def _standard_input(stdin: TextIO | None) -> Document:
    name = "<standard input>"
    if stdin is None:
        raise InvalidError("no standard input to read a manifest from", hint="Name a file with --file.")
    try:
        text = _bounded(name, stdin)
    except UnicodeDecodeError:
        raise InvalidError(f"{name}: not UTF-8 text", hint="Send YAML, JSON or TOML.") from None
    # YAML last: it accepts nearly any text, JSON and many TOML files included.
    for suffix, parse in ((".json", json.loads), (".toml", tomllib.loads)):
        with contextlib.suppress(ValueError, RecursionError):
            if parse(text) != {}:  # a YAML file of comments alone is also valid TOML
                return read_document(text, name, suffix=suffix)
    return read_document(text, name, suffix=".yaml")


def _bounded(name: str, handle: TextIO) -> str:
    text = handle.read(_MOST_CHARACTERS + 1)
    if len(text) > _MOST_CHARACTERS:
        raise InvalidError(
            f"{name} is longer than {_MOST_CHARACTERS} characters", hint="Check that it is a manifest, or split it."
        )
    return text


def _mapping(document: Document) -> Document:
    content = document.content
    if content is None or content == {}:
        raise InvalidError(f"{document.where(())}: the manifest is empty", hint="Begin with `stack: NAME`.")
    if not isinstance(content, dict):
        raise InvalidError(f"{document.where(())}: not a mapping of keys to values", hint="Begin with `stack: NAME`.")
    return document
