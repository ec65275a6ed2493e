"""What every download does around its transfer: what is missing, is there room, progress, and failed writes."""

import contextlib
import logging
from collections.abc import Iterator, Sequence

from garrison.models.files.progress import Progress
from garrison.models.sources.source import Workspace
from garrison.models.sources.staging import Pending, RemoteFile, Staging, write_failed

__all__ = ["transfer"]

_LOG = logging.getLogger("garrison.models.sources")


@contextlib.contextmanager
def transfer(
    place: str, files: Sequence[RemoteFile], staging: Staging, workspace: Workspace, progress: Progress
) -> Iterator[tuple[Pending, ...]]:
    """Give the files that are still to be fetched to the body, which fetches them into `staging`.

    An OSError with a number counts as a failed write of the body. Those of obstore and huggingface_hub have none.

    Raises:
        DiskFullError: the rest does not fit; before the body, or while it writes.
        FetchError: a file cannot be stored under its name, or the directory cannot be written.
    """
    pending = staging.prepare(files, workspace.free_bytes)
    total = sum(file.size for file in files)
    _LOG.info("%s: %d files, %d to fetch", place, len(files), len(pending))
    progress.started(len(files), total, total - sum(item.file.size - item.offset for item in pending))
    try:
        yield pending
    except OSError as error:
        if error.errno is None:
            raise
        raise write_failed(staging.directory, error, total, workspace.free_bytes) from None
    finally:
        progress.finished()
