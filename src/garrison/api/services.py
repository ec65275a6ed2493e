"""What the routes call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Request

from garrison.access.audit import AuditLog
from garrison.access.operations import KeyOperations
from garrison.api.feed import Feed
from garrison.api.fleet.commands import FleetCommands
from garrison.api.instances.idempotency import Idempotency
from garrison.api.models.downloads import Downloads
from garrison.api.traffic import Traffic
from garrison.base.clock import Clock, SystemClock
from garrison.base.settings import Settings
from garrison.instances.manager import InstanceManager
from garrison.instances.routers import Routers
from garrison.net.thread_pool import ThreadPool
from garrison.nodes.watch import Nodes

if TYPE_CHECKING:
    from garrison.api.fleet.holds import AdapterHolds
    from garrison.api.metrics import Metrics
    from garrison.api.profiles import ProfileChoice

__all__ = ["Services", "services"]


@dataclass(slots=True, kw_only=True)
class Services:
    """Everything behind the API, in one value.

    Attributes:
        routers: the models of instances that have none of their own.
        downloads: of models.
        fleet: the declared stacks.
        holds: adapters that the gateway sends no request to.
        metrics: for Prometheus.
        traffic: what the gateway carries.
        environ: what `${NAME}` stands for in a manifest of the owner.
        log_path: where the log of an instance is.
        disk: threads for files.
        profiles: sets of model names that go elsewhere while one is active.
        ready: why the server is not ready; empty when it is.
        closing: whether the server ends, so that streams do.
        shut_down: asks the server to end; with True, its instances too.
    """

    settings: Settings
    instances: InstanceManager
    routers: Routers
    nodes: Nodes
    keys: KeyOperations
    audit: AuditLog
    feed: Feed
    downloads: Downloads
    fleet: FleetCommands
    holds: "AdapterHolds"
    profiles: "ProfileChoice"
    metrics: "Metrics"
    traffic: Traffic
    log_path: Callable[[str], Path]
    disk: ThreadPool
    ready: Callable[[], str]
    closing: Callable[[], bool]
    shut_down: Callable[[bool], None]
    environ: Mapping[str, str] = field(default_factory=dict)
    idempotency: Idempotency = field(default_factory=Idempotency)
    clock: Clock = field(default_factory=SystemClock)


def services(request: Request) -> Services:
    """The services of the application that answers `request`."""
    found = request.app.state.services
    assert isinstance(found, Services)
    return found
