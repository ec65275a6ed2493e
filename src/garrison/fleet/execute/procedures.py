"""Procedures for carrying out actions, each a sequence of steps.

A procedure returns the new versions of resources, which are recorded together with the end of the action.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from garrison.fleet.execute.action_log import ActionLog
from garrison.fleet.execute.steps import StepError, Steps
from garrison.fleet.values.declaration import AdapterDeclaration
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.observation import Served
from garrison.fleet.values.plan import Action, ActionKind, Way
from garrison.store.records import Operation, Resource

__all__ = ["WAYS", "Result", "record"]

_LAST_REQUEST_SECONDS = 5.0
"""How long an action waits for the last request to an adapter that it unloads. The agent unloads the others later."""
_PAUSE_SECONDS = 1.0
"""How long an update in place waits for the last request. Those that come meanwhile wait in the gateway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """New versions of resources. `gap_ms`: milliseconds between the answers to the unload and to the load."""

    resources: tuple[Resource, ...] = ()
    gap_ms: float | None = None


async def load(steps: Steps) -> Result:
    """Load a name that is not served."""
    spec = _desired(steps.action)
    await _prepare(steps, spec)
    return Result(resources=(await _load_and_verify(steps, spec),))


async def unload(steps: Steps) -> Result:
    """Unload a name. If it is already gone, that counts as success.

    A version that was replaced, or an adapter on demand that makes room, stays as long as a request uses it. One that
    is not declared any more is unloaded in any case.
    """
    action = steps.action
    unused = await steps.keep_away(action.name, _LAST_REQUEST_SECONDS)
    if not unused and action.gently:
        raise StepError(_in_use(action.name))
    there = await _untouched(steps, action.name, action.recorded, action.observed)
    steps.checkpoint("looked")
    if there is not None:
        await _take_away(steps, action.name, there)
    gone = (steps.log.gone(action.recorded, Operation.DELETED),) if action.recorded else ()
    return Result(resources=gone)


async def swap(steps: Steps) -> Result:
    """Serve another path instead of one that is served: unload and load, back to back.

    Neither is served in between; requests of the gateway wait. If the new adapter fails, the old one is therefore put
    back before anything else is tried.
    """
    action = steps.action
    spec, before = _desired(action), action.replaced or action.recorded
    name = before.key.name if before else action.name
    await _prepare(steps, spec)
    await steps.keep_away(name, _PAUSE_SECONDS)
    old = await _untouched(steps, name, before, action.observed)
    steps.checkpoint("looked")
    if old is None or (old.root == steps.path != _observed_root(action)):
        lost = old is None and _was_recorded(action)
        return Result(resources=(await _load_and_verify(steps, spec, lost=lost),))
    return await _exchange(steps, spec, old)


async def _exchange(steps: Steps, spec: AdapterDeclaration, old: Served) -> Result:
    action, patience = steps.action, steps.patience()
    while True:
        await steps.unload(old.name)
        since = steps.clock.monotonic()
        failure = await steps.try_load(action.name, steps.path, is_3d=spec.is_3d_lora_weight)
        gap_ms = (steps.clock.monotonic() - since) * 1000
        if failure is None:
            try:
                return Result(resources=(await _verify(steps, spec), *_gone(steps, old)), gap_ms=gap_ms)
            except StepError as error:
                # Unreachable, or the new adapter still holds the name: the old one cannot be put back.
                if error.failure.cause is not None or error.left is not None:
                    raise
                failure = replace(error.failure, recoverable=False)
        await _put_back(steps, old, failure)
        await patience.wait(failure)


def _gone(steps: Steps, old: Served) -> tuple[Resource, ...]:
    """The record of what was exchanged for an adapter of another name."""
    before = steps.action.replaced
    if before is None or old.name == steps.action.name:
        return ()
    return (steps.log.gone(before, Operation.DELETED, f"replaced by {steps.action.name}"),)


async def load_then_unload(steps: Steps) -> Result:
    """Rename an adapter, or update one whose versions have names of their own: the new name is served before the old
    one is unloaded.

    The gateway sends requests to the new one as soon as that is on record. The old one stays while a request uses it;
    then the agent unloads it later.
    """
    action, spec = steps.action, _desired(steps.action)
    old = action.replaced
    if old is None:
        raise AssertionError(f"{action.name} on {action.target} replaces nothing")
    await _prepare(steps, spec)
    created = await _load_and_verify(steps, spec)
    # Record the new name now: if the process is killed here, both names are served, and both must be known.
    await steps.log.keep("unload", [created])
    steps.checkpoint("half-recorded")
    unused = await steps.keep_away(old.key.name, _LAST_REQUEST_SECONDS)
    if not unused and action.gently:
        steps.notes.append(f"{old.key.name} is unloaded when its last request has ended")
        return Result()
    there = await _untouched(steps, old.key.name, old, action.observed)
    steps.checkpoint("looked")
    if there is not None:
        await _take_away(steps, old.key.name, there)
    return Result(resources=(steps.log.gone(old, Operation.DELETED, f"replaced by {action.name}"),))


