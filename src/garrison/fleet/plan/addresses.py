"""Maps target names to servers. No I/O.

A target is identified by its name. Its address may change, but two names must not denote one server.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from garrison.base.errors import ConflictError
from garrison.fleet.values.causes import MOVED
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.target import TargetSpec, instance_place
from garrison.store.records import Declared, Operation, Resource, TargetRecord

__all__ = ["as_moved", "check_addresses", "moved_targets", "server_of", "spellings"]

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_PORTS = {"http": 80, "https": 443}


def server_of(base_url: str) -> str:
    """Return a key that is equal for addresses of the same server. All names of the loopback host count as one."""
    if instance_place(base_url) is not None:
        return base_url
    parts = urlsplit(base_url)
    host = "localhost" if parts.hostname in _LOOPBACK else parts.hostname
    return f"{host}:{parts.port or _PORTS[parts.scheme]}{parts.path}"


def moved_targets(declared: Mapping[str, TargetSpec], known: Mapping[str, TargetRecord]) -> dict[str, str]:
    """Return the declared targets that are on record at another server, with their recorded address."""
    return {
        name: old
        for name, spec in declared.items()
        if name in known
        and (old := str(known[name].spec["base_url"])) != spec.base_url
        and server_of(old) != server_of(spec.base_url)
    }


def as_moved(resources: Iterable[Resource], moved: Mapping[str, str]) -> tuple[Resource, ...]:
    """Mark the resources of moved targets as owed.

    A record from the old address proves nothing about the server at the new one.
    """
    return tuple(
        replace(one, operation=Operation.LOST, cause=MOVED, command=None)
        if one.key.target in moved and one.operation.serves
        else one
        for one in resources
    )


def spellings(base_url: str) -> set[str]:
    """Return the addresses under which the same server may be on record; see `server_of`."""
    if instance_place(base_url) is not None:
        return {base_url}
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    port = parts.port or _PORTS[parts.scheme]
    hosts = _LOOPBACK if host in _LOOPBACK else {host}
    found = set()
    for name in hosts:
        place = f"[{name}]" if ":" in name else name
        for scheme, default in _PORTS.items():
            found.add(f"{scheme}://{place}:{port}{parts.path}")
            if port == default:
                found.add(f"{scheme}://{place}{parts.path}")
    return found


def check_addresses(
    declaration: Declaration,
    moved: Mapping[str, str],
    elsewhere: Iterable[TargetRecord],
    declared: Iterable[Declared],
    recorded: Iterable[Resource],
    *,
    force: bool,
) -> None:
    """Check that no server has two names, and that the stack does not move a target that others use.

    Args:
        elsewhere: targets on record at one of the declared addresses.
        declared: what stacks declare at these, and at the targets of `declaration`.
        recorded: what is owned there.

    Raises:
        ConflictError: one of these rules is violated. `force` allows moving a shared target.
    """
    needed = _needed_by(declared, recorded)
    # Targets on record that no stack needs do not claim their server.
    others_at = {
        server_of(str(record.spec["base_url"])): record.name
        for record in elsewhere
        if record.name not in declaration.targets and needed.get(record.name)
    }
    for name, spec in declaration.targets.items():
        other = others_at.get(server_of(spec.base_url)) if others_at else None
        if other is not None:
            users = sorted(needed[other])
            raise ConflictError(
                f"rejected: {spec.base_url} is on record as target {other} of {', '.join(users)}, "
                f"but is declared here as {name}",
                hint=f"Call it {other} here too. To rename it, run `garrison forget {other} --force` first; "
                "the adapters it serves are then adopted under the new name.",
                details={"target": name, "known_as": other, "stacks": users},
            )
        others = sorted(needed.get(name, set()) - {declaration.stack})
        if name in moved and others and not force:
            raise ConflictError(
                f"rejected: target {name} is at {moved[name]} for {', '.join(others)}, "
                f"but is declared here at {spec.base_url}",
                hint=f"Give this target another name. If {name} did move, use --force to move it for all stacks.",
                details={"target": name, "from": moved[name], "to": spec.base_url, "stacks": others},
            )


def _needed_by(declared: Iterable[Declared], recorded: Iterable[Resource]) -> dict[str, set[str]]:
    needed: dict[str, set[str]] = {}
    for part in declared:
        needed.setdefault(part.target, set()).add(part.stack)
    for one in recorded:
        needed.setdefault(one.key.target, set()).add(one.stack)
    return needed
