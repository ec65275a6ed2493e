import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.fleet.manifest.canonical import spellings
from garrison.fleet.manifest.fields import SecretModel
from garrison.fleet.manifest.load import Loaded, load_declaration
from garrison.fleet.manifest.model import FleetManifest, HookModel
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration, Hook, ModelSpec, Policy
from garrison.fleet.values.events import HOOK_KINDS
from garrison.fleet.values.target import TargetSpec
from garrison.net.endpoint import Secret, Tls

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples" / "fleet"


def load(text: str, **environ: str) -> Loaded:
    return load_declaration(["-"], environ=environ, stdin=io.StringIO(text), directory=Path("/srv"))


def refused(text: str, **environ: str) -> str:
    with pytest.raises(InvalidError) as caught:
        load(text, **environ)
    return f"{caught.value.message}\n{caught.value.hint}"


def target(line: str) -> str:
    return f"stack: s\ntargets:\n  t: {line}\n"


def adapter(line: str) -> str:
    return target("{host: h, base_model: base, labels: {site: lab}}") + f"adapters:\n  a: {line}\n"


def test_the_example() -> None:
    loaded = load_declaration([str(EXAMPLES / "cabinet.yaml")], environ={})
    assert loaded.declaration == Declaration(
        stack="cabinet-7",
        targets={
            "local-vllm": TargetSpec(
                name="local-vllm", base_url="http://localhost:8000", base_model="acme/tiny", labels={"site": "lab"}
            ),
            "edge-2": TargetSpec(
                name="edge-2",
                base_url="http://10.0.0.2:8000",
                api_key=Secret("env", "EDGE2_KEY"),
                tls=Tls(ca=str(EXAMPLES / "ca.pem")),
            ),
        },
        adapters=(
            AdapterDeclaration(
                target="local-vllm",
                label="sql",
                lora_name="sql",
                lora_path="/models/adapters/sql",
                base_model_name="acme/tiny",
            ),
        ),
    )
    assert loaded.warnings == ()
    assert loaded.where("adapters", "sql", "lora_path") == f"{EXAMPLES / 'cabinet.yaml'}:10:5"


def test_json_and_toml_say_the_same_as_yaml() -> None:
    made = [
        load_declaration([str(EXAMPLES / f"cabinet.{suffix}")], environ={}).declaration
        for suffix in ("yaml", "json", "toml")
    ]
    assert made[0] == made[1] == made[2]


FULL = """\
stack: all
targets:
  t:
    type: VLLM
    base_url: https://node.lan/vllm/v1/
    base_model: acme/tiny
    labels: {site: lab, rack: 7, edge: true}
    api_key: {file: keys/t}
    headers: {X-Site: lab, Authorization-Extra: {command: [pass, show, t]}, X-Token: "${TOKEN}"}
    tls: {ca: ca.pem, cert: /etc/c.pem, key: ~/k.pem, insecure: true}
    adapter_store: shared
    max_lora_rank: 64
    prefix_caching: false
    timeout: 500ms
    load_timeout: 5m
    probe: true
adapters:
  a:
    type: VLLM::Inference::LoRAAdapter
    targets: [t]
    lora_name: renamed
    lora_path: ./adapters/a
    base_model_name: acme/tiny
    is_3d_lora_weight: true
    probe: false
models:
  m: {type: "VLLM::Inference::Model", target: t, id: acme/tiny, root: /models/tiny}
policy: {on_drift: restore, interval: 2m}
hooks:
  - {on: [drift, restored], url: "https://hooks.lan/x", headers: {X-Auth: {env: HOOK}}}
  - {on: [unreachable], url: "${HOOK_URL}"}
  - {on: [recovered], command: [logger, -t, garrison]}
"""


