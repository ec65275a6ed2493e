"""New weights at a path that was applied: told, and rolled out by the next apply only. Reads files, sends nothing."""

from collections.abc import Iterable

from garrison.fleet import events
from garrison.fleet.context import Fleet
from garrison.fleet.declaration import Declaration
from garrison.store.records import Event

__all__ = ["changed_contents"]


async def changed_contents(fleet: Fleet, declarations: Iterable[Declaration]) -> list[Event]:
    """An event for each declared adapter whose content is not what it was applied with. A path that cannot be read any
    more tells nothing."""
    now = fleet.clock.now()
    digests: dict[str, str | None] = {}
    found = []
    for declaration in declarations:
        for spec in declaration.adapters:
            if spec.digest is None:
                continue
            if spec.lora_path not in digests:
                digests[spec.lora_path] = await fleet.disk(fleet.artifacts.digest, spec.lora_path)
            digest = digests[spec.lora_path]
            if digest is None or digest == spec.digest:
                continue
            found.append(
                Event(
                    at=now,
                    kind=events.CHANGED,
                    stack=declaration.stack,
                    target=spec.target,
                    name=spec.lora_name,
                    cause="content",
                    before={"lora_path": spec.lora_path, "digest": spec.digest},
                    after={"lora_path": spec.lora_path, "digest": digest},
                )
            )
    return found
