"""A podman of one test: a store of its own, and an image in which this Python runs.

The image holds only empty directories: the system's programs, this repository and its Python are mounted, so that it is
made in a moment and needs no network.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["IMAGE", "ROOT", "Podman", "find_podman"]

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGE = "localhost/garrison-test:1"
_DIRECTORIES = ("dev", "etc", "proc", "root", "sys", "tmp", "usr")
_LINKS = ("bin", "lib", "lib64", "sbin")
_SECONDS = 60


def find_podman() -> str | None:
    """The program, where it can run containers as this user."""
    return shutil.which("podman") if shutil.which("runc") and os.geteuid() == 0 else None


@dataclass(frozen=True)
class Podman:
    """Podman with its state below `home`."""

    executable: str
    home: Path

    @property
    def program(self) -> tuple[str, ...]:
        own = ("--root", f"{self.home}/store", "--runroot", f"{self.home}/run", "--tmpdir", f"{self.home}/tmp")
        return (self.executable, *own, "--runtime", "runc", "--cgroup-manager", "cgroupfs")

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of `run` with which the image works."""
        seen = dict.fromkeys((Path("/usr"), ROOT, Path(sys.prefix), Path(sys.base_prefix)))
        mounts = (word for path in seen for word in ("-v", f"{path}:{path}:ro"))
        return ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", *mounts)

    def make_image(self, *entrypoint: str) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            for name in _DIRECTORIES:
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            for name in _LINKS:
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{name}"
                tar.addfile(entry)
        file = self.home / "image.tar"
        file.write_bytes(made.getvalue())
        change = f"ENTRYPOINT {json.dumps(entrypoint)}"
        self.run("import", "--change", change, str(file), IMAGE)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self.program, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def all(self) -> list[str]:
        """The names of all containers, running or not."""
        return self.run("ps", "--all", "--format", "{{.Names}}").split()

    def close(self) -> None:
        if names := self.all():
            self.run("rm", "--force", *names)
        # The overlay of a store stays mounted while podman may use it.
        subprocess.run(["umount", f"{self.home}/store/overlay"], capture_output=True, check=False)
