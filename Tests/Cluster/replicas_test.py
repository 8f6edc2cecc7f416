#!/usr/bin/env python3
"""Three gateways over one PostgreSQL, on real processes with faults: any of them answers for any job, and images continue.

    replicas_test.py [DIRECTORY OF THE EXECUTABLES] [--rounds N] [--seed X]

Proxies stand between each gateway and PostgreSQL, and between the workers and each gateway; a load balancer of this
script's own passes connections on to the gateways in turn. `--rounds` adds rounds of random faults under load.
"""

import argparse
import base64
import concurrent.futures
import contextlib
import json
import pathlib
import random
import re
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

from cluster import Cluster, free_port, wait_until
from postgres import Postgres
from proxy import Proxy

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

NANO = ROOT / "compose/models/nano-qwen-image"
GATEWAYS = ("gateway-a", "gateway-b", "gateway-c")
LEASE_SECONDS = 1.5
STEPS = 200
REQUEST = {"prompt": "a red heart", "seed": 5, "steps": STEPS, "size": "256x256"}


class Balancer:
    """Passes each connection on to the next gateway that takes it."""

    def __init__(self, ports):
        self.ports, self.turn, self.listener = ports, 0, socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client:
            for _ in self.ports:
                self.turn += 1
                try:
                    server = socket.create_connection(("127.0.0.1", self.ports[self.turn % len(self.ports)]), 5)
                except OSError:
                    continue
                with server:
                    server.settimeout(None)
                    other = threading.Thread(target=self._pump, args=(client, server), daemon=True)
                    other.start()
                    self._pump(server, client)
                    other.join(1)
                return

    @staticmethod
    def _pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self):
        self.listener.close()


class Replicas(Cluster):
    """A cluster whose gateways share a journal."""

    def __init__(self, binaries, postgres):
        super().__init__(binaries, NANO)
        self.postgres = postgres
        self.ports = {name: (free_port(), free_port()) for name in GATEWAYS}
        self.databases = {name: Proxy(postgres.port) for name in GATEWAYS}
        self.links = {name: Proxy(self.ports[name][1]) for name in GATEWAYS}
        self.balancer = Balancer([http for http, _ in self.ports.values()])
        self.url = f"http://127.0.0.1:{self.balancer.port}"
        self.metrics_ports = {}

    def start_gateway(self):
        for name in GATEWAYS:
            self.start_one(name)

    def start_one(self, name):
        keys, (http, workers) = self.folder / "keys/gateway", self.ports[name]
        self._spawn(name, "gateway", {
            "http-port": http, "cluster-endpoints": f"tcp://127.0.0.1:{workers}",
            "cluster-secret-key-file": keys / "gateway.secret", "cluster-allowed-keys-directory": keys / "workers",
            "cluster-heartbeat-seconds": 0.3, "cluster-lease-seconds": 3, "shutdown-grace-seconds": 20,
            "journal-url": self.postgres.url(self.databases[name].port), "journal-lease-seconds": LEASE_SECONDS})

    def start(self, stage, secret=None, settings=None):
        port = free_port()
        endpoints = ",".join(f"tcp://127.0.0.1:{proxy.port}" for proxy in self.links.values())
        name = super().start(stage, secret, {"worker-gateways": endpoints, "metrics-address": f"127.0.0.1:{port}"})
        self.metrics_ports[name] = port
        return name

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        self.balancer.close()
        for proxy in (*self.databases.values(), *self.links.values()):
            proxy.close()

    def address(self, name):
        return f"http://127.0.0.1:{self.ports[name][0]}"

    def wait_until_ready(self, timeout_seconds=180):
        for name in GATEWAYS:
            self.wait(lambda: name not in self.processes or self.is_ready(name), f"{name} ready", timeout_seconds)

    def is_ready(self, name):
        status, workers = call(self.address(name), "GET", "/readyz")[0], call(self.address(name), "GET", "/v1/workers")
        return status == 200 and len(json.loads(workers[2] or b'{"data": []}')["data"]) >= 4

    def revive(self, name):
        """Starts a gateway again that has ended."""
        self.processes.pop(name, None)
        self.start_one(name)
        self.wait(lambda: self.is_ready(name), f"{name} ready again")

    def steps(self):
        """Steps that the denoisers have made."""
        total = 0
        for name in self.names("denoiser"):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_ports[name]}/metrics", timeout=10) as response:
                for line in response.read().decode().splitlines():
                    if line.startswith("qwenimage_worker_step_seconds_count"):
                        total += float(line.rsplit(" ", 1)[1])
        return total

    def owner(self, job):
        """The gateway that owns a job, by the epochs in the logs."""
        epoch = self.postgres.query(f"SELECT owner FROM qwen_image.jobs WHERE id = '{job}'")
        for name in self.processes:
            if name in GATEWAYS and self.epoch(name) == epoch:
                return name
        return None

    def epoch(self, name):
        """Of the newest opening."""
        for line in reversed(self.log(name).splitlines()):
            if "gateways of this journal" in line:
                return str(json.loads(line)["own"])
        return None


