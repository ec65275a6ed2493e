"""The gateways that are measured: what each needs on this machine, its configuration and its command.

A peer is a program that listens on a port of 127.0.0.1 and sends requests for the model `bench` to
http://127.0.0.1:UPSTREAM. Each runs as its authors advise for many requests: one worker, logs off or errors only, no
limit on concurrency, connections to the upstream kept.
"""

import grp
import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

__all__ = ["DEFAULT", "DIRECT", "PEERS", "Peer", "Place", "UnavailableError", "from_command"]


class UnavailableError(Exception):
    """A peer that cannot run here; the text says what to install."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer runs."""

    directory: Path  # empty, its own, gone afterwards
    port: int
    metrics_port: int  # for peers that insist on a second one
    upstream: int
    environment: Path  # the virtual environment that holds what it needs from PyPI


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    command: Callable[[Place], list[str]]
    program: str = ""  # in the PATH
    package: str = ""  # the Debian package of that program
    requirement: str = ""  # from PyPI, into an environment of its own
    environ: Mapping[str, str] = field(default_factory=dict)
    patience: float = 30.0  # seconds for its start

    def install(self, cache: Path) -> Path:
        """Its virtual environment, made when it is not there. Raises UnavailableError."""
        if self.program and self.found() is None:
            raise UnavailableError(f"{self.program} is not installed: apt-get install {self.package}")
        if not self.requirement:
            return cache
        environment = cache / self.requirement.replace("==", "-").replace("[", "-").replace("]", "")
        if not (environment / "whole").exists():
            print(f"installing {self.requirement} into {environment}", file=sys.stderr, flush=True)
            _make_environment(environment, self.requirement)
        return environment

    def found(self) -> str | None:
        """The program; /usr/sbin is not in everybody's PATH."""
        return shutil.which(self.program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

    def version(self) -> str:
        if self.requirement:
            return self.requirement.partition("==")[2]
        if self.program == "nginx":
            said = subprocess.run([str(self.found()), "-v"], capture_output=True, text=True, check=False).stderr
            return said.strip().rpartition("/")[2]
        return ""


def _make_environment(environment: Path, requirement: str) -> None:
    shutil.rmtree(environment, ignore_errors=True)
    environment.parent.mkdir(parents=True, exist_ok=True)
    steps = (
        [sys.executable, "-m", "venv", str(environment)],
        [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", requirement],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
            raise UnavailableError(f"{shlex.join(step)} failed:\n{said}\nMake PyPI reachable, or leave this peer out.")
    (environment / "whole").touch()


def _none(_place: Place) -> list[str]:
    raise AssertionError("this peer has no command")


_NGINX = """
daemon off;
{user}worker_processes 1;
worker_rlimit_nofile 16384;
pid {directory}/pid;
error_log stderr error;
events {{ worker_connections 12288; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    client_max_body_size 64m;
    client_body_buffer_size 1m;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream bench {{
        server 127.0.0.1:{upstream};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://bench;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def _nginx(place: Place) -> list[str]:
    """Ours in the foreground, with every path in its own directory; the system's service is not touched."""
    user = ""
    if os.geteuid() == 0:  # the worker would become nobody, who may not enter that directory
        user = f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(0).gr_name};\n"
    config = place.directory / "nginx.conf"
    config.write_text(_NGINX.format(user=user, directory=place.directory, port=place.port, upstream=place.upstream))
    program = PEERS["nginx"].found()
    assert program is not None
    return [program, "-p", str(place.directory), "-c", str(config), "-e", "stderr"]


def _router(module: str, policy: str, *more: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        return [
            *(str(place.environment / "bin" / "python"), "-m", f"{module}.launch_router"),
            *("--host", "127.0.0.1", "--port", str(place.port), "--prometheus-port", str(place.metrics_port)),
            *("--worker-urls", f"http://127.0.0.1:{place.upstream}", "--policy", policy, "--log-level", "error"),
            *more,
        ]

    return command


_LITELLM = """
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
litellm_settings: {{telemetry: false}}
general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}
"""


def _litellm(place: Place) -> list[str]:
    config = place.directory / "litellm.yaml"
    config.write_text(_LITELLM.format(upstream=place.upstream))
    program = str(place.environment / "bin" / "litellm")
    return [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1"]


def _garrison(place: Place) -> list[str]:
    program = str(Path(__file__).resolve().parent / "lone_worker.py")
    return [sys.executable, program, str(place.port), str(place.upstream), str(place.directory)]


def from_command(text: str) -> Peer:
    """`NAME=COMMAND` with {port}, {upstream}, {directory} and {python} in it."""
    name, found, command = text.partition("=")
    if not found or not name or not command:
        raise SystemExit(f"--command {text}: write it as NAME=COMMAND")

    def filled(place: Place) -> list[str]:
        values = {
            "{port}": str(place.port),
            "{upstream}": str(place.upstream),
            "{directory}": str(place.directory),
            "{python}": sys.executable,
        }
        words = shlex.split(command)
        for sign, value in values.items():
            words = [word.replace(sign, value) for word in words]
        return words

    return Peer(name, filled)


DIRECT = Peer("direct", _none)
_VLLM = Peer("vllm-router", _router("vllm_router", "round_robin"), requirement="vllm-router==0.1.17")
_SGLANG = Peer("sglang-router", _router("sglang_router", "round_robin"), requirement="sglang-router==0.3.2")
PEERS = {
    peer.name: peer
    for peer in (
        DIRECT,
        Peer("nginx", _nginx, program="nginx", package="nginx-light"),
        _VLLM,
        _SGLANG,
        replace(_VLLM, name="vllm-router-cache", command=_router("vllm_router", "cache_aware")),
        replace(_SGLANG, name="sglang-router-cache", command=_router("sglang_router", "cache_aware")),
        Peer(
            "litellm",
            _litellm,
            requirement="litellm[proxy]==1.106.12",
            environ={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
            patience=120.0,
        ),
        Peer("garrison", _garrison),
    )
}
DEFAULT = ("direct", "nginx", "garrison", "vllm-router", "sglang-router")
