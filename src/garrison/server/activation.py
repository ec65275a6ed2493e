"""Names of requests to instances: the gateway's `Activator` over the instance manager."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from garrison.base.errors import NotFoundError, NotReadyError
from garrison.engines.llama_router import RouterModel
from garrison.gateway.activator import Hold, Served, Upstream
from garrison.instances.live import Lease, Live
from garrison.instances.manager import InstanceManager

__all__ = ["InstanceActivator"]


@dataclass(frozen=True, slots=True)
class _Hold:
    """A lease on an instance, as the gateway sees it."""

    upstream: Upstream
    release: Callable[[], None]


class InstanceActivator:
    """`Activator`: a model is the name of an instance, or `INSTANCE/NAME` for a model or adapter that it serves.

    Args:
        instances: makes them ready.
        adapter: returns what an instance calls an adapter. Raises NotReadyError: it is declared, and not loaded.
        models: returns the models of an instance that is a router, None for another one.
    """

    def __init__(
        self,
        instances: InstanceManager,
        adapter: Callable[[str, str], str] = lambda _instance, name: name,
        models: Callable[[str], Sequence[RouterModel] | None] = lambda _instance: None,
    ) -> None:
        self._instances = instances
        self._adapter = adapter
        self._models = models

    def served(self) -> Sequence[Served]:
        """As `Activator.served`."""
        found: list[Served] = []
        for live in self._instances.list():
            names = [f"{live.name}/{one.id}" for one in self._models(live.name) or ()]
            found += (replace(_served(live), id=name) for name in names or [live.name])
        return found

    def find(self, model: str) -> Served | None:
        """As `Activator.find`."""
        live, _ = self._split(model)
        # Under the name that was asked for: a key may be limited to one adapter of an instance.
        return None if live is None else replace(_served(live), id=model)

    async def acquire(self, model: str, *, start: bool = True) -> Hold:
        """As `Activator.acquire`."""
        live, rest = self._split(model)
        if live is None:
            raise NotFoundError(f"there is no model {model!r}", hint="GET /v1/models lists those that exist.")
        if not start and (live.engine is None or not live.admits):
            raise NotReadyError(
                f"instance {live.name} is {live.state}", hint=f"POST /api/v1/instances/{live.name}/start",
                details={"instance": live.name},
            )  # fmt: skip
        lease: Lease = await self._instances.acquire(live.name)
        found = lease.upstream
        try:
            name = self._adapter(live.name, rest) if rest else found.model
        except NotReadyError:
            lease.release()
            raise
        return _Hold(Upstream(found.url, found.key, name), lease.release)

    def _split(self, model: str) -> tuple[Live | None, str]:
        """The instance of a name, and what comes after it."""
        found = self._instances.find(model)
        if found is not None:
            return found, ""
        name, slash, rest = model.partition("/")
        return (self._instances.find(name), rest) if slash else (None, "")


def _served(live: Live) -> Served:
    return Served(
        id=live.name,
        created=int(live.record.created.timestamp()),
        instances=(live.name,),
        instance_id=live.record.id,
        facts={"state": str(live.state), "model": live.spec.model, "engine": live.spec.engine},
    )
