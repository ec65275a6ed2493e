"""Why a llama-server that is a router could not load a model, from its log. Pure."""

import re
from collections.abc import Sequence

from garrison.engines.diagnose import diagnose
from garrison.engines.llama_router import RouterModel

__all__ = ["why_failed"]

_LONGEST_REASON = 500
_SPAWN = re.compile(r"spawning server instance with name=(.+) on port (\d+)")
_SAYS_WHY = re.compile(r"\b(?:error|failed|unable|cannot|invalid|not found)\b", re.IGNORECASE)


def why_failed(log: Sequence[str], model: RouterModel) -> str:
    """Return why the last process of a model ended before the model was loaded; empty where the log does not say.

    The router writes each line of such a process with its port in front, which it has named before.
    """
    port, lines = "", list[str]()
    for line in log:
        if (spawned := _SPAWN.search(line)) is not None and spawned[1] == model.id:
            port, lines = f"[{int(spawned[2]):5}] ", []
        elif port and port in line:
            lines.append(line.partition(port)[2])
    if found := diagnose(lines, model.exit_code):
        return found.message
    said = next((line for line in lines if _SAYS_WHY.search(line)), "")
    return said.strip()[:_LONGEST_REASON]
