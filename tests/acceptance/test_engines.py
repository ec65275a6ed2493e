"""The main job on real engines, through the console script: start, use, stop, and what a failure says."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import tiny_model as maker
from serve_command import GARRISON, QUICK, READY_SECONDS, free_port, garrison, served

ROOT = Path(__file__).resolve().parents[2]

Home = Callable[[str], dict[str, str]]


def chat(url: str, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12, "temperature": 0}
    answer = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def smoke(env: dict[str, str], url: str, *arguments: str) -> dict[str, Any]:
    done = garrison(env, "smoke", url, "--json", *arguments)
    assert done.returncode == 0, done.stdout
    return {step["name"]: step["outcome"] for step in json.loads(done.stdout)["steps"]}


@pytest.mark.engine("vllm")
@pytest.mark.timeout(400)
class TestVllm:
    def test_the_main_job_from_a_manifest(self, home_with: Home, tmp_path: Path, tiny_model: Path) -> None:
        """Adapters of a manifest are served; one more is loaded while it runs; nothing is left after the stop."""
        env = home_with("vllm")
        imported = garrison(env, "models", "import", str(tiny_model), "--as", "acme/tiny")
        assert imported.returncode == 0, imported.stderr
        maker.make_adapter(tmp_path / "adapters" / "sql", seed=1)
        poet = maker.make_adapter(tmp_path / "poet", seed=2, rank=16)
        (tmp_path / "garrison.yaml").write_text(
            "model: acme/tiny\nadapters: {sql: adapters/sql}\nruntime_lora: true\nmax_loras: 2\nmax_lora_rank: 16\n"
            "options: {enforce-eager: true, dtype: bfloat16, max-model-len: 512}\n"
        )
        log = tmp_path / "log"
        with served(env, log, "--file", str(tmp_path / "garrison.yaml")) as (url, server):
            assert smoke(env, url) == {
                "health": "ok", "models": "ok", "completion": "ok", "chat": "ok", "streaming chat": "ok",
                "adapter sql": "ok",
            }  # fmt: skip
            loaded = httpx2.post(
                f"{url}/v1/load_lora_adapter", json={"lora_name": "poet", "lora_path": str(poet)}, timeout=60
            )
            assert loaded.status_code == 200, loaded.text
            answers = {chat(url, model) for model in ("acme/tiny", "sql", "poet")}
            assert len(answers) == 3
            tree = psutil.Process(server.pid).children(recursive=True)
            assert len(tree) > 1, "the engine core is a process of its own"
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
            assert [process for process in tree if process.is_running()] == []
        said = log.read_text()
        assert "garrison: weights (after " in said
        assert "garrison: ready after " in said

    def test_exec_is_one_process_and_takes_signals_itself(
        self, home_with: Home, tmp_path: Path, tiny_model: Path
    ) -> None:
        env = home_with("vllm")
        with served(env, tmp_path / "log", str(tiny_model), "--exec", "--", *QUICK) as (url, server):
            assert "vllm" in " ".join(psutil.Process(server.pid).cmdline())
            assert httpx2.get(f"{url}/v1/models", timeout=10).json()["data"][0]["id"] == "tiny"

    def test_a_start_that_fails_says_why(self, home_with: Home, tiny_model: Path) -> None:
        """A context longer than the model's: the log's end, the cause, what to lower, exit 21."""
        env = home_with("vllm")
        port = str(free_port())
        done = garrison(
            env, "serve", str(tiny_model), "--port", port, "--no-logs", "--", *QUICK[:-1], "999999", seconds=300
        )
        assert done.returncode == 21
        assert "last lines of the engine's log" in done.stderr
        assert "--max-model-len" in done.stderr.split("error:")[-1]


def certificate(directory: Path) -> tuple[Path, Path]:
    cert, key = directory / "c.pem", directory / "k.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=node.example"
    subprocess.run([*make.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def said(log: Path, words: str, seconds: float = 30) -> str:
    """The log, once `words` are in it."""
    deadline = time.monotonic() + seconds
    while words not in (text := log.read_text()):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    return text


@pytest.mark.engine("vllm")
@pytest.mark.timeout(600)
class TestVllmsOwnFlags:
    """Whether it is ready is asked as its own flags say, and nobody stops it unasked."""

    def test_tls_a_root_path_and_a_second_start(self, home_with: Home, tmp_path: Path, tiny_model: Path) -> None:
        env = home_with("vllm")
        cert, key = certificate(tmp_path)
        flags = ["--ssl-certfile", str(cert), "--ssl-keyfile", str(key), "--root-path", "/serve", "--api-key", "sk-x"]
        log = tmp_path / "log"
        with served(env, log, str(tiny_model), "--", *QUICK, *flags, scheme="https") as (url, server):
            assert f"OpenAI endpoint: {url}/serve/v1" in said(log, "try it: curl --insecure")
            assert "garrison: ready after " in log.read_text()
            for path in ("/health", "/serve/health"):
                assert httpx2.get(url + path, verify=False, timeout=10).status_code == 200
            refused = garrison(env, "wait", url, "--timeout", "15")
            assert refused.returncode == 22
            assert "--insecure" in refused.stderr
            keyed = env | {"KEY": "sk-x"}
            smoked = garrison(keyed, "smoke", f"{url}/serve/v1", "--insecure", "--key-env", "KEY", "--json")
            assert smoked.returncode == 0, smoked.stdout
            port = url.rsplit(":", 1)[1]
            late = garrison(env, "serve", str(tiny_model), "--port", port, "--", *QUICK)
            assert late.returncode == 2, late.stderr
            assert ", serving: " in late.stderr
            assert "--replace" in late.stderr
            assert "sk-x" not in late.stderr
            assert server.poll() is None
            assert httpx2.get(f"{url}/health", verify=False, timeout=10).status_code == 200

    def test_headless_beside_a_server(self, home_with: Home, tmp_path: Path, tiny_model: Path) -> None:
        """It waits for its head, and listens nowhere; the port it was given is somebody else's."""
        env = home_with("vllm")
        with socket.create_server(("127.0.0.1", 0)) as listener, (tmp_path / "log").open("wb") as output:
            port = str(listener.getsockname()[1])
            flags = ["--headless", "--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", str(free_port())]
            command = [GARRISON, "serve", str(tiny_model), "--port", port, "--", *QUICK, *flags]
            server = subprocess.Popen(command, env=env, stdout=output, stderr=output)
            try:
                assert "headless" in said(tmp_path / "log", "garrison: running after", 60)
                said(tmp_path / "log", "headless mode", 120)
                assert server.poll() is None
                server.terminate()
                assert server.wait(60) == 0
            finally:
                if server.poll() is None:
                    server.kill()
                    server.wait()


