import io

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from garrison.fleet.manifest.address import canonical_url
from garrison.fleet.manifest.dump import dump_manifest, manifest_body
from garrison.fleet.manifest.load import load_declaration
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration, Hook, ModelSpec, Policy
from garrison.fleet.values.events import HOOK_KINDS
from garrison.fleet.values.target import TargetSpec
from garrison.net.endpoint import Secret, Tls

TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=12) | st.sampled_from(
    ["${A}", "$${A}", "on", "no", "1e5", "1", "null", "~", "a: b", "#", "2026-01-01", "é", "a\u00a0b"]
)
NAMES = TEXT.filter(lambda text: text == text.strip() and text.isprintable())
PATHS = TEXT.map(lambda text: f"/{text}")
ENV = st.builds(Secret, st.just("env"), st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True))
WORDS = TEXT | st.text("a\t\n $%", max_size=6)
# A program with a slash is made absolute by the loader, so a declaration has none that is relative.
PROGRAMS = WORDS.filter(lambda text: "/" not in text)
SECRETS = (
    ENV
    | st.builds(Secret, st.just("file"), PATHS)
    | st.builds(Secret, st.just("command"), st.tuples(PROGRAMS) | st.tuples(PROGRAMS, WORDS))
)
HEADERS = st.dictionaries(st.sampled_from(["X-Site", "X-Rack"]), TEXT | SECRETS)
SECONDS = st.floats(0.1, 86400)
URLS = st.builds(
    lambda scheme, host, port, path: canonical_url(f"{scheme}://{host}:{port}/{path}"),
    st.sampled_from(["http", "https"]),
    st.sampled_from(["localhost", "10.0.0.2", "[::1]", "node.lan"]),
    st.integers(1, 65535),
    st.sampled_from(["", "a", "a/b", "v1"]),
)


@st.composite
def target_specs(draw: st.DrawFn, name: str, url: str) -> TargetSpec:
    return TargetSpec(
        name=name,
        base_url=url,
        base_model=draw(st.none() | TEXT),
        labels=draw(st.dictionaries(NAMES, TEXT, max_size=2)),
        api_key=draw(st.none() | SECRETS),
        headers=draw(HEADERS),
        tls=draw(st.builds(Tls, ca=st.none() | PATHS, cert=st.none() | PATHS, insecure=st.booleans())),
        adapter_store=draw(st.none() | st.just("none") | PATHS),
        max_lora_rank=draw(st.none() | st.integers(1, 512)),
        prefix_caching=draw(st.none() | st.booleans()),
        timeout=draw(SECONDS),
        load_timeout=draw(SECONDS),
        probe=draw(st.none() | st.booleans()),
    )


@st.composite
def declarations(draw: st.DrawFn) -> Declaration:
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    urls = draw(st.lists(URLS, unique=True, min_size=len(names), max_size=len(names)))
    targets = {name: draw(target_specs(name, url)) for name, url in zip(names, urls, strict=True)}
    adapters = []
    for label in draw(st.lists(NAMES, unique=True, max_size=4)) if names else ():
        body = {
            "label": label,
            "lora_name": f"{''.join(label.split())}{draw(st.sampled_from(['', '-v2']))}",
            "lora_path": draw(PATHS | st.sampled_from(["acme/a", "~/a"])),
            "base_model_name": draw(st.none() | TEXT),
            "is_3d_lora_weight": draw(st.booleans()),
            "probe": draw(st.none() | st.booleans()),
        }
        for name in draw(st.lists(st.sampled_from(names), unique=True, min_size=1)):
            adapter = AdapterDeclaration(target=name, **body)
            taken = {one.lora_name for one in adapters if one.target == name} | {targets[name].base_model}
            if adapter.lora_name not in taken:
                adapters.append(adapter)
    model = st.builds(
        ModelSpec, target=st.sampled_from(names or [""]), label=NAMES, id=st.none() | TEXT, root=st.none() | TEXT
    )
    hook = st.builds(
        Hook,
        on=st.lists(st.sampled_from(HOOK_KINDS), min_size=1).map(tuple),
        url=PATHS.map(lambda path: f"http://h{path}") | SECRETS,
        headers=HEADERS,
    ) | st.builds(Hook, on=st.just(("drift",)), command=st.just(("logger", "-t", "${A}\n")))
    return Declaration(
        stack=draw(NAMES),
        targets=targets,
        adapters=tuple(adapters),
        models=tuple(draw(st.lists(model, unique_by=lambda one: one.label, max_size=2))) if names else (),
        policy=draw(st.builds(Policy, on_drift=st.sampled_from(["report", "restore"]), interval=SECONDS)),
        hooks=tuple(draw(st.lists(hook, max_size=2))),
    )


