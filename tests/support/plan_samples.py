"""Plans and statuses made by hand, with everything a view must show."""

from datetime import UTC, datetime, timedelta

from garrison.cli.views.plan import PlanFacts
from garrison.fleet.report.status import AdapterStatus, CutShort, FleetStatus, StackStatus, TargetStatus, Writer
from garrison.fleet.values.declaration import ADAPTER_TYPE
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.instance_change import InstanceChange, InstanceKind
from garrison.fleet.values.plan import Action, ActionKind, Change, Plan, TargetChange, Way
from garrison.store.records import Key, Operation, Resource

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STAGED = "from a copy in the adapter store, named after its digest"
LOAD_LATER = "will be loaded when the target is seen again"
AWAY = Failure(
    code=FailureCode.NETWORK_FAILURE,
    message="target edge-7 is out of reach (refused): connection refused",
    recoverable=True,
)


def recorded(name: str, target: str = "edge-2") -> Resource:
    return Resource(
        key=Key(target, ADAPTER_TYPE, name), stack="cabinet-7", label=name, operation=Operation.CREATED, spec={},
        served_path=f"/models/{name}", parent="acme/tiny", at=NOW,
    )  # fmt: skip


def action(kind: ActionKind, name: str, target: str = "edge-2", reason: str = "not served yet", **more) -> Action:
    return Action(kind=kind, target=target, name=name, label=name, reason=reason, **more)


def full_plan() -> Plan:
    kinds = ActionKind
    return Plan(
        stack="cabinet-7",
        mode="reconcile",
        instances=(
            InstanceChange(kind=InstanceKind.CREATE, name="qwen", summary="vllm  Qwen/Qwen2.5-7B", node="gpu-2"),
            InstanceChange(
                kind=InstanceKind.UPDATE, name="coder", state="running", needs_restart=True,
                changes=(Change("options.max_model_len", "4096", "8192"), Change("memory", None, "14.0 GiB")),
            ),
            InstanceChange(
                kind=InstanceKind.UPDATE, name="whisper", state="stopped", adopted=True,
                changes=(Change("idle", "30m", "never"),),
            ),
            InstanceChange(kind=InstanceKind.DELETE, name="old", summary="llama_cpp  /m/old.gguf", state="running"),
            InstanceChange(kind=InstanceKind.UNCHANGED, name="steady", state="running"),
            InstanceChange(
                kind=InstanceKind.CONFLICT, name="tiny", state="stopped",
                failure=Failure(
                    code=FailureCode.RESOURCE_CONFLICT, message="instance tiny exists, and no stack declared it",
                    hint="Take it over with --adopt, or give this instance another name.",
                ),
            ),
        ),
        actions=(
            action(kinds.DELETE, "old-support", reason="no longer declared", way=Way.UNLOAD),
            action(
                kinds.UPDATE, "chat", reason="new content at the same path", way=Way.SWAP, way_reason=STAGED,
                changes=(Change("content", "sha256:0123456789ab", "sha256:ba9876543210"),),
            ),
            action(
                kinds.REPLACE, "support-v2", reason="create-only field changed", way=Way.LOAD_THEN_UNLOAD,
                way_reason="the names differ: load the new one, then unload the old one",
                replaced=recorded("support"),
                changes=(
                    Change("lora_path", "/models/support", "/models/a-very-long-directory-name/of-support-2026-02"),
                    Change("lora_name", "support", "support-v2", True),
                ),
            ),
            action(kinds.CREATE, "sql", way=Way.LOAD, way_reason=STAGED),
            action(
                kinds.BLOCKED, "wide", reason="its files are invalid",
                failure=Failure(
                    code=FailureCode.INVALID_REQUEST,
                    message="/models/wide has rank 128, and edge-2 accepts ranks up to 64",
                    hint="Restart its vLLM with --max-lora-rank 128, or train it with a lower rank.",
                ),
            ),
            action(
                kinds.BLOCKED, "sql", "edge-3", "changed from outside since the last apply", conflict=True, drift=True,
                failure=Failure(
                    code=FailureCode.RESOURCE_CONFLICT,
                    message="sql on edge-3 was applied from /models/sql and is now served from /tmp/experiment",
                    hint="Keep what is there: `garrison extract` it. Overwrite it: --force. Or leave it as it is.",
                ),
            ),
            action(kinds.ADOPT, "math", "local", "already served as declared", way=Way.RECORD),
            action(
                kinds.CREATE, "sql", "local", "gone from the target since 2026-03-01 11:57:00 UTC", way=Way.LOAD,
                way_reason=STAGED, drift=True, recorded=recorded("sql", "local"),
            ),
            action(kinds.RELEASE, "tmp", "local", "no longer declared, and already gone", way=Way.RECORD),
            *(action(kinds.KEEP, f"k{number}", "local", "as declared") for number in range(1200)),
            *(action(kinds.BLOCKED, name, "edge-7", LOAD_LATER, failure=AWAY, owed=True) for name in ("sql", "chat")),
            action(
                kinds.BLOCKED, "old", "edge-7", "will be unloaded when the target is seen again",
                failure=AWAY, owed=True,
            ),
        ),
        targets=(
            TargetChange(kind="create", name="edge-9", changes=(Change("base_url", None, "https://10.0.0.9:8000"),)),
            TargetChange(
                kind="update", name="edge-3", changes=(Change("base_url", "http://10.0.0.3:80", "http://10.0.0.33:80"),)
            ),
            TargetChange(kind="delete", name="edge-1"),
            TargetChange(kind="keep", name="local"),
        ),
        unknown={
            "edge-7": AWAY.message,
            "edge-8": "target edge-8 is out of reach (not-vllm): answered 200 with text/html, a page of a proxy",
        },
        warnings=("adapter chat is declared twice",),
    )  # fmt: skip


