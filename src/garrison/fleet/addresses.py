"""Which target is which server. A target is its name; its address may change, and two names must not be one server.
No I/O.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from garrison.base.errors import ConflictError
from garrison.fleet.causes import MOVED
from garrison.fleet.declaration import Declaration
from garrison.fleet.target import TargetSpec
from garrison.store.records import Operation, Resource, StackRecord, TargetRecord

__all__ = ["as_moved", "check_addresses", "moved_targets", "server_of"]

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def server_of(base_url: str) -> str:
    """The same text for addresses that are surely one server: the names of loopback are one."""
    parts = urlsplit(base_url)
    host = "localhost" if parts.hostname in _LOOPBACK else parts.hostname
    return f"{host}:{parts.port or {'http': 80, 'https': 443}[parts.scheme]}{parts.path}"


def moved_targets(declared: Mapping[str, TargetSpec], known: Mapping[str, TargetRecord]) -> dict[str, str]:
    """Declared targets that are on record at another server, with the address there."""
    return {
        name: str(known[name].spec["base_url"])
        for name, spec in declared.items()
        if name in known and server_of(str(known[name].spec["base_url"])) != server_of(spec.base_url)
    }


def as_moved(resources: Iterable[Resource], moved: Mapping[str, str]) -> tuple[Resource, ...]:
    """What was applied at the old address says nothing of the new one: it is owed there until it is seen."""
    return tuple(
        replace(one, operation=Operation.LOST, cause=MOVED, command=None)
        if one.key.target in moved and one.operation.serves
        else one
        for one in resources
    )


def check_addresses(
    declaration: Declaration,
    moved: Mapping[str, str],
    known: Mapping[str, TargetRecord],
    stacks: Iterable[StackRecord],
    recorded: Iterable[Resource],
    *,
    force: bool,
) -> None:
    """No server under two names, and no stack moves another's target.

    Raises:
        ConflictError: one of these. Moving a target that others use is allowed with `force`.
    """
    needed = _needed_by(stacks, recorded)
    elsewhere = {
        server_of(str(record.spec["base_url"])): name
        for name, record in known.items()
        if name not in declaration.targets and needed.get(name)
    }
    for name, spec in declaration.targets.items():
        other = elsewhere.get(server_of(spec.base_url))
        if other is not None:
            users = sorted(needed[other])
            raise ConflictError(
                f"rejected: {spec.base_url} is on record as the target {other} of {', '.join(users)}, "
                f"and is declared here as {name}",
                hint=f"Call it {other} here too. To give it another name, `garrison forget {other} --force` first: "
                "what it serves is then taken over under the new name.",
                details={"target": name, "known_as": other, "stacks": users},
            )
        others = sorted(needed.get(name, set()) - {declaration.stack})
        if name in moved and others and not force:
            raise ConflictError(
                f"rejected: the target {name} is at {moved[name]} for {', '.join(others)}, "
                f"and is declared here at {spec.base_url}",
                hint=f"Give this one another name. If {name} did move, --force moves it for all.",
                details={"target": name, "from": moved[name], "to": spec.base_url, "stacks": others},
            )


def _needed_by(stacks: Iterable[StackRecord], recorded: Iterable[Resource]) -> dict[str, set[str]]:
    needed: dict[str, set[str]] = {}
    for stack in stacks:
        for target in stack.declaration.get("targets", {}):
            needed.setdefault(target, set()).add(stack.name)
    for one in recorded:
        needed.setdefault(one.key.target, set()).add(one.stack)
    return needed
