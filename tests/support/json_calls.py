"""A call of every command that has `--json`, and the shape of what it must print."""

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "json.md"
HEAD = {"schema", "ok", "exit_code"}

LOCAL: dict[str, list[list[str]]] = {
    "preflight": [["preflight", "--dry-run", "--skip-gpu-check", "--port", "PORT"]],
    "resolve": [["resolve", "MODEL"]],
    "wait": [["wait", "URL", "-q"]],
    "smoke": [["smoke", "URL"]],
    "doctor": [["doctor", "--offline", "--port", "PORT"]],
    "ps": [["ps"]],
    "models import": [["models", "import", "MODEL", "--as", "acme/tiny"]],
    "models list": [["models", "import", "MODEL", "--as", "acme/tiny"], ["models", "list"]],
    "models show": [["models", "import", "MODEL", "--as", "acme/tiny"], ["models", "show", "acme/tiny"]],
    "models verify": [["models", "import", "MODEL", "--as", "acme/tiny"], ["models", "verify", "acme/tiny"]],
    "models remove": [["models", "import", "MODEL", "--as", "acme/tiny"], ["models", "remove", "acme/tiny", "-y"]],
    "adapters import": [["adapters", "import", "ADAPTER", "--as", "sql"]],
    "adapters list": [["adapters", "import", "ADAPTER", "--as", "sql"], ["adapters", "list"]],
    "adapters show": [["adapters", "import", "ADAPTER", "--as", "sql"], ["adapters", "show", "sql"]],
    "adapters verify": [["adapters", "import", "ADAPTER", "--as", "sql"], ["adapters", "verify", "sql"]],
    "adapters remove": [["adapters", "import", "ADAPTER", "--as", "sql"], ["adapters", "remove", "sql", "-y"]],
    "adapters gc": [["adapters", "gc"]],
    "engine install": [["engine", "install", "vllm"]],
    "engine list": [["engine", "list"]],
    "engine use": [["engine", "use", "vllm", "0.2.0"]],
    "engine remove": [["engine", "use", "vllm", "0.2.0"], ["engine", "remove", "vllm", "0.1.0", "-y"]],
    "engine describe": [["engine", "describe", "vllm", "--shipped"]],
    "migrate": [["migrate", "llama-swap", "SWAP"]],
    "config": [["config"]],
    "config show": [["config", "show"]],
    "keys create": [["keys", "create", "ci"]],
    "keys list": [["keys", "create", "ci"], ["keys", "list"]],
    "keys show": [["keys", "create", "ci"], ["keys", "show", "ci"]],
    "keys edit": [["keys", "create", "ci"], ["keys", "edit", "ci", "--note", "x"]],
    "keys rotate": [["keys", "create", "ci"], ["keys", "rotate", "ci"]],
    "keys delete": [["keys", "create", "ci"], ["keys", "delete", "ci", "-y"]],
}
"""Command lines, the last of which is asked for JSON. Words in capitals are filled in."""

FLEET: dict[str, list[list[str]]] = {
    "plan": [["plan", "FILE"]],
    "apply": [["apply", "FILE", "--yes"]],
    "destroy": [["destroy", "--stack", "lab", "--yes"]],
    "status": [["status"]],
    "drift": [["drift"]],
    "discover": [["discover"]],
    "inventory": [["inventory"]],
    "extract": [["extract"]],
    "eval": [["eval", "FILE"]],
    "adopt": [["adopt", "edge-1/mine", "--stack", "lab", "--yes"]],
    "forget": [["forget", "edge-1", "--yes", "--force"]],
}
"""On the fleet in memory."""

SERVER: dict[str, list[list[str]]] = {
    "instance create": [["instance", "create", "NEW", "-e", "sim", "-m", "MODEL"]],
    "instance list": [["instance", "list"]],
    "instance show": [["instance", "show", "one"]],
    "instance explain": [["instance", "explain", "one"]],
    "instance edit": [["instance", "edit", "one", "--set", "pin=true"]],
    "instance export": [["instance", "export", "one"]],
    "instance import": [["instance", "import", "EXPORT"]],
    "instance start": [["instance", "start", "one"]],
    "instance restart": [["instance", "restart", "one"]],
    "instance stop": [["instance", "stop", "one"]],
    "stop": [["stop", "one"]],
    "instance delete": [["instance", "delete", "one", "--yes"]],
    "nodes add": [["nodes", "add", "far", "http://127.0.0.1:1"]],
    "nodes list": [["nodes", "list"]],
    "nodes remove": [["nodes", "remove", "far"]],
    "profile": [["profile"]],
    "usage": [["usage"]],
    "requests list": [["requests", "list"]],
    "requests ended": [["requests", "ended"]],
    "down": [["down"]],
}
"""On a server that runs, in this order; it has an instance `one`."""

ON_A_REQUEST = {"requests stop"}
"""They need a request in progress: `tests/cli/server/test_traffic.py` has one."""

STREAMS = {"history", "agent"}
"""They print a line for each event, and no answer."""

OTHER_FORMAT = {"schema"}
"""They print a document whose format is not Garrison's."""


def checked(done: Any) -> dict[str, Any]:
    """The answer of a command that went well: the last line of its output, which is JSON alone."""
    *before, last = [json.loads(line) for line in done.out.splitlines()]
    assert all(line["schema"] == 1 for line in before)
    assert last.keys() >= HEAD
    assert (last["schema"], last["exit_code"]) == (1, done.code), last
    body: dict[str, Any] = last
    return body


def documented() -> dict[str, set[str]]:
    """The keys of each command whose row on the page begins with keys."""
    rows = re.findall(r"^\| (`[^|]+`) \| (`[^|]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        command: set(re.findall(r"`([^`]+)`", keys.partition(". ")[0]))
        for commands, keys in rows
        for command in re.findall(r"`([^`]+)`", commands)
    }
