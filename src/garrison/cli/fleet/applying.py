"""What `apply` and `destroy` share: the plan is shown once, a person is asked, and exactly that plan is carried out."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from garrison.base.errors import ConflictError
from garrison.cli.fleet.lock_wait import once_free
from garrison.cli.fleet.question import confirm, question_of
from garrison.cli.fleet.wiring import INTERRUPTED, Stop, run
from garrison.cli.views.applied import interrupted_json, show_interrupted, show_left
from garrison.cli.views.opening import Opening
from garrison.cli.views.page import Page
from garrison.cli.views.plan import show_plan
from garrison.cli.views.plan_facts import plan_facts
from garrison.cli.views.progress import progress_view
from garrison.fleet.management.operations import StackOperations
from garrison.fleet.management.requests import ApplyRequest
from garrison.fleet.operations.fingerprint import plan_changes
from garrison.fleet.values.plan import Plan

__all__ = ["Applying"]

T = TypeVar("T")


class Applying:
    """One apply or destroy.

    Args:
        again: the command that continues after an interruption.
        lock_timeout: seconds to wait for a stack that is held.
        opening: what is shown until now.

    Attributes:
        place: the server that carries it out; None when this process does.
    """

    def __init__(
        self,
        operations: StackOperations,
        request: ApplyRequest,
        *,
        yes: bool,
        everything: bool,
        json: bool,
        again: str,
        lock_timeout: float = 0.0,
        opening: Opening | None = None,
    ) -> None:
        self.page, self.stop = Page(), Stop()
        self.place = operations.place
        self._operations = operations
        self._request = request
        self._yes, self._json = yes, json
        self._again = again
        self._lock_timeout = lock_timeout
        self._shown: Plan | None = None
        self._sent = False
        self.view = progress_view(self.page, self.stop, self._show, json=json, opening=opening)
        try:
            self._facts = run(plan_facts(operations, request.declaration, everything=everything), self.stop)
        except BaseException:
            self.view.end()
            raise

    def confirm(self) -> None:
        """Show the plan and ask whether to carry it out, unless --yes was given; return if it is to be carried out.

        Nothing is asked where no target would change, nor where the plan has conflicts, which an apply rejects.

        Raises:
            UsageError: nobody can be asked.
            DeclinedError: the answer is not yes.
            KeyboardInterrupt: Ctrl-C or SIGTERM.
        """
        if self._yes:
            return
        plan = run(self._once_free(lambda: self._operations.plan(self._request, self.view, settle=True)), self.stop)
        self._shown = plan
        self.view.end()
        if plan.changes_required and not plan.conflicts and not plan.instance_conflicts:
            confirm(question_of(plan), self.stop, json=self._json, unshown={"plan": plan.to_json()})

    def carry_out(self, change: Callable[[str | None], Coroutine[Any, Any, T]]) -> T:
        """Run `change`, which is given the fingerprint of the plan that was confirmed; None with --yes.

        Raises:
            ConflictError: the plan is another one now; the message says what has changed.
        """
        self._sent = self.view.acts = True
        self.view.begin("reading what is on record")
        try:
            fingerprint = self._shown.fingerprint if self._shown else None
            return run(self._once_free(lambda: change(fingerprint)), self.stop)
        except ConflictError as error:
            if self._shown is None or "fingerprint" not in error.details:
                raise
            changes = plan_changes(self._shown.to_json(), error.details["plan"])
            raise ConflictError(f"{error.message}: {changes}", hint=error.hint, details=error.details) from None
        finally:
            self.view.end()

    def _once_free(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Coroutine[Any, Any, T]:
        return once_free(work, self._lock_timeout, self.view)

    def interrupted(self) -> int:
        """Report what was done until Ctrl-C, and return the exit code. There is no result: the view has it all."""
        self.view.end()
        if self._json:
            print(interrupted_json(self.view.outcomes, INTERRUPTED))
            return INTERRUPTED
        if self.place is not None and self._sent:
            show_left(self.place, self.page)
            return INTERRUPTED
        show_interrupted(
            self.view.outcomes, self.page, under_way=len(self.view.under_way), untouched=self.view.untouched,
            begun=self.stop.working or bool(self.view.outcomes), again=self._again,
        )  # fmt: skip
        return INTERRUPTED

    def _show(self, plan: Plan) -> None:
        """Show the plan, once: what is carried out after a confirmation is the plan that was shown."""
        if self._shown is None:
            show_plan(plan, self.page, self._facts)
