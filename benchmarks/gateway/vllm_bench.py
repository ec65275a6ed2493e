"""`vllm bench serve` against the CPU vLLM, directly and through the gateway: the ratio of throughputs.

    python benchmarks/gateway/vllm_bench.py ENGINES [--rounds 7] [--prompts 96] [--concurrency 8] [--layers 24]

ENGINES is a data directory in which `garrison engine install vllm` was run. One vLLM serves all rounds, without a cache
of prefixes, so that no run profits from another one's prompts. A round is a run each way with the same prompts, in
turned order. Streams of chat completions; the gateway checks an inference key. The model has random weights, and as
many layers as make it about as fast as a small real one: `--layers 2` shows the gateway at its worst.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "support")]

from server_lab import ServerLab  # noqa: E402 - it lies in a directory added above
from tests_environment import environment  # noqa: E402
from tiny_model import make_model  # noqa: E402

from garrison.engines.environments import in_use  # noqa: E402

NAME = "bench"
PROMPT_TOKENS, ANSWER_TOKENS = 128, 64
START_SECONDS = 300
RUN_SECONDS = 900
WAYS = ("direct", "gateway")
SHOWN = (("output tokens/s", "output_throughput"), ("first token ms", "median_ttft_ms"))


@dataclass(frozen=True, slots=True)
class Endpoint:
    url: str
    key: str


def main() -> None:
    args = arguments()
    found = in_use(args.engines, "vllm")
    if found is None:
        sys.exit(
            f"vLLM is not installed in {args.engines}: GARRISON_DATA_DIR={args.engines} garrison engine install vllm"
        )
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        (root / "data" / "engines").mkdir(parents=True)
        (root / "data" / "engines" / "vllm").symlink_to((args.engines / "engines" / "vllm").resolve())
        environ = environment(root / "home") | {"VLLM_CPU_KVCACHE_SPACE": "1"}
        lab = ServerLab(root, environ, require_inference_auth="1", on_demand_start_timeout=str(START_SECONDS))
        lab.http.timeout = START_SECONDS
        try:
            lab.start()
            model = make_model(root / "model", layers=args.layers)
            ways = endpoints(lab, model)
            measure(ways, [str(found.executable), "bench", "serve", "--tokenizer", str(model)], root, args)
        finally:
            lab.close()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--layers", type=int, default=24)
    return parser.parse_args()


def endpoints(lab: ServerLab, model: Path) -> dict[str, Endpoint]:
    """Start the engine, and return it by both ways."""
    options = {
        "dtype": "bfloat16", "enforce_eager": True, "max_model_len": 512, "enable_prefix_caching": False,
        "served_model_name": NAME,
    }  # fmt: skip
    lab.create(NAME, model, "vllm", idle_timeout=0, backend_options=options)
    key = str(lab.api("POST", "/auth/keys", {"name": NAME})["key"])
    lab.http.headers["Authorization"] = f"Bearer {key}"
    answer = lab.chat(NAME)
    assert answer.is_success, answer.text
    shown = lab.instance(NAME)
    pairs = Path(f"/proc/{shown['pid']}/environ").read_bytes().split(b"\0")
    own = next(one.partition(b"=")[2].decode() for one in pairs if one.startswith(b"VLLM_API_KEY="))
    return {
        "direct": Endpoint(f"http://127.0.0.1:{shown['port']}", own),
        "gateway": Endpoint(f"http://127.0.0.1:{lab.port}", key),
    }


def measure(ways: Mapping[str, Endpoint], command: Sequence[str], root: Path, args: argparse.Namespace) -> None:
    """Run the rounds, a short one first that does not count, and print what came of them."""
    run(ways["direct"], command, root, args.concurrency, args.concurrency, 0)
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}", flush=True)
    rounds: list[dict[str, Mapping[str, Any]]] = []
    for number in range(args.rounds):
        order = WAYS if number % 2 == 0 else WAYS[::-1]
        rounds.append({way: run(ways[way], command, root, args.prompts, args.concurrency, number + 1) for way in order})
        told = "   ".join(f"{way} {rounds[-1][way]['output_throughput']:.1f}" for way in WAYS)
        print(f"round {number + 1}: {told} tokens/s", flush=True)
    for title, field in SHOWN:
        print("   ".join([f"{title:16}", *(shown([one[way][field] for one in rounds], way) for way in WAYS)]))
    medians = [statistics.median(one[way]["output_throughput"] for one in rounds) for way in WAYS]
    pairs = [one["gateway"]["output_throughput"] / one["direct"]["output_throughput"] for one in rounds]
    print(
        f"throughput through the gateway in that of vLLM alone: {medians[1] / medians[0]:.3f} (aim: at least 0.98); "
        f"by rounds {statistics.median(pairs):.3f}, from {min(pairs):.3f} to {max(pairs):.3f}"
    )


def run(
    way: Endpoint, command: Sequence[str], root: Path, prompts: int, concurrency: int, seed: int
) -> Mapping[str, Any]:
    """Run `vllm bench serve` once; its result."""
    result = root / "result.json"
    result.unlink(missing_ok=True)
    argv = [
        *command, "--backend", "openai-chat", "--base-url", way.url, "--endpoint", "/v1/chat/completions",
        "--model", NAME, "--dataset-name", "random", "--random-input-len", str(PROMPT_TOKENS),
        "--random-output-len", str(ANSWER_TOKENS), "--ignore-eos", "--num-prompts", str(prompts),
        "--max-concurrency", str(concurrency), "--seed", str(seed), "--disable-tqdm",
        "--save-result", "--result-dir", str(root), "--result-filename", result.name,
    ]  # fmt: skip
    environ = environment(root / "home") | {"OPENAI_API_KEY": way.key, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    if done.returncode or not result.exists():
        sys.exit(f"vllm bench serve failed:\n{(done.stdout + done.stderr)[-3000:]}")
    found: Mapping[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if found["completed"] != prompts:
        sys.exit(f"{prompts - found['completed']} of {prompts} requests failed:\n{done.stdout[-3000:]}")
    return found


def shown(values: Sequence[float], way: str) -> str:
    spread = (max(values) - min(values)) / 2 / statistics.median(values)
    return f"{way} {statistics.median(values):8.1f} ±{spread:4.0%}"


if __name__ == "__main__":
    main()
