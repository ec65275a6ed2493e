"""The directory of an instance, mode 0700: how its engine is reached, and the preset of a router."""

from pathlib import Path

from garrison.base.files import write_atomic
from garrison.base.redaction import know_environment
from garrison.base.settings import Settings
from garrison.engines.llama_preset import preset_sections
from garrison.instances.values.spec import InstanceSpec

__all__ = ["instance_directory", "make_directory", "preset_path", "read_access", "write_access"]


def instance_directory(settings: Settings, name: str) -> Path:
    """Where the files of an instance are. Pure."""
    return settings.data_dir / "instances" / name


def preset_path(settings: Settings, name: str) -> Path:
    """Where the preset of an instance is while it runs. Pure."""
    return instance_directory(settings, name).absolute() / "preset.ini"


def make_directory(settings: Settings, spec: InstanceSpec) -> Path:
    """Make the directory of an instance with the preset that it has now, mode 0600, or without one."""
    directory, preset = instance_directory(settings, spec.name), preset_path(settings, spec.name)
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    if spec.preset_ini is None:
        preset.unlink(missing_ok=True)
    else:
        _know_preset(spec)
        write_atomic(preset, spec.preset_ini, mode=0o600, durable=False)
    return directory


def write_access(directory: Path, key: str | None, model: str) -> None:
    """Record the key that an engine asks for, and what it calls its model, for the server that adopts it."""
    if key is None:
        (directory / "key").unlink(missing_ok=True)
    else:
        write_atomic(directory / "key", key, mode=0o600, durable=False)
    write_atomic(directory / "model", model, mode=0o600, durable=False)


def read_access(directory: Path, spec: InstanceSpec) -> tuple[str | None, str]:
    """Return the recorded key, and the model; empty for a router."""
    _know_preset(spec)
    model = "" if spec.router else _read(directory / "model") or spec.model or spec.name
    return _read(directory / "key"), model


def _know_preset(spec: InstanceSpec) -> None:
    """Have what a preset names as a secret hidden: llama-server prints it when it loads the model."""
    for keys in preset_sections(spec.preset_ini or "").values():
        know_environment(keys)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
