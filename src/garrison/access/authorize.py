"""Whether a caller may do something. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from garrison.access.book import Refusal
from garrison.access.identity import Caller, Identity
from garrison.access.permissions import Grants, Scope
from garrison.base.errors import DeniedError

__all__ = ["Action", "ActionKind", "Decision", "admit", "authorize"]


class ActionKind(StrEnum):
    INFER = "infer"
    """A request to one model."""
    LIST_MODELS = "list-models"
    """The lists of models that clients of inference read. Each entry is authorized as a request to it would be."""
    READ = "read"
    """A GET of the management API."""
    MANAGE = "manage"
    """Any other call of the management API."""


_NEEDED = {
    ActionKind.INFER: Scope.INFERENCE,
    ActionKind.LIST_MODELS: Scope.INFERENCE,
    ActionKind.READ: Scope.READ,
    ActionKind.MANAGE: Scope.MANAGE,
}


@dataclass(frozen=True, slots=True)
class Action:
    """What a caller asks for.

    Attributes:
        model: the name in a request.
        instance, instance_id: where it goes. A request to a named model that goes elsewhere, such as to a target of
            the fleet, has none.
    """

    kind: ActionKind
    model: str | None = None
    instance: str | None = None
    instance_id: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer, with a sentence that says why it is no."""

    allowed: bool
    reason: str = ""
    hint: str = ""

    def __bool__(self) -> bool:
        return self.allowed


_YES = Decision(True)


def authorize(identity: Identity, action: Action) -> Decision:
    """Return whether a caller may do what it asks for.

    A caller whose inference is limited is denied a request that names neither a model nor an instance.
    """
    held = identity.permissions
    needed = _NEEDED[action.kind]
    if needed not in held.scopes:
        return Decision(
            False,
            f"{_shown(identity)} has no scope {needed}",
            f"`garrison keys create NAME --{needed}` makes a key that has.",
        )
    if action.kind is not ActionKind.INFER or held.only is None or _covers(held.only, action):
        return _YES
    what = f"model {action.model!r}" if action.model is not None else f"instance {action.instance!r}"
    return Decision(
        False,
        f"{_shown(identity)} may not use {what}",
        "`garrison keys edit` adds it with --instance or --model.",
    )


def admit(found: Identity | Refusal, open_to: Identity, action: Action) -> Identity:
    """Return the caller if it may do what it asks for.

    Args:
        found: whose token it is, or why nobody's.
        open_to: what callers may do without a key; see `identity.anonymous`.

    Raises:
        UnauthenticatedError: it has no valid token, and needs one.
        DeniedError: its token does not permit this.
    """
    if authorize(open_to, action):
        return found if isinstance(found, Identity) else open_to
    if isinstance(found, Refusal):
        raise found.error()
    decision = authorize(found, action)
    if not decision:
        raise DeniedError(decision.reason, hint=decision.hint)
    return found


def _covers(only: Grants, action: Action) -> bool:
    return action.model in only.models or action.instance in only.instances or action.instance_id in only.instance_ids


def _shown(identity: Identity) -> str:
    return f"key {identity.name!r}" if identity.caller is Caller.KEY else identity.name