def load(text: str) -> Declaration:
    return load_declaration(["-"], environ={}, stdin=io.StringIO(text)).declaration


@given(declarations())
def test_a_dumped_declaration_loads_equal(declaration: Declaration) -> None:
    assert load(dump_manifest(declaration)) == declaration


@given(declarations())
def test_json_and_back(declaration: Declaration) -> None:
    import json

    assert Declaration.from_json(json.loads(json.dumps(declaration.to_json()))) == declaration


def test_what_it_looks_like() -> None:
    declaration = Declaration(
        stack="cabinet-7",
        targets={
            "a": TargetSpec(name="a", base_url="http://a:8000", api_key=Secret("env", "A_KEY")),
            "b": TargetSpec(name="b", base_url="http://b:8000", labels={"site": "lab"}),
        },
        adapters=tuple(
            AdapterDeclaration(target=target, label=label, lora_name=label, lora_path=path)
            for label, target, path in (
                ("sql", "a", "/m/sql"),
                ("sql", "b", "/m/sql"),
                ("law", "a", "/m/law"),
                ("law", "b", "/m/law-2"),
            )
        ),
    )
    assert dump_manifest(declaration) == (
        "stack: cabinet-7\n"
        "\n"
        "targets:\n"
        "  a:\n"
        "    base_url: http://a:8000\n"
        "    api_key: {env: A_KEY}\n"
        "  b:\n"
        "    base_url: http://b:8000\n"
        "    labels: {site: lab}\n"
        "\n"
        "adapters:\n"
        "  sql:\n"
        "    targets: [a, b]\n"
        "    lora_path: /m/sql\n"
        "  law: {target: a, lora_path: /m/law}\n"
        "  law-b: {target: b, lora_name: law, lora_path: /m/law-2}\n"
    )


def test_labels_of_their_own_do_not_take_another_adapters() -> None:
    specs = [("x", "a", "/1"), ("x", "b", "/2"), ("x-b", "a", "/3")]
    declaration = Declaration(
        stack="s",
        targets={name: TargetSpec(name=name, base_url=f"http://{name}:1") for name in ("a", "b")},
        adapters=tuple(AdapterDeclaration(target=t, label=x, lora_name=x, lora_path=p) for x, t, p in specs),
    )
    written = yaml.safe_load(dump_manifest(declaration))["adapters"]
    assert {key: entry["lora_path"] for key, entry in written.items()} == {"x": "/1", "x-b-2": "/2", "x-b": "/3"}
    assert written["x-b-2"]["lora_name"] == "x"


@pytest.mark.parametrize("text", ["a 😀 b", "line\u2028line", "\x85", "back\\slash", "two\nlines", "a\tb", "é" * 200])
def test_it_is_the_text_of_the_python_dumper(text: str) -> None:
    body = Declaration(stack="lab", targets={"edge": TargetSpec(name="edge", base_url="http://a", labels={"k": text})})
    block = {"targets": manifest_body(body)["targets"]}
    expected = yaml.safe_dump(block, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    assert dump_manifest(body).endswith(expected)


def test_durations_of_a_manifest() -> None:
    text = """
stack: box
instances: {a: {model: m, engine: sim, idle: 1800, options: {timeout: 1800}}}
targets: {edge: {base_url: http://edge:8000, timeout: 30, load_timeout: 600}}
policy: {interval: 60}
"""
    written = dump_manifest(load(text))
    for line in ("idle: 30m", "timeout: 1800", "timeout: 30s", "load_timeout: 10m", "interval: 1m"):
        assert line in written
