import itertools
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import EngineMissingError, InvalidError, ModelInvalidError
from garrison.base.settings import Settings
from garrison.engines.engine import Endpoint
from garrison.engines.llama_cpp import LlamaCpp
from garrison.engines.mlx_lm import MlxLm
from garrison.engines.vllm import Vllm
from garrison.launch.containers.values import ContainerSpec, OwnArguments
from garrison.launch.engine_command import choose, command, prepare_adapters, require_key, served_names
from garrison.launch.serve import log_path, prepare
from garrison.launch.spec import AdapterSpec, LaunchSpec
from garrison.models.layout import Layout
from garrison.testing.progress import MemoryProgress
from garrison.testing.views import RecordingStartView

MakeAdapter = Callable[..., Path]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A vLLM that only tells its version."""
    path = tmp_path / "bin" / "vllm"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\necho 0.32.0\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def spec(program: Path) -> LaunchSpec:
    return LaunchSpec(model="acme/tiny", executable=program)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(root=tmp_path / "models", data_dir=tmp_path / "data")


def choose_(spec: LaunchSpec, environ: Mapping[str, str] | None = None) -> Any:
    return choose(spec, Settings(data_dir=Path("/nonexistent")), environ or {})


def argv(spec: LaunchSpec, layout: Layout, model: Path, name: str = "acme/tiny") -> tuple[str, ...]:
    adapters = prepare_adapters(spec.adapters, model, layout, Vllm())
    return command(spec, choose_(spec), model=str(model), names=(name,), adapters=adapters).argv


def after(words: tuple[str, ...], flag: str) -> str:
    return words[words.index(flag) + 1]


class TestChoose:
    def test_explicit_executable(self, spec: LaunchSpec, program: Path) -> None:
        found = choose_(spec)
        assert (found.located.path, found.located.origin) == (program, "explicit")
        assert found.endpoint == Endpoint("127.0.0.1", 8000)

    def test_path(self, program: Path) -> None:
        found = choose_(LaunchSpec(model="m"), {"PATH": str(program.parent)})
        assert (found.located.path, found.located.origin) == (program, "path")

    def test_missing(self) -> None:
        with pytest.raises(EngineMissingError) as caught:
            choose_(LaunchSpec(model="m"), {"PATH": "/nonexistent"})
        assert str(caught.value.hint).startswith("garrison engine install vllm; ")

    def test_explicit_missing(self, tmp_path: Path) -> None:
        with pytest.raises(EngineMissingError, match="not a program"):
            choose_(LaunchSpec(model="m", executable=tmp_path / "nope"), {"PATH": "/nonexistent"})

    def test_unknown_engine(self) -> None:
        with pytest.raises(InvalidError, match="vlm"):
            choose_(LaunchSpec(model="m", engine="vlm"))

    def test_sim_needs_nothing(self) -> None:
        found = choose_(LaunchSpec(model="m", engine="sim"), {"PATH": "/nonexistent"})
        assert found.located.path == Path(sys.executable).absolute()

    ENDPOINTS = (
        ((), Endpoint("127.0.0.1", 8000)),
        (("--port", "9000"), Endpoint("127.0.0.1", 9000)),
        (("--port=9000", "--host=::1"), Endpoint("::1", 9000)),
        (("--port", "9000", "--port", "9001"), Endpoint("127.0.0.1", 9001)),
        (("--uds", "/run/v.sock"), Endpoint("127.0.0.1", 8000, "/run/v.sock")),
    )

    @pytest.mark.parametrize(("args", "endpoint"), ENDPOINTS, ids=[" ".join(args) for args, _ in ENDPOINTS])
    def test_the_users_own_endpoint_counts(self, spec: LaunchSpec, args: tuple[str, ...], endpoint: Endpoint) -> None:
        assert choose_(replace(spec, args=args)).endpoint == endpoint

    def test_a_flag_that_is_not_listed_is_found_and_the_nearest_named(self, spec: LaunchSpec) -> None:
        (finding,) = choose_(replace(spec, args=("--max-modle-len", "4096"))).findings
        assert (finding.flag, finding.suggestion) == ("--max-modle-len", "--max-model-len")

    def test_the_engines_own_config_file_is_checked_too(self, spec: LaunchSpec, tmp_path: Path) -> None:
        path = tmp_path / "c.yaml"
        path.write_text("max-modle-len: 4096\nport: 9001\nheadless: false\n")
        found = choose_(replace(spec, args=("--config", str(path), "--port", "9002")))
        assert [finding.flag for finding in found.findings] == ["--max-modle-len"]
        assert found.endpoint == Endpoint("127.0.0.1", 9002)

    def test_nothing_to_say(self, spec: LaunchSpec) -> None:
        assert list(choose_(replace(spec, args=("--max-model-len", "32k", "--seed", "0"))).findings) == []


class TestLogPath:
    def test_sockets_of_one_name_have_logs_of_their_own(self, spec: LaunchSpec, tmp_path: Path) -> None:
        settings = Settings.load(environ={"GARRISON_DATA_DIR": str(tmp_path)})
        paths = ["/run/a/v.sock", "/run/b/v.sock", "/run/a/w.sock"]
        logs = [log_path(settings, choose_(replace(spec, args=("--uds", path)))) for path in paths]
        assert len(set(logs)) == 3
        assert all(log.parent == tmp_path / "logs" for log in logs)
        assert logs[0] == log_path(settings, choose_(replace(spec, args=("--uds", paths[0]))))
        assert logs[0].name.startswith("vllm-v-")

    def test_a_port_names_it(self, spec: LaunchSpec, tmp_path: Path) -> None:
        settings = Settings.load(environ={"GARRISON_DATA_DIR": str(tmp_path)})
        assert log_path(settings, choose_(spec)) == tmp_path / "logs" / "vllm-8000.log"


class TestAdapters:
    def test_directory(self, tiny_model: Path, adapter: MakeAdapter, layout: Layout) -> None:
        path = adapter("sql", rank=16)
        (found,) = prepare_adapters([AdapterSpec("sql", str(path))], tiny_model, layout, Vllm())
        assert (found.name, found.info.path, found.info.max_rank) == ("sql", path, 16)

    def test_relative_directory(
        self, tiny_model: Path, adapter: MakeAdapter, layout: Layout, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = adapter("sql")
        monkeypatch.chdir(path.parent)
        (found,) = prepare_adapters([AdapterSpec("sql", "sql")], tiny_model, layout, Vllm())
        assert found.info.path == path

    def test_imported_one_by_name(self, tiny_model: Path, adapter: MakeAdapter, layout: Layout) -> None:
        layout.adapters.mkdir(parents=True)
        adapter("sql").rename(layout.adapters / "sql")
        (found,) = prepare_adapters([AdapterSpec("public-name", "sql")], tiny_model, layout, Vllm())
        assert (found.name, found.info.path) == ("public-name", layout.adapters / "sql")

    def test_missing(self, tiny_model: Path, layout: Layout) -> None:
        with pytest.raises(InvalidError, match=r"adapter 'sql': 'nope' is neither") as caught:
            prepare_adapters([AdapterSpec("sql", "nope")], tiny_model, layout, Vllm())
        assert "garrison adapters import" in str(caught.value.hint)

    @pytest.mark.parametrize("source", ["../adapters/x", "/nope/x", ""], ids=["dots", "absolute", "empty"])
    def test_missing_path(self, tiny_model: Path, layout: Layout, source: str) -> None:
        with pytest.raises(InvalidError, match="adapter 'sql'"):
            prepare_adapters([AdapterSpec("sql", source)], tiny_model, layout, Vllm())

    @pytest.mark.parametrize("gone", ["adapter_config.json", "adapter_model.safetensors"])
    def test_incomplete(self, tiny_model: Path, adapter: MakeAdapter, layout: Layout, gone: str) -> None:
        path = adapter("sql")
        (path / gone).unlink()
        with pytest.raises(ModelInvalidError, match="adapter 'sql'") as caught:
            prepare_adapters([AdapterSpec("sql", str(path))], tiny_model, layout, Vllm())
        assert "adapter_" in caught.value.message

    def test_truncated(self, tiny_model: Path, adapter: MakeAdapter, layout: Layout) -> None:
        path = adapter("sql")
        weights = path / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-10])
        with pytest.raises(ModelInvalidError, match=r"adapter 'sql': .*adapter_model.safetensors"):
            prepare_adapters([AdapterSpec("sql", str(path))], tiny_model, layout, Vllm())

    def test_wrong_shape_for_the_base(self, tiny_model: Path, adapter: MakeAdapter, layout: Layout) -> None:
        path = adapter("sql", width=32, base="acme/other")
        with pytest.raises(ModelInvalidError, match="adapter 'sql' does not fit the model") as caught:
            prepare_adapters([AdapterSpec("sql", str(path))], tiny_model, layout, Vllm())
        assert "acme/other" in str(caught.value.hint)
        assert caught.value.details["adapter"] == "sql"

    def test_what_vllm_does_not_load(self, adapter: MakeAdapter, layout: Layout) -> None:
        path = adapter("sql")
        config = json.loads((path / "adapter_config.json").read_text())
        (path / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
        with pytest.raises(ModelInvalidError, match=r"adapter 'sql': vLLM does not load .*use_dora") as caught:
            prepare_adapters([AdapterSpec("sql", str(path))], None, layout, Vllm())
        assert "merge_and_unload" in str(caught.value.hint)

    @pytest.mark.parametrize(("engine", "tool"), [(LlamaCpp(), "convert_lora_to_gguf.py"), (MlxLm(), "mlx_lm.convert")])
    def test_what_another_engine_reads(
        self, adapter: MakeAdapter, layout: Layout, engine: LlamaCpp | MlxLm, tool: str
    ) -> None:
        with pytest.raises(ModelInvalidError, match=r"adapter 'sql': .* is a PEFT adapter") as caught:
            prepare_adapters([AdapterSpec("sql", str(adapter("sql")))], None, layout, engine)
        assert tool in str(caught.value.hint)
        assert "--engine vllm" in str(caught.value.hint)

    def test_what_could_not_be_told_is_kept(self, tiny_model: Path, adapter: MakeAdapter, layout: Layout) -> None:
        path = adapter("sql")
        (path / "adapter_model.safetensors").unlink()
        (path / "adapter_model.pt").write_bytes(b"\x80\x02pickle")
        (found,) = prepare_adapters([AdapterSpec("sql", str(path))], tiny_model, layout, Vllm())
        assert "adapter_model.pt is a pickle" in found.untold[0]

    def test_the_first_broken_one_is_named(self, tiny_model: Path, adapter: MakeAdapter, layout: Layout) -> None:
        good, bad = adapter("good"), adapter("bad", width=32)
        with pytest.raises(ModelInvalidError, match="adapter 'bad'"):
            prepare_adapters([AdapterSpec("good", str(good)), AdapterSpec("bad", str(bad))], tiny_model, layout, Vllm())


class TestCommand:
    def test_without_adapters(self, spec: LaunchSpec, program: Path, layout: Layout, tiny_model: Path) -> None:
        assert argv(spec, layout, tiny_model) == (
            str(program), "serve", str(tiny_model), "--host", "127.0.0.1", "--port", "8000",
            "--served-model-name", "acme/tiny",
        )  # fmt: skip

    def test_args_come_last_and_verbatim(self, spec: LaunchSpec, layout: Layout, tiny_model: Path) -> None:
        args = (
            "--max-model-len",
            "32k",
            "--no-enable-prefix-caching",
            "--seed",
            "-1",
            "--x={}",
            "--x={}",
            "--zero",
            "0",
        )
        assert argv(replace(spec, args=args), layout, tiny_model)[-len(args) :] == args

    def test_adapters_give_the_flags(
        self, spec: LaunchSpec, layout: Layout, tiny_model: Path, adapter: MakeAdapter
    ) -> None:
        paths = {name: adapter(name, rank=rank) for name, rank in (("sql", 8), ("law", 24))}
        declared = tuple(AdapterSpec(name, str(path)) for name, path in paths.items())
        words = argv(replace(spec, adapters=declared), layout, tiny_model)
        assert "--enable-lora" in words
        assert after(words, "--max-loras") == "2"
        assert after(words, "--max-lora-rank") == "32"
        start = words.index("--lora-modules") + 1
        assert words[start : start + 2] == (f"sql={paths['sql']}", f"law={paths['law']}")

    RANKS = ((1, "1"), (2, "8"), (8, "8"), (9, "16"), (16, "16"), (17, "32"), (33, "64"), (65, "128"), (129, "256"),
             (257, "320"), (321, "512"), (512, "512"))  # fmt: skip

    @pytest.mark.parametrize(("rank", "allowed"), RANKS, ids=[str(rank) for rank, _ in RANKS])
    def test_smallest_allowed_rank(
        self, spec: LaunchSpec, layout: Layout, tiny_model: Path, rank: int, allowed: str
    ) -> None:
        words = argv(replace(spec, runtime_lora=True, max_lora_rank=rank), layout, tiny_model)
        assert after(words, "--max-lora-rank") == allowed

    def test_rank_too_high(self, spec: LaunchSpec, layout: Layout, tiny_model: Path) -> None:
        with pytest.raises(InvalidError, match="513"):
            argv(replace(spec, runtime_lora=True, max_lora_rank=513), layout, tiny_model)

    def test_declared_numbers_win_over_counted_ones(
        self, spec: LaunchSpec, layout: Layout, tiny_model: Path, adapter: MakeAdapter
    ) -> None:
        declared = (AdapterSpec("sql", str(adapter("sql"))),)
        words = argv(replace(spec, adapters=declared, max_loras=4, max_lora_rank=64), layout, tiny_model)
        assert (after(words, "--max-loras"), after(words, "--max-lora-rank")) == ("4", "64")

    def test_a_declared_rank_below_an_adapters_does_not_lower_it(
        self, spec: LaunchSpec, layout: Layout, tiny_model: Path, adapter: MakeAdapter
    ) -> None:
        declared = (AdapterSpec("sql", str(adapter("sql", rank=16))),)
        words = argv(replace(spec, adapters=declared, max_lora_rank=8), layout, tiny_model)
        assert after(words, "--max-lora-rank") == "16"

    def test_the_users_own_flag_is_not_doubled(
        self, spec: LaunchSpec, layout: Layout, tiny_model: Path, adapter: MakeAdapter
    ) -> None:
        declared = (AdapterSpec("sql", str(adapter("sql"))),)
        words = argv(replace(spec, adapters=declared, args=("--max-lora-rank", "256")), layout, tiny_model)
        assert words.count("--max-lora-rank") == 1
        assert after(words, "--max-lora-rank") == "256"

    def test_runtime_updates(self, spec: LaunchSpec, tiny_model: Path) -> None:
        asked = replace(spec, runtime_lora=True)
        made = command(asked, choose_(asked), model=str(tiny_model), names=("m",), adapters=())
        assert "--enable-lora" in made.argv
        assert made.env == {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}

    def test_an_adapter_named_like_the_model(
        self, spec: LaunchSpec, layout: Layout, tiny_model: Path, adapter: MakeAdapter
    ) -> None:
        declared = (AdapterSpec("acme/tiny", str(adapter("sql"))),)
        with pytest.raises(InvalidError, match="has the same name as the model"):
            argv(replace(spec, adapters=declared), layout, tiny_model)

    def test_two_adapters_of_one_name(
        self, spec: LaunchSpec, layout: Layout, tiny_model: Path, adapter: MakeAdapter
    ) -> None:
        path = str(adapter("sql"))
        with pytest.raises(InvalidError, match="'sql'"):
            argv(replace(spec, adapters=(AdapterSpec("sql", path), AdapterSpec("sql", path))), layout, tiny_model)

    def test_environment(self, spec: LaunchSpec, tiny_model: Path) -> None:
        asked = replace(spec, env={"VLLM_LOGGING_LEVEL": "DEBUG"}, api_key_env="MY_KEY")
        made = command(asked, choose_(asked), model=str(tiny_model), names=("m",), adapters=())
        found = made.environment(
            {"MY_KEY": "sk-1", "VLLM_PORT": "8000", "VLLM_HOST": "x", "HF_TOKEN": "t", "PATH": "/b"}
        )
        assert found["VLLM_API_KEY"] == "sk-1"
        assert found["VLLM_LOGGING_LEVEL"] == "DEBUG"
        assert found["PATH"] == "/b"
        assert {"VLLM_PORT", "VLLM_HOST"}.isdisjoint(found)
        assert not any("sk-1" in word for word in made.argv)
        assert "sk-1" not in repr(made)

    def test_key_variable_not_set(self, spec: LaunchSpec, tiny_model: Path) -> None:
        asked = replace(spec, api_key_env="MY_KEY")
        made = command(asked, choose_(asked), model=str(tiny_model), names=("m",), adapters=())
        with pytest.raises(InvalidError, match="MY_KEY"):
            made.environment({})


NAMES = {
    "id": (LaunchSpec("x"), "acme/tiny", "acme/tiny"),
    "path": (LaunchSpec("x"), "/models/tiny", "tiny"),
    "file": (LaunchSpec("x"), "/models/tiny-Q4.gguf", "tiny-Q4"),
    "told": (LaunchSpec("x", served_name="qwen"), "acme/tiny", "qwen"),
    "--served-model-name": (LaunchSpec("x", args=("--served-model-name", "q")), "acme/tiny", "q"),
    "--served-model-name=": (LaunchSpec("x", args=("--served-model-name=q",)), "acme/tiny", "q"),
    "several": (LaunchSpec("x", args=("--served-model-name", "q", "r", "--seed", "0")), "acme/tiny", ("q", "r")),
    "abbreviated": (LaunchSpec("x", args=("--served-model", "q")), "acme/tiny", "q"),
    "the last one counts": (LaunchSpec("x", args=("--served-model-name=p", "--served_model_name", "q")), "a", "q"),
    "the engine's arguments win": (LaunchSpec("x", served_name="p", args=("--served-model-name", "q")), "a", "q"),
    "the engine's arguments win over its file": (
        LaunchSpec("x", args=("--config", "{names}", "--served-model-name", "q")), "a", "q"
    ),
    "the engine's file wins": (LaunchSpec("x", served_name="p", args=("--config", "{names}")), "a", ("mine", "alias")),
}  # fmt: skip
OF_LLAMA = {
    "--alias": (("--alias", "q"), ("q",)),
    "-a": (("-a", "q"), ("q",)),
    "several": (("--alias", "q, r"), ("q", "r")),
    "vLLM's flag": (("--served-model-name", "q"), ("tiny",)),
}


@pytest.mark.parametrize(("spec_", "model_id", "name"), NAMES.values(), ids=NAMES)
def test_served_names(
    spec_: LaunchSpec, model_id: str, name: str | tuple[str, ...], program: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.yaml").write_text("served-model-name: [mine, alias]\n")
    args = tuple(word.format(names=tmp_path / "names.yaml") for word in spec_.args)
    wanted = (name,) if isinstance(name, str) else name
    assert (
        served_names(replace(spec_, args=args), choose_(replace(spec_, args=args, executable=program)), model_id)
        == wanted
    )


@pytest.mark.parametrize(("args", "names"), OF_LLAMA.values(), ids=OF_LLAMA)
def test_served_names_of_llama_cpp(args: tuple[str, ...], names: tuple[str, ...]) -> None:
    spec = LaunchSpec("x", engine="llama_cpp", executable=Path("/bin/true"), args=args)
    assert served_names(spec, choose_(spec), "/models/tiny.gguf") == names


def test_an_adapter_cannot_have_any_of_the_models_names(
    spec: LaunchSpec, tiny_model: Path, layout: Layout, adapter: MakeAdapter
) -> None:
    """vLLM refuses its second name too."""
    asked = replace(spec, adapters=(AdapterSpec("alias", str(adapter("x"))),))
    prepared = prepare_adapters(asked.adapters, tiny_model, layout, Vllm())
    with pytest.raises(InvalidError, match="'alias' has the same name as the model"):
        command(asked, choose_(asked), model=str(tiny_model), names=("mine", "alias"), adapters=prepared)


def test_an_engine_that_leaves_no_choice_of_a_name() -> None:
    spec = LaunchSpec("x", engine="mlx_lm", executable=Path("/bin/true"), served_name="qwen")
    assert served_names(spec, choose_(spec), "acme/tiny") == ("default_model",)


def test_what_an_engine_asks_of_its_start_is_kept_beside_the_users_variables() -> None:
    spec = LaunchSpec("x", engine="mlx_lm", executable=Path("/bin/true"), env={"A": "1"})
    made = command(spec, choose_(spec), model="/m", names=("default_model",), adapters=())
    assert (made.reads_hub_cache, made.env["A"]) == (True, "1")


def test_a_key_that_is_not_there_is_missed_before_anything_is_fetched(spec: LaunchSpec) -> None:
    asked = replace(spec, api_key_env="MY_KEY")
    with pytest.raises(InvalidError, match="MY_KEY"):
        require_key(asked, {})
    require_key(asked, {"MY_KEY": "sk-1"})
    require_key(spec, {})


def test_a_bare_name_is_an_imported_adapter_first(
    layout: Layout, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny_model as maker

    imported = maker.make_adapter(layout.adapters / "poet", rank=8)
    here = maker.make_adapter(tmp_path / "here" / "poet", rank=16)
    monkeypatch.chdir(here.parent)
    assert prepare_adapters((AdapterSpec("p", "poet"),), tiny_model, layout, Vllm())[0].info.path == imported
    assert prepare_adapters((AdapterSpec("p", "./poet"),), tiny_model, layout, Vllm())[0].info.rank == 16


@pytest.mark.parametrize(
    "args",
    [("--tokenizer", "acme/other"), ("--skip-tokenizer-init",), ("--config", "engine.yaml")],
    ids=["another one", "none", "another one, by the config file"],
)
def test_an_engine_that_reads_another_tokenizer_needs_none_of_the_model(
    spec: LaunchSpec, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    import shutil

    bare = shutil.copytree(tiny_model, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    (tmp_path / "engine.yaml").write_text("tokenizer: acme/other\n")
    monkeypatch.chdir(tmp_path)

    def made(*args: str) -> Any:
        return prepare(
            replace(spec, model=str(bare), args=args), Settings(data_dir=tmp_path / "data"), {},
            view=RecordingStartView(), progress=MemoryProgress(), port_was_free=True,
        )  # fmt: skip

    assert made(*args).model.path == bare
    with pytest.raises(ModelInvalidError, match="has no tokenizer files"):
        made("--tokenizer-mode", "auto")


class TestRouter:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Path:
        path = tmp_path / "bin" / "llama-server"
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\necho 'version: 11434 (abc)'\n")
        path.chmod(0o755)
        return path

    def test_no_model_is_looked_for(self, server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "only.gguf").touch()
        monkeypatch.chdir(tmp_path)  # which an empty path would stand for
        args = ("--models-dir", "/m")
        spec = LaunchSpec(model="", engine="llama_cpp", executable=server, args=args, router=True)
        made = prepare(
            spec, Settings(data_dir=tmp_path / "data"), {}, view=RecordingStartView(), progress=MemoryProgress(),
            port_was_free=True,
        )  # fmt: skip
        assert (made.model, made.served_name) == (None, "")
        assert made.command.argv == (str(server), "--host", "127.0.0.1", "--port", "8000", "--metrics", *args)

    def test_a_container_sees_its_preset_and_its_models(self, tmp_path: Path) -> None:
        docker, preset, models = tmp_path / "docker", tmp_path / "preset.ini", tmp_path / "models"
        docker.touch(mode=0o755)
        preset.touch()
        models.mkdir()
        container = ContainerSpec(("docker",), "image", "garrison-s-a", "s", "a", OwnArguments())
        args = ("--models-preset", str(preset), "--models-dir", str(models))
        spec = LaunchSpec(
            model="", engine="llama_cpp", args=args, container=container, router=True,
            reads=(preset, models, tmp_path / "gone.gguf", Path("relative.gguf")),
        )  # fmt: skip
        found = choose_(spec, {"PATH": str(tmp_path)})
        words = command(spec, found, model="", names=("",), adapters=()).argv
        mounted = [word for before, word in itertools.pairwise(words) if before == "-v"]
        assert mounted == [f"{path}:{path}:ro" for path in (preset, models)]
        assert words[words.index("image") + 1 :] == ("--host", "127.0.0.1", "--port", "8000", "--metrics", *args)
