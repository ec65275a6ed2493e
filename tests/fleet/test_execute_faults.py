"""Any fault, at any time: after calm, and a look that settles what was left open, record and servers agree."""

import asyncio
from typing import Any

from fleet_bench import BASE, COMMAND, NEW, OLD, STACK, Bench, create, delete, rename, spec, update
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.fleet.plan.interrupted import settle
from garrison.fleet.values.observation import Served, Sighting
from garrison.net.errors import TransportCause
from garrison.net.transport import Answer, TransportError
from garrison.store.records import ActionResult, ActionState
from garrison.testing.targets import MemoryFault, refusal

PATHS = ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/models", "/v1/completions", "/v1/*"]
RESULTS: list[Answer | TransportError] = [
    TransportError(TransportCause.REFUSED, "refused"),
    TransportError(TransportCause.TIMEOUT, "timeout", sent=True),
    TransportError(TransportCause.RESET, "reset", sent=True),
    TransportError(TransportCause.TLS, "tls"),
    Answer(200, b"<html>a portal</html>"),
    Answer(401, b""),
    Answer(404, b'{"detail": "Not Found"}'),
    Answer(429, b"", {"retry-after": "1"}),
    Answer(503, b""),
    refusal(400, "x", "no"),
    refusal(400, "x", "has already been loaded"),
    refusal(404, "NotFoundError", "cannot be found"),
    refusal(500, "x", "LoRA rank 64 is greater than max_lora_rank 16."),
]
SENT = [*RESULTS[1:3], Answer(200, b"<html>a portal</html>"), Answer(503, b"")]
"""What may come instead of the answer after the server has acted; no server acts and then says that it did not."""


@st.composite
def faults(draw: st.DrawFn) -> MemoryFault:
    after = draw(st.booleans())
    return MemoryFault(
        draw(st.sampled_from(PATHS)),
        draw(st.sampled_from(SENT if after else RESULTS)),
        after=after,
        skip=draw(st.integers(0, 3)),
        times=draw(st.none() | st.integers(1, 5)),
    )


ACTIONS: dict[str, Any] = {
    "load": lambda: [create(spec("a"))],
    "swap": lambda: [update(spec("b"))],
    "unload": lambda: [delete("c")],
    "rename": lambda: [rename("d", "d2")],
    "all": lambda: [delete("c"), update(spec("b")), rename("d", "d2"), create(spec("a"))],
}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(ACTIONS)),
    st.lists(faults(), min_size=1, max_size=3),
    st.dictionaries(st.sampled_from([OLD, NEW]), st.sampled_from([one for one in RESULTS if isinstance(one, Answer)])),
    st.sets(st.sampled_from([OLD, NEW])),
)
def test_record_and_servers_agree(
    which: str, strikes: list[MemoryFault], broken: dict[str, Answer], hollow: set[str]
) -> None:
    bench = Bench()
    bench.edge.broken |= broken
    bench.edge.hollow |= hollow
    try:
        asyncio.run(scene(bench, which, strikes))
    finally:
        bench.close()


async def scene(bench: Bench, which: str, strikes: list[MemoryFault]) -> None:
    bench.serve(b=OLD, c=OLD, d=OLD)
    bench.edge.served["theirs"] = OLD
    bench.edge.faults += strikes
    actions = ACTIONS[which]()
    outcomes = await bench.run(*actions)
    states = [one.state for one in outcomes]
    assert states == [one.state for one in bench.store.actions(COMMAND)]
    assert all(
        state in (ActionState.DONE, ActionState.FAILED, ActionState.SKIPPED, ActionState.STARTED) for state in states
    )
    assert all((one.failure is None) == (one.state is ActionState.DONE) for one in outcomes)
    assert sum(bench.waits) < 60 * 3 * len(PATHS) * len(actions)
    assert not any((one.json or {}).get("load_inplace") for one in bench.targets.requests)
    assert bench.edge.served.pop("theirs") == OLD
    before = dict(bench.edge.served)
    look_again(bench)
    owned = {name: one.served_path for name, one in bench.owned().items() if one.operation.serves}
    assert owned == before


def look_again(bench: Bench) -> None:
    """What the next run does first."""
    served = {BASE: Served(BASE, BASE, None)}
    served |= {name: Served(name, path, BASE) for name, path in bench.edge.served.items()}
    seen = Sighting(target="edge", at=bench.clock.now(), served=served, base=BASE)
    recorded = {one.key: one for one in bench.store.resources(stack=STACK)}
    open_actions = [one for one in bench.store.actions(COMMAND) if one.state is ActionState.STARTED]
    for end in settle(STACK, open_actions, recorded, {"edge": seen}, bench.clock.now()):
        bench.store.save_actions([ActionResult(action=end.action, resources=end.resources)])