def test_every_key() -> None:
    assert load(FULL, HOME="/home/me").declaration == Declaration(
        stack="all",
        targets={
            "t": TargetSpec(
                name="t",
                base_url="https://node.lan/vllm",
                base_model="acme/tiny",
                labels={"site": "lab", "rack": "7", "edge": "true"},
                api_key=Secret("file", "/srv/keys/t"),
                headers={
                    "X-Site": "lab",
                    "Authorization-Extra": Secret("command", ("pass", "show", "t")),
                    "X-Token": Secret("env", "TOKEN"),
                },
                tls=Tls(ca="/srv/ca.pem", cert="/etc/c.pem", key="/home/me/k.pem", insecure=True),
                adapter_store="/srv/shared",
                max_lora_rank=64,
                prefix_caching=False,
                timeout=0.5,
                load_timeout=300.0,
                probe=True,
            )
        },
        adapters=(
            AdapterDeclaration(
                target="t",
                label="a",
                lora_name="renamed",
                lora_path="/srv/adapters/a",
                base_model_name="acme/tiny",
                is_3d_lora_weight=True,
                probe=False,
            ),
        ),
        models=(ModelSpec(target="t", label="m", id="acme/tiny", root="/models/tiny"),),
        policy=Policy(on_drift="restore", interval=120.0),
        hooks=(
            Hook(on=("drift", "restored"), url="https://hooks.lan/x", headers={"X-Auth": Secret("env", "HOOK")}),
            Hook(on=("unreachable",), url=Secret("env", "HOOK_URL")),
            Hook(on=("recovered",), command=("logger", "-t", "garrison")),
        ),
    )


def test_the_kinds_of_hooks_are_the_events() -> None:
    kinds = HookModel.model_json_schema()["properties"]["on"]["items"]["enum"]
    assert set(kinds) == set(HOOK_KINDS)


PATHS = {
    "absolute": ("/models/a", "/models/a"),
    "a name, which the server may know": ("acme/a", "acme/a"),
    "beside the manifest": ("./a", "/srv/a"),
    "above the manifest": ("../a", "/a"),
    "the server's home": ("~/a", "~/a"),
}


@pytest.mark.parametrize(("written", "path"), PATHS.values(), ids=PATHS)
def test_lora_path(written: str, path: str) -> None:
    assert load(adapter(f"{{target: t, lora_path: {written}}}")).declaration.adapters[0].lora_path == path


def test_no_adapter_store() -> None:
    assert load(target("{host: h, adapter_store: none}")).declaration.targets["t"].adapter_store == "none"


VARIABLES = {
    "text": ("{host: '${HOST}'}", "http://node:8000"),
    "within text": ("{base_url: 'http://${HOST}.lan:81'}", "http://node.lan:81"),
    "a number": ("{host: h, port: '${PORT}'}", "http://h:9000"),
    "a number by default": ("{host: h, port: '${NONE:-7000}'}", "http://h:7000"),
}


@pytest.mark.parametrize(("line", "url"), VARIABLES.values(), ids=VARIABLES)
def test_variables(line: str, url: str) -> None:
    assert load(target(line), HOST="node", PORT="9000").declaration.targets["t"].base_url == url


def test_keys_are_not_substituted() -> None:
    assert list(load("stack: s\ntargets: {'${A}': {host: h}}").declaration.targets) == ["${A}"]


SELECTED = {
    "one": ("target: b", ["b"]),
    "several, in their own order": ("targets: [c, a]", ["c", "a"]),
    "by label, in the manifest's order": ("select: {site: lab}", ["a", "c"]),
    "by two labels": ("select: {site: lab, size: 2}", ["c"]),
}


@pytest.mark.parametrize(("line", "names"), SELECTED.values(), ids=SELECTED)
def test_targets_of_an_adapter(line: str, names: list[str]) -> None:
    text = (
        "stack: s\ntargets:\n  a: {host: a, labels: {site: lab}}\n  b: {host: b, labels: {site: shop}}\n"
        "  c: {host: c, labels: {site: lab, size: 2}}\nadapters:\n  x:\n    lora_path: /x\n    " + line
    )
    assert [one.target for one in load(text).declaration.adapters] == names


