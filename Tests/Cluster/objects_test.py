#!/usr/bin/env python3
"""The journal's large bytes as files and in S3, through real processes: a gateway that is killed, and a server of S3 that fails.

    objects_test.py [DIRECTORY OF THE EXECUTABLES] [PYTHON WITH MOTO]

The second Python has what Tests/Objects/requirements.txt names.
"""

import base64
import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.request

import httpx2
from PIL import Image

from cluster import Cluster

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
S3_PYTHON = sys.argv[2] if len(sys.argv) > 2 else ROOT / ".build/python/Tests-Objects/bin/python"
NANO = ROOT / "compose/models/nano-qwen-image"
# Images and latents of the nano model may have less than a KiB.
SMALL = {"objects-threshold": 1, "jobs-checkpoint-seconds": 0}
JOBS = 6


class S3Server:
    """Tests/Objects/s3_server.py, and the settings of a gateway that uses it."""

    def __enter__(self):
        self.process = subprocess.Popen(
            [S3_PYTHON, ROOT / "Tests/Objects/s3_server.py", "images"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hello = json.loads(self.process.stdout.readline())
        self.secrets = [self.hello["secret_access_key"], self.hello["session_token"]]
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)

    @contextlib.contextmanager
    def cluster(self, **settings):
        cluster = Cluster(BINARIES, NANO, settings={
            **SMALL, "objects-store": "s3", "objects-s3-endpoint": self.hello["url"], "objects-s3-region": self.hello["region"],
            "objects-s3-bucket": "images", "objects-s3-prefix": "test", "objects-s3-path-style": "true",
            "objects-s3-timeout-seconds": 4, **settings})
        credentials = cluster.folder / "credentials"
        credentials.write_text("[default]\naws_access_key_id = {access_key_id}\naws_secret_access_key = {secret_access_key}\n"
                               "aws_session_token = {session_token}\n".format(**self.hello))
        cluster.settings["objects-s3-credentials-file"] = credentials
        with cluster:
            yield cluster
            assert not any(secret in cluster.log("gateway") for secret in self.secrets), "a secret is in the log"

    def fault(self, *faults):
        request = urllib.request.Request(f"{self.hello['url']}/_faults", method="PUT", data=json.dumps(faults).encode())
        urllib.request.urlopen(request, timeout=30).read()

    def _get(self, path):
        with urllib.request.urlopen(self.hello["url"] + path, timeout=30) as response:
            return json.load(response)

    def log(self):
        return self._get("/_log")

    def objects(self):
        return self._get("/_objects?images/test/")

    def settled(self, cluster):
        """The objects, once no more of them are deleted: the gateway looks for dead ones every ten seconds."""
        last = set(self.objects()), time.monotonic()

        def is_settled():
            nonlocal last
            found = set(self.objects())
            if found != last[0]:
                last = found, time.monotonic()
            return time.monotonic() - last[1] > 12

        cluster.wait(is_settled, "no more objects are deleted")
        return last[0]

    def images(self, cluster, names):
        """The objects that jobs' results are read from."""
        self.log()
        for name in names:
            assert result(cluster, name).status_code == 200, name
        return {request["path"].partition("/test/")[2] for request in self.log() if request["method"] == "GET"}


def image():
    file = io.BytesIO()
    Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 60).convert("RGB").save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def submit(cluster, number, **fields):
    """A job of a prompt, or of an image to begin with."""
    begun = {"image": image(), "strength": 0.6} if number % 2 else {}
    body = {"prompt": "a red circle", "steps": 12, "seed": number, "size": "64x64", **begun, **fields}
    response = httpx2.post(f"{cluster.url}/v1/jobs", json=body, timeout=90)
    assert response.status_code in (200, 202), response.text
    return response.json()["id"]


def finish(cluster, names):
    """The bytes of the jobs' images, when all have succeeded."""
    def status(name):
        return (cluster.get(f"/v1/jobs/{name}")[1] or {}).get("status")

    for name in names:
        cluster.wait(lambda name=name: status(name) in ("succeeded", "failed", "cancelled"), f"{name} ended")
        assert status(name) == "succeeded", (cluster.get(f"/v1/jobs/{name}"), cluster.log("gateway")[-3000:])
    return [result(cluster, name).content for name in names]


