"""A real llama-server as a router, behind a server: two models of a preset file, and those of a directory."""

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from server_lab import ServerLab, wait_for
from tiny_model import make_gguf

pytestmark = [pytest.mark.engine("llama_cpp"), pytest.mark.timeout(300)]

Home = Callable[[str], dict[str, str]]
PRESET = """\
version = 1

[*]
c = 512

[one]
model = {one}

[org/two]
model = {two}
"""
CALLS = "/api/v1/llama-cpp/r/models"


class Box:
    """A server with two models on its disk."""

    def __init__(self, lab: ServerLab, directory: Path) -> None:
        self.lab, self.directory = lab, directory
        one, two = make_gguf(directory / "one.gguf"), make_gguf(directory / "two.gguf", seed=1)
        self.preset = PRESET.format(one=one, two=two)

    def names(self) -> dict[str, str]:
        """What is listed, and its status."""
        return {one["id"]: one["status"]["value"] for one in self.lab.http.get("/v1/models").json()["data"]}

    def answered(self, model: str) -> str:
        answer = self.lab.chat(model, most=4)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return str(answer.json()["model"])

    def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        answer = self.lab.http.post(path, json=body)
        return answer.status_code, answer.json()


@pytest.fixture
def box(home_with: Home, tmp_path: Path) -> Iterator[Box]:
    (tmp_path / "lab").mkdir()
    (tmp_path / "models").mkdir()
    environ = home_with("llama_cpp")
    lab = ServerLab(tmp_path / "lab", environ)
    lab.data_dir.mkdir()
    (lab.data_dir / "engines").symlink_to(Path(environ["GARRISON_DATA_DIR"], "engines"))
    lab.start()
    yield Box(lab, tmp_path / "models")
    lab.close()


def test_requests_to_the_models_of_a_preset(box: Box) -> None:
    lab = box.lab
    made = lab.api("POST", "/instances/r", {"backend_type": "llama_cpp", "preset_ini": box.preset}, status=201)
    assert made["options"]["preset_ini"] == box.preset
    assert box.names() == {"r/one": "unloaded", "r/org/two": "unloaded"}
    refused = lab.chat("r")
    assert (refused.status_code, "Ask for r/one or r/org/two" in refused.text) == (400, True), refused.text
    assert lab.instance("r")["state"] == "stopped", "nothing is started for a request that cannot be answered"

    assert box.answered("r/one") == "one"
    assert box.answered("r/org/two") == "org/two"
    wait_for(lambda: set(box.names().values()) == {"loaded"}, 20, "both are loaded")
    assert lab.chat("r/nothing").status_code == 400
    assert lab.http.get("/v1/models/r/one").json()["model"] == "one"

    native = lab.http.post("/llama-cpp/r/completion", json={"model": "one", "prompt": "a", "n_predict": 2})
    assert native.json()["model"] == "one"
    assert lab.http.get("/llama-cpp/r/props?model=org/two").json()["model_alias"] == "org/two"
    assert lab.http.get("/llama-cpp/r/v1/models").status_code == 404, "it has the arguments of each model"

    found = lab.instance("r")
    assert [one["id"] for one in found["models"]] == ["one", "org/two"]
    path = lab.data_dir / "instances" / "r" / "preset.ini"
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (box.preset, 0o600)
    command = psutil.Process(found["pid"]).cmdline()
    assert command[command.index("--models-preset") + 1] == str(path)
    assert not {"--model", "--alias"} & set(command)
    wait_for(lambda: lab.api("GET", "/instances/r/explain")["need"]["source"] == "measured", 30, "measured")


