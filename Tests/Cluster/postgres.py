"""A PostgreSQL server of a test's own, from Debian's package, in a temporary directory."""

import glob
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile

from cluster import free_port, wait_until


class Postgres:
    """Runs with the `with` block, on loopback; as root, under the first unprivileged user that Debian's package makes."""

    def __init__(self):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[4]))
        assert found, "there is no PostgreSQL: apt-get install postgresql"
        self.bin = pathlib.Path(found[-1])
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="qwen-image-postgres-"))
        self.port, self.process = free_port(), None
        self.user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if self.user:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)

    def __enter__(self):
        self._run("initdb", "-D", self.folder / "data", "-U", "qwen", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()
        return self

    def __exit__(self, *_):
        if self.process:
            self.stop(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _as_user(self):
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}

    def _run(self, program, *arguments):
        result = subprocess.run(
            [self.bin / program, *map(str, arguments)], capture_output=True, text=True, cwd=self.folder, **self._as_user())
        assert result.returncode == 0, f"{program}: {result.stdout}{result.stderr}"
        return result.stdout

    def start(self):
        self.log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(
            [self.bin / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-k", self.folder, "-c",
             "listen_addresses=127.0.0.1", "-c", "max_connections=60"],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, cwd=self.folder, **self._as_user())
        wait_until(self._is_ready, "PostgreSQL ready", 60, lambda: (self.folder / "log").read_text(errors="replace")[-2000:])

    def _is_ready(self):
        check = [self.bin / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run(check, check=False, cwd=self.folder).returncode == 0

    def stop(self, number=signal.SIGINT):
        """SIGINT: at once, without waiting for clients; SIGQUIT: as in a crash."""
        self.process.send_signal(number)
        self.process.wait(60)
        self.process = None

    def query(self, sql):
        """The answer's first value, as text."""
        return self._run("psql", "-h", "127.0.0.1", "-p", self.port, "-U", "qwen", "-At", "-c", sql, "postgres").strip()

    def url(self, port=None):
        """Its address, or that of a proxy before it."""
        return f"postgresql://qwen@127.0.0.1:{port or self.port}/postgres"