def result(cluster, name):
    return httpx2.get(f"{cluster.url}/v1/jobs/{name}/result", timeout=90)


def kill(cluster, **settings):
    cluster.stop("gateway")
    cluster.settings.update(settings)
    cluster.start_gateway()


def files(cluster):
    return [path for path in (cluster.folder / "gateway.journal.objects").rglob("*") if path.is_file()]


def expected():
    """The bytes that the jobs have without objects, made once."""
    if not hasattr(expected, "made"):
        with Cluster(BINARIES, NANO, settings={"objects-store": "journal"}) as cluster:
            expected.made = finish(cluster, [submit(cluster, number) for number in range(JOBS)])
            assert files(cluster) == []
    return expected.made


def test_files_hold_what_is_large_and_go_with_their_job():
    whole = expected()
    with Cluster(BINARIES, NANO, settings=SMALL) as cluster:
        names = [submit(cluster, number) for number in range(JOBS)]
        for _ in range(3):
            time.sleep(0.2)
            kill(cluster)
            cluster.wait_until_ready()
        assert finish(cluster, names) == whole
        assert all(path.stat().st_mode & 0o077 == 0 for path in files(cluster))
        # What led to the images goes; each image is one file.
        cluster.wait(lambda: len(files(cluster)) == JOBS, "checkpoints and inputs are deleted")
        # A damaged one is not shown, and the others are.
        damaged = files(cluster)[0]
        damaged.write_bytes(bytes([damaged.read_bytes()[0] ^ 1]) + damaged.read_bytes()[1:])
        shown = [result(cluster, name) for name in names]
        assert sorted(answer.status_code for answer in shown) == [200] * (JOBS - 1) + [500], shown
        assert [answer.content for answer in shown if answer.status_code == 200] == [
            data for data, answer in zip(whole, shown) if answer.status_code == 200]
        assert "not those that were written" in next(answer.text for answer in shown if answer.status_code == 500)
        # The setting back: what is in files is still found.
        kill(cluster, **{"objects-store": "journal"})
        cluster.wait_until_ready()
        assert sum(result(cluster, name).status_code == 200 for name in names) == JOBS - 1
        kill(cluster, **{"objects-store": "files", "journal-retention-seconds": 1})
        cluster.wait(lambda: files(cluster) == [], "the files go with the jobs")
        assert cluster.get("/v1/jobs")[1]["data"] == []


def test_s3_that_fails_costs_no_job_and_no_byte():
    whole = expected()
    with S3Server() as server, server.cluster() as cluster:
        server.fault(*({"kind": kind, "method": "PUT", "skip": 4 * place, "times": 3} for place, kind in enumerate(
            ("slow_down", "cut_upload", "cut_after_upload", "damaged_upload"))))
        names = [submit(cluster, number) for number in range(JOBS)]
        assert finish(cluster, names) == whole
        seen = server.log()
        assert {"slow_down", "cut_upload", "cut_after_upload", "damaged_upload"} <= {request["fault"] for request in seen}, seen
        assert all(request["status"] != 403 for request in seen), "a signature is wrong"
        cluster.wait(lambda: len(server.objects()) == JOBS, "checkpoints and inputs are deleted")
        server.fault({"kind": "cut_download", "method": "GET", "times": 2}, {"kind": "wrong_bytes", "method": "GET"})
        assert [result(cluster, name).content for name in names] == whole
        server.fault({"kind": "wrong_bytes", "method": "GET", "times": 2})
        wrong = result(cluster, names[0])
        assert wrong.status_code == 500 and "s3://images/test/" in wrong.text, wrong.text
        assert not any(secret in wrong.text for secret in server.secrets)
        assert result(cluster, names[0]).content == whole[0]
        # Away altogether: jobs end all the same, and what is in the journal stays there.
        server.fault({"kind": "error", "status": 503, "code": "ServiceUnavailable", "times": 1_000_000})
        more = [submit(cluster, number) for number in range(2)]
        assert finish(cluster, more) == whole[:2]
        assert "objects cannot be written" in cluster.log("gateway")
        assert result(cluster, names[0]).status_code == 503
        server.fault()
        cluster.wait(lambda: finish(cluster, [submit(cluster, 2)]) and "objects can be written again" in cluster.log("gateway"),
                     "it is used again")
        assert [result(cluster, name).content for name in names + more] == whole + whole[:2]
        # A restart cannot do without it while a job needs it; it waits for its supervisor, and the job is there.
        late = submit(cluster, 1, steps=200)
        kill(cluster)
        cluster.wait_until_ready()
        assert finish(cluster, [late])
        images = server.images(cluster, [*names, late])
        assert len(images) == JOBS + 1 and images <= set(server.objects())
        kill(cluster, **{"journal-retention-seconds": 1})
        # What was being written at the end of the gateway before stays for a day.
        cluster.wait(lambda: not images & set(server.objects()), "the objects go with the jobs")


