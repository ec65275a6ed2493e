"""What is served stays what was applied, on a real vLLM, whatever is written into the source of an adapter.

vLLM reads an adapter's files again when it has dropped the adapter from its CPU cache, and answers from prefix blocks
that it made before: files that changed meanwhile give a mixture of old and new weights.
"""

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from vllm_lab import KEY_VARIABLE, Lab
from vllm_server import StartedServer, installed_vllm

from garrison.fleet.values import events
from garrison.fleet.values.plan import ActionKind

pytestmark = [pytest.mark.engine("vllm"), pytest.mark.timeout(600)]

WEIGHTS = "adapter_model.safetensors"
PROMPT = [100 + at * 7 % 300 for at in range(395)]
CPU_CACHE = 2


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[StartedServer]:
    """A server that forgets adapters soon."""
    flags = ("--max-loras", "1", "--max-cpu-loras", str(CPU_CACHE))
    started = StartedServer(installed_vllm(), tiny_model, tmp_path_factory.mktemp("vllm"), flags=flags)
    try:
        started.start()
        started.wait()
        started.warm_up()
        yield started
    finally:
        started.stop()


@pytest.fixture
def lab(vllm: StartedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv(KEY_VARIABLE, str(vllm.key))
    made = Lab(vllm, f"suite-{secrets.token_hex(3)}", tmp_path)
    yield made
    made.close()


def overwrite(path: Path, other: Path) -> None:
    """As `cat new > old`: the inode stays."""
    content = (other / WEIGHTS).read_bytes()
    with open(path / WEIGHTS, "r+b") as file:
        file.write(content)
        file.truncate()


def evict(lab: Lab) -> None:
    """Use so many other adapters that the server drops the first from its CPU cache."""
    for number in range(CPU_CACHE + 1):
        name = lab.name(f"other-{number}")
        if name not in lab.served:
            lab.server.load(name, lab.adapter(f"other-{number}", seed=10 + number))
        lab.server.answer(name)


async def test_an_overwritten_source_changes_no_answer(lab: Lab, vllm: StartedServer) -> None:
    """Not at once, not after the adapter was dropped from the CPU cache, and not after a restart."""
    name, path = lab.name("sql"), lab.adapter(seed=1)
    await lab.apply(lab.declare(lab.spec(path), on_drift="restore"))
    before = vllm.likely(name, PROMPT)
    other = lab.adapter("another", seed=2)
    overwrite(path, other)
    assert vllm.likely(name, PROMPT) == before
    evict(lab)
    assert vllm.likely(name, PROMPT) == before
    vllm.stop()
    vllm.start()
    vllm.wait()
    agent = await lab.agent_pass()
    assert (agent.state.repaired, agent.state.failed) == (1, 0)
    assert vllm.likely(name, PROMPT) == before
    vllm.load(lab.name("another"), other)
    assert vllm.likely(lab.name("another"), PROMPT) != before


async def test_a_hard_linked_entry_is_served_anew_before_it_changes(lab: Lab, vllm: StartedServer) -> None:
    """As earlier versions made it: the agent moves the adapter to a copy, and answers stay the same."""
    name, path = lab.name("sql"), lab.adapter(seed=1)
    declaration = lab.declare(lab.spec(path))
    await lab.apply(declaration)
    entry = Path(lab.served[name])
    link(entry, path)
    before = vllm.likely(name, PROMPT)
    assert [one.kind for one in (await lab.plan(declaration)).actions] == [ActionKind.UPDATE]
    agent = await lab.agent_pass()
    assert (agent.state.repaired, agent.state.failed) == (1, 0)
    assert lab.served[name] == f"{entry}-2"
    overwrite(path, lab.adapter("another", seed=2))
    evict(lab)
    assert vllm.likely(name, PROMPT) == before


async def test_a_changed_entry_is_told_and_rebuilt_once_its_content_is_back(lab: Lab, vllm: StartedServer) -> None:
    name, path = lab.name("sql"), lab.adapter(seed=1)
    declaration = lab.declare(lab.spec(path))
    await lab.apply(declaration)
    before = vllm.likely(name, PROMPT)
    entry = Path(lab.served[name])
    link(entry, path)
    overwrite(path, lab.adapter("another", seed=2))
    refused = await lab.agent_pass()
    assert (refused.state.repaired, refused.state.failed) == (0, 1)
    assert [(one.name, one.cause) for one in lab.told(events.DRIFT)] == [(name, "content")]
    assert lab.served[name] == str(entry)
    lab.adapter("sql", seed=1)
    agent = await lab.agent_pass()
    assert (agent.state.repaired, agent.state.failed) == (1, 0)
    assert lab.served[name] == f"{entry}-2"
    evict(lab)
    assert vllm.likely(name, PROMPT) == before


def link(entry: Path, source: Path) -> None:
    """Make the entry of hard links, as earlier versions did."""
    for file in source.iterdir():
        (entry / file.name).unlink()
        os.link(file, entry / file.name)
    manifest = json.loads((entry / ".garrison.json").read_text())
    (entry / ".garrison.json").write_text(json.dumps(manifest | {"how": "hardlink", "settled": False}))
