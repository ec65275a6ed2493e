"""What is served, under the names that Ollama's clients use. Asked of the gateway each time: it knows, at once."""

from collections.abc import Mapping
from urllib.parse import quote

from garrison.engines.served_context import context_of_models, context_of_properties
from garrison.gateway.ollama.door import Door, RefusedError, upstream_path
from garrison.gateway.ollama.translation.listing import Entry, Resolved, read_entries, resolve, without_latest

__all__ = ["Catalogue"]

_LIST_SECONDS = 30.0
_START_SECONDS = 3600.0
"""For a model that is started for the question. The gateway gives up long before."""
_NOT_THERE = (404, 405, 501)


class Catalogue:
    """The models that a caller may use. Every method takes the caller's headers."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def entries(self, headers: Mapping[str, str]) -> list[Entry]:
        """Return all of them. Raises RefusedError and AnswerError."""
        answer = await self._door.ask("GET", "/v1/models", headers, seconds=_LIST_SECONDS)
        return read_entries(answer.body)

    async def name(self, name: str, headers: Mapping[str, str]) -> str:
        """Return the gateway's name of a model. Whether it exists is left to the gateway.

        Raises:
            RefusedError: no model is named; or, as with `entries`, where the list has to be asked for.
        """
        _require(name)
        if without_latest(name) == name:
            return name
        return resolve(name, await self.entries(headers)).name

    async def find(self, name: str, headers: Mapping[str, str]) -> Resolved:
        """Return a model. Raises RefusedError: there is none of that name, or the caller may not use it."""
        _require(name)
        found = resolve(name, await self.entries(headers))
        if found.entry is None:  # the gateway says why, and which names are near
            await self._door.ask("GET", f"/v1/models/{quote(found.name, safe='')}", headers, seconds=_LIST_SECONDS)
            raise RefusedError(404, f"model '{name}' not found")
        return found

    async def start(self, model: Resolved, headers: Mapping[str, str]) -> int | None:
        """Start a model if it is cold, as a request does, and return its context in tokens, if the engine says it.

        Raises:
            RefusedError: it cannot be started, or not in time.
        """
        found = context_of_models(await self._property(model, "/v1/models", headers))
        if found is None:
            found = context_of_properties(await self._property(model, "/props", headers))
        return found

    async def served(self, model: Resolved, headers: Mapping[str, str]) -> int | None:
        """Return the context of a model in tokens, and start it if only the engine knows. Raises RefusedError."""
        return await self.start(model, headers) if model.served is None else model.served

    async def _property(self, model: Resolved, path: str, headers: Mapping[str, str]) -> bytes:
        """Return what an engine answers; empty where it has no such path."""
        try:
            answer = await self._door.ask("GET", upstream_path(model.name, path), headers, seconds=_START_SECONDS)
        except RefusedError as error:
            if error.status in _NOT_THERE:
                return b""
            raise
        return answer.body


def _require(name: str) -> None:
    if not name:
        raise RefusedError(400, "model is required")