def record(action: Action, log: ActionLog) -> tuple[Resource, ...]:
    """Change only the record; nothing is sent to the target."""
    if action.kind is ActionKind.RELEASE:
        return (log.gone(action.recorded, Operation.RELEASED, action.reason),) if action.recorded else ()
    there = action.observed
    path = (there.root if there else action.load_path) or _desired(action).lora_path
    parent = there.parent if there else None
    return (log.version(Operation.ADOPTED, served_path=path, parent=parent, cause=action.reason),)


WAYS: dict[Way, Callable[[Steps], Awaitable[Result]]] = {
    Way.LOAD: load,
    Way.UNLOAD: unload,
    Way.SWAP: swap,
    Way.LOAD_THEN_UNLOAD: load_then_unload,
}


async def _prepare(steps: Steps, spec: AdapterDeclaration) -> None:
    await steps.check(spec)
    await steps.stage(spec)


async def _load_and_verify(steps: Steps, spec: AdapterDeclaration, *, lost: bool = False) -> Resource:
    """Load an adapter and verify it. `lost`: on failure, the recorded name is proved absent."""
    try:
        await steps.load(spec.served_name, steps.path, is_3d=spec.is_3d_lora_weight)
        return await _verify(steps, spec)
    except StepError as error:
        error.lost = lost and error.failure.cause is None and error.left is None
        raise


async def _verify(steps: Steps, spec: AdapterDeclaration) -> Resource:
    """List, compare and probe the new adapter; unload it again if one of these fails."""
    try:
        there = await steps.verify(spec.served_name, spec)
        await steps.probe(spec.served_name, spec, there.parent)
    except StepError as error:
        if error.failure.cause is None:
            error.left = await steps.undo(spec.served_name)
        raise
    operation = Operation.UPDATED if steps.action.kind is ActionKind.UPDATE else Operation.CREATED
    return steps.log.version(operation, served_path=steps.path, parent=there.parent)


async def _take_away(steps: Steps, name: str, old: Served) -> None:
    await steps.unload(name)
    there = await steps.there(name)
    if there is not None and there.root == old.root:
        message = f"the server confirmed the unload of {name}, but still lists it"
        hint = "Check whether it is on vLLM's command line (--lora-modules), or a resolver plugin loads it on demand."
        raise StepError(Failure(code=FailureCode.NOT_STABILIZED, message=message, hint=hint))
    if there is not None:
        steps.notes.append(f"{name} was loaded again by another party meanwhile, from {there.root}; left alone")
    steps.checkpoint("gone")


async def _put_back(steps: Steps, old: Served, because: Failure) -> None:
    """Serve the old path under the name again.

    Raises:
        StepError: the old adapter cannot be put back; carries the failure `because`, and whether the old one is lost.
    """
    name = old.name
    assert old.root is not None
    is_3d = _is_3d(steps.action)
    patience = steps.patience()
    refused = ""
    try:
        while (failure := await steps.try_load(name, old.root, is_3d=is_3d, step="put-back")) is not None:
            await patience.wait(failure)
    except StepError as error:
        if error.failure.cause is not None:
            raise
        refused = f": {error.failure.message}"
    there = await steps.there(name)
    if there is None or there.root != old.root:
        now = f"is served from {there.root}" if there else "is not served"
        steps.notes.append(f"the old adapter, {old.root}, could not be put back{refused}; {name} {now}")
        raise StepError(replace(because, recoverable=False), lost=there is None, elsewhere=there is not None)
    steps.ours = False
    steps.notes.append(f"the old adapter is served again, from {old.root}")
    steps.checkpoint("put-back")


async def _untouched(steps: Steps, name: str, recorded: Resource | None, observed: Served | None) -> Served | None:
    """Return the adapter now served as `name`, after checking that it is the one the plan is based on."""
    there = await steps.there(name)
    expected = {recorded.served_path if recorded else None, observed.root if observed else None, steps.path}
    if there is not None and there.root not in expected - {None, ""}:
        raise StepError(
            Failure(
                code=FailureCode.RESOURCE_CONFLICT,
                message=f"{name} changed since the plan was made; it is now served from {there.root}",
                hint="Run `garrison plan` again, and check whether the change may be overwritten.",
            )
        )
    return there


def _in_use(name: str) -> Failure:
    return Failure(
        code=FailureCode.NOT_STABILIZED,
        message=f"requests to {name} are still in progress, so it stays loaded",
        hint="The agent unloads it when the last one has ended.",
        recoverable=True,
    )


def _desired(action: Action) -> AdapterDeclaration:
    if action.desired is None:
        raise AssertionError(f"{action.kind} {action.name} on {action.target} has nothing to load")
    return action.desired


def _observed_root(action: Action) -> str | None:
    return action.observed.root if action.observed else None


def _was_recorded(action: Action) -> bool:
    return action.recorded is not None and action.recorded.operation.serves


def _is_3d(action: Action) -> bool:
    before = action.replaced or action.recorded
    spec = before.spec if before else {}
    return bool(spec.get("is_3d_lora_weight", False))
