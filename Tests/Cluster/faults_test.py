#!/usr/bin/env python3
"""Real faults on real processes: whatever breaks, every accepted job has exactly one result, with the bytes of a run without faults.

    faults_test.py [DIRECTORY OF THE EXECUTABLES] [--faults N] [--seed N]

While clients submit jobs under idempotency keys, processes are killed, frozen and drained, links are cut, held, delayed and damaged, and the
gateway itself is killed and started again. The same faults come again with the same seed, though not at the same moments.
"""

import argparse
import collections
import json
import pathlib
import random
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

from cluster import Cluster, STAGES
from faulty_link import FaultyLink

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "compose/models/nano-qwen-image"
PROMPTS = ("a red circle", "a blue star", "福", '"AB" in green letters')
# (prompt, seed, steps, width, height): a second of work or so each.
REQUESTS = [(PROMPTS[i % 4], 100 + i, 80 + 40 * (i % 4), 64 + 32 * (i % 3), 64) for i in range(16)]
SETTINGS = {"jobs-accept-seconds": 2, "jobs-first-step-seconds": 15, "jobs-step-seconds": 4, "jobs-max-attempts": 100}
WORKERS = {"text-encoder": 2, "denoiser": 3, "vae-decoder": 2}


class FaultyCluster(Cluster):
    """A cluster in which every worker has a link of its own to the gateway."""

    def __init__(self, *arguments, seed, **options):
        super().__init__(*arguments, **options)
        self.random, self.links = random.Random(seed), {}
        self.counts = collections.Counter()
        self.frozen = {}

    def start(self, stage, secret=None, settings=None):
        link = FaultyLink(self.worker_port, seed=self.random.random())
        name = super().start(stage, secret, {"worker-gateways": f"tcp://127.0.0.1:{link.port}", **(settings or {})})
        self.links[name] = link
        return name

    def stop(self, name, number=signal.SIGKILL):
        status = super().stop(name, number)
        if name in self.links:
            self.links.pop(name).close()
        return status

    # Faults

    def any_worker(self):
        return self.random.choice([name for name in self.processes if name != "gateway"])

    def kill(self, name):
        self.stop(name)
        self.start(name.rsplit("-", 1)[0])

    def drain(self, name):
        """A worker is told to stop while another one starts; it may finish what it does."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        self.start(name.rsplit("-", 1)[0])
        self.frozen[name] = (process, time.monotonic() + 20)

    def freeze(self, name):
        process = self.processes[name]
        process.send_signal(signal.SIGSTOP)
        threading.Timer(self.random.uniform(0.5, 6), lambda: process.poll() is None and process.send_signal(signal.SIGCONT)).start()

    def kill_gateway(self):
        super().stop("gateway")
        time.sleep(self.random.uniform(0, 1.5))
        self.start_gateway()

    def fault(self, kind):
        name = self.any_worker()
        link = self.links[name]
        if kind.startswith("kill a "):
            self.kill(self.random.choice(self.names(kind.removeprefix("kill a "))))
        elif kind == "kill the gateway":
            self.kill_gateway()
        elif kind == "drain a worker":
            self.drain(name)
        elif kind == "freeze a worker":
            self.freeze(name)
        elif kind == "reset a link":
            link.cut(refuse_seconds=self.random.choice((0, 0, 1, 3)))
        elif kind == "partition":
            link.hold(self.random.uniform(0.5, 6))
        elif kind == "damage a frame":
            link.damage(self.random.randrange(1, 4))
        elif kind == "slow a link":
            link.delay_seconds = self.random.choice((0, 0.005, 0.02))
        else:
            raise ValueError(kind)
        self.counts[kind] += 1

    def heal(self):
        for link in self.links.values():
            link.damages, link.delay_seconds, link.holding, link.refusing = 0, 0.0, False, False
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)

    def restart_the_dead(self):
        """What an orchestrator does."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                assert name != "gateway", f"the gateway ended by itself with status {process.returncode}:\n{self.log(name)[-3000:]}"
                assert process.returncode in (0, -9), f"{name} ended with status {process.returncode}:\n{self.log(name)[-3000:]}"
                self.kill(name)
        for name, (process, deadline) in list(self.frozen.items()):
            if process.poll() is None and time.monotonic() > deadline:
                process.kill()
            if process.poll() is not None:
                del self.frozen[name]
                self.links.pop(name).close()

    def __exit__(self, *arguments):
        for process, _ in self.frozen.values():
            process.kill()
            process.wait()
        super().__exit__(*arguments)


FAULTS = {
    "kill a text-encoder": 2, "kill a denoiser": 6, "kill a vae-decoder": 2, "kill the gateway": 4, "drain a worker": 2, "freeze a worker": 4,
    "reset a link": 4, "partition": 4, "damage a frame": 4, "slow a link": 2,
}


