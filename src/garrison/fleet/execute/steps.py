"""The steps of an action on one target: check, stage, load, list, probe, unload.

Each step retries recoverable failures within a budget, and raises `StepError` when it gives up. A request without a
complete answer may have been carried out, so the list is read before the request is sent again.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from garrison.base.errors import DiskFullError, GarrisonError, LockedError
from garrison.fleet.context import Fleet
from garrison.fleet.execute.action_log import ActionLog
from garrison.fleet.execute.checkpoints import Checkpoint, pass_by
from garrison.fleet.execute.retry import RetryBudget, decide_retry
from garrison.fleet.values.declaration import AdapterDeclaration
from garrison.fleet.values.failure import GAVE_UP, Failure, FailureCode
from garrison.fleet.values.observation import Served, Sighting
from garrison.fleet.values.plan import Action
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.values.view import FleetView
from garrison.fleet.vllm.answers import unknown_failure
from garrison.fleet.vllm.api import VllmApi
from garrison.fleet.vllm.generation_probe import BaseAnswers, probe

__all__ = ["ExecuteOptions", "StepError", "Steps", "Visit"]

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteOptions:
    """Options for carrying out actions.

    Attributes:
        parallel: number of targets at a time.
        probe: whether to request a token from a loaded adapter, if neither the adapter nor its target decides; None:
            yes, but no answer in time is not an error.
        retries: retry budget of each step.
        stopping: checked before each action; once true, actions that have not begun stay owed.
        tells_again: whether a failure makes an event although the last event of the adapter is the same failure.
        checkpoint: called between steps with one of `CHECKPOINTS`.
        sleep: waits between attempts.
    """

    parallel: int = 16
    probe: bool | None = None
    retries: RetryBudget = field(default_factory=RetryBudget)
    stopping: Callable[[], bool] = lambda: False
    tells_again: bool = True
    checkpoint: Checkpoint = pass_by
    sleep: Sleep = asyncio.sleep


@dataclass(slots=True, kw_only=True)
class Visit:
    """One target during one run: its connection, and what was learned over it.

    Attributes:
        base: the base model that its lists must contain, as last seen; None if it was never seen.
        base_answers: answers of its base model to the probe.
    """

    target: TargetSpec
    api: VllmApi
    base: Served | None = None
    base_answers: BaseAnswers = field(default_factory=dict)


class StepError(Exception):
    """A step failed, and is not retried.

    Attributes:
        lost: the adapter that was served before the action is proved absent.
        left: an adapter that the action loaded, that failed verification, and that could not be unloaded again.
        elsewhere: the name that was served before the action is now served from another path.
    """

    def __init__(
        self, failure: Failure, *, lost: bool = False, left: Served | None = None, elsewhere: bool = False
    ) -> None:
        super().__init__(failure.message)
        self.elsewhere = elsewhere
        self.failure = failure
        self.lost = lost
        self.left = left


class Steps:
    """The steps of one action.

    Args:
        held: closed when the action is on record.

    Attributes:
        name: the step that was begun last.
        notes: observations besides the result.
        touched: a request that changes the target was sent.
        uncertain: it is not known whether the last such request was carried out.
        ours: the adapter that now has the action's name was loaded by this action.
    """

    def __init__(
        self,
        fleet: Fleet,
        visit: Visit,
        action: Action,
        log: ActionLog,
        view: FleetView,
        options: ExecuteOptions,
        held: AsyncExitStack,
    ) -> None:
        self._fleet = fleet
        self._held = held
        self._visit = visit
        self._view = view
        self._options = options
        self.action = action
        self.log = log
        self.checkpoint = options.checkpoint
        self.clock = fleet.clock
        self.path = action.load_path or (action.desired.lora_path if action.desired else "")
        self.name = ""
        self.notes: list[str] = []
        self.touched = False
        self.uncertain = False
        self.ours = False

    async def keep_away(self, name: str, seconds: float) -> bool:
        """Keep the gateway's requests away from `name` until the action is on record; see `AdapterTraffic.leaving`."""
        return await self._held.enter_async_context(self._fleet.traffic.leaving(self.action.target, name, seconds))

    def patience(self) -> "Patience":
        """Return a fresh retry budget for one step."""
        return Patience(self._fleet, self._view, self.action, self._options)

    async def check(self, spec: AdapterDeclaration) -> None:
        """Refuse files that would be served as garbage, before anything is sent.

        An intact copy in the adapter store represents the declared content, whatever happened to its source since.
        """
        self._begin("check")
        artifacts, disk = self._fleet.artifacts, self._fleet.disk
        kept = await self._kept()
        source = spec.lora_path if self.action.stage and not kept else self.path
        root = self._visit.base.root if self._visit.base else None
        content = await disk(artifacts.check, source, self._visit.target, root)
        if self.action.stage and spec.digest and not kept:
            changed = await disk(artifacts.digest, source) != spec.digest
            if changed and await disk(artifacts.holds, self._visit.target, spec.digest):
                content = None  # another entry of the store has it still
        if content is not None and content.failure is not None:
            raise StepError(content.failure)
        if not kept and content is not None and None not in (content.digest, spec.digest):
            self._same_content(source, spec, content.digest)
        self.checkpoint("checked")

    async def stage(self, spec: AdapterDeclaration) -> None:
        """Copy the files into the target's adapter store, if the plan says so.

        Content that is already there is marked as used, so that garbage collection does not remove it meanwhile; its
        source need not exist any more.
        """
        if not self.action.stage:
            return
        assert spec.digest is not None
        self._begin("stage")
        try:
            served = self.action.observed.root if self.action.observed else None
            staged = await self._fleet.disk(
                self._fleet.artifacts.stage,
                self._visit.target,
                spec.lora_path,
                spec.digest,
                instead_of=served if served != self.path else None,
            )
        except GarrisonError as error:
            full = isinstance(error, DiskFullError)
            code = FailureCode.SERVICE_LIMIT_EXCEEDED if full else FailureCode.INVALID_REQUEST
            later = isinstance(error, DiskFullError | LockedError)
            raise StepError(Failure(code=code, message=error.message, hint=error.hint, recoverable=later)) from error
        if staged.path != self.path:  # record the path before it is loaded, or a killed command could not be settled
            self.path = staged.path
            await self.log.loads_from(staged.path)
        self.checkpoint("staged")

    async def list(self) -> Sighting:
        """Return a believed list, retrying within the budget."""
        self._begin("list")
        patience = self.patience()
        while not (seen := await self._visit.api.list(self._visit.base.name if self._visit.base else None)).known:
            await patience.wait(unknown_failure(seen))
        self.uncertain = False
        if seen.base is not None:
            self._visit.base = seen.served.get(seen.base)
        return seen

    async def there(self, name: str) -> Served | None:
        """Return the adapter now served as `name`; None if it is proved absent."""
        return (await self.list()).adapter(name)

    async def load(self, name: str, path: str, *, is_3d: bool) -> None:
        """Load an adapter, retrying within the budget."""
        patience = self.patience()
        while (failure := await self.try_load(name, path, is_3d=is_3d)) is not None:
            await patience.wait(failure)

    async def try_load(self, name: str, path: str, *, is_3d: bool, step: str = "load") -> Failure | None:
        """Make one attempt to load. None: the server confirmed it, or the list shows the name with this path."""
        self._begin(step)
        reply = await self._visit.api.load(name, path, is_3d=is_3d, staged=self.action.stage)
        was_unsure, self.uncertain = self.uncertain, reply.uncertain
        self.touched = self.touched or reply.sent
        failure = reply.failure
        if failure is None:
            self.ours = True
            self.checkpoint("loaded")
            return None
        taken = failure.code is FailureCode.ALREADY_EXISTS
        if not taken and not reply.uncertain:
            return failure
        # The request, or an earlier one without an answer, may have been carried out: only the list can tell.
        there = await self.there(name)
        if there is not None and there.root == path:
            self.ours = self.ours or reply.uncertain or was_unsure
            self.checkpoint("loaded")
            return None
        if there is not None:
            raise StepError(_taken(name, there))
        # After a timeout the server may still be loading; only a definite answer to a later load resolves that.
        self.uncertain = failure.code is FailureCode.SERVICE_TIMEOUT
        failure = replace(failure, cause=None)  # the list has answered, so the target is not out of reach
        if taken:
            message = f"the server says that {name} is loaded, but does not list it"
            return Failure(code=FailureCode.NOT_STABILIZED, message=message, recoverable=True)
        return failure

    async def unload(self, name: str) -> None:
        """Unload an adapter, retrying within the budget."""
        patience = self.patience()
        while (failure := await self._try_unload(name)) is not None:
            await patience.wait(failure)
        self.checkpoint("unloaded")

    async def verify(self, name: str, spec: AdapterDeclaration) -> Served:
        """Check that the list shows what was loaded: the name, the path and the base model."""
        seen = await self.list()
        there = seen.adapter(name)
        if there is None:
            raise StepError(_did_nothing(name))
        if there.root != self.path:
            message = f"{name} was loaded from {self.path}, but the server lists it from {there.root}"
            now = await self.there(name)
            # Another client loaded the name first; its adapter must not be unloaded.
            self.ours = self.ours and now is not None and now.root == self.path
            raise StepError(Failure(code=FailureCode.RESOURCE_CONFLICT, message=message))
        wanted = spec.base_model_name or seen.base
        if not _same_base(seen, there.parent, wanted):
            message = f"{name} is attached to base model {there.parent}, not to {wanted}"
            hint = "vLLM attaches every adapter to the base model it serves. Correct base_model_name or the target."
            raise StepError(Failure(code=FailureCode.INVALID_REQUEST, message=message, hint=hint))
        self.checkpoint("verified")
        return there

    async def probe(self, name: str, spec: AdapterDeclaration, base: str | None) -> None:
        """Request a token from the adapter, unless the probe is off."""
        chosen = (spec.probe, self._visit.target.probe, self._options.probe)
        wanted = next((one for one in chosen if one is not None), None)
        if wanted is False or base is None:
            return
        self._begin("probe")
        answers = self._visit.base_answers
        verdict = await probe(self._visit.api, name, base, must_answer=wanted is True, base_answers=answers)
        if verdict.note:
            self.notes.append(verdict.note)
        if verdict.failure:
            raise StepError(verdict.failure)
        self.checkpoint("probed")

    async def undo(self, name: str) -> Served | None:
        """Unload an adapter that this action loaded and that failed verification.

        Returns what is still served under the name; None if it is gone, or was not loaded by this action.
        """
        if not self.ours:
            return None
        refused = ""
        try:
            await self.unload(name)
        except StepError as error:
            if error.failure.cause is not None:  # the target became unreachable: settled when it is seen again
                raise
            refused = f": {error.failure.message}"
        left = await self.there(name)
        self.ours = left is not None
        self.notes.append(
            f"the adapter could not be unloaded again{refused}" if left else "the adapter was unloaded again"
        )
        self.checkpoint("undone")
        return left

    async def _try_unload(self, name: str) -> Failure | None:
        """Make one attempt to unload. None: the server confirmed it, or the name is not loaded."""
        self._begin("unload")
        reply = await self._visit.api.unload(name)
        self.touched = self.touched or reply.sent
        self.uncertain = reply.uncertain
        if reply.failure is None or reply.failure.code is FailureCode.NOT_FOUND:
            return None
        if reply.uncertain and await self.there(name) is None:
            return None
        return reply.failure

    async def _kept(self) -> bool:
        """Return whether an intact copy of the content is already in the adapter store."""
        intact = await self._fleet.disk(self._fleet.artifacts.intact, self.path) if self.action.stage else None
        return intact is True

    def _begin(self, step: str) -> None:
        self.name = step
        self._view.step(self.action, step)

    def _same_content(self, source: str, spec: AdapterDeclaration, digest: str | None) -> None:
        if digest != spec.digest:
            message = f"the content at {source} changed since the plan was made"
            hint = "Run `garrison apply` again to roll out the new content."
            raise StepError(Failure(code=FailureCode.NOT_UPDATABLE, message=message, hint=hint))