def call(url, method, path, body=None, headers=None, timeout=60):
    """(status, headers, bytes); status 0 when there was no whole answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
    except Exception:
        return 0, {}, b""


def submit(url, body=None, key=None):
    status, _, data = call(url, "POST", "/v1/jobs", body or REQUEST, {"Idempotency-Key": key} if key else {})
    assert status == 202, f"{status} {data[:300]!r}"
    return json.loads(data)["id"]


def result(url, job):
    def is_over():
        status, _, data = call(url, "GET", f"/v1/jobs/{job}?wait=5")
        state = json.loads(data)["status"] if status == 200 else "?"
        assert state not in ("failed", "cancelled"), data[:500]
        return state == "succeeded"

    wait_until(is_over, f"{job} done", 90)
    end = time.monotonic() + 30
    while True:
        status, headers, data = call(url, "GET", f"/v1/jobs/{job}/result")
        if status == 200:
            return data
        # While PostgreSQL starts, clients are asked to repeat the request.
        assert status == 503 and headers["retry-after"] and time.monotonic() < end, f"{status} {data[:300]!r}"
        time.sleep(0.2)


class Events:
    """Follows the events of a job in the background, attaching again after the last one seen, as an EventSource does."""

    def __init__(self, url, job):
        self.url, self.job, self.ids, self.steps, self.ends, self.status, self.breaks = url, job, [], [], 0, None, 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        end = time.monotonic() + 90
        while self.status is None and time.monotonic() < end:
            headers = {"Last-Event-ID": self.ids[-1]} if self.ids else {}
            request = urllib.request.Request(f"{self.url}/v1/jobs/{self.job}/events", headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    for line in response:
                        self._take(line)
                self.breaks += self.status is None
            except Exception:
                self.breaks += 1
            time.sleep(0.1)

    def _take(self, line):
        if line.startswith(b"id: "):
            self.ids.append(line[4:].strip().decode())
        elif line.startswith(b"data: "):
            data = json.loads(line[6:])
            if data["type"] == "job.ended":
                self.status = data["status"]
            elif data["type"] in ("job.image_completed", "job.image_failed"):
                self.ends += 1
            elif data["image"].get("step"):
                self.steps.append(data["image"]["step"])

    def wait_for_step(self, step):
        wait_until(lambda: self.steps and self.steps[-1] >= step, f"step {step}", 60, lambda: f"{self.steps[-5:]} {self.ids[-5:]}")

    def finish(self):
        self.thread.join(90)
        assert self.status == "succeeded", f"{self.status} after {self.ids[-5:]}"
        # The end of the image comes once, with any owner.
        assert self.ends == 1, f"{self.ends} ends"


class Tests:
    def __init__(self, cluster):
        self.cluster = cluster
        self.expected = result(cluster.url, submit(cluster.url))

    def others(self, name):
        return [self.cluster.address(other) for other in GATEWAYS if other != name]

    def test_any_gateway_answers_for_any_job(self):
        first, second, third = (self.cluster.address(name) for name in GATEWAYS)
        before = self.cluster.steps()
        job = submit(first)
        events = [Events(url, job) for url in (second, third)]
        events[0].wait_for_step(STEPS // 4)
        state = json.loads(call(third, "GET", f"/v1/jobs/{job}")[2])
        assert state["status"] == "running" and state["images"][0]["step"] > 0, state
        listed = json.loads(call(second, "GET", "/v1/jobs?status=running")[2])["data"]
        assert job in [item["id"] for item in listed], listed
        for follower in events:
            follower.finish()
            numbers = [int(name.split("-")[1]) for name in follower.ids[:-1]]
            # The state that comes first has the number of the event before.
            assert numbers[1:] == sorted(set(numbers[1:])) and follower.steps == sorted(follower.steps), follower.ids
        for url in (first, second, third):
            assert result(url, job) == self.expected
        assert self.cluster.steps() - before == STEPS

    def test_cancel_at_another_gateway(self):
        first, second, third = (self.cluster.address(name) for name in GATEWAYS)
        job = submit(first, REQUEST)
        Events(second, job).wait_for_step(5)
        status, _, data = call(third, "DELETE", f"/v1/jobs/{job}")
        assert status == 200 and json.loads(data)["status"] == "cancelled", data[:500]
        assert json.loads(call(second, "GET", f"/v1/jobs/{job}")[2])["status"] == "cancelled"

    def test_one_key_is_one_job(self):
        urls = [self.cluster.address(name) for name in GATEWAYS] * 4
        body = {**REQUEST, "steps": 4}
        with concurrent.futures.ThreadPoolExecutor(len(urls)) as pool:
            jobs = list(pool.map(lambda url: submit(url, body, "race"), urls))
        assert len(set(jobs)) == 1, jobs
        # Its steps must not count in the test that comes next.
        assert len({result(url, jobs[0]) for url in urls[:3]}) == 1

    def metric(self, victim, name):
        """The sum over the other gateways."""
        texts = [call(url, "GET", "/metrics")[2].decode() for url in self.others(victim)]
        return sum(float(value) for text in texts for value in re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE))

    def test_images_continue_when_their_gateway_is_killed(self):
        victim = GATEWAYS[0]
        before = self.cluster.steps()
        adopted = self.metric(victim, "qwenimage_gateway_jobs_adopted_total")
        job = submit(self.cluster.address(victim))
        events = Events(self.others(victim)[0], job)
        events.wait_for_step(STEPS // 4)
        self.cluster.stop(victim, signal.SIGKILL)
        seen = len(events.steps)
        events.finish()
        assert events.steps[seen] >= events.steps[seen - 1] - 20, events.steps[seen - 3:seen + 3]
        assert result(self.cluster.url, job) == self.expected
        # The worker was claimed in the middle of its work: no step was made again.
        made = self.cluster.steps() - before
        assert made == STEPS, f"{made} steps instead of {STEPS}"
        assert self.metric(victim, "qwenimage_gateway_jobs_adopted_total") == adopted + 1
        assert self.metric(victim, 'qwenimage_journal_lease_renewals_total{outcome="extended"}') > 0
        self.cluster.wait(lambda: self.metric(victim, "qwenimage_journal_owners") == 4, "both count two owners", 10)
        self.cluster.revive(victim)

    def test_a_gateway_that_was_stopped_is_fenced(self):
        victim = GATEWAYS[1]
        job = submit(self.cluster.address(victim))
        events = Events(self.others(victim)[0], job)
        events.wait_for_step(STEPS // 4)
        process = self.cluster.processes[victim]
        process.send_signal(signal.SIGSTOP)
        self.cluster.wait(lambda: self.cluster.owner(job) not in (victim, None), "adopted", 30)
        process.send_signal(signal.SIGCONT)
        self.cluster.wait(lambda: process.poll() is not None, "the fenced gateway ends", 30)
        assert process.returncode == 75, process.returncode
        events.finish()
        assert result(self.cluster.url, job) == self.expected
        self.cluster.revive(victim)

    def test_a_gateway_that_ends_hands_over(self):
        victim = GATEWAYS[2]
        url = self.cluster.address(victim)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            before = self.cluster.steps()
            answer = pool.submit(call, url, "POST", "/v1/images/generations", REQUEST, {}, 60)
            self.cluster.wait(lambda: self.cluster.steps() > before + STEPS // 8, "begun", 30)
            begin = time.monotonic()
            self.cluster.processes[victim].send_signal(signal.SIGTERM)
            status, _, data = answer.result()
            assert status == 200, data[:500]
            assert base64.b64decode(json.loads(data)["data"][0]["b64_json"]) == self.expected
            assert self.cluster.steps() - before == STEPS
        process = self.cluster.processes[victim]
        assert process.wait(30) == 0 and "handed jobs over" in self.cluster.log(victim), self.cluster.log(victim)[-2000:]
        assert time.monotonic() - begin < 18, "the grace time was used up"
        self.cluster.revive(victim)

    def test_a_gateway_without_its_database(self):
        victim = GATEWAYS[0]
        database, url = self.cluster.databases[victim], self.cluster.address(victim)
        job = submit(url)
        Events(self.others(victim)[0], job).wait_for_step(STEPS // 8)
        database.mode = "refuse"
        database.cut()
        self.cluster.wait(lambda: self.cluster.owner(job) not in (victim, None), "adopted", 30)
        status, headers, _ = call(url, "POST", "/v1/jobs", REQUEST)
        assert status == 503 and headers["retry-after"], status
        assert call(url, "GET", "/readyz")[0] == 503
        assert result(self.others(victim)[1], job) == self.expected
        database.mode = "pass"
        process = self.cluster.processes[victim]
        self.cluster.wait(lambda: process.poll() is not None, "the fenced gateway ends", 30)
        assert process.returncode == 75, process.returncode
        self.cluster.revive(victim)

    def test_postgresql_restarts(self):
        jobs = [submit(self.cluster.address(name), {**REQUEST, "steps": STEPS // 2}) for name in GATEWAYS]
        events = [Events(self.cluster.url, job) for job in jobs]
        events[0].wait_for_step(5)
        self.cluster.postgres.stop(signal.SIGQUIT)
        time.sleep(1)
        self.cluster.postgres.start()
        images = [result(self.cluster.url, job) for job in jobs]
        assert len(set(images)) == 1
        for follower in events:
            follower.finish()
        for name in GATEWAYS:
            process = self.cluster.processes[name]
            if process.poll() is not None:
                # Who came back last may have lost its lease.
                assert process.returncode == 75, process.returncode
                self.cluster.revive(name)


def rounds(tests, count, seed):
    """Random faults under load; every key gives one job with the bytes of a run without faults."""
    cluster, draws = tests.cluster, random.Random(seed)
    is_over = threading.Event()

    def client(number):
        made = 0
        while not is_over.is_set():
            key = f"load-{seed}-{number}-{made}"
            end = time.monotonic() + 120
            while True:
                status, headers, data = call(cluster.url, "POST", "/v1/images/generations", REQUEST, {"Idempotency-Key": key}, 60)
                if status == 200:
                    break
                assert status in (0, 429, 503), f"{status} {data[:300]!r}"
                assert time.monotonic() < end, f"{key}: still {status}"
                time.sleep(0.2)
            assert base64.b64decode(json.loads(data)["data"][0]["b64_json"]) == tests.expected, key
            made += 1
        return made

    def kill(name):
        cluster.stop(name, signal.SIGKILL)

    def stall(name):
        process = cluster.processes[name]
        process.send_signal(signal.SIGSTOP)
        time.sleep(draws.choice([0.5, 3]))
        process.send_signal(signal.SIGCONT)

    def cut(name):
        proxy = draws.choice([cluster.databases, cluster.links])[name]
        proxy.mode = draws.choice(["hold", "delay", "refuse"])
        proxy.cut()
        time.sleep(draws.choice([0.5, 3]))
        proxy.mode = "pass"

    def end(name):
        cluster.stop(name, signal.SIGTERM)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, number) for number in range(4)]
        for _ in range(count):
            name = draws.choice(GATEWAYS)
            draws.choice([kill, stall, cut, end])(name)
            time.sleep(draws.random())
            for gateway in GATEWAYS:
                process = cluster.processes.get(gateway)
                if process is None or process.poll() is not None:
                    assert process is None or process.returncode in (0, 75), cluster.log(gateway)[-2000:]
                    cluster.revive(gateway)
        is_over.set()
        made = [each.result() for each in clients]
    print(f"{count} faults, {sum(made)} images", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binaries", nargs="?", default=ROOT / ".build/release")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    seed = testing.seed() if options.seed is None else options.seed
    with Postgres() as postgres, Replicas(pathlib.Path(options.binaries).resolve(), postgres) as cluster:
        tests = Tests(cluster)

        def run(name):
            try:
                getattr(tests, name)()
            except BaseException:
                for gateway in GATEWAYS:
                    print(f"--- {gateway}\n{cluster.log(gateway)[-3000:]}", flush=True)
                raise

        names = [name for name in vars(Tests) if name.startswith("test_") and options.only in name]
        cases = [(name, lambda name=name: run(name)) for name in names]
        if options.rounds:
            cases.append(("random_faults", lambda: rounds(tests, options.rounds, seed)))
        return testing.run("replicas", cases)


if __name__ == "__main__":
    sys.exit(main())