@pytest.mark.engine("vllm")
@pytest.mark.timeout(400)
def test_the_three_scripts_in_a_chain(home_with: Home, tmp_path: Path, tiny_model: Path) -> None:
    """`vllm-preflight && vllm-resolve-model && vllm-serve`, as their users run them; a second run reclaims the port."""
    env = home_with("vllm")
    models = tmp_path / "models"
    models.mkdir()
    (models / "tiny").symlink_to(tiny_model)
    cache = tmp_path / "cache"
    cache.mkdir()
    port = free_port()
    env |= {
        "PATH": f"{GARRISON.parent}:{os.environ['PATH']}",
        "VLLM_HOST": "127.0.0.1", "VLLM_PORT": str(port), "VLLM_SKIP_GPU_CHECK": "1",
        "VLLM_MODEL": "tiny", "VLLM_MODEL_ORG": "acme", "VLLM_MODELS_DIR": str(models), "FLOX_ENV_CACHE": str(cache),
        "VLLM_TENSOR_PARALLEL_SIZE": "1", "VLLM_PIPELINE_PARALLEL_SIZE": "1", "VLLM_KV_CACHE_DTYPE": "auto",
        "VLLM_MAX_MODEL_LEN": "512", "VLLM_MAX_NUM_BATCHED_TOKENS": "512", "VLLM_SERVED_MODEL_NAME": "tiny-seed",
    }  # fmt: skip
    chain = "vllm-preflight && vllm-resolve-model && exec vllm-serve -- --enforce-eager --dtype bfloat16"
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(["bash", "-c", chain], env=env, stdout=log, stderr=log)
    try:
        ready = garrison(env, "wait", url, "--timeout", str(READY_SECONDS), seconds=READY_SECONDS + 30)
        assert ready.returncode == 0, (tmp_path / "log").read_text()
        assert smoke(env, url)["chat"] == "ok"
        reclaim = subprocess.run(
            ["vllm-preflight", "--json"], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert reclaim.returncode == 0, reclaim.stderr
        report = json.loads(reclaim.stdout)
        assert report["port_action"] == "stopped"
        assert report["reclaimed_roots"] == [server.pid]
        assert server.wait(30) is not None
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


@pytest.mark.engine("llama_cpp")
def test_llama_cpp(home_with: Home, tmp_path: Path) -> None:
    gguf = maker.make_gguf(tmp_path / "tiny.gguf")
    run_example("llama_cpp.sh", home_with("llama_cpp"), str(gguf))


@pytest.mark.engine("llama_cpp")
def test_llama_cpps_own_flags(home_with: Home, tmp_path: Path) -> None:
    """TLS and a prefix; with a key the prefix answers 401, which is an answer."""
    env = home_with("llama_cpp")
    cert, key = certificate(tmp_path)
    gguf = str(maker.make_gguf(tmp_path / "tiny.gguf"))
    tls = ["--ssl-cert-file", str(cert), "--ssl-key-file", str(key), "--api-prefix", "/llama"]
    for name, flags, words in (
        ("tls", tls, ("garrison: ready after ", "OpenAI endpoint: https://127.0.0.1:{port}/llama/v1")),
        ("keyed", [*tls, "--api-key", "sk-x"], ("garrison: running after ", "/llama/health answers 401")),
    ):
        log, port = tmp_path / name, free_port()
        command = [GARRISON, "serve", gguf, "--engine", "llama_cpp", "--port", str(port), "--", *flags]
        with log.open("wb") as output:
            server = subprocess.Popen(command, env=env, stdout=output, stderr=output)
        try:
            text = said(log, "try it: curl --insecure")
            assert all(one.format(port=port) in text for one in words), text
            if name == "tls":
                url = f"https://127.0.0.1:{port}/llama/v1"
                assert garrison(env, "wait", url, "-k", "--timeout", "20").returncode == 0
                assert smoke(env, url, "-k")["chat"] == "ok"
        finally:
            server.terminate()
            assert server.wait(60) == 0


@pytest.mark.engine("mlx_lm")
def test_mlx_lm(home_with: Home, tiny_model: Path) -> None:
    run_example("mlx_lm.sh", home_with("mlx_lm"), str(tiny_model))


@pytest.mark.parametrize("kind", [pytest.param(one, marks=pytest.mark.engine(one)) for one in ("llama_cpp", "mlx_lm")])
def test_one_that_serves_is_refused_and_replaced(home_with: Home, tmp_path: Path, tiny_model: Path, kind: str) -> None:
    """Nothing in these command lines is a vLLM's: they are the user's own by their record."""
    env, port = home_with(kind) | {"GARRISON_PREFLIGHT_LOCKFILE": str(tmp_path / "lock")}, free_port()
    model = str(maker.make_gguf(tmp_path / "tiny.gguf")) if kind == "llama_cpp" else str(tiny_model)
    words = (model, "--engine", kind)
    title = {"llama_cpp": "llama.cpp", "mlx_lm": "MLX LM"}[kind]
    with served(env, tmp_path / "first", *words, port=port) as (url, first):
        refused = garrison(env, "serve", *words, "--port", str(port))
        assert refused.returncode == 2, refused.stderr
        assert f"port {port} is held by your {title}, which was not stopped: pid " in refused.stderr
        assert first.poll() is None
        assert garrison(env, "wait", url, "--timeout", "5").returncode == 0
        foreign = garrison(env | {"GARRISON_DATA_DIR": str(tmp_path / "other")}, "preflight", "--port", str(port))
        assert foreign.returncode == 2
        assert "was not started by Garrison" in foreign.stderr
        with served(env, tmp_path / "second", *words, "--replace", port=port) as (_, second):
            assert first.wait(60) == 21
            assert f"by pid {second.pid} " in (tmp_path / "first").read_text()
    assert list(Path(env["GARRISON_DATA_DIR"], "run", "engines").iterdir()) == []


@pytest.mark.engine("vllm")
@pytest.mark.timeout(400)
def test_vllm_example(home_with: Home, tiny_model: Path) -> None:
    run_example("vllm.sh", home_with("vllm"), str(tiny_model), *QUICK)


@pytest.mark.system
def test_sim_example(home_with_nothing: dict[str, str], tiny_model: Path) -> None:
    run_example("sim.sh", home_with_nothing, str(tiny_model))


def run_example(script: str, env: dict[str, str], *arguments: str) -> None:
    """Starts, smokes, stops; its exit code is the smoke's; the port is free afterwards."""
    port = free_port()
    env = env | {"PORT": str(port), "PATH": f"{GARRISON.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [ROOT / "examples" / script, *arguments], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all checks passed" in done.stdout
    assert "no process left" in done.stderr
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))


@pytest.fixture
def home_with_nothing(tmp_path: Path) -> dict[str, str]:
    from tests_environment import environment

    return environment(tmp_path)