def test_llamactls_calls_load_and_unload(box: Box) -> None:
    lab = box.lab
    lab.api("POST", "/instances/r", {"backend_type": "llama_cpp", "preset_ini": box.preset})
    assert [one["id"] for one in lab.http.get(CALLS).json()["data"]] == ["one", "org/two"]
    assert lab.instance("r")["state"] == "stopped", "a list starts nothing"
    assert box.post(f"{CALLS}/one/load") == (200, {"success": True})
    assert lab.instance("r")["state"] == "running"

    def statuses() -> dict[str, str]:
        return {one["id"]: one["status"]["value"] for one in lab.http.get(CALLS).json()["data"]}

    wait_for(lambda: statuses() == {"one": "loaded", "org/two": "unloaded"}, 20, "loaded")
    wait_for(lambda: box.names() == {"r/one": "loaded", "r/org/two": "unloaded"}, 10, "and the gateway knows")
    assert box.post(f"{CALLS}/org%2Ftwo/load", {"model": "org/two"}) == (200, {"success": True})
    wait_for(lambda: set(statuses().values()) == {"loaded"}, 20, "the other one")
    assert box.post(f"{CALLS}/one/unload") == (200, {"success": True})
    wait_for(lambda: statuses() == {"one": "unloaded", "org/two": "loaded"}, 10, "unloaded")
    assert box.post(f"{CALLS}/nothing/load")[0] == 404

    assert box.post("/models/unload", {"model": "r/org/two"}) == (200, {"success": True})
    wait_for(lambda: box.names() == {"r/one": "unloaded", "r/org/two": "unloaded"}, 10, "by the gateway's call")
    assert lab.instance("r")["state"] == "running", "one of its models was unloaded, not the router"
    assert box.post("/models/load", {"model": "r/one"}) == (200, {"success": True})
    wait_for(lambda: box.names() == {"r/one": "loaded", "r/org/two": "unloaded"}, 20, "loaded again")
    assert box.post("/models/load", {"model": "r/one"})[0] == 200, "it is loaded already"
    assert box.post("/models/load", {"model": "r/nothing"})[0] == 404


def test_a_directory_of_models_and_the_next_server(box: Box) -> None:
    lab = box.lab
    options = {"models_dir": str(box.directory), "models_max": 1, "ctx_size": 512}
    lab.api("POST", "/instances/r", {"backend_type": "llama_cpp", "backend_options": options})
    assert box.answered("r/one") == "one"
    assert box.answered("r/two") == "two"
    wait_for(lambda: box.names() == {"r/one": "unloaded", "r/two": "loaded"}, 20, "one at a time")
    pid = lab.instance("r")["pid"]
    lab.kill()
    lab.start()
    assert lab.instance("r")["pid"] == pid, "adopted"
    assert box.answered("r/one") == "one"
    wait_for(lambda: box.names() == {"r/one": "loaded", "r/two": "unloaded"}, 20, "its models are known again")
    children = {one.pid for one in psutil.Process(pid).children(recursive=True)}
    assert children
    changed = lab.api("PATCH", "/instances/r", {"preset_ini": box.preset, "backend_options": {"models_dir": None}})
    assert changed["restarted"] is True
    assert box.answered("r/org/two") == "org/two"
    assert not [one for one in (pid, *children) if psutil.pid_exists(one)], "its models' processes ended with it"
    lab.api("POST", "/instances/r/stop")
    assert box.names() == {"r/one": "unloaded", "r/org/two": "unloaded"}


def test_what_cannot_be_loaded_tells_the_cause(box: Box) -> None:
    lab, broken, gone = box.lab, box.directory / "broken.gguf", box.directory / "gone.gguf"
    broken.write_bytes(b"no model")
    more = f"[broken]\nmodel = {broken}\n[gone]\nmodel = {gone} ; it was deleted\n"
    lab.api("POST", "/instances/r", {"backend_type": "llama_cpp", "preset_ini": box.preset + more})
    causes = {"broken": "a weights file is damaged or truncated", "gone": f"there is no model at {gone}"}
    for model, cause in causes.items():
        status, said = box.post(f"{CALLS}/{model}/load")
        assert (status, said["details"]) == (502, f"r cannot load {model!r}: {cause}")
        assert lab.chat(f"r/{model}").status_code == 500
    told = {one["id"]: one["status"].get("error") for one in lab.http.get(CALLS).json()["data"]}
    assert told == causes | {"one": None, "org/two": None}
    wait_for(lambda: lab.http.get("/v1/models/r/gone").json().get("failure") == causes["gone"], 10, "listed")
    assert box.answered("r/one") == "one", "the others go on"

    for name, line, cause in (
        ("spaces", "  c = 1\n", "llama-server cannot read the preset"),
        ("key", "[x]\nno-such-key = 1\n", "[x] of the preset has the option no-such-key"),
    ):
        lab.api("POST", f"/instances/{name}", {"backend_type": "llama_cpp", "preset_ini": line + box.preset})
        refused = lab.chat(f"{name}/one")
        assert (refused.status_code, cause in refused.text) == (502, True), refused.text