MISTAKES = {
    "no stack": ("targets: {}", ":1:1: missing key 'stack'", "stack: NAME"),
    "an unknown key": (target("{base_ulr: x}"), ":3:7: unknown key 'targets.t.base_ulr'", "'base_url'"),
    "an unknown key at the top": ("stack: s\nadaptors: {}", ":2:1: unknown key 'adaptors'", "'adapters'"),
    "a key of nothing like it": (
        "stack: s\nzzz: {}",
        ":2:1: unknown key 'zzz'",
        "Known keys: stack, instances, targets",
    ),
    "two spellings": (
        target("{baseUrl: 'http://h', base_url: 'http://h'}"),
        ":3:28: 'baseUrl' and 'base_url' are two",
        "",
    ),
    "no address": (target("{base_model: x}"), ":3:3: targets.t: missing address", ""),
    "two addresses": (target("{host: h, base_url: 'http://h'}"), "give either", ""),
    "one address twice": (
        target("{host: h}") + "  u: {base_url: 'http://h:8000/v1'}",
        ":4:3: targets 't' and 'u'",
        "",
    ),
    "a port that is none": (target("{host: h, port: 70000}"), ":3:16: targets.t.port: must be ", ""),
    "a port of a wrong type": (
        target("{host: h, port: [1]}"),
        ":3:16: targets.t.port: must be a whole number",
        "",
    ),
    "a port that is true": (target("{host: h, port: true}"), "targets.t.port: must be a whole number", ""),
    "a time that is none": (target("{host: h, timeout: soon}"), "500ms, 30s, 5m, 1h", ""),
    "a time without end": (target("{host: h, timeout: .inf}"), "timeout: must be", ""),
    "a time that is no number": (target("{host: h, timeout: .nan}"), "timeout: must be", ""),
    "a flag that is none": (target("{host: h, probe: maybe}"), "targets.t.probe: must be true or false", ""),
    "another type": (target("{host: h, type: compose}"), "targets.t.type: must be 'VLLM'", ""),
    "a list for a mapping": ("stack: s\ntargets: [a]", ":2:1: targets: must be a mapping", ""),
    "text for the whole": ("hello", "not a mapping", "stack: NAME"),
    "nothing at all": ("", "the manifest is empty", "Begin with"),
    "a key that is a number": (
        "stack: s\ntargets: {7: {host: h}}",
        ":2:11: targets: `7` is read as a number",
        "Write '7'",
    ),
    "a key with blanks": ("stack: s\ntargets: {' t': {host: h}}", ":2:11: targets. t: a name cannot begin or end", ""),
    "a key that is too long": (f"stack: s\ntargets: {{{'t' * 201}: {{host: h}}}}", ":2:11: targets.ttt", ""),
    "a name with blanks": ("stack: ' s '", ":1:1: stack: a name cannot begin or end", ""),
    "a control character": ('stack: "a\\e[31m"', ":1:1: stack: contains a control character", ""),
    "both file and command": (
        target("{host: h, api_key: {file: a, command: [b]}}"),
        ":3:16: targets.t.api_key: give exactly one",
        "",
    ),
    "a key to nothing": (target("{host: h, tls: {key: k}}"), "key requires cert", ""),
    "a header that is none": (target("{host: h, headers: {'a b': c}}"), "invalid header name", ""),
    "a framing header": (target("{host: h, headers: {Content-Length: '1'}}"), "is managed by Garrison", ""),
    "a header twice": (target("{host: h, headers: {X-A: a, x-a: b}}"), "duplicate header", ""),
    "key and header": (
        target("{host: h, api_key: {env: A}, headers: {authorization: {env: B}}}"),
        "set the same header",
        "",
    ),
    "no target": (adapter("{lora_path: /a}"), ":5:3: adapters.a: give exactly one of target, targets, select", ""),
    "target and targets": (adapter("{lora_path: /a, target: t, targets: [t]}"), "give exactly one of", ""),
    "an unknown target": (
        adapter("{lora_path: /a, target: tt}"),
        ":5:22: adapters.a.target: unknown target 'tt'",
        "'t'",
    ),
    "a target twice": (
        adapter("{lora_path: /a, targets: [t, t]}"),
        ":5:35: adapters.a.targets.1: duplicate target 't'",
        "",
    ),
    "no targets": (adapter("{lora_path: /a, targets: []}"), "is empty", ""),
    "a select of nothing": (
        adapter("{lora_path: /a, select: {site: shop}}"),
        ":5:22: adapters.a.select: no target",
        "site: lab",
    ),
    "no path": (adapter("{target: t}"), ":5:3: missing key 'adapters.a.lora_path'", "lora_path: …"),
    "the name of the base": (
        adapter("{target: t, lora_path: /a, lora_name: base}"),
        ":5:33: adapter 'a' has the same name as the base",
        "",
    ),
    "a name twice": (
        adapter("{target: t, lora_path: /a}") + "  b: {target: t, lora_path: /b, lora_name: a}",
        "'a' and 'b' have the same lora_name on target 't'",
        "",
    ),
    "another resource type": (
        adapter("{type: 'AWS::S3::Bucket', target: t, lora_path: /a}"),
        "must be 'VLLM::Inference::LoRAAdapter'",
        "",
    ),
    "a model on no target": ("stack: s\nmodels: {m: {target: t}}", "unknown target 't'", "There are no targets"),
    "an unknown policy": (
        "stack: s\npolicy: {on_drift: fix}",
        ":2:10: policy.on_drift: must be 'report' or 'restore'",
        "",
    ),
    "an unknown event": (
        "stack: s\nhooks: [{on: [restore], url: 'http://h'}]",
        "hooks.0.on.0: must be 'drift'",
        "",
    ),
    "a hook to nobody": ("stack: s\nhooks: [{on: [drift]}]", "give exactly one of url, command", ""),
    "unset variable": (target("{host: '${NONE}'}"), ":3:7: targets.t.host: variable NONE is not set", "default"),
    "an unknown target by a variable": (adapter("{lora_path: /a, target: '${V}'}"), "unknown target '${V}'", ""),
}


