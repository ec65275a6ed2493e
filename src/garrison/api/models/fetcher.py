"""The seam to the sources of models: a download from its name to a directory."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from garrison.api.models.wanted import Wanted, with_file
from garrison.base.clock import SystemClock
from garrison.base.errors import ModelNotFoundError
from garrison.base.settings import Settings
from garrison.models.files.progress import Progress
from garrison.models.files.stop_token import StopToken
from garrison.models.gguf_choice import choose_gguf
from garrison.models.hub_caches import user_hub_caches
from garrison.models.request import ResolveRequest
from garrison.models.resolve import resolve

__all__ = ["Fetched", "Fetcher", "HubFetcher"]

_READ_SECONDS = 30.0
_CONNECT_SECONDS = 10.0


class Fetched(Protocol):
    """A model that is whole and on disk."""

    @property
    def path(self) -> Path: ...
    @property
    def source(self) -> str: ...
    @property
    def revision(self) -> str | None: ...


class Fetcher(Protocol):
    def fetch(self, wanted: Wanted, progress: Progress, stop: StopToken) -> Fetched:
        """Find the model, and download it if no source has it on disk. Blocks.

        What an earlier call left is used.

        Raises:
            GarrisonError: it could not be found or fetched.
            StoppedError: `stop` was stopped; what was downloaded is kept.
        """


class HubFetcher:
    """`Fetcher` over the sources in the settings, as `garrison resolve` uses them.

    Args:
        environ: names the user's own Hugging Face cache.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._caches = user_hub_caches(environ)

    def fetch(self, wanted: Wanted, progress: Progress, stop: StopToken) -> Fetched:
        """As `Fetcher.fetch`."""
        request = self._request(wanted)
        if wanted.quantization is not None:
            progress.step("list", message=f"looking for the GGUF files of {wanted.repo}")
            wanted = with_file(wanted, self._file(request, wanted, progress, stop))
            progress.step("file", file=wanted.model.file)
            request = self._request(wanted)
        return resolve(request, progress=progress, stop=stop)

    def _request(self, wanted: Wanted) -> ResolveRequest:
        made = ResolveRequest.from_settings(
            self._settings, wanted.repo, hub_caches=self._caches, allow_gguf=wanted.format != "safetensors"
        )
        # The name again, since from_settings takes one for a path where such a path exists.
        return replace(made, model=wanted.model)

    def _file(self, request: ResolveRequest, wanted: Wanted, progress: Progress, stop: StopToken) -> str:
        from garrison.models.sources.hub_client import HubClient  # heavy, and only this case needs it
        from garrison.models.sources.source import Skipped

        hub = HubClient(
            request, progress, SystemClock(), stop, read_timeout=_READ_SECONDS, connect_timeout=_CONNECT_SECONDS
        )
        info = hub.info()
        if isinstance(info, Skipped):
            raise ModelNotFoundError(
                f"no model found: {info.reason}", hint="Check the name on the hub.",
                details={"model_id": wanted.repo, "tried": []},
            )  # fmt: skip
        return choose_gguf([one.rfilename for one in info.siblings or ()], wanted.quantization or "", wanted.repo)
