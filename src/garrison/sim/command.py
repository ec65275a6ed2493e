"""`garrison sim`: a simulator as a process. Flags are vLLM's where vLLM has one; other flags are ignored with a
warning, so that any command line of vLLM works. `garrison sim` ignores only those that vLLM has. The model stands
anywhere among the flags, or comes as `--model`.

Standard output and standard error carry lines like vLLM's, so that a start can be followed phase by phase. Exit codes:
0 after SIGTERM or SIGINT and, as seen on vLLM, after the death of the engine; 2 when the port is taken; 1 when it
cannot be bound or an adapter of `--lora-modules` cannot be loaded; 64 for a bad command line.
"""

import argparse
import contextlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from garrison.base.errors import GarrisonError, InvalidError, UsageError
from garrison.base.exit_codes import ExitCode
from garrison.sim.config import LoraModule, SimConfig
from garrison.sim.faults import DISGUISES, Faults, faults_from_json
from garrison.sim.startup import phases
from garrison.sim.unbindable import cannot_listen

if TYPE_CHECKING:
    import asyncio
    import socket

    from garrison.sim.simulator import Simulator

__all__ = ["config_from", "flags", "main", "parser", "run", "unknown_flags"]

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kKmMgG]?)\Z")
_FACTORS = {"": 1, "k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30}
_HIGHEST_PORT = 65535
_FLAG = re.compile(r"--?[A-Za-z]")
_MOST_VALUES = {None: 1, 0: 0, "+": math.inf}
"""By argparse's `nargs`."""
_SLEEP_FAULTS = {
    "sleep_aborts": "a sleep aborts running requests, whatever mode it is asked for",
    "sleep_hangs": "never answer /sleep",
    "sleep_keeps_memory": "hold the memory while asleep",
    "wake_fails": "answer /wake_up 500",
    "wake_wrong_answer": "answer as no weights would after a wake",
}
_KNOBS = (
    "ttft", "tokens_per_second", "failure_rate", "hang", "cut_after_tokens", "load_delay", "disguise", "sleep_delay",
    "wake_delay", *_SLEEP_FAULTS,
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Run until a signal or the death of the engine; return the exit code. Errors are printed."""
    try:
        return run(argv)
    except GarrisonError as error:
        return _fail(error)


def run(argv: Sequence[str]) -> int:
    """As `main`.

    Raises:
        GarrisonError: the command line is wrong. PortForeignError: the port is taken.
    """
    import asyncio

    args, unknown = _parse(argv)
    config = config_from(args, os.environ)
    if unknown:
        ignored = ", ".join(dict.fromkeys(unknown))
        _log(f"ignoring {ignored}: the simulator does not imitate this", "APIServer", "WARNING", "sim.py")
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_serve(args, config))
    return uvloop.run(_serve(args, config))


def unknown_flags(argv: Sequence[str]) -> tuple[str, ...]:
    """The flags that would be ignored.

    Raises:
        UsageError: as `run`.
    """
    return tuple(_parse(argv)[1])


def flags() -> tuple[str, ...]:
    """The flags that the simulator knows."""
    return tuple(name for action in parser()._actions for name in action.option_strings)


def config_from(args: argparse.Namespace, environ: Mapping[str, str]) -> SimConfig:
    """Return the configuration from flags and vLLM's own variables.

    Raises:
        InvalidError: vLLM refuses the value too.
    """
    keys = args.api_key or [key for key in [environ.get("VLLM_API_KEY")] if key]
    return SimConfig(
        model=args.model,
        served_names=tuple(args.served_model_name or ()),
        host=args.host,
        port=args.port,
        enable_lora=args.enable_lora,
        runtime_lora=args.allow_runtime_lora_updating or _on(environ, "VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
        max_loras=args.max_loras,
        max_lora_rank=args.max_lora_rank,
        max_cpu_loras=args.max_cpu_loras,
        lora_modules=tuple(map(_lora_module, args.lora_modules or ())),
        api_keys=tuple(keys),
        max_model_len=args.max_model_len,
        block_size=args.block_size,
        prefix_caching=args.enable_prefix_caching,
        max_num_seqs=args.max_num_seqs,
        enable_sleep_mode=args.enable_sleep_mode,
        memory_mib=args.memory_mib,
        dev_mode=args.dev_mode or _on(environ, "VLLM_SERVER_DEV_MODE"),
        survive_engine_death=args.survive_engine_death or _on(environ, "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH"),
        error_shape=args.error_shape,
        seed=args.seed,
        ssl_certfile=args.ssl_certfile,
        ssl_keyfile=args.ssl_keyfile,
        ssl_ca_certs=args.ssl_ca_certs,
        ssl_cert_reqs=args.ssl_cert_reqs,
        root_path=args.root_path,
        uds=args.uds,
        headless=args.headless,
        control=not args.no_control,
        faults=_faults(args),
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the flags that the simulator knows."""
    shell = _Parser(prog="garrison sim", description="An OpenAI-compatible server that behaves like vLLM.")
    add = shell.add_argument
    add("--model", default="sim/tiny", help="path or name of the base model; may also come without the flag")
    add("--host", default="127.0.0.1")
    add("--port", type=_port, default=8000, help="0 chooses a free port")
    add("--served-model-name", nargs="+", metavar="NAME")
    add("--enable-lora", action=argparse.BooleanOptionalAction, default=False)
    add("--max-loras", type=int, default=1)
    add("--max-lora-rank", type=int, default=16)
    add("--max-cpu-loras", type=int)
    add("--lora-modules", nargs="+", metavar="NAME=PATH")
    add("--api-key", nargs="+", metavar="KEY")
    add("--max-model-len", type=_size, default=4096, help="tokens; 32k is 32,000 and 32K is 32,768")
    add("--block-size", type=int, default=128, help="tokens of a prefix-cache block")
    add("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=True)
    add("--max-num-seqs", type=int, default=256)
    add("--enable-sleep-mode", action=argparse.BooleanOptionalAction, default=False)
    add("--seed", type=int, default=0)
    add("--ssl-certfile")
    add("--ssl-keyfile")
    add("--ssl-ca-certs")
    add("--ssl-cert-reqs", type=int, default=0, help="2: clients must show a certificate")
    add("--root-path", default="", help="a prefix under which every route answers as well")
    add("--uds", help="a socket file to listen on instead of a port")
    add("--headless", action="store_true", help="start no server")
    add("--shutdown-timeout", type=float, default=30.0, help="seconds that running requests get after SIGTERM")
    own = shell.add_argument_group("of the simulator")
    add = own.add_argument
    add("--startup-delay", type=float, default=0.0, help="seconds that the start takes")
    add("--allow-runtime-lora-updating", action="store_true", help="as VLLM_ALLOW_RUNTIME_LORA_UPDATING=1")
    add("--memory-mib", type=int, default=0, metavar="N", help="memory that it holds while awake")
    add("--dev-mode", action="store_true", help="as VLLM_SERVER_DEV_MODE=1")
    add("--survive-engine-death", action="store_true", help="as VLLM_KEEP_ALIVE_ON_ENGINE_DEATH=1")
    add("--error-shape", choices=["nested", "flat"], default="nested", help="flat: as versions before 0.32")
    add("--no-control", action="store_true", help="do not answer /_sim")
    knobs = shell.add_argument_group("faults, see also POST /_sim/faults")
    add = knobs.add_argument
    add("--ttft", type=float, help="seconds before the first token")
    add("--tokens-per-second", type=float)
    add("--failure-rate", type=float, help="share of /v1 requests answered 500")
    add("--hang", action="store_true", default=None, help="never answer /v1")
    add("--cut-after-tokens", type=int, help="reset a stream after that many tokens")
    add("--load-delay", type=float, help="seconds that loading an adapter takes")
    add("--sleep-delay", type=float, help="seconds that falling asleep takes")
    add("--wake-delay", type=float, help="seconds that each call to wake up takes")
    for name, text in _SLEEP_FAULTS.items():
        add(f"--{name.replace('_', '-')}", action="store_true", default=None, help=text)
    add("--disguise", choices=DISGUISES, metavar="HOW", help=f"what answers in its place: {', '.join(DISGUISES)}")
    add("--script", metavar="JSON|@FILE", help="rules, as a JSON list")
    return shell


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint="`garrison sim --help` lists the flags.")


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse flags and the model, in any order; return them and the unknown flags, which are dropped with their values.

    The values of an unknown flag end at the next flag: how many belong to it is not known here.

    Raises:
        UsageError: a flag lacks its value, or two models are named.
    """
    shell = parser()
    options = {name: action for action in shell._actions for name in action.option_strings}
    kept: list[str] = []
    unknown: list[str] = []
    models: list[str] = []
    words: list[str] = kept  # where values of the last flag go
    room: float = 0  # how many more of them it accepts
    for word in argv[1:] if list(argv[:1]) == ["serve"] else argv:
        if _FLAG.match(word):
            name, equals, value = word.partition("=")
            name = name.replace("_", "-")
            if name in options:
                kept.append(name + equals + value)
                words, room = kept, 0 if equals else _MOST_VALUES[options[name].nargs]
            else:
                unknown.append(name)
                words, room = [], math.inf
        elif room:
            words.append(word)
            room -= 1
        else:
            models.append(word)
    if len(models) > 1:
        raise UsageError(f"two models: {models[0]!r} and {models[1]!r}", hint="Name one; `--flag=value` keeps a value.")
    return shell.parse_args([*(("--model", models[0]) if models else ()), *kept]), unknown


async def _serve(args: argparse.Namespace, config: SimConfig) -> int:
    import asyncio
    import signal

    from garrison.sim.simulator import Simulator, bind, bind_file

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    _log(f"vLLM server version {config.version}, serving model {config.model} (simulated)", where="api_utils.py:347")
    if config.headless:
        return await _run_headless(config, args.startup_delay, stopping)
    try:
        sock = bind(config.host, config.port) if config.uds is None else bind_file(config.uds)
    except OSError as error:
        raise cannot_listen(config, error) from None
    if not await _start_up(config, args.startup_delay, stopping):
        sock.close()
        return int(ExitCode.OK)
    try:
        simulator = Simulator(config)
    except ValueError as error:
        sock.close()
        print(f"ValueError: {error}", file=sys.stderr, flush=True)
        return int(ExitCode.INVALID)
    try:
        await _run(simulator, sock, stopping, args.shutdown_timeout)
    except GarrisonError:
        sock.close()
        raise
    return int(ExitCode.OK)


async def _run_headless(config: SimConfig, delay: float, stopping: "asyncio.Event") -> int:
    _log("Launching 1 data parallel engine(s) in headless mode, with head node address tcp://127.0.0.1:29550.")
    if await _start_up(config, delay, stopping):
        await stopping.wait()
    _log("Shutting down.")
    return int(ExitCode.OK)


async def _start_up(config: SimConfig, delay: float, stopping: "asyncio.Event") -> bool:
    """Print the phases of a start over `delay` seconds. Return False if stopped meanwhile."""
    import asyncio

    for phase in phases(config, delay):
        if phase.seconds:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), phase.seconds)
        if stopping.is_set():
            return False
        _log(phase.text, phase.who, where=phase.where)
    return True


async def _run(simulator: "Simulator", sock: "socket.socket", stopping: "asyncio.Event", drain: float) -> None:
    import asyncio

    _log(f"Starting vLLM server on {_address(simulator.config, sock)}", where="entry.py:140")
    _say(f"Started server process [{os.getpid()}]")
    _say("Waiting for application startup.")
    _say("Application startup complete.")
    await simulator.start(sock)
    ends = [asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(simulator.exited.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    _say("Shutting down")
    await simulator.stop(drain)
    _say("Application shutdown complete.")
    _say(f"Finished server process [{os.getpid()}]")


def _address(config: SimConfig, sock: "socket.socket") -> str:
    if config.uds is not None:
        return f"unix:{config.uds}"
    host, port = sock.getsockname()[:2]
    scheme = "https" if config.ssl_certfile else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _faults(args: argparse.Namespace) -> Faults:
    given: dict[str, Any] = {name: value for name in _KNOBS if (value := getattr(args, name)) is not None}
    if args.script is not None:
        text = Path(args.script[1:]).read_text(encoding="utf-8") if args.script.startswith("@") else args.script
        try:
            given["script"] = json.loads(text)
        except ValueError as error:
            raise InvalidError(f"--script is not JSON: {error}", hint='[{"path": "/health", "status": 503}]') from None
    return faults_from_json(given)


def _lora_module(text: str) -> LoraModule:
    """Parse `name=path`, or the JSON object that vLLM accepts too."""
    if text.startswith("{"):
        try:
            body = json.loads(text)
            return LoraModule(body["name"], body["path"], body.get("base_model_name"))
        except (ValueError, KeyError) as error:
            raise InvalidError(f"--lora-modules: {text!r}: {error}", hint="name=path, or JSON.") from None
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise InvalidError(f"--lora-modules needs name=path, not {text!r}", hint="--lora-modules sql=/adapters/sql")
    return LoraModule(name, path)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a number from 0 to {_HIGHEST_PORT}")
    return int(text)


def _size(text: str) -> int:
    match = _SIZE.match(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count of tokens")
    return int(float(match[1]) * _FACTORS[match[2]])


def _on(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "0").strip().lower() in ("1", "true")


def _log(text: str, who: str = "APIServer", level: str = "INFO", where: str = "sim.py") -> None:
    stamp = time.strftime("%m-%d %H:%M:%S")
    print(f"({who} pid={os.getpid()}) {level} {stamp} [{where}] {text}", flush=True)


def _say(text: str) -> None:
    print(f"INFO:     {text}", file=sys.stderr, flush=True)


def _fail(error: GarrisonError) -> int:
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr, flush=True)
    return int(error.exit_code)
