from pathlib import Path

import pytest

from garrison.base.errors import InvalidError
from garrison.base.settings import seed_variables
from garrison.engines.engine import EngineCommand, LoraModule, LoraOptions, ServeOptions, endpoint_of
from garrison.engines.vllm import LORA_RANKS, Vllm, lora_rank

EXECUTABLE = Path("/engines/bin/vllm")
HEAD = ("/engines/bin/vllm", "serve", "/m")


def command(*args: str, lora: LoraOptions | None = None, served_name: str | None = None) -> EngineCommand:
    options = ServeOptions("/m", "127.0.0.1", 8001, served_name, args, lora)
    return Vllm().command(EXECUTABLE, options)


def test_argv_has_the_documented_order_and_ends_with_the_users() -> None:
    made = command("--dtype", "half", "--dtype", "half", served_name="acme")
    ours = ("--host", "127.0.0.1", "--port", "8001", "--served-model-name", "acme")
    assert made.argv == (*HEAD, *ours, "--dtype", "half", "--dtype", "half")


VERBATIM = [
    ("--compilation-config", '{"mode": 3, "x": [1, 2]}'),
    ("--middleware", "a.b", "--middleware", "c.d"),
    ("--no-enable-prefix-caching",),
    ("--max-model-len=32k",),
    ("--seed", "0", "--swap-space", "-1"),
    ("--enable-x", "false"),
    ("--hf-overrides.rope_scaling.factor", "1"),
    ("-tp", "2", "-O3"),
    ("--served-model-name", "a", "b"),
    ("--chat-template", ""),
]


@pytest.mark.parametrize("args", VERBATIM, ids=lambda args: " ".join(args))
def test_the_users_arguments_survive_exactly(args: tuple[str, ...]) -> None:
    assert command(*args).argv[-len(args) :] == args


def test_the_users_arguments_come_after_the_flags_of_the_adapters() -> None:
    made = command("--max-loras=4", "--x", lora=LoraOptions((LoraModule("a", "/a"),), max_loras=1))
    assert made.argv[-5:] == ("--enable-lora", "--lora-modules", "a=/a", "--max-loras=4", "--x")


@pytest.mark.parametrize("port", [("--port", "9"), ("--port=9",)])
def test_a_flag_of_the_users_is_not_given_twice(port: tuple[str, ...]) -> None:
    made = command(*port)
    assert sum(word.startswith("--port") for word in made.argv) == 1
    assert endpoint_of(made.argv).port == 9


@pytest.mark.parametrize("given", [("--model", "/mine"), ("--model=/mine",)])
def test_the_users_own_model_takes_the_place_of_ours(given: tuple[str, ...]) -> None:
    """vLLM refuses a second one."""
    made = command(*given, "--seed", "0")
    assert made.argv[1:4] == ("serve", "--host", "127.0.0.1")
    assert made.argv[-len(given) - 2 :] == (*given, "--seed", "0")


def test_the_users_served_name_and_rank_win_in_any_spelling() -> None:
    lora = LoraOptions((LoraModule("a", "/a"),), max_rank=9)
    made = command("--max_lora_rank=64", "--served_model_name", "u", lora=lora, served_name="ours")
    assert "ours" not in made.argv
    assert "--max-lora-rank" not in made.argv
    assert "--enable-lora" in made.argv


def test_declared_adapters_give_the_launch_flags() -> None:
    modules = (LoraModule("a", "/a"), LoraModule("b", "/b", "acme/base"))
    made = command(lora=LoraOptions(modules, max_loras=2, max_rank=9, runtime_updates=True))
    json = '{"name": "b", "path": "/b", "base_model_name": "acme/base"}'
    flags = ("--enable-lora", "--max-loras", "2", "--max-lora-rank", "16", "--lora-modules", "a=/a", json)
    assert made.argv[-len(flags) :] == flags
    assert made.env == {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}


def test_runtime_updates_alone_turn_lora_on_and_nothing_declared_leaves_it_off() -> None:
    assert "--enable-lora" in command(lora=LoraOptions(runtime_updates=True)).argv
    assert command(lora=LoraOptions()).argv == command().argv
    assert command().env == {}


def test_a_name_that_could_be_misread_goes_as_json() -> None:
    made = command(lora=LoraOptions((LoraModule("a=b", "/p"),)))
    assert made.argv[-1] == '{"name": "a=b", "path": "/p"}'


@pytest.mark.parametrize(
    ("highest", "rank"), [(1, 1), (2, 8), (8, 8), (9, 16), (64, 64), (129, 256), (257, 320), (512, 512)]
)
def test_the_rank_is_the_smallest_that_vllm_takes(highest: int, rank: int) -> None:
    assert lora_rank(highest) == rank


def test_a_rank_above_all_is_refused() -> None:
    with pytest.raises(InvalidError, match="up to rank 512, not 513"):
        lora_rank(513)


def test_the_ranks_are_those_of_the_catalogue() -> None:
    choices = Vllm().catalogue("0.32.0").by_spelling()["--max-lora-rank"].choices
    assert set(map(str, LORA_RANKS)) == set(choices)


def test_the_seeds_variables_are_removed_and_the_key_stays_out_of_the_argv() -> None:
    options = ServeOptions("/m", api_key_env="MY_KEY")
    made = Vllm().command(EXECUTABLE, options)
    assert made.unset == seed_variables()
    assert "VLLM_PORT" in made.unset
    assert made.env_from == {"VLLM_API_KEY": "MY_KEY"}
    assert "MY_KEY" not in made.argv


def test_garrisons_own_secrets_are_not_handed_on() -> None:
    given = {"GARRISON_DATABASE_URL": "postgresql://u:p@h/d", "GARRISON_HF_TOKEN": "x", "HF_TOKEN": "y", "PATH": "/bin"}
    assert EngineCommand(("vllm",)).environment(given) == {"HF_TOKEN": "y", "PATH": "/bin", "PYTHONSAFEPATH": "1"}
