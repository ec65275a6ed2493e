import json
import tarfile
from pathlib import Path
from typing import Any

import pytest


def listed(cli: Any) -> list[dict[str, Any]]:
    return list(json.loads(cli("adapters", "list", "--json").out)["adapters"])


def adapters_dir(environ: Any) -> Path:
    return Path(environ["GARRISON_DATA_DIR"]) / "adapters"


def test_round_trip(cli: Any, clean_environ: Any, adapter: Any) -> None:
    made = adapter("made", rank=16)
    assert listed(cli) == []
    assert "garrison adapters import DIR" in cli("adapters", "list").out

    done = cli("adapters", "import", made, "--as", "sql", "--json")
    body = json.loads(done.out)
    assert (done.code, body["ok"], body["name"], body["rank"], body["changed"]) == (0, True, "sql", 16, True)
    where = Path(body["path"])
    assert where == adapters_dir(clean_environ) / "sql"
    assert body["target_modules"] == ["q_proj", "v_proj"]
    assert body["alpha"] == 32

    (entry,) = listed(cli)
    assert (entry["name"], entry["valid"]) == ("sql", True)
    assert "acme/tiny" in cli("adapters", "list").out

    shown = json.loads(cli("adapters", "show", "sql", "--json").out)
    assert (shown["base_model"], shown["max_rank"], shown["peft_type"]) == ("acme/tiny", 16, "LORA")
    assert shown["digest"]
    assert "q_proj, v_proj" in cli("adapters", "show", "sql").out

    assert cli("adapters", "verify", "sql").code == 0
    done = cli("adapters", "remove", "sql", "--yes", "--json")
    assert json.loads(done.out) == {"schema": 1, "ok": True, "exit_code": 0, "name": "sql", "path": str(where)}
    assert not where.exists()
    assert made.exists()
    assert listed(cli) == []


def test_what_an_import_could_not_check_is_a_warning(cli: Any, adapter: Any) -> None:
    made = adapter("sql")
    config = made / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"target_modules": ".*(?=x)q_proj"}))
    done = cli("adapters", "import", made)
    assert (done.code, done.err.startswith("warning: adapter_config.json: target_modules")) == (0, True)
    assert "warning" not in done.out
    assert cli("adapters", "import", made).err == done.err, "also where the same content is there already"


def test_import_twice_changes_nothing(cli: Any, adapter: Any) -> None:
    made = adapter("sql")
    assert "imported sql, rank 8" in cli("adapters", "import", made).out
    assert "already there: sql" in cli("adapters", "import", made).out


def test_importing_another_adapter_under_the_name_needs_replace(cli: Any, adapter: Any, clean_environ: Any) -> None:
    cli("adapters", "import", adapter("one", seed=1), "--as", "sql")
    other = adapter("two", seed=2)
    assert cli("adapters", "import", other, "--as", "sql").code == 1
    assert cli("adapters", "import", other, "--as", "sql", "--replace").code == 0
    kept = (adapters_dir(clean_environ) / "sql" / "adapter_model.safetensors").read_bytes()
    assert kept == (other / "adapter_model.safetensors").read_bytes()


def test_tar(cli: Any, tmp_path: Path, adapter: Any) -> None:
    with tarfile.open(tmp_path / "sql.tar", "w") as archive:
        archive.add(adapter("x"), "sql")
    assert cli("adapters", "import", tmp_path / "sql.tar", "--as", "sql").code == 0


