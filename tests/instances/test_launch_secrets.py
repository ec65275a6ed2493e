"""References in an instance become variables of its engine when it starts, and not before."""

from pathlib import Path

import pytest

from garrison.base.errors import InvalidError
from garrison.base.redaction import redacted
from garrison.instances.launch_secrets import with_secrets
from garrison.instances.runner import Launch
from garrison.instances.values.spec import InstanceSpec
from garrison.net.endpoint import Secret
from garrison.net.secrets import Secrets


def launch(**secrets: Secret) -> Launch:
    return Launch(InstanceSpec(name="qwen", env={"A": "1"}, secrets=secrets), port=8001)


async def test_secrets_are_read_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file-4711\n")
    asked = launch(HF_TOKEN=Secret("env", "TOKEN"), KEY=Secret("file", str(tmp_path / "key")))
    made = await with_secrets(asked, Secrets({"TOKEN": "from-a-variable-4712"}))
    assert made.spec.env == {"A": "1", "HF_TOKEN": "from-a-variable-4712", "KEY": "from-a-file-4711"}
    assert "4712" not in redacted("it said from-a-variable-4712")
    assert asked.spec.env == {"A": "1"}


async def test_one_that_cannot_be_read_is_the_cause_of_the_failure() -> None:
    with pytest.raises(InvalidError, match="qwen cannot have its variable HF_TOKEN: the variable TOKEN is not"):
        await with_secrets(launch(HF_TOKEN=Secret("env", "TOKEN")), Secrets({}))
