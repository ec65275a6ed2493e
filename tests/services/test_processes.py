"""Real processes: killed between any two steps of the swap, two at once, and kept off the network."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hub import COMMIT, Fault, Hub
from s3 import KEY, S3
from s3 import Fault as S3Fault

from garrison.models.layout import is_model_entry
from garrison.models.record import ModelRecord, read_record, write_record
from garrison.models.swap import SWAP_STEPS
from garrison.models.validate import ModelFiles, check_model

pytestmark = [pytest.mark.service, pytest.mark.system]

CONSOLE = "import sys; from garrison.cli.scripts.vllm_resolve_model import main; sys.exit(main())"
KILLED_AT = """
import os, signal, sys
from pathlib import Path
from garrison.models.layout import Layout
from garrison.models.names import parse_model
from garrison.models.request import ResolveRequest
from garrison.models.resolve import resolve

root, hub, step, model = sys.argv[1:]

def at(name):
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)

layout = Layout(root=Path(root), data_dir=Path(root).parent / "data")
request = ResolveRequest(
    model=parse_model(model), layout=layout, sources=("local", "hf-hub"), hf_endpoint=hub, lock_timeout=10
)
print(resolve(request, at=at).path)
"""


def run_to(step: str, root: Path, hub: Hub, model: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED_AT, str(root), hub.url, step, model]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def files(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.name[0] != "."}


def write(path: Path, content: Mapping[str, bytes]) -> None:
    path.mkdir(parents=True)
    for name, data in content.items():
        (path / name).write_bytes(data)


def visible(root: Path) -> list[Path]:
    return [entry for entry in root.iterdir() if is_model_entry(entry.name)]


class TestKilled:
    """The directory held revision v1 and main is asked for; the swap that replaces it is killed at a step."""

    @pytest.fixture
    def old(self, model_files: dict[str, bytes]) -> dict[str, bytes]:
        return {**model_files, "tokenizer.json": b'{"version": "old"}'}

    @pytest.fixture
    def root(self, tmp_path: Path, old: dict[str, bytes]) -> Path:
        root = tmp_path / "models"
        write(root / "tiny", old)
        record = ModelRecord("acme/tiny", "hf-hub", "2026-01-01T00:00:00+00:00", revision="b" * 40, asked="v1")
        write_record(root / "tiny", record)
        return root

    @pytest.mark.parametrize("step", SWAP_STEPS)
    def test_the_next_run_repairs(
        self, hub: Hub, root: Path, old: dict[str, bytes], model_files: dict[str, bytes], step: str
    ) -> None:
        killed = run_to(step, root, hub, "acme/tiny@main")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        for entry in visible(root):
            assert isinstance(check_model(entry), ModelFiles), "something half is visible"
            assert files(entry) in (old, model_files)
        fetched = len(hub.content_requests)

        again = run_to("nowhere", root, hub, "acme/tiny@main")

        assert again.returncode == 0, again.stderr
        assert again.stdout.strip() == str(root / "tiny")
        assert files(root / "tiny") == model_files
        record = read_record(root / "tiny")
        assert record is not None
        assert record.revision == COMMIT
        assert len(hub.content_requests) == fetched, "what was fetched is not fetched again"
        assert sorted(entry.name for entry in root.iterdir()) == [".locks", ".staging", "tiny"]
        assert list((root / ".staging").iterdir()) == []

    def test_the_newest_backup_is_restored_when_the_hub_is_gone(
        self, hub: Hub, root: Path, old: dict[str, bytes]
    ) -> None:
        assert run_to("before-rename", root, hub, "acme/tiny@main").returncode == -signal.SIGKILL
        assert visible(root) == []
        again = run_to("nowhere", root, hub, "acme/tiny@v1")
        assert again.returncode == 0, again.stderr
        assert files(root / "tiny") == old

    @pytest.mark.parametrize("step", SWAP_STEPS)
    def test_a_hand_copied_broken_directory_is_never_lost(
        self, hub: Hub, tmp_path: Path, model_files: dict[str, bytes], step: str
    ) -> None:
        root = tmp_path / "others"
        broken = {"config.json": b"{}", "notes.txt": b"mine"}
        write(root / "tiny", broken)
        run_to(step, root, hub, "acme/tiny")
        again = run_to("nowhere", root, hub, "acme/tiny")
        assert again.returncode == 0, again.stderr
        assert files(root / "tiny") == model_files
        (kept,) = [entry for entry in root.iterdir() if ".replaced." in entry.name]
        assert files(kept) == broken

    def test_killed_in_the_middle_of_the_download(
        self, hub: Hub, root: Path, model_files: dict[str, bytes], old: dict[str, bytes]
    ) -> None:
        shard = "model-00001-of-00002.safetensors"
        hub.faults.append(Fault(shard, "stall", at=200_000, seconds=20))
        command = [sys.executable, "-c", KILLED_AT, str(root), hub.url, "nowhere", "acme/tiny@main"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: sum(path.stat().st_size for path in root.rglob(f"{shard}.part")) >= 150_000)
        process.kill()
        process.wait(10)
        assert files(root / "tiny") == old
        again = run_to("nowhere", root, hub, "acme/tiny@main")
        assert again.returncode == 0, again.stderr
        assert files(root / "tiny") == model_files
        assert str(hub.gets(shard)[-1]).startswith("bytes=")


def test_two_at_once_one_downloads_and_both_succeed(hub: Hub, tmp_path: Path, model_files: dict[str, bytes]) -> None:
    hub.faults.append(Fault("/api/models/", "slow", seconds=1.0))
    running = [console(tmp_path, hub, sources="local,hf-hub") for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert {answer["path"] for answer in answers} == {str(tmp_path / "models" / "tiny")}
    assert sorted(answer["source"] for answer in answers) == ["hf-hub", "local"]
    assert len(hub.content_requests) == len(model_files)


def test_two_organisations_with_one_name_at_once(hub: Hub, tmp_path: Path, model_files: dict[str, bytes]) -> None:
    others = {**model_files, "tokenizer.json": b'{"version": "other"}'}
    hub.add("other/tiny", others)
    running = [console(tmp_path, hub, sources="local,hf-hub", VLLM_MODEL_ORG=org) for org in ("acme", "other")]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert [files(Path(answer["path"])) for answer in answers] == [model_files, others]


def test_ctrl_c_leaves_what_can_be_resumed(hub: Hub, tmp_path: Path, model_files: dict[str, bytes]) -> None:
    shard = "model-00001-of-00002.safetensors"
    hub.faults.append(Fault(shard, "stall", at=200_000, seconds=20))
    process = console(tmp_path, hub, sources="hf-hub")
    root = tmp_path / "models"
    until(lambda: sum(path.stat().st_size for path in root.rglob(f"{shard}.part")) >= 150_000)
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert time.monotonic() - asked < 10
    assert visible(root) == []
    assert not list(tmp_path.rglob("*.env"))
    hub.faults.clear()
    process = console(tmp_path, hub, sources="hf-hub")
    assert process.communicate(timeout=30)
    assert process.returncode == 0
    assert files(root / "tiny") == model_files
    assert str(hub.gets(shard)[-1]).startswith("bytes=")


def test_ctrl_c_is_heard_while_a_store_is_silent(hub: Hub, s3: S3, tmp_path: Path) -> None:
    s3.faults.append(S3Fault("model-00001-of-00002.safetensors", "slow", times=99, seconds=20))
    place = {"R2_BUCKET": "models", "R2_MODELS_PREFIX": "prefix", "R2_ENDPOINT_URL": s3.url}
    process = console(tmp_path, hub, sources="r2", **place, **KEY)
    until(lambda: bool(s3.gets("model-00001-of-00002.safetensors")))
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=15)
    assert process.returncode == 130, said
    assert time.monotonic() - asked < 10
    assert visible(tmp_path / "models") == []


@pytest.mark.parametrize("sources", ["local", "local,hf-cache"])
def test_offline_touches_no_network(hub: Hub, tmp_path: Path, model_files: dict[str, bytes], sources: str) -> None:
    write(tmp_path / "models" / "tiny", model_files)
    process = console(tmp_path, hub, sources=sources)
    answer = json.loads(process.communicate(timeout=30)[0])
    assert (process.returncode, answer["source"]) == (0, "local")
    assert hub.requests == []


@pytest.mark.parametrize("sources", ["local", "local,hf-cache"])
def test_offline_and_not_there(hub: Hub, tmp_path: Path, sources: str) -> None:
    process = console(tmp_path, hub, sources=sources)
    process.communicate(timeout=30)
    assert process.returncode == 10
    assert hub.requests == []


def console(tmp_path: Path, hub: Hub, *, sources: str, **more: str) -> subprocess.Popen[str]:
    (tmp_path / "cache").mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "VLLM_MODEL": "tiny",
        "VLLM_MODEL_ORG": "acme",
        "VLLM_MODELS_DIR": str(tmp_path / "models"),
        "VLLM_MODEL_SOURCES": sources,
        "FLOX_ENV_CACHE": str(tmp_path / "cache"),
        "HF_ENDPOINT": hub.url,
        "NO_PROXY": "127.0.0.1",
        **more,
    }
    command = [sys.executable, "-c", CONSOLE, "--json"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.02)
