"""`garrison instance` against a real server, with the simulator as its engine."""

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from server_lab import ServerLab

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def shown(here: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(here("instance", "show", name, "--json").out)
    return found


def test_the_life_of_an_instance(here: Any, tiny_model: Path) -> None:
    done = here(
        "instance", "create", "life", "-e", "sim", "-m", tiny_model, "--idle", "never", "--env", "A=1", "--memory",
        "1GiB", "-o", "enable_lora=true", "--group", "big", "--pin",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"created life: sim, {tiny_model}\n")
    options = shown(here, "life")["options"]
    assert options["backend_options"] == {"enable_lora": True, "model": str(tiny_model)}
    assert (options["idle_timeout"], options["environment"]) == (0, {"A": "1"})
    assert (options["memory"], options["group"], options["pin"]) == (2**30, "big", True)

    again = here("instance", "create", "life", "-e", "sim", "-m", tiny_model)
    assert again.code == 33
    assert "exists already" in again.err

    started = here("instance", "start", "life")
    assert started.code == 0, started.err
    assert "life: ready after" in started.err
    assert "runs already" in here("instance", "start", "life").out
    running = shown(here, "life")
    assert running["state"] == "running"

    text = here("instance", "show", "life").out
    assert "running" in text.splitlines()[0]
    assert str(running["pid"]) in text
    table = here("instance", "list").out.splitlines()
    row = next(line for line in table if line.startswith("life "))
    assert "running" in row
    assert max(map(len, table)) <= 80 + len(str(tiny_model)), "a pipe cuts nothing"
    assert "life" in here("instance", "explain", "life").out
    assert json.loads(here("instance", "explain", "life", "--json").out)["verdict"] in ("fits", "evicts", "waits")

    logs = here("instance", "logs", "life", "-n", "3")
    assert len(logs.out.splitlines()) == 3
    assert "Application startup complete." in logs.out

    refused = here("instance", "delete", "life", "--yes")
    assert refused.code == 33
    assert "--stop" in refused.err
    stopped = here("instance", "stop", "life")
    assert stopped.out == "life is stopped: stopped by a command\n"
    assert here("instance", "delete", "life", "--yes").out == "deleted life\n"
    assert here("instance", "show", "life").code == 1


def test_restart_and_no_wait(here: Any, tiny_model: Path) -> None:
    assert here("instance", "create", "again", "-e", "sim", "-m", tiny_model, "--start").code == 0
    before = shown(here, "again")["pid"]
    assert here("instance", "restart", "again").code == 0
    after = shown(here, "again")
    assert after["state"] == "running"
    assert after["pid"] != before
    assert here("instance", "stop", "again", "--json").code == 0
    at_once = here("instance", "start", "again", "--no-wait", "--json")
    assert json.loads(at_once.out)["name"] == "again"
    assert here("instance", "start", "again").code == 0, "a start that goes on is joined"
    assert here("instance", "delete", "again", "--stop", "--yes").code == 0


def test_a_line_that_people_have(here: Any, tiny_model: Path) -> None:
    line = ("A=1", "python", "-m", "garrison.sim", "--model", str(tiny_model), "--enable-lora", "--max-loras", "2")
    done = here("instance", "create", "line", "--idle", "5m", "--", *line)
    assert done.code == 0, done.err
    found = shown(here, "line")["options"]
    assert found["backend_options"] == {"model": str(tiny_model), "enable_lora": True, "max_loras": 2}
    assert (found["environment"], found["idle_timeout"]) == ({"A": "1"}, 5)
    quoted = here("instance", "create", "quoted", " ".join(line))
    assert quoted.code == 0, quoted.err
    assert shown(here, "quoted")["options"]["backend_options"] == found["backend_options"]
    assert here("instance", "create", "twice", "vllm serve x", "--", "vllm", "serve", "x").code == 64
    assert here("instance", "list", "--", "x").code == 64


def test_a_failed_start_says_why(here: Any, tiny_model: Path) -> None:
    assert here("instance", "create", "broken", "-e", "sim", "-m", tiny_model, "-o", "max_loras=many").code == 0
    done = here("instance", "start", "broken")
    assert done.code == 21
    assert "last lines of the engine's log:" in done.err
    assert "  │ " in done.err
    assert "many" in done.err
    assert "error: instance broken: " in done.err
    as_json = here("instance", "start", "broken", "--json")
    assert as_json.code == 21
    body = json.loads(as_json.out)
    assert (body["ok"], body["code"], body["exit_code"]) == (False, "engine-died", 21)
    assert body["log_tail"]
    assert shown(here, "broken")["state"] == "failed"


def test_a_model_that_does_not_exist(here: Any) -> None:
    assert here("instance", "create", "absent", "-e", "sim", "-m", "/none/at/all").code == 0
    done = here("instance", "start", "absent")
    assert done.code in (10, 11), done.err
    assert "/none/at/all" in done.err


def test_a_wait_with_a_limit(here: Any, tiny_model: Path) -> None:
    assert here("instance", "create", "slow", "-e", "sim", "-m", tiny_model, "-o", "startup_delay=60").code == 0
    done = here("instance", "start", "slow", "-t", "0.5")
    assert done.code == 22
    assert "its start goes on" in done.err
    assert shown(here, "slow")["state"] == "starting"
    assert here("instance", "stop", "slow").code == 0


def test_edit(here: Any, tiny_model: Path) -> None:
    assert here("instance", "create", "edited", "-e", "sim", "-m", tiny_model, "--start").code == 0
    pid = shown(here, "edited")["pid"]
    assert here("instance", "edit", "edited", "--set", "idle=3m", "--set", "pin=true").out == "changed edited\n"
    assert here("instance", "edit", "edited", "--set", "idle=3m").out == "edited is unchanged\n"
    found = shown(here, "edited")
    assert (found["pid"], found["options"]["idle_timeout"], found["options"]["pin"]) == (pid, 3, True)

    asked = here("instance", "edit", "edited", "--set", "max-loras=4")
    assert asked.code == 64, "a restart is confirmed, and nobody can be asked here"
    assert shown(here, "edited")["pid"] == pid
    done = here("instance", "edit", "edited", "--set", "max-loras=4", "--unset", "pin", "--yes")
    assert done.out == "changed edited, and restarted it\n"
    found = shown(here, "edited")
    assert found["options"]["backend_options"]["max_loras"] == 4
    assert "pin" not in found["options"]
    assert here("instance", "edit", "edited").code == 64, "there is no terminal for an editor"
    assert here("instance", "edit", "edited", "--set", "idle=soon").code == 64
    assert here("instance", "edit", "edited", "--set", "backend_type=nope", "--yes").code == 1


def test_edit_in_an_editor(here: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert here("instance", "create", "written", "-e", "sim", "-m", tiny_model).code == 0
    program = tmp_path / "editor"
    monkeypatch.setenv("EDITOR", f"{sys.executable} {program}")
    monkeypatch.delenv("VISUAL", raising=False)

    def edit(code: str) -> Any:
        program.write_text(f"import os, sys, stat\nfrom pathlib import Path\npath = Path(sys.argv[1])\n{code}\n")
        return here_on_a_terminal()

    def here_on_a_terminal() -> Any:
        from garrison.cli.server.instance import edit as module

        class Terminal:
            @staticmethod
            def isatty() -> bool:
                return True

        with monkeypatch.context() as patch:
            patch.setattr(module.sys, "stdin", Terminal())
            patch.setattr(module.sys.stdout, "isatty", lambda: True, raising=False)
            return here("instance", "edit", "written")

    note = tmp_path / "mode"
    done = edit(
        f"Path({str(note)!r}).write_text(oct(path.parent.stat().st_mode & 0o777))\n"
        "path.write_text(path.read_text() + 'group: big\\n')"
    )
    assert done.out == "changed written\n", done.err
    assert note.read_text() == oct(stat.S_IRWXU)
    assert shown(here, "written")["options"]["group"] == "big"
    assert edit("pass").out == "written is unchanged\n"
    assert edit("path.write_text('')").code == 41
    broken = edit("path.write_text('a: [')")
    assert broken.code == 1
    assert "nothing was changed" in broken.err
    assert edit("sys.exit(3)").code == 64
    assert shown(here, "written")["options"]["group"] == "big"


def test_somebody_else_was_faster(here: Any, server: ServerLab, tiny_model: Path, monkeypatch: Any) -> None:
    assert here("instance", "create", "shared", "-e", "sim", "-m", tiny_model).code == 0
    from garrison.cli.server.instance import edit as module

    read = module.own_options

    def late(found: Any) -> Any:
        server.api("PATCH", "/instances/shared", {"group": "theirs"})
        return read(found)

    monkeypatch.setattr(module, "own_options", late)
    done = here("instance", "edit", "shared", "--set", "group=mine")
    assert done.code == 33
    assert "was changed since" in done.err
    assert shown(here, "shared")["options"]["group"] == "theirs"


def test_export_and_import(here: Any, server: ServerLab, tiny_model: Path, tmp_path: Path) -> None:
    assert here("instance", "create", "kept", "-e", "sim", "-m", tiny_model, "--env", "HF_TOKEN=x", "--pin").code == 0
    before = shown(here, "kept")["options"]
    done = here("instance", "export", "kept")
    assert done.code == 0
    document = yaml.safe_load(done.out)
    assert list(document["instances"]) == ["kept"]
    assert "idle_timeout" not in document["instances"]["kept"], "a default of the server stays one"
    assert document["instances"]["kept"]["environment"] == {"HF_TOKEN": "x"}
    file = tmp_path / "kept.yaml"
    file.write_text(done.out)

    assert here("instance", "import", file).out == "kept: exists, skipped\n"
    assert here("instance", "delete", "kept", "--yes").code == 0
    assert here("instance", "import", file, "--json").out.endswith('"done": {"kept": "created"}}\n')
    assert shown(here, "kept")["options"] == before
    document["instances"]["kept"]["pin"] = False
    document["instances"]["wrong"] = {"backend_type": "nope"}
    file.write_text(yaml.safe_dump(document))
    done = here("instance", "import", file, "--replace")
    assert done.code == 30
    assert done.out.startswith("kept: replaced\nwrong: failed: ")
    assert not shown(here, "kept")["options"].get("pin")
    assert here("instance", "create", "copy", "--file", file).code == 64, "it holds two"
    everything = json.loads(here("instance", "export", "--json").out)
    assert set(everything["instances"]) == {one["name"] for one in server.api("GET", "/instances")}


def test_json_of_list_is_the_apis(here: Any, server: ServerLab) -> None:
    listed = json.loads(here("instance", "list", "--json").out)["instances"]
    assert [one["name"] for one in listed] == [one["name"] for one in server.api("GET", "/instances")]
    assert all({"name", "state", "since", "options", "port", "memory", "requests"} <= set(one) for one in listed)


@pytest.mark.parametrize("verb", ["show", "start", "stop", "restart", "logs", "explain", "export"])
def test_names_that_do_not_exist(here: Any, verb: str) -> None:
    done = here("instance", verb, "nobody")
    assert done.code == 1
    assert "there is no instance 'nobody'" in done.err
    assert "Traceback" not in done.err
    for more in (["logs", "nobody", "-f"], ["edit", "nobody", "--set", "pin=true"], ["delete", "nobody", "-y"]):
        assert here("instance", *more).code == 1


@pytest.mark.parametrize("name", ["a/b", "../x", "", "-x", "a" * 51])
def test_names_that_cannot_be(here: Any, name: str, tiny_model: Path) -> None:
    done = here("instance", "create", "-e", "sim", "-m", tiny_model, "--", "x") if name == "-x" else here(
        "instance", "create", name, "-e", "sim", "-m", tiny_model
    )  # fmt: skip
    assert done.code in (1, 64)
    assert "Traceback" not in done.err


def test_no_server(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARRISON_DATA_DIR", str(tmp_path / "none"))
    for words in (
        ["list"], ["show", "a"], ["start", "a"], ["logs", "a", "-f"], ["export"], ["list", "--watch"],
        ["edit", "a", "--set", "pin=true"], ["create", "a", "-m", "x"],
    ):  # fmt: skip
        done = cli("instance", *words)
        assert done.code == 31, words
        assert "no server runs on this data directory" in done.err
        assert "Traceback" not in done.err


def test_another_server_by_url(cli: Any, server: ServerLab, strange: Any) -> None:
    url = f"http://127.0.0.1:{server.port}"
    assert cli("instance", "list", "--server", url, "--json").code == 0
    done = cli("instance", "list", "--server", "localhost:8080")
    assert done.code == 1
    assert "no address of a server" in done.err
    nobody = cli("instance", "list", "--server", "http://127.0.0.1:1", "--json")
    assert nobody.code == 31
    assert json.loads(nobody.out)["code"] == "unreachable"


def test_a_wrong_key(cli: Any, strange: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"error": "denied", "details": "the key is not known", "hint": "garrison keys create"}'
    url = strange(lambda _method, _path: (401, {"Content-Type": "application/json"}, body))
    monkeypatch.setenv("GARRISON_SERVER_KEY", "sk-wrong")
    for words in (["list"], ["start", "a"], ["logs", "a", "-f"], ["list", "-w"]):
        done = cli("instance", *words, "--server", url)
        assert (done.code, "the key is not known" in done.err) == (40, True)
        assert "sk-wrong" not in done.err + done.out


def test_a_router_of_a_preset_file(here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    preset = tmp_path / "preset.ini"
    preset.write_text("[one]\nmodel = /m/1.gguf\n")
    done = here("instance", "create", "routes", "--preset", preset, "-o", "models_max=2")
    assert (done.code, done.out.splitlines()[0]) == (0, "created routes: llama_cpp, a router")
    assert shown(here, "routes")["options"]["preset_ini"] == preset.read_text()
    assert "a router" in here("instance", "show", "routes").out
    exported = here("instance", "export", "routes").out
    assert "preset_ini: |\n" in exported
    (tmp_path / "all.yaml").write_text(exported.replace("1.gguf", "2.gguf"))
    assert here("instance", "import", "all.yaml", "--replace").out == "routes: replaced\n"
    assert shown(here, "routes")["options"]["preset_ini"] == "[one]\nmodel = /m/2.gguf\n"

    done = here("instance", "create", "folder", "--", "llama-server", "--models-dir", "./models")
    assert (done.code, done.out.splitlines()[0]) == (0, "created folder: llama_cpp, a router")
    assert shown(here, "folder")["options"]["backend_options"] == {"models_dir": str(tmp_path / "models")}
    done = here("instance", "edit", "folder", "--set", "preset_ini=[two]", "--unset", "models_dir")
    assert (done.code, shown(here, "folder")["options"]["preset_ini"]) == (0, "[two]")

    refused = here("instance", "create", "no", "--preset", "gone.ini")
    assert (refused.code, "gone.ini cannot be read" in refused.err) == (1, True)
    refused = here("instance", "create", "no", "-e", "vllm", "-m", "m", "--preset", preset)
    assert (refused.code, "preset_ini is for backend_type llama_cpp" in refused.err) == (1, True)