def test_an_object_without_a_row_is_deleted_a_day_later():
    whole = expected()
    with S3Server() as server, server.cluster() as cluster:
        # It is stored, and its writer never learns of it: killed between the object and its row.
        server.fault({"kind": "late_answer", "method": "PUT", "seconds": 3, "times": 1, "skip": 2})
        name = submit(cluster, 0)
        seen = []
        cluster.wait(lambda: seen.extend(server.log()) or any(each["fault"] for each in seen), "the object is stored")
        stored = next(each for each in seen if each["fault"])
        kill(cluster)
        cluster.wait_until_ready()
        assert finish(cluster, [name]) == whole[:1]
        images, orphan = server.images(cluster, [name]), stored["path"].partition("/test/")[2]
        assert len(images) == 1 and orphan not in images
        # Others may have been on their way as well; what led to the image is deleted, which takes as long as this.
        kept = server.settled(cluster)
        assert images | {orphan} <= kept, kept
        server.fault({"kind": "late_list", "path": "list-type", "times": 2})
        kill(cluster)
        cluster.wait_until_ready()
        assert server.settled(cluster) == kept, "a list that is late, or too young an object, changes nothing"
        server.fault({"kind": "old_dates", "path": "list-type", "times": 100})
        kill(cluster)
        cluster.wait(lambda: set(server.objects()) == images, "the orphans are deleted, and the image is not")
        cluster.wait_until_ready()
        assert finish(cluster, [name]) == whole[:1]


def test_settings_that_cannot_work_are_named():
    def refused(*flags, environment=None):
        answer = subprocess.run([BINARIES / "gateway", "--check-config", *flags], capture_output=True, text=True, timeout=60,
                                env={**os.environ, **(environment or {})})
        assert answer.returncode != 0
        return answer.stdout + answer.stderr

    assert "objects.store is \"tape\"" in refused("--objects-store", "tape")
    assert "the bucket is \"\"" in refused("--objects-store", "s3")
    assert "has no TLS" in refused("--objects-store", "s3", "--objects-s3-bucket", "images", "--objects-s3-endpoint", "http://192.0.2.1")
    assert "objects.store is not s3" in refused("--objects-s3-bucket", "images")
    with S3Server() as server, server.cluster() as cluster:
        for flags, text in (({"objects-s3-bucket": "another"}, "NoSuchBucket"),
                            ({"objects-s3-credentials-file": "/nowhere"}, "no credentials for S3: neither the file /nowhere")):
            earlier = {name: cluster.settings[name] for name in flags}
            kill(cluster, **flags)
            cluster.wait(lambda: cluster.processes["gateway"].poll() is not None, "the gateway has ended")
            assert text in cluster.log("gateway"), cluster.log("gateway")[-2000:]
            cluster.settings.update(earlier)
        # The journal's objects are in the bucket; elsewhere they are not looked for, and no job fails for it.
        finish(cluster_started(cluster), [submit(cluster, 0)])
        kill(cluster, **{"objects-store": "files"} | {name: value for name, value in (
            ("objects-s3-bucket", ""), ("objects-s3-endpoint", ""))})
        cluster.wait(lambda: cluster.processes["gateway"].poll() is not None, "the gateway has ended")
        assert "objects that the journal names is there" in cluster.log("gateway")


def cluster_started(cluster):
    kill(cluster)
    cluster.wait_until_ready()
    return cluster


if __name__ == "__main__":
    sys.exit(testing.run("objects", testing.functions(globals())))
