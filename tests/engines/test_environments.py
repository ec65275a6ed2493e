import json
from pathlib import Path

import pytest

from garrison.base.errors import InvalidError
from garrison.engines.environments import MARKER, environment_of, environments, in_use, mark_complete, use


def make(data_dir: Path, version: str, device: str = "cpu") -> Path:
    path = data_dir / "engines" / "vllm" / f"{version}+{device}"
    path.mkdir(parents=True)
    mark_complete(path, engine="vllm", version=version, device=device, executable="bin/vllm", installed_at="2026-01-01")
    return path


def test_only_whole_ones_count_and_versions_sort_by_number(tmp_path: Path) -> None:
    for version in ("0.9.0", "0.32.0", "0.10.1"):
        make(tmp_path, version)
    (tmp_path / "engines" / "vllm" / "0.99.0+cpu" / "bin").mkdir(parents=True)
    assert [item.version for item in environments(tmp_path, "vllm")] == ["0.9.0", "0.10.1", "0.32.0"]
    assert environments(tmp_path, "mlx_lm") == []


def test_a_damaged_marker_is_no_engine(tmp_path: Path) -> None:
    (make(tmp_path, "0.9.0") / MARKER).write_text("{")
    (make(tmp_path, "0.9.1") / MARKER).write_text(json.dumps({"version": "0.9.1"}))
    assert environments(tmp_path, "vllm") == []


def test_the_newest_is_in_use_until_another_is_chosen(tmp_path: Path) -> None:
    assert in_use(tmp_path, "vllm") is None
    older, newer = make(tmp_path, "0.9.0"), make(tmp_path, "0.32.0")
    found = in_use(tmp_path, "vllm")
    assert found is not None
    assert found.executable == newer / "bin" / "vllm"
    use(tmp_path, "vllm", "0.9.0")
    found = in_use(tmp_path, "vllm")
    assert found is not None
    assert found.path == older
    (older / MARKER).unlink()
    found = in_use(tmp_path, "vllm")
    assert found is not None
    assert found.path == newer


def test_a_version_for_two_devices_must_be_named_with_one(tmp_path: Path) -> None:
    make(tmp_path, "0.32.0", "cpu")
    make(tmp_path, "0.32.0", "cuda")
    assert environment_of(tmp_path, "vllm", "0.32.0+cuda").device == "cuda"
    with pytest.raises(InvalidError, match="2 environments"):
        environment_of(tmp_path, "vllm", "0.32.0")


def test_what_is_not_installed_is_refused_with_what_is(tmp_path: Path) -> None:
    make(tmp_path, "0.32.0")
    with pytest.raises(InvalidError, match=r"installed: 0\.32\.0\+cpu") as caught:
        use(tmp_path, "vllm", "0.33.0+cpu")
    assert "garrison engine install vllm --version 0.33.0" in str(caught.value.hint)
