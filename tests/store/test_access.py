"""What every store does with API keys and the audit log: in memory, on SQLite, on PostgreSQL."""

from dataclasses import replace

import pytest
from store_samples import an_api_key, an_audited_call, at, event

from garrison.base.errors import InternalError
from garrison.store.fleet_store import FleetStore
from garrison.store.key_store import KeyTable


class TestKeys:
    def test_a_key_is_stored_changed_and_deleted_with_its_events(self, store: FleetStore):
        told = event("created", subject_kind="key", subject_name="ci")
        made = store.create_key(an_api_key(), [told])
        assert made == an_api_key(id=made.id)
        assert store.keys() == KeyTable(1, (made,))
        changed = replace(
            made,
            name="other",
            digest="ef",
            prefix="grs-inf-9",
            spec={"enabled": False},
            expires_at=None,
            previous_digest=made.digest,
            previous_prefix=made.prefix,
            rotates_until=at(60),
            updated=at(9),
            revision=2,
        )
        assert store.save_key(changed, [told])
        assert store.keys() == KeyTable(2, (changed,))
        assert store.delete_key(made.id, [told])
        assert store.keys() == KeyTable(3, ())
        assert len(store.events(subject=("key", "ci"))) == 3
        assert store.keys_revision() == 3

    def test_a_change_of_an_outdated_key_does_nothing(self, store: FleetStore):
        made = store.create_key(an_api_key())
        assert store.save_key(replace(made, name="first", revision=2))
        assert not store.save_key(replace(made, name="second", revision=2), [event()])
        assert not store.save_key(replace(made, id=made.id + 1, revision=2), [event()])
        assert not store.delete_key(made.id + 1, [event()])
        assert [one.name for one in store.keys().rows] == ["first"]
        assert store.events() == []
        assert store.keys_revision() == 2

    def test_ids_are_never_used_again_and_digests_never_twice(self, store: FleetStore):
        first = store.create_key(an_api_key())
        with pytest.raises(InternalError):
            store.create_key(an_api_key(name="other"), [event()])
        second = store.create_key(an_api_key(digest="other"))
        store.delete_key(second.id)
        assert store.create_key(an_api_key(digest="third")).id > second.id > first.id
        assert store.events() == []

    def test_the_time_of_the_last_use_only_grows_and_is_no_change(self, store: FleetStore):
        made = store.create_key(an_api_key())
        store.touch_keys({})
        store.touch_keys({made.id: at(5), made.id + 7: at(5)})
        store.touch_keys({made.id: at(4)})
        assert store.save_key(replace(made, revision=2, last_used=None))
        assert store.keys() == KeyTable(2, (replace(made, revision=2, last_used=at(5)),))


class TestAudit:
    def test_calls_come_newest_first_and_page_by_page(self, store: FleetStore):
        calls = [an_audited_call(at=at(number), subject_name=str(number)) for number in range(5)]
        store.add_audit(calls[:3])
        store.add_audit([])
        store.add_audit(calls[3:])
        first = store.audit(limit=2)
        second = store.audit(limit=2, before_id=first[-1].id)
        assert [replace(one, id=0) for one in (*first, *second)] == calls[:0:-1]
        assert [one.subject_name for one in store.audit(since=at(3))] == ["4", "3"]

    def test_calls_are_found_by_key_action_and_subject(self, store: FleetStore):
        bare = {"key_id": None, "uid": None, "before": None, "after": None}
        store.add_audit([an_audited_call(), an_audited_call(**bare), an_audited_call(action="keys.delete")])
        assert [one.id for one in store.audit(key_id=7, action="keys.create")] == [1]
        assert [one.id for one in store.audit(action="keys.delete")] == [3]
        assert [one.id for one in store.audit(subject=("key", "ci"))] == [3, 2, 1]
        assert store.audit(subject=("key", "other")) == []
        assert replace(store.audit()[1], id=0) == an_audited_call(**bare)

    def test_old_calls_are_pruned(self, store: FleetStore):
        store.add_audit([an_audited_call(at=at(days=day)) for day in range(3)])
        assert store.prune(at(days=2)) == 2
        assert [one.at for one in store.audit()] == [at(days=2)]