@pytest.mark.parametrize(("text", "message", "hint"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(text: str, message: str, hint: str) -> None:
    said = refused(text, V="sesame")
    assert message in said
    assert hint in said
    assert "sesame" not in said
    assert said.startswith("<standard input>:") or "errors" in said


SECRETS = {
    "a literal key": target("{host: h, api_key: sesame}"),
    "a key with a default": target("{host: h, api_key: '${KEY:-sesame}'}"),
    "a literal header": target("{host: h, headers: {Authorization: sesame}}"),
    "a literal key header": target("{host: h, headers: {X-API-Key: sesame}}"),
    "a variable within a header": target("{host: h, headers: {X-A: 'Bearer ${KEY}'}}"),
    "a variable within a URL": "stack: s\nhooks: [{on: [drift], url: 'http://h/${KEY}'}]",
    "a variable as the name of a variable": target("{host: h, api_key: {env: '${KEY}'}}"),
    "a password in the address": target("{base_url: 'http://a:sesame@h'}"),
    "a password by a variable": target("{base_url: 'http://a:${KEY}@h'}"),
    "a port by a variable": target("{host: h, port: '${KEY}'}"),
    "a name by a variable": target("{host: h}") + "adapters: {a: {target: '${KEY}', lora_path: /a}}",
}


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS)
def test_no_secret_in_an_error(text: str) -> None:
    assert "sesame" not in refused(text, KEY="sesame")


def test_several_mistakes_at_once_in_the_order_of_the_file() -> None:
    lines = "\n".join(f"  t{n}: {{base_ulr: x}}" for n in range(12))
    said = refused(f"stack: s\ntargets:\n{lines}\npolicy: {{on_drift: fix}}")
    assert said.startswith("the manifest has 13 errors:\n  <standard input>:3:8: unknown key 'targets.t0.base_ulr'")
    assert said.count("\n  ") == 11
    assert "and 3 more" in said


def test_read_only_fields_are_left_out_with_a_warning() -> None:
    loaded = load(adapter("{target: t, lora_path: /a, id: a, parent: base, root: /a}"))
    assert loaded.declaration == load(adapter("{target: t, lora_path: /a}")).declaration
    assert len(loaded.warnings) == 3
    assert "ignored 'id'" in loaded.warnings[0]


def test_yaml_reads_the_key_on_as_a_boolean() -> None:
    hooks = load("stack: s\nhooks: [{on: [drift], command: [true-program]}]").declaration.hooks
    assert hooks == (Hook(on=("drift",), command=("true-program",)),)


class TestSources:
    def write(self, directory: Path, **files: str) -> None:
        for name, text in files.items():
            (directory / f"{name}.yaml").write_text(text)

    def test_a_directory_is_merged(self, tmp_path: Path) -> None:
        self.write(
            tmp_path,
            a="stack: s\ntargets: {t: {host: h}}\nhooks: [{on: [drift], command: [one]}]",
            b="stack: s\nadapters: {x: {target: t, lora_path: ./x}}\nhooks: [{on: [drift], command: [two]}]",
            c="policy: {interval: 5s}",
        )
        (tmp_path / ".hidden.yaml").write_text("stack: other")
        (tmp_path / "notes.txt").write_text("stack: other")
        loaded = load_declaration([str(tmp_path)], environ={})
        assert loaded.declaration == Declaration(
            stack="s",
            targets={"t": TargetSpec(name="t", base_url="http://h:8000")},
            adapters=(AdapterDeclaration(target="t", label="x", lora_name="x", lora_path=str(tmp_path / "x")),),
            policy=Policy(interval=5.0),
            hooks=(Hook(on=("drift",), command=("one",)), Hook(on=("drift",), command=("two",))),
        )
        assert loaded.where("adapters", "x") == f"{tmp_path / 'b.yaml'}:2:12"
        assert loaded.where("hooks", 1, "command").startswith(f"{tmp_path / 'b.yaml'}:3:")

    @pytest.mark.parametrize(
        ("one", "two", "message"),
        [
            (
                "targets: {t: {host: h}}",
                "targets: {t: {host: i}}",
                "target 't' is declared in {a}:1:11 and in {b}:1:11",
            ),
            ("adapters: {t: {}}", "adapters: {t: {}}", "adapter 't' is declared in {a}:1:12 and in {b}:1:12"),
            ("stack: s", "stack: r", "stack is declared differently in {a}:1:1 and in {b}:1:1"),
            (
                "policy: {interval: 5s}",
                "policy: {interval: 6s}",
                "policy is declared differently in {a}:1:1 and in {b}:1:1",
            ),
        ],
        ids=["target", "adapter", "stack", "policy"],
    )
    def test_declared_twice(self, tmp_path: Path, one: str, two: str, message: str) -> None:
        self.write(tmp_path, a=one, b=two)
        with pytest.raises(InvalidError) as caught:
            load_declaration([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")], environ={})
        said = caught.value.message
        assert message.format(a=tmp_path / "a.yaml", b=tmp_path / "b.yaml") in said

    def test_the_default_is_garrison_yaml(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidError, match=r"cannot read manifest 'garrison\.yaml'") as caught:
            load_declaration([], environ={}, directory=tmp_path)
        assert caught.value.hint is not None
        assert "`garrison example` writes one" in caught.value.hint
        self.write(tmp_path, garrison="stack: s")
        assert load_declaration([], environ={}, directory=tmp_path).declaration == Declaration(stack="s")

    def test_a_directory_without_a_manifest(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidError, match="no manifest in directory"):
            load_declaration([str(tmp_path)], environ={})

    def test_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "m.yaml").write_bytes(b"stack: \xff")
        with pytest.raises(InvalidError, match="not UTF-8"):
            load_declaration([str(tmp_path / "m.yaml")], environ={})

    def test_no_standard_input(self) -> None:
        with pytest.raises(InvalidError, match="no standard input"):
            load_declaration(["-"], environ={})

    def test_standard_input_may_be_json(self) -> None:
        assert load('{"stack": "s", "policy": {"interval": 1e1}}').declaration.policy.interval == 10.0

    @pytest.mark.parametrize("source", ["a\0b", "x" * 5000], ids=["NUL", "long"])
    def test_a_source_that_is_no_path(self, source: str) -> None:
        with pytest.raises(InvalidError):
            load_declaration([source], environ={})


@pytest.mark.parametrize("file", sorted(path.name for path in EXAMPLES.iterdir() if path.is_file()))
def test_every_example_loads(file: str) -> None:
    declaration = load_declaration([str(EXAMPLES / file)], environ={}).declaration
    assert declaration.targets
    assert declaration.adapters


def respelled(value: Any, pick: Any) -> Any:
    known = {name for model in _models() for name in model.model_fields}
    if isinstance(value, dict):
        return {(pick(spellings(key)) if key in known else key): respelled(item, pick) for key, item in value.items()}
    return [respelled(item, pick) for item in value] if isinstance(value, list) else value


def _models() -> list[Any]:
    from garrison.fleet.manifest import model

    return [getattr(model, name) for name in model.__all__] + [SecretModel]


@given(st.data())
def test_any_spelling_gives_the_same(data: st.DataObject) -> None:
    plain = yaml.safe_load(FULL.replace("on:", "'on':"))
    plain["targets"]["t"]["labels"] = {"Site": "lab"}  # names of one's own are not respelled
    text = yaml.safe_dump(respelled(plain, lambda ways: data.draw(st.sampled_from(ways))))
    assert load(text).declaration == load(yaml.safe_dump(plain)).declaration


KEYS = sorted(
    {name for model in _models() for name in model.model_fields} | {"Resources", "Stacks", "Targets", "Label"}
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["${A}", "${", "t", "h", "~"])
)
GARBAGE = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(GARBAGE | st.fixed_dictionaries({}, optional=dict.fromkeys(FleetManifest.model_fields, GARBAGE)))
def test_garbage_is_refused_or_read(content: Any) -> None:
    for text in (json.dumps(content), yaml.safe_dump(content, allow_unicode=True)):
        try:
            load(text)
        except InvalidError as error:
            str(error.to_json()).encode()


@given(st.text())
def test_garbage_text(text: str) -> None:
    with contextlib.suppress(InvalidError):
        load(text)


@pytest.mark.parametrize("text", ["", "\n", "# a comment\n", "---\n", "{}"], ids=repr)
def test_what_is_empty_is_called_so(text: str) -> None:
    assert "the manifest is empty" in refused(text)


def test_standard_input_may_be_toml() -> None:
    text = 'stack = "s"\n[targets.t]\nbase_url = "http://h:1"\n'
    assert load(text).declaration.targets["t"].base_url == "http://h:1"
    assert "<standard input>:3:" in refused(text.replace("base_url", "base_ulr"))


PATHS = {"models/sql": True, "acme/sql": True, "./sql": False, "../sql": False, "/sql": False, "~/sql": False,
         "s3://bucket/sql": False}  # fmt: skip


@pytest.mark.parametrize(("path", "odd"), PATHS.items(), ids=PATHS)
def test_a_bare_relative_lora_path_warns_that_it_is_on_the_server(path: str, odd: bool) -> None:
    warnings = load(adapter(f"{{target: t, lora_path: {path}}}")).warnings
    told = [f"<standard input>:5:18: lora_path {path!r} is a path on the server; to make it relative to the manifest, "
            "begin it with ./"]  # fmt: skip
    assert list(warnings) == (told if odd else [])


URLS = {"https://hooks.example/T0/B0": True, "${HOOK}": False, "{env: HOOK}": False, "http://localhost:9/x": False}


@pytest.mark.parametrize(("url", "odd"), URLS.items(), ids=URLS)
def test_a_literal_url_of_a_hook_is_perhaps_a_secret(url: str, odd: bool) -> None:
    warnings = load(f"stack: s\nhooks:\n- {{on: [drift], url: {url if url.startswith('{') else repr(url)}}}\n").warnings
    assert [("write url: ${NAME}" in one, "hooks.example" in one) for one in warnings] == (
        [(True, False)] if odd else []
    )


@pytest.mark.parametrize("name", ["a b", "a\tb", "a\u00a0b", "a\nb"], ids=repr)
def test_a_lora_name_without_blanks(name: str) -> None:
    told = refused(adapter(json.dumps({"target": "t", "lora_path": "/x", "lora_name": name})))
    assert "contains white space" in told or "control character" in told


def test_a_label_with_a_blank_needs_a_lora_name() -> None:
    labelled = target("{host: h}") + "adapters:\n  my sql: {target: t, lora_path: /x"
    assert "Or set lora_name." in refused(labelled + "}\n")
    assert load(labelled + ", lora_name: acme/sql}\n").declaration.adapters[0].lora_name == "acme/sql"


def test_errors_of_every_kind_are_reported_together() -> None:
    text = """stack: s
targets: {t: {base_url: "ftp://h"}, u: {host: h}, v: {host: h}}
adapters:
  a: {target: nope, lora_path: /x}
  b: {target: t, lora_path: /x}
  c: {target: t, lora_path: /x, lora_name: b}
"""
    told = refused(text)
    assert "the manifest has 4 errors" in told
    for part in ("targets.t.base_url", "have the same address", "unknown target 'nope'", "have the same lora_name"):
        assert part in told


def test_a_directory_may_have_a_manifest_of_serve_beside_that_of_a_stack(tmp_path):
    (tmp_path / "serve.yaml").write_text("model: acme/tiny\nport: 8001\n")
    (tmp_path / "garrison.yaml").write_text("stack: box\ntargets: {a: {base_url: http://127.0.0.1:8000}}\n")
    assert set(load_declaration([str(tmp_path)], environ={}).declaration.targets) == {"a"}


def test_a_select_where_no_target_has_labels_says_how_to_give_them() -> None:
    said = refused("stack: s\ntargets: {t: {host: h}}\nadapters: {a: {lora_path: /a, select: {site: mars, row: '7'}}}")
    assert "adapters.a.select: no target has these labels" in said
    assert "Write `labels: {site: mars, row: 7}` in a target, or name targets with `targets`." in said
