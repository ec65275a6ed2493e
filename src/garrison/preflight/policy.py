"""What may be done about a server that holds the port: the policy of a preflight, and what follows from it. Pure."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from garrison.base.identity import ProcessId
    from garrison.base.settings import Settings
    from garrison.preflight.holders import PortVerdict
    from garrison.preflight.servers import PortServer

__all__ = ["RECLAIM", "REFUSE", "REPLACE", "Decision", "PortPolicy", "configured", "decide", "needs_look"]

Decision = Literal["stop", "stop-stuck", "refuse", "in-vain"]
"""`stop-stuck`: the policy spares living servers, and this one is stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortPolicy:
    """What a preflight may do about the user's own server on the port.

    A server that neither answers nor works is stuck, and every policy lets it be stopped: preflights exist for that.

    Attributes:
        living: what happens to a server that serves, starts or works.
        agreed: living servers that a person has agreed to stop.
        dry_run: signal nothing, and report what a real run would do. What would be refused is still refused.
        other_users: treat another user's vLLM like the user's own.
        gpus_first: stop nothing unless the GPUs will be fit once the server has ended.
        in_vain: why the new engine would not start; nothing is stopped for it.
    """

    living: Literal["stop", "refuse"]
    agreed: "frozenset[ProcessId]" = frozenset()
    dry_run: bool = False
    other_users: bool = False
    gpus_first: bool = False
    in_vain: str | None = None


RECLAIM = PortPolicy(living="stop")
"""The contract of `vllm-preflight`: the port is freed, then the GPUs are checked."""
REFUSE = PortPolicy(living="refuse", gpus_first=True)
"""Garrison's own commands: a living server is stopped only if the user agrees."""
REPLACE = PortPolicy(living="stop", gpus_first=True)
"""The same with `--replace`."""


def configured(policy: PortPolicy, settings: "Settings") -> PortPolicy:
    """The policy with what the settings say: `dry_run`, `allow_other_uid_kill`."""
    return replace(policy, dry_run=settings.dry_run, other_users=settings.allow_other_uid_kill)


def needs_look(policy: PortPolicy, verdict: "PortVerdict") -> bool:
    """Whether the decision depends on what the server is doing, which takes seconds to find out."""
    return policy.in_vain is None and policy.living == "refuse" and not _agreed(policy, verdict)


def decide(policy: PortPolicy, verdict: "PortVerdict", server: "PortServer | None") -> Decision:
    """What to do about the servers of an `ours` verdict.

    Args:
        server: what was seen of them; None if they were not looked at, and then they count as alive.
    """
    if policy.in_vain is not None:
        return "in-vain"
    if policy.living == "stop" or _agreed(policy, verdict):
        return "stop"
    return "stop-stuck" if server is not None and not server.is_alive else "refuse"


def _agreed(policy: PortPolicy, verdict: "PortVerdict") -> bool:
    """Another server may have taken the port since, or the same pid: identities are compared."""
    return {root.id for root in verdict.roots} <= policy.agreed
