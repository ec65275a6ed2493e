"""Who may do what."""

import itertools

import pytest

from garrison.access.authorize import Action, ActionKind, admit, authorize
from garrison.access.book import Refusal
from garrison.access.identity import Caller, Identity, anonymous, config_key, owner
from garrison.access.permissions import ALL, Grants, Permissions, Scope
from garrison.base.errors import DeniedError, UnauthenticatedError

CLOSED = anonymous(infers=False, manages=False)


def key(*scopes: Scope, only: Grants | None = None) -> Identity:
    return Identity(caller=Caller.KEY, name="ci", key_id=3, permissions=Permissions(frozenset(scopes), only))


MANAGER = Identity(caller=Caller.KEY, name="admin", key_id=1, permissions=ALL)
CALLERS = {
    "owner": owner(1000),
    "config": config_key(1),
    "manager": MANAGER,
    "reader": key(Scope.READ),
    "client": key(Scope.INFERENCE),
    "both": key(Scope.INFERENCE, Scope.READ),
    "nobody": key(),
    "open": anonymous(infers=True, manages=True),
    "open-inference": anonymous(infers=True, manages=False),
    "open-management": anonymous(infers=False, manages=True),
    "closed": CLOSED,
}
# infer, list models, read, manage
EXPECTED = {
    "owner": "++++", "config": "++++", "manager": "++++", "reader": "--+-", "client": "++--", "both": "+++-",
    "nobody": "----", "open": "++++", "open-inference": "++--", "open-management": "--++", "closed": "----",
}  # fmt: skip


@pytest.mark.parametrize(("name", "number"), list(itertools.product(CALLERS, range(4))))
def test_each_caller_may_do_each_kind_of_thing_or_not(name, number):
    kind = list(ActionKind)[number]
    decision = authorize(CALLERS[name], Action(kind, model="m"))
    assert bool(decision) == (EXPECTED[name][number] == "+"), kind
    assert bool(decision.reason) != decision.allowed


@pytest.mark.parametrize(
    ("only", "action", "allowed"),
    [
        (Grants(instances=frozenset({"qwen"})), {"model": "any", "instance": "qwen"}, True),
        (Grants(instances=frozenset({"qwen"})), {"model": "qwen", "instance": "other"}, False),
        (Grants(instances=frozenset({"qwen"})), {"model": "qwen"}, False),
        (Grants(instance_ids=frozenset({7})), {"model": "any", "instance": "x", "instance_id": 7}, True),
        (Grants(instance_ids=frozenset({7})), {"model": "any", "instance": "x", "instance_id": 8}, False),
        (Grants(models=frozenset({"gpt"})), {"model": "gpt", "instance": "anywhere", "instance_id": 1}, True),
        (Grants(models=frozenset({"gpt"})), {"model": "gpt-4"}, False),
        (Grants(frozenset({"a"}), frozenset({1}), frozenset({"m"})), {}, False),
        (None, {}, True),
    ],
)
def test_a_limited_key_may_use_what_is_named(only, action, allowed):
    assert bool(authorize(key(Scope.INFERENCE, only=only), Action(ActionKind.INFER, **action))) == allowed


def test_a_limited_key_may_ask_which_models_there_are():
    limited = key(Scope.INFERENCE, only=Grants(models=frozenset({"m"})))
    assert authorize(limited, Action(ActionKind.LIST_MODELS))


def test_a_denial_says_who_and_what():
    limited = key(Scope.INFERENCE, only=Grants(models=frozenset({"m"})))
    assert authorize(limited, Action(ActionKind.INFER, model="x")).reason == "key 'ci' may not use model 'x'"
    assert authorize(limited, Action(ActionKind.MANAGE)).reason == "key 'ci' has no scope manage"


class TestAdmit:
    READ = Action(ActionKind.READ)

    def test_a_key_that_may_is_admitted(self):
        assert admit(MANAGER, CLOSED, self.READ) is MANAGER

    def test_a_key_that_may_not_is_denied(self):
        with pytest.raises(DeniedError, match="no scope read") as caught:
            admit(key(Scope.INFERENCE), CLOSED, self.READ)
        assert caught.value.http_status == 403

    @pytest.mark.parametrize("why", Refusal)
    def test_without_a_valid_token_it_is_unauthenticated(self, why):
        with pytest.raises(UnauthenticatedError) as caught:
            admit(why, CLOSED, self.READ)
        assert caught.value.http_status == 401
        assert caught.value.message.startswith("Missing API key" if why is Refusal.MISSING else "Invalid API key")

    def test_where_no_key_is_needed_any_token_will_do_and_is_named_if_it_is_right(self):
        open_to = anonymous(infers=True, manages=False)
        infer = Action(ActionKind.INFER, model="m")
        assert admit(Refusal.MISSING, open_to, infer) is open_to
        assert admit(Refusal.UNKNOWN, open_to, infer) is open_to
        reader = key(Scope.READ)
        assert admit(reader, open_to, infer) is reader
        with pytest.raises(UnauthenticatedError):
            admit(Refusal.MISSING, open_to, self.READ)
