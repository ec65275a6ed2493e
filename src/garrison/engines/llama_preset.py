"""The preset file of a llama-server that is a router: an INI with a section for each model. Facts are from build 11434.

Keys in `[*]` are for every model. A value ends at `;` or `#`, and of a section that comes twice the last one counts.
llama-server refuses a file with any other line, even one with white space before a key. Here such a line is read as
it was probably meant: llama-server says at its start that it cannot read the file.
"""

import re
from functools import lru_cache

__all__ = ["PRESET_FLAG", "files_of_preset", "models_of_preset", "option_name", "preset_sections"]

PRESET_FLAG = "--models-preset"
_OUTSIDE = "default"
"""The section of keys before the first one."""
_FOR_ALL = "*"
_SECTION = re.compile(r"\[[ \t]*([^\]]+)\][ \t]*(?:[;#].*)?\Z")
_COMMENT = re.compile(r"[ \t]*[;#].*")
_FILES = frozenset(
    {"model", "m", "mmproj", "mm", "model_draft", "md", "spec_draft_model", "lora", "chat_template_file",
     "llama_arg_model", "llama_arg_mmproj"}
)  # fmt: skip


def preset_sections(text: str) -> dict[str, dict[str, str]]:
    """Return the sections of a preset: keys and values as they are written. A line that says nothing is left out."""
    found: dict[str, dict[str, str]] = {}
    section = _OUTSIDE
    for line in map(str.strip, re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))):
        if head := _SECTION.match(line):
            section = head[1]
            found[section] = {}
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found.setdefault(section, {})[key.strip()] = _COMMENT.sub("", value).strip()
    return found


@lru_cache(maxsize=32)
def models_of_preset(text: str) -> tuple[str, ...]:
    """Return the names of the models in a preset, as llama-server lists them."""
    return tuple(dict.fromkeys(_model_name(name) for name in preset_sections(text) if name not in (_FOR_ALL, _OUTSIDE)))


def files_of_preset(text: str) -> tuple[str, ...]:
    """Return the absolute paths of models and what belongs to them in a preset."""
    sections = preset_sections(text).values()
    values = (value for keys in sections for key, value in keys.items() if option_name(key) in _FILES)
    return tuple(dict.fromkeys(value for value in values if value.startswith("/")))


def option_name(key: str) -> str:
    """Return an option in the one spelling of many that is compared here."""
    return key.strip().lstrip("-").replace("-", "_").lower()


def _model_name(section: str) -> str:
    """`org/name:q4_k_m` and `org/name:name-q4_k_m` are both listed as `org/name:Q4_K_M`."""
    name, colon, tag = section.rpartition(":")
    if not colon:
        return section
    last = re.search(r"[-.]([A-Za-z0-9_]+)\Z", tag)
    return f"{name}:{(last[1] if last else tag).upper()}"
