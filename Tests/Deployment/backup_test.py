#!/usr/bin/env python3
"""Backups as operating.md describes them: taken while a gateway has work, restored under another one, which has the same jobs and results
and ends what had not ended.

    backup_test.py [DIRECTORY OF THE EXECUTABLES]

Needs sqlite3, and for gateways over PostgreSQL its server (Debian's postgresql).
"""

import contextlib
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Tests/Support"), str(ROOT / "Tests/Cluster")]
import testing  # noqa: E402
from cluster import Cluster, wait_until  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
POSTGRESQL = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
LONG = {"prompt": "a blue circle", "steps": 200, "width": 256, "height": 256, "seed": 5}


def submit(cluster, key, **fields):
    """The identifier of the job of a request; the same key gives the same job."""
    request = urllib.request.Request(cluster.url + "/v1/jobs", json.dumps(fields).encode(), {
        "content-type": "application/json", "idempotency-key": key})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["id"]


def job(cluster, name):
    return cluster.get(f"/v1/jobs/{name}")[1]


def result(cluster, name):
    cluster.wait(lambda: job(cluster, name)["status"] not in ("queued", "running"), f"{name} ended")
    with urllib.request.urlopen(f"{cluster.url}/v1/jobs/{name}/result", timeout=30) as response:
        return response.read()


def steps_done(cluster):
    return max((task["step"] for worker in cluster.workers("denoiser") for task in worker["running"]), default=0)


class Workload:
    """Jobs that have ended, and one that makes steps while the backup is taken."""

    SHORT = [{"prompt": f"a {color} star", "steps": 4, "seed": seed} for seed, color in enumerate(("red", "green", "blue"))]

    def __init__(self, cluster):
        self.ended = {name: result(cluster, name) for name in [submit(cluster, f"short-{n}", **short) for n, short in enumerate(self.SHORT)]}
        self.long = submit(cluster, "long", **LONG)
        cluster.wait(lambda: steps_done(cluster) >= 20, "20 steps done")

    def finish(self, cluster):
        """What the long job gives where it began."""
        self.bytes = result(cluster, self.long)

    def check(self, cluster):
        """Another cluster has the jobs and their results, resumes the long one after the steps that the backup has, and knows the keys."""
        for number, (name, data) in enumerate(self.ended.items()):
            assert job(cluster, name)["status"] == "succeeded" and result(cluster, name) == data, name
            assert submit(cluster, f"short-{number}", **self.SHORT[number]) == name, "the key gives another job"
        assert submit(cluster, "long", **LONG) == self.long
        assert job(cluster, self.long)["status"] in ("queued", "running"), "the backup has the job's end"
        assert result(cluster, self.long) == self.bytes


def copy_objects(source, target):
    """Copies the directory of objects, which may change meanwhile, after the database. Without objects there is none."""
    name = "gateway.journal.objects"
    for path in pathlib.Path(source, name).rglob("*"):
        copied = pathlib.Path(target, name, path.relative_to(pathlib.Path(source, name)))
        copied.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # deleted in between
            if path.is_file():
                shutil.copy(path, copied)


@contextlib.contextmanager
def restored(place):
    """A cluster that begins with what `place` puts into its folder."""
    cluster = Cluster(BINARIES, NANO, settings={})
    place(cluster)
    with cluster:
        yield cluster


def test_a_copy_by_sqlite_while_the_gateway_runs():
    with tempfile.TemporaryDirectory() as folder:
        backup = pathlib.Path(folder, "gateway.backup")
        with Cluster(BINARIES, NANO) as cluster:
            workload = Workload(cluster)
            subprocess.run(["sqlite3", cluster.folder / "gateway.journal", f".backup '{backup}'"], check=True, timeout=60)
            copy_objects(cluster.folder, folder)
            assert job(cluster, workload.long)["status"] == "running", "the backup took longer than the job"
            workload.finish(cluster)
        def place(cluster):
            shutil.copy(backup, cluster.folder / "gateway.journal")
            copy_objects(folder, cluster.folder)

        with restored(place) as cluster:
            workload.check(cluster)


def test_a_snapshot_of_the_volume():
    """What a snapshot of a volume holds: the files as they are at one instant, with a process that has not closed them."""
    with tempfile.TemporaryDirectory() as folder:
        with Cluster(BINARIES, NANO) as cluster:
            workload = Workload(cluster)
            cluster.processes["gateway"].send_signal(signal.SIGSTOP)
            files = list(cluster.folder.glob("gateway.journal*"))
            assert len(files) > 1, "the log of the database is a part of it"
            for path in files:
                if path.is_file():
                    shutil.copy(path, folder)
            copy_objects(cluster.folder, folder)
            cluster.processes["gateway"].send_signal(signal.SIGCONT)
            workload.finish(cluster)
        with restored(lambda cluster: shutil.copytree(folder, cluster.folder, dirs_exist_ok=True)) as cluster:
            workload.check(cluster)


class Database:
    """A server of PostgreSQL in a folder, on a Unix socket, as an ordinary user."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.user = [] if os.getuid() else ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        if not os.getuid():
            os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
        os.chmod(folder, 0o755)

    def command(self, program, *arguments, **options):
        program = POSTGRESQL[-1] / program
        return subprocess.run([*self.user, program, *map(str, arguments)], check=True, timeout=60, **{"stdout": subprocess.DEVNULL, **options})

    def __enter__(self):
        data = self.folder / "data"
        self.command("initdb", "--auth=trust", "--encoding=UTF8", "--username=qwen_image", "--no-sync", data)
        self.command("pg_ctl", "start", "--wait", "--pgdata", data, "--log", self.folder / "log",
                     "--options", f"-c listen_addresses= -c unix_socket_directories={self.folder}")
        return self

    def __exit__(self, *_):
        self.command("pg_ctl", "stop", "--mode=immediate", "--pgdata", self.folder / "data")

    def connection(self, name):
        return ["--host", self.folder, "--username", "qwen_image", name]

    def url(self, name):
        return f"postgresql://qwen_image@/{name}?host={self.folder}"


def test_a_dump_of_postgresql_while_the_gateway_runs():
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder, Database(folder) as database:
        for name in ("first", "second"):
            database.command("createdb", *database.connection(name))
        dump = pathlib.Path(folder, "dump")
        with Cluster(BINARIES, NANO, settings={"journal-url": database.url("first"), "journal-path": ""}) as cluster:
            workload = Workload(cluster)
            database.command("pg_dump", "--format=custom", "--file", dump, *database.connection("first"))
            assert job(cluster, workload.long)["status"] == "running", "the backup took longer than the job"
            workload.finish(cluster)
        database.command("pg_restore", "--exit-on-error", *database.connection("second")[:-1], "--dbname", "second", dump)
        settings = {"journal-url": database.url("second"), "journal-path": ""}
        with Cluster(BINARIES, NANO, settings=settings) as cluster:
            workload.check(cluster)


if __name__ == "__main__":
    tests = testing.functions(globals())
    has_url = "--journal-url" in subprocess.run([BINARIES / "gateway", "--help"], capture_output=True, text=True).stdout
    if not has_url:
        tests = [(name, function) for name, function in tests if "postgresql" not in name]
    sys.exit(testing.run("backup", tests))
