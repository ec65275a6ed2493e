"""Hub caches as huggingface_hub lays them out, and files that strangers must not read."""

import hashlib
from pathlib import Path

__all__ = ["SECRET", "hub_snapshot", "only_ours"]

SECRET = b"root:$6$not-for-strangers"


def hub_snapshot(made: Path, home: Path, *, revision: str = "a" * 40) -> Path:
    """A snapshot with the files of `made`: links to blobs that are named by their digests."""
    repository = home / "hub" / "models--acme--sql"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for file in made.iterdir():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        (repository / "blobs" / digest).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../blobs") / digest)
    return snapshot


def only_ours(path: Path) -> Path:
    """A file that only its owner can read; it holds `SECRET`."""
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path