class Client:
    """Submits jobs one after the other and insists on each until it has its picture."""

    def __init__(self, cluster, expected, seed):
        self.cluster, self.expected, self.random = cluster, expected, random.Random(seed)
        self.accepted, self.failures, self.repeated, self.timeout_seconds = {}, [], 0, 20

    def call(self, method, path, body=None, headers=None):
        """(status, bytes), or (0, b"") when there is no answer."""
        request = urllib.request.Request(
            self.cluster.url + path, method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_seconds) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def insist(self, what, accept, deadline, *arguments):
        """Repeats a call until it is answered; what cannot be right is an error."""
        while True:
            status, data = self.call(*arguments)
            if status in accept:
                return status, data
            # No answer, too many jobs, no gateway ready: all right, for a while.
            assert status in (0, 429, 503) , f"{what}: {status} {data[:300]}"
            assert time.monotonic() < deadline, f"{what}: still {status} {data[:300]}"
            time.sleep(0.1)

    def run(self, done):
        while not done.is_set():
            try:
                self.one_job(time.monotonic() + 240)
            except AssertionError as error:
                self.failures.append(str(error))

    def one_job(self, deadline):
        index = self.random.randrange(len(REQUESTS))
        prompt, seed, steps, width, height = REQUESTS[index]
        body = dict(prompt=prompt, seed=seed, steps=steps, width=width, height=height)
        key = {"idempotency-key": str(uuid.uuid4())}
        _, data = self.insist("submit", (200, 202), deadline, "POST", "/v1/jobs", body, key)
        job = json.loads(data)["id"]
        assert job not in self.accepted, "two submissions got one job"
        self.accepted[job] = index
        if self.random.random() < 0.3:
            _, data = self.insist("submit again", (200, 202), deadline, "POST", "/v1/jobs", body, key)
            assert json.loads(data)["id"] == job, "one key got two jobs"
            self.repeated += 1
        while True:
            _, data = self.insist(f"job {job}", (200,), deadline, "GET", f"/v1/jobs/{job}")
            status = json.loads(data)
            if status["status"] == "finished":
                break
            assert status["status"] in ("queued", "running"), f"job {job}: {data[:600]}"
            assert time.monotonic() < deadline, f"job {job} does not end: {data[:600]}"
            time.sleep(0.2)
        _, picture = self.insist(f"result of {job}", (200,), deadline, "GET", f"/v1/jobs/{job}/result")
        assert picture == self.expected[index], f"job {job} got another picture than request {index} has without faults"


def pictures_without_faults(cluster):
    pictures = []
    for prompt, seed, steps, width, height in REQUESTS:
        path = cluster.folder / f"{seed}.png"
        result = cluster.local(path, prompt=prompt, seed=seed, steps=steps, width=width, height=height)
        assert result.returncode == 0, result.stderr
        pictures.append(path.read_bytes())
    assert len(set(pictures)) == len(pictures)
    return pictures


def run(binaries, faults, seed, secure):
    """Breaks `faults` things while four clients work."""
    with FaultyCluster(binaries, MODEL, settings=SETTINGS, secure=secure, seed=seed) as cluster:
        expected = pictures_without_faults(cluster)
        for stage, count in WORKERS.items():
            for _ in range(count - 1):
                cluster.start(stage)
        clients, done = [Client(cluster, expected, f"{seed} {i}") for i in range(4)], threading.Event()
        threads = [threading.Thread(target=client.run, args=(done,)) for client in clients]
        for thread in threads:
            thread.start()
        try:
            kinds, weights = zip(*FAULTS.items())
            for kind in cluster.random.choices(kinds, weights, k=faults):
                time.sleep(cluster.random.uniform(0.2, 1.2))
                cluster.restart_the_dead()
                cluster.fault(kind)
                assert not any(client.failures for client in clients)
        finally:
            cluster.heal()
            done.set()
            for thread in threads:
                while thread.is_alive():
                    cluster.restart_the_dead()
                    thread.join(0.2)
        return report(cluster, clients, secure)


def report(cluster, clients, secure):
    accepted = sum(len(client.accepted) for client in clients)
    for kind, count in sorted(cluster.counts.items()):
        print(f"    {count:4} × {kind}")
    failures = [failure for client in clients for failure in client.failures]
    print(f"    {sum(cluster.counts.values())} faults, {'CURVE' if secure else 'plaintext'}; {accepted} jobs accepted, "
          f"{sum(client.repeated for client in clients)} submitted again; {accepted - len(failures)} pictures right to the byte", flush=True)
    assert accepted >= 10, "hardly anything was done"
    assert not failures, "\n".join(failures[:10])
    status, data = clients[0].call("GET", "/v1/workers")
    assert status == 200 and json.loads(data)["queued_jobs"] == json.loads(data)["started_jobs"] == 0, data
    return sum(cluster.counts.values())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binaries", nargs="?", default=ROOT / ".build/release", type=pathlib.Path)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"faults: seed {options.seed}", flush=True)
    start, total = time.monotonic(), 0
    # Damaged bytes break CURVE's own seal; without it they reach the checks of frames and messages.
    for secure in (True, False):
        total += run(options.binaries.resolve(), options.faults // 2, options.seed, secure)
    print(f"faults: {total} in {time.monotonic() - start:.0f} s, every accepted job has its picture")


if __name__ == "__main__":
    main()
