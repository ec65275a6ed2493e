"""Source `hf-hub`: a repository of the Hugging Face hub or a mirror of it, pinned to a commit.

huggingface_hub finds the files, the addresses and the headers; Garrison transfers the bytes, because huggingface_hub
starts an interrupted download over since its version 2, and a model of many gigabytes must not be. Every file is hashed
when it is whole and compared with the hub's digest.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from garrison.base.errors import FetchError, InvalidError
from garrison.base.values import number
from garrison.models.download_log import route_library
from garrison.models.files.progress import Progress
from garrison.models.files.stop_token import StopToken
from garrison.models.hub_caches import offline_variable
from garrison.models.request import ResolveRequest
from garrison.models.sources.hub_client import AGAIN, HubClient
from garrison.models.sources.hub_errors import cause_of, is_transient, network_errors, said
from garrison.models.sources.retries import Retries
from garrison.models.sources.selection import chosen_file, select_files
from garrison.models.sources.side_by_side import side_by_side
from garrison.models.sources.source import Found, Outcome, Skipped, Workspace
from garrison.models.sources.staging import Pending, RemoteFile, Staging, write_all
from garrison.models.sources.transfer import transfer

__all__ = ["HfHubSource"]

_WORKERS = 8
_CHUNK = 1024 * 1024
_LOG = logging.getLogger("garrison.models.sources")


class HfHubSource:
    name = "hf-hub"

    def __init__(
        self, *, environ: Mapping[str, str] | None = None, read_timeout: float = 30.0, connect_timeout: float = 10.0
    ) -> None:
        """Args: seconds without a byte, and for a connection, after which a request counts as failed."""
        self._environ = os.environ if environ is None else environ
        self._read_timeout = _seconds(self._environ, "HF_HUB_DOWNLOAD_TIMEOUT", read_timeout)
        self._connect_timeout = connect_timeout

    def find(self, request: ResolveRequest, workspace: Workspace, progress: Progress) -> Outcome:
        if (variable := offline_variable(self._environ)) is not None:
            return Skipped(f"{variable} is set", unused=True)
        try:
            import huggingface_hub  # noqa: F401 - heavy, and only this source needs it
        except ImportError:
            return Skipped("huggingface_hub is not installed", unused=True)
        route_library("huggingface_hub")
        hub = HubClient(
            request,
            progress,
            workspace.clock,
            workspace.stop,
            read_timeout=self._read_timeout,
            connect_timeout=self._connect_timeout,
        )
        info = hub.info()
        if isinstance(info, Skipped):
            return info
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
        commit, model = str(info.sha), request.model
        file = chosen_file(siblings, model.file, model.quantization, hub.place)
        names = select_files(
            siblings,
            file=file,
            patterns=request.allow_patterns,
            read_index=lambda name: hub.index_files(name, commit),
        )
        if not names:
            return Skipped(f"{hub.place} has no {file or 'files that an engine needs'}")
        files = [hub.remote_file(siblings[name], commit) for name in names]
        staging = Staging(request.layout.staging_dir(request.model, self.name))
        with transfer(f"{hub.place} at {commit}", files, staging, workspace, progress) as pending:
            _fetch_all(_Fetch(hub, commit, staging, progress), pending, workspace.stop)
        return Found(staging.directory, revision=commit, staged=True, file=file)


def _fetch_all(fetch: "_Fetch", pending: tuple[Pending, ...], stop: StopToken) -> None:
    # The largest first, so that the end is not one long file alone.
    largest_first = sorted(pending, key=lambda item: item.offset - item.file.size)
    try:
        side_by_side(largest_first, fetch.one, stop, workers=_WORKERS, name="hf-hub")
    except network_errors() as error:
        raise fetch.hub.explained(error) from None


class _Fetch:
    """Brings single files of one commit into the staging directory; called from several threads."""

    def __init__(self, hub: HubClient, commit: str, staging: Staging, progress: Progress) -> None:
        self.hub = hub
        self._commit = commit
        self._staging = staging
        self._progress = progress

    def one(self, item: Pending, stop: StopToken) -> None:
        """Bring one file, from where its part ends; once more from the start when its digest is wrong."""
        part = self._staging.part(item.file)
        part.open("ab").close()
        for last in (False, True):
            self._complete(item.file, part, stop)
            if _digest_fits(part, item.file, stop):
                stop.check()
                self._staging.finish(item.file)
                return
            _LOG.warning("%s: the content differs from the hub's digest", item.file.path)
            part.unlink()
            if not last:
                self._progress.advanced(-item.file.size)
                part.touch()
        raise FetchError(f"{item.file.path} does not match its digest at {self.hub.place}", hint="Run this again.")

    def _complete(self, file: RemoteFile, part: Path, stop: StopToken) -> None:
        """Ask for the rest until the part is whole; give up after some tries that brought nothing."""
        retries = Retries()
        while (have := part.stat().st_size) < file.size:
            failed: Exception | None = None
            try:
                self._append(file, part, have, stop)
                problem = "the connection ended early"
            except network_errors() as error:
                stop.check()  # a stop breaks the connection, which is no error of the network
                if not is_transient(error):
                    raise
                failed, problem = error, said(error)
            now = part.stat().st_size
            if now >= file.size:
                return
            if now > have:
                retries.renew()
            _LOG.warning("%s: %s at byte %d of %d", file.path, problem, now, file.size)
            why = problem if failed is None else cause_of(failed)
            if not self.hub.pause(retries, failed, stop, cause=f"{file.path}: {why}"):
                if failed is not None and self.hub.asks_to_wait(failed):
                    raise self.hub.explained(failed)
                raise FetchError(f"{file.path} could not be fetched from {self.hub.place}: {problem}", hint=AGAIN)

    def _append(self, file: RemoteFile, part: Path, have: int, stop: StopToken) -> None:
        # Unbuffered: a thread that a stop leaves behind must not write what it gathered before.
        with (
            self.hub.stream(self.hub.url(file.path, self._commit), have, stop) as response,
            part.open("r+b", buffering=0) as handle,
        ):
            if have and response.status_code != 206:
                self._progress.advanced(-have)  # the server knows no ranges: from the start
                have = 0
                handle.truncate()
            handle.seek(have)
            room = file.size - have
            # As they come: with a chunk size, what was gathered for a chunk is lost when the connection is cut.
            for chunk in response.iter_bytes():
                stop.check()
                if len(chunk) > room:
                    handle.truncate(0)
                    raise FetchError(
                        f"{self.hub.place} sends more of {file.path} than the {file.size} bytes it announced",
                        hint="The hub or a proxy in front of it is broken; try another HF_ENDPOINT.",
                    )
                write_all(handle.fileno(), chunk)
                room -= len(chunk)
                self._progress.advanced(len(chunk))


def _digest_fits(part: Path, file: RemoteFile, stop: StopToken) -> bool:
    """LFS files have a SHA-256, the others git's SHA-1 of a blob; a mirror may give neither."""
    if len(file.tag) == 64:
        digest: Any = hashlib.sha256()
    elif len(file.tag) == 40:
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    else:
        return True
    with part.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            stop.check()
            digest.update(chunk)
    return bool(digest.hexdigest() == file.tag)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    raw = environ.get(name)
    if not raw:
        return default
    try:
        return float(number(above=0)(raw))
    except ValueError as error:
        raise InvalidError(f"{name} must be {error}, not {raw!r}", hint="Unset it for the default.") from None
