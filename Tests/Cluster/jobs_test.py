#!/usr/bin/env python3
"""Jobs through real processes: waiting answers, lists, many jobs at once, deadlines, and webhooks whose receiver fails and whose gateway
is killed.

    jobs_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import base64
import http.server
import json
import pathlib
import random
import sys
import threading
import time

import httpx2
import openai
import standardwebhooks

from cluster import Cluster, wait_until

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
LOOPBACK = {"webhooks-allow-http": "true", "webhooks-allowed-hosts": "127.0.0.0/8", "webhooks-timeout-seconds": 5}
KILLS = 12
# The most steps and images that there may be: several seconds.
LONG = {"steps": 200, "n": 10}


class Receiver:
    """Takes notifications on loopback. Each must be signed; `answer` gives the status for the body of one."""

    def __init__(self, answer=lambda body: 204):
        self.answer, self.taken, self.wrong = answer, [], []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                try:
                    standardwebhooks.Webhook(SECRET).verify(body, dict(self.headers))
                except Exception as error:
                    receiver.wrong.append(f"{error}: {dict(self.headers)}")
                status = receiver.answer(json.loads(body))
                if status < 300:
                    receiver.taken.append((self.headers["webhook-id"], json.loads(body)))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def ids(self):
        return [name for name, _ in self.taken]

    def hook(self, **more):
        return {"webhook": {"url": self.url, "secret": SECRET, **more}}


def submit(cluster, path="/v1/jobs", **fields):
    response = httpx2.post(cluster.url + path, json={"prompt": "a red circle", "steps": 4, **fields}, timeout=90)
    assert response.status_code in (200, 202), response.text
    return response.json()


def job(cluster, name):
    return cluster.get(f"/v1/jobs/{name}")[1]


def ended(cluster, name):
    cluster.wait(lambda: job(cluster, name)["status"] not in ("queued", "running"), f"{name} ended")
    return job(cluster, name)


def restart(cluster):
    cluster.stop("gateway")
    cluster.start_gateway()
    cluster.wait_until_ready()


def test_answers_wait_for_the_job():
    with Cluster(BINARIES, NANO) as cluster:
        response = httpx2.post(f"{cluster.url}/v1/jobs", json={"prompt": "a red circle", "steps": 4}, headers={"prefer": "wait=60"},
                               timeout=90)
        assert response.status_code == 200 and response.json()["status"] == "succeeded", response.text
        assert response.headers["preference-applied"] == "wait=60"
        long = submit(cluster, **LONG)
        # Many wait on one connection each; those that leave change nothing.
        for _ in range(20):
            try:
                httpx2.get(f"{cluster.url}/v1/jobs/{long['id']}?wait=60", timeout=0.05)
            except httpx2.TimeoutException:
                pass
        assert job(cluster, long["id"])["status"] in ("queued", "running")
        began = time.monotonic()
        shown = httpx2.get(f"{cluster.url}/v1/jobs/{long['id']}?wait=0.5", timeout=90).json()
        assert shown["status"] in ("queued", "running") and time.monotonic() - began >= 0.5
        results = []
        waiting = threading.Thread(
            target=lambda: results.append(httpx2.get(f"{cluster.url}/v1/jobs/{long['id']}?wait=60", timeout=90).json()))
        waiting.start()
        httpx2.delete(f"{cluster.url}/v1/jobs/{long['id']}", timeout=90)
        waiting.join()
        assert results[0]["status"] == "cancelled", results


def test_jobs_are_found_by_their_notes():
    with Cluster(BINARIES, NANO) as cluster:
        client = openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="unused", max_retries=0, timeout=300)
        client.images.generate(prompt="a blue star", extra_body={
            "steps": 4, "tags": ["star"], "metadata": {"orderId": "17"}, "timeout_seconds": 300})
        for number in range(7):
            submit(cluster, seed=number, tags=["circle", f"n{number}"])
        late = submit(cluster, **LONG, timeout_seconds=0.2)
        assert ended(cluster, late["id"])["images"][-1]["error"]["code"] == "deadline_exceeded"
        restart(cluster)
        stars = cluster.get("/v1/jobs?tag=star")[1]["data"]
        assert len(stars) == 1 and stars[0]["metadata"] == {"orderId": "17"} and stars[0]["prompt"] == "a blue star", stars
        assert [x["id"] for x in cluster.get("/v1/jobs?status=failed")[1]["data"]] == [late["id"]]
        seen, after = [], ""
        while True:
            page = cluster.get(f"/v1/jobs?tag=circle&status=succeeded,running,queued&limit=3&order=asc{after}")[1]
            seen += [x["tags"][1] for x in page["data"]]
            if not page["has_more"]:
                break
            after = f"&after={page['next']}"
            submit(cluster, tags=["other"])
        assert seen == [f"n{number}" for number in range(7)], seen


def test_many_jobs_are_admitted_together():
    with Cluster(BINARIES, NANO) as cluster:
        lines = "\n".join(json.dumps({"prompt": f"circle {n}", "steps": 4, "idempotency_key": f"k{n}"}) for n in range(20))
        headers = {"content-type": "application/x-ndjson"}
        first = httpx2.post(f"{cluster.url}/v1/jobs/bulk?atomic=true", content=lines, headers=headers, timeout=90)
        assert first.status_code == 200 and first.json()["accepted"] == 20, first.text
        restart(cluster)
        second = httpx2.post(f"{cluster.url}/v1/jobs/bulk", content=lines, headers=headers, timeout=90).json()
        names = [[item["job"]["id"] for item in answer["data"]] for answer in (first.json(), second)]
        assert names[0] == names[1] and all(item["replayed"] for item in second["data"])
        assert {ended(cluster, name)["status"] for name in names[0]} == {"succeeded"}


def test_a_receiver_that_fails_at_first():
    statuses = [500, 503]
    with Receiver(lambda body: statuses.pop(0) if statuses else 204) as receiver, Cluster(BINARIES, NANO, settings=LOOPBACK) as cluster:
        name = submit(cluster, **receiver.hook(), metadata={"a": "b"})["id"]
        cluster.wait(lambda: receiver.taken, "the notification has come")
        wait_until(lambda: job(cluster, name)["webhooks"][0]["deliveries"][0]["status"] == "delivered", "its delivery is known")
        delivery = job(cluster, name)["webhooks"][0]["deliveries"][0]
        assert delivery["attempts"] == 3 and delivery["last_status"] == 204, delivery
        (message, body), = receiver.taken
        assert message == delivery["id"] and body["type"] == "job.completed" and body["data"]["id"] == name
        assert body["data"]["status"] == "succeeded" and body["data"]["metadata"] == {"a": "b"}
        assert receiver.wrong == [], receiver.wrong
        assert cluster.metric("qwenimage_gateway_webhook_attempts_total") == 3


def test_a_gateway_that_is_killed_before_it_has_notified():
    is_open = threading.Event()
    with Receiver(lambda body: 204 if is_open.is_set() else 503) as receiver, Cluster(BINARIES, NANO, settings=LOOPBACK) as cluster:
        name = submit(cluster, **receiver.hook())["id"]
        ended(cluster, name)
        restart(cluster)
        is_open.set()
        cluster.wait(lambda: receiver.taken, "the notification has come")
        assert receiver.ids() == [f"{name}-0-completed"] and receiver.wrong == []


def test_a_gateway_that_is_killed_at_any_instant_around_the_end():
    numbers = random.Random(testing.seed())
    with Receiver() as receiver, Cluster(BINARIES, NANO, settings=LOOPBACK) as cluster:
        names = []
        for number in range(KILLS):
            began = time.monotonic()
            names.append(submit(cluster, steps=20, seed=number, **receiver.hook())["id"])
            ended(cluster, names[-1])
            usual = time.monotonic() - began
            names.append(submit(cluster, steps=20, seed=number, **receiver.hook())["id"])
            # Between the last steps and the notification.
            time.sleep(max(0, usual + numbers.uniform(-0.1, 0.05)))
            restart(cluster)
        for name in names:
            assert ended(cluster, name)["status"] == "succeeded"
        missing = lambda: set(f"{name}-0-completed" for name in names) - set(receiver.ids())
        cluster.wait(lambda: not missing(), "every end is notified of")
        assert receiver.wrong == [], receiver.wrong


def test_private_addresses_are_not_notified():
    with Receiver() as receiver, Cluster(BINARIES, NANO, settings={"webhooks-allow-http": "true"}) as cluster:
        for url in (receiver.url, receiver.url.replace("127.0.0.1", "localhost"), "http://[::ffff:127.0.0.1]/", "http://169.254.169.254/"):
            response = httpx2.post(f"{cluster.url}/v1/jobs", json={"prompt": "a red circle", "webhook": {"url": url}}, timeout=90)
            assert response.status_code == 400 and response.json()["error"]["param"] == "webhook.url", response.text
        # Other ways of writing the address pass for names until they are connected to.
        port = receiver.server.server_port
        names = [submit(cluster, webhook={"url": f"http://{host}:{port}/hook"})["id"] for host in ("127.1", "2130706433", "0x7f000001")]
        for name in names:
            failed = lambda name=name: job(cluster, name)["webhooks"][0]["deliveries"][:1]
            cluster.wait(lambda: failed() and failed()[0]["attempts"] > 0, "an attempt has failed")
            assert "private or special network" in failed()[0]["last_error"], failed()
        assert receiver.taken == [] and receiver.wrong == []


if __name__ == "__main__":
    sys.exit(testing.run("jobs", testing.functions(globals())))