def test_a_tar_that_climbs_out_is_refused(cli: Any, tmp_path: Path, adapter: Any) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(adapter("x") / "adapter_config.json", "../../evil")
    assert cli("adapters", "import", tmp_path / "evil.tar", "--as", "sql").code in (1, 11)
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("gone", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_incomplete_adapter_is_refused(cli: Any, adapter: Any, gone: str) -> None:
    made = adapter("sql")
    (made / gone).unlink()
    done = cli("adapters", "import", made)
    assert done.code == 11
    assert gone.split(".")[0] in done.err
    assert listed(cli) == []


def test_verify_finds_a_changed_file(cli: Any, clean_environ: Any, adapter: Any) -> None:
    cli("adapters", "import", adapter("sql"))
    cli("adapters", "verify", "sql")
    config = adapters_dir(clean_environ) / "sql" / "adapter_config.json"
    config.write_text(config.read_text().replace("none", "NONE"))
    done = cli("adapters", "verify", "sql", "--json")
    assert done.code == 11
    assert [file["name"] for file in json.loads(done.out)["files"] if file["state"] == "changed"] == [config.name]


@pytest.mark.parametrize("command", ["show", "verify", "remove"])
def test_not_there(cli: Any, command: str) -> None:
    done = cli("adapters", command, "nope", *(["--yes"] if command == "remove" else []))
    assert done.code == 10
    assert "nope" in done.err


@pytest.mark.parametrize("name", ["..", "../models", "/", ""])
def test_nothing_outside_is_removed(cli: Any, clean_environ: Any, adapter: Any, name: str) -> None:
    cli("adapters", "import", adapter("sql"))
    assert cli("adapters", "remove", name, "--yes").code in (1, 10)
    assert (adapters_dir(clean_environ) / "sql" / "adapter_config.json").exists()


@pytest.mark.system
def test_remove_without_a_terminal_and_without_yes_does_nothing(
    cli: Any, run: Any, clean_environ: Any, adapter: Any
) -> None:
    cli("adapters", "import", adapter("sql"))
    done = run("-m", "garrison.cli.main", "adapters", "remove", "sql", input="y\n")
    assert (done.code, done.out) == (64, "")
    assert "--yes" in done.err
    assert (adapters_dir(clean_environ) / "sql" / "adapter_config.json").exists()


@pytest.mark.parametrize("json_wanted", [False, True], ids=["text", "json"])
def test_gc_without_a_store(cli: Any, json_wanted: bool) -> None:
    done = cli("adapters", "gc", *(["--json"] if json_wanted else []))
    assert done.code == 0
    if json_wanted:
        assert json.loads(done.out) == {"schema": 1, "ok": True, "exit_code": 0, "dry_run": False, "stores": []}
    else:
        assert "garrison apply" in done.out


def test_gc_reports_what_it_freed_and_why_it_kept_the_rest(cli: Any, clean_environ: Any, adapter: Any) -> None:
    from garrison.fleet.artifacts.store import AdapterStore
    from garrison.models.adapters.adapter import adapter_digest
    from garrison.store.records import CommandRecord, StackRecord, TargetRecord
    from garrison.store.sql.store import open_store
    from garrison.testing.clock import FakeClock

    data_dir = Path(clean_environ["GARRISON_DATA_DIR"])
    long_ago = FakeClock()
    store = open_store(data_dir / "garrison.db")
    files = AdapterStore(data_dir / "adapter-store", store.identity(), clock=long_ago)
    used, unused = (
        Path(files.stage(made, adapter_digest(made)).path)
        for made in (adapter("used", seed=1), adapter("unused", seed=2))
    )
    now = long_ago.now()
    edge = TargetRecord(
        name="edge-2",
        spec={"base_url": "http://10.0.0.2:8000"},
        declared_at=now,
        state="unreachable",
        cause="timeout",
        since=now,
        served=({"name": "sql", "root": str(used), "parent": "acme/tiny"},),
    )
    command = CommandRecord(id="c1", kind="apply", stack="s", started_at=now, by="me")
    store.declare(StackRecord(name="s", declaration={}, at=now), [edge], command, [])
    store.sight([edge])
    store.close()

    done = cli("adapters", "gc", "--dry-run")
    assert (done.code, f"would free {unused.name[:12]}" in done.out) == (0, True)
    assert unused.exists()
    assert cli("adapters", "gc", "--json", "--dry-run").code == 0
    done = cli("adapters", "gc")
    assert f"kept {used.name[:12]}" in done.out
    assert "sql on edge-2 (not seen well since " in done.out
    assert "freed 1 entry" in done.out
    assert used.exists()
    assert not unused.exists()

    (data_dir / "adapter-store" / ".garrison-owners").write_text("somebody-else\n")
    done = cli("adapters", "gc")
    assert done.code == 1
    assert "skipped: another database staged here too" in done.out
