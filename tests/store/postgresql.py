"""A real PostgreSQL of the tests' own: a cluster in a temporary directory, on a socket there, ended by its pid."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

__all__ = ["PostgreSQL", "programs"]

_START_SECONDS = 60.0


def programs() -> Path | None:
    """The directory with `initdb` and `postgres`: Debian keeps them off PATH, a directory a version."""
    if found := sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])):
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class PostgreSQL:
    """A server. `initdb` and `postgres` refuse root, so root runs them as the package's user `postgres`."""

    def __init__(self, bin_dir: Path) -> None:
        self._bin = bin_dir
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        # Not pytest's directory: nobody but its owner may enter that. A socket's path has 107 bytes at most.
        self.home = Path(tempfile.mkdtemp(prefix="garrison-pg-", dir="/tmp"))
        if os.geteuid() == 0:
            shutil.chown(self.home, self._user)
        initdb = ["initdb", "--pgdata", "data", "--username", "owner", "--auth", "trust", "--no-sync", "-E", "UTF8"]
        # Words are ordered as in English, not by code point: a query that relies on the latter is found out.
        order = ["--locale-provider", "icu", "--icu-locale", "en-US", "--locale", "C.UTF-8"]
        subprocess.run(self._argv(*initdb, *order), check=True, capture_output=True, **self._as_user())
        self.start()

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        options = {"listen_addresses": "", "unix_socket_directories": str(self.home), "fsync": "off",
                   "max_connections": "60", "shared_buffers": "16MB"}  # fmt: skip
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._argv("postgres", "-D", "data", *words), stdout=log, stderr=log, **self._as_user()
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self.home / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self.sql("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Fast: sessions are cut."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait(20)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def database(self, name: str | None = None, *, like: str = "template1") -> str:
        """A new database, empty or a copy; its URL."""
        self._count += 1
        name = name or f"t{self._count}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {like}")
        return self.url(name)

    def url(self, database: str, *, user: str = "owner") -> str:
        return f"postgresql://{user}@/{database}?host={self.home}"

    def sql(self, text: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(text.encode())

    def _argv(self, program: str, *arguments: str) -> list[str]:
        return [str(self._bin / program), *arguments]

    def _as_user(self) -> dict[str, Any]:
        # A session of its own: Ctrl-C is for the tests, which end the server when they are through.
        options: dict[str, Any] = {"cwd": self.home, "start_new_session": True, "stdin": subprocess.DEVNULL}
        if os.geteuid() == 0:
            options |= {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []}
        return options

    def __enter__(self) -> "PostgreSQL":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.close()