def plan_facts(**changes) -> PlanFacts:
    values = {
        "now": NOW,
        "last_seen": {"edge-7": NOW - timedelta(days=3)},
        "addresses": {"edge-2": "https://10.0.0.2:8000", "local": "http://localhost:8000"},
        "insecure": frozenset({"edge-2"}),
    }
    return PlanFacts(**(values | changes))


def large_plan(targets: int = 200, adapters: int = 10) -> Plan:
    made = [
        action(ActionKind.CREATE, f"adapter-{one}", f"node-{node:04}", way=Way.LOAD, way_reason=STAGED)
        for node in range(targets)
        for one in range(adapters)
    ]
    unknown = {f"away-{node:04}": f"target away-{node:04} is out of reach (timeout): 5 s" for node in range(100)}
    return Plan(stack="fleet", mode="reconcile", actions=tuple(made), unknown=unknown)


def adapter_status(target: str, name: str, state: str, detail: str = "") -> AdapterStatus:
    return AdapterStatus(
        stack="cabinet-7", target=target, name=name, label=name, state=state, detail=detail,
        path=f"/models/{name}", since=NOW,
    )  # fmt: skip


def target_status(name: str, **changes) -> TargetStatus:
    values = {
        "name": name, "base_url": f"http://{name}:8000", "state": "reachable", "adapters": {"served": 10},
        "last_seen": NOW, "base": "acme/tiny", "version": "0.32.0",
    }  # fmt: skip
    return TargetStatus(**(values | changes))


def fleet_status(nodes: int = 2000) -> FleetStatus:
    ago = NOW - timedelta(days=3)
    away = {
        "state": "unusable", "cause": "tls", "detail": "signed by nobody we trust", "since": ago, "last_seen": ago,
        "adapters": {"owed": 7},
    }  # fmt: skip
    adapters = [adapter_status(f"node-{node:04}", f"a{one}", "served") for node in range(nodes) for one in range(10)]
    adapters += [
        adapter_status(f"edge-{number}", "sql", "missing", "gone since 2026-03-01 11:57:00 UTC (restarted)")
        for number in range(3)
    ]
    adapters.append(adapter_status("edge-1", "chat", "drifted", "applied from /models/chat, served from /tmp/chat"))
    owed = "will be loaded when the target is seen again"
    adapters += [adapter_status(f"edge-{one}", f"a{number}", "owed", owed) for one in (7, 8) for number in range(7)]
    adapters.append(adapter_status("edge-9", "sql", "unknown", "the target cannot load adapters at run time"))
    stacks = (
        StackStatus(
            name="cabinet-7", version=4, applied_at=NOW - timedelta(minutes=3), on_drift="restore", ending=False,
            targets=(), adapters=tuple(adapters),
            writer=Writer(
                holder="mika@ops-1", pid=4711, purpose="apply", since=NOW - timedelta(seconds=8),
                expires_at=NOW + timedelta(seconds=22),
            ),
        ),
        StackStatus(
            name="lab", version=1, applied_at=NOW - timedelta(days=5), on_drift="report", ending=True, targets=(),
            adapters=(),
            interrupted=(
                CutShort(
                    command="20260301-115000-abc", kind="apply", started_at=NOW - timedelta(minutes=10),
                    by="mika@ops-1 4000",
                ),
            ),
        ),
    )  # fmt: skip
    targets = (
        *(target_status(f"node-{node:04}") for node in range(nodes)),
        *(
            target_status(f"edge-{one}", adapters={"served": 3, "missing": 1}, insecure=one == 1, unmanaged=("x",))
            for one in range(3)
        ),
        *(target_status(f"edge-{one}", **away) for one in (7, 8)),
        target_status("edge-9", lora_routes=False, adapters={"unknown": 1}),
        target_status("edge-10", state="new", adapters={}, last_seen=None),
    )
    return FleetStatus(at=NOW, cached=False, stacks=stacks, targets=targets)