class Patience:
    """The retry budget of one step."""

    def __init__(self, fleet: Fleet, view: FleetView, action: Action, options: ExecuteOptions) -> None:
        self._clock = fleet.clock
        self._draws: random.Random = fleet.draws
        self._view = view
        self._action = action
        self._options = options
        self._attempt = 0
        self._began = fleet.clock.monotonic()

    async def wait(self, failure: Failure) -> None:
        """Wait until the next attempt.

        Raises:
            StepError: the failure is permanent, or the budget is used up.
        """
        self._attempt += 1
        decision = decide_retry(
            self._options.retries,
            attempt=self._attempt,
            failure=failure,
            elapsed=self._clock.monotonic() - self._began,
            draw=self._draws.random(),
        )
        if decision.wait is None:
            tried = f"{GAVE_UP}{decision.reason})" if failure.recoverable else ""
            raise StepError(replace(failure, message=failure.message + tried))
        self._view.step(self._action, f"wait {decision.wait:.1f} s: {failure.message}")
        await self._options.sleep(decision.wait)


def _same_base(seen: Sighting, parent: str | None, wanted: str | None) -> bool:
    """Return whether `parent` is `wanted`, by name or as another name of the same model."""
    if parent == wanted or wanted is None:
        return True
    one, other = seen.served.get(parent or ""), seen.served.get(wanted)
    return one is not None and other is not None and one.parent is other.parent is None and one.root == other.root


def _taken(name: str, there: Served) -> Failure:
    return Failure(
        code=FailureCode.ALREADY_EXISTS,
        message=f"{name} is already loaded, from {there.root}",
        hint="Take it over with --adopt, declare the served path, or give this adapter another lora_name.",
    )


def _did_nothing(name: str) -> Failure:
    return Failure(
        code=FailureCode.NOT_STABILIZED,
        message=f"the server confirmed the load of {name}, but does not list it",
        hint="Several API processes or replicas behind one address each have their own list. Run vLLM with "
        "--api-server-count 1, and declare every replica as a target.",
    )
