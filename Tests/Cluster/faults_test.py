#!/usr/bin/env python3
"""Faults on real processes, under load: afterwards every accepted job has exactly one result, with the bytes of a run without faults.

    faults_test.py [DIRECTORY OF THE EXECUTABLES] [--faults N] [--seed X]

The jobs are images of prompts, edits, inpaintings and images to begin with, and in a cluster of another model layers. Stages and the
gateway are killed (-9), stopped (SIGSTOP) and restarted; connections between workers and the gateway are cut, held,
delayed and corrupted by a proxy; clients leave and come back; the journal's disk is filled (a small tmpfs, as root).

A seed gives every client and every kind of fault the same random numbers again; how they interleave is up to the machine.
"""

import argparse
import base64
import collections
import concurrent.futures
import http.client
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

from PIL import Image

from cluster import PATIENCE_SECONDS, STAGES, Cluster
from models import checkpoint
from proxy import Proxy

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

NANO = ROOT / "compose/models/nano-qwen-image"
INPUTS = ROOT / "Tests/Golden/tiny/inputs"
STEPS = 150
# What a client may meet while the gateway is away, full or in another's hands.
PATIENT = {409, 429, 503, 507}


class Draws(threading.local):
    """Random numbers of the current thread; `begin` gives it a sequence of its own."""

    seed = 0

    def __init__(self):
        self.random = random.Random(Draws.seed)

    def begin(self, name):
        self.random = random.Random(f"{Draws.seed} {name}")


draws = Draws()


class Disk:
    """A disk of 48 MB for the journal, if this process may mount one; else an ordinary folder that cannot be filled."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="qwen-image-disk-"))
        mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(self.folder)]
        self.is_small = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0

    def fill(self):
        try:
            with open(self.folder / "ballast-of-others", "wb", buffering=0) as file:
                while file.write(b"\0" * (1 << 18)):
                    pass
        except OSError:
            pass

    def free(self):
        (self.folder / "ballast-of-others").unlink(missing_ok=True)

    def close(self):
        if self.is_small:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)
        subprocess.run(["rm", "-rf", str(self.folder)], check=False)


class Client:
    """Submits jobs with keys, and does not give up until it has each image."""

    def __init__(self, url, counts):
        self.url, self.counts, self.jobs = url, counts, {}

    def call(self, method, path, body=None, key=None, timeout=20, accept=None):
        """(status, headers, bytes); status 0 when there was no whole answer."""
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        if accept:
            headers["Accept"] = accept
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            try:
                return error.code, error.headers, error.read()
            except (OSError, http.client.HTTPException):
                return 0, {}, b""
        except (OSError, http.client.HTTPException):
            return 0, {}, b""

    def patiently(self, method, path, good, **arguments):
        """Asks again until the answer is one of `good`."""
        end = time.monotonic() + 2 * PATIENCE_SECONDS
        while True:
            status, headers, data = self.call(method, path, **arguments)
            self.counts[f"answer {status}"] += 1
            if status in good:
                return status, headers, data
            assert status == 0 or status in PATIENT, f"{method} {path}: {status} {data[:500]!r}"
            assert time.monotonic() < end, f"{method} {path}: still {status} {data[:300]!r}"
            time.sleep(0.1 + draws.random.random() * 0.3)

    def submit(self, request, key):
        _, _, data = self.patiently("POST", "/v1/jobs", {202}, body=json.dumps(request).encode(), key=key)
        return self.note(key, json.loads(data)["id"])

    def note(self, key, job):
        """One key, one job, whenever it is asked."""
        assert self.jobs.setdefault(key, job) == job, f"{key} is {job} and {self.jobs[key]}"
        return job

    def result(self, job, layers):
        end = time.monotonic() + 2 * PATIENCE_SECONDS
        while True:
            status, _, data = self.patiently("GET", f"/v1/jobs/{job}", {200})
            state = json.loads(data)
            assert state["status"] in ("queued", "running", "succeeded"), f"{job}: {data[:600]!r}"
            if state["status"] == "succeeded":
                return b"".join(
                    self.patiently("GET", f"/v1/jobs/{job}/result?layer={layer}", {200})[2] for layer in range(layers))
            assert time.monotonic() < end, f"{job} does not end: {data[:600]!r}"
            time.sleep(0.1)

    def by_polling(self, request, key):
        job = self.submit(request, key)
        image = self.result(job, request.get("layers", 1))
        assert self.submit(request, key) == job
        return image

    def by_waiting(self, request, key):
        body = json.dumps(request).encode()
        _, headers, data = self.patiently("POST", "/v1/images/generations", {200}, body=body, key=key, timeout=60)
        self.note(key, headers["location"].rsplit("/", 1)[1])
        return b"".join(base64.b64decode(file["b64_json"]) for file in json.loads(data)["data"])

    def by_leaving(self, request, key):
        """Leaves in the middle, and comes back with the key."""
        self.call("POST", "/v1/images/generations", body=json.dumps(request).encode(), key=key, timeout=0.05 + draws.random.random() * 0.4)
        self.counts["client left"] += 1
        return self.by_waiting(request, key)

    def by_events(self, request, key):
        """Follows the events, attaching again after the last one seen."""
        job, layers = self.submit(request, key), request.get("layers", 1)
        last, end = None, time.monotonic() + 2 * PATIENCE_SECONDS
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            call = urllib.request.Request(f"{self.url}/v1/jobs/{job}/events", headers=headers)
            try:
                with urllib.request.urlopen(call, timeout=30) as response:
                    if response.status == 204:
                        return self.result(job, layers)
                    for line in response:
                        if line.startswith(b"id: "):
                            last = line[4:].strip().decode()
                        elif line.startswith(b"data: "):
                            data = json.loads(line[6:])
                            if data["type"] == "job.ended":
                                assert data["status"] == "succeeded", data
                                return self.result(job, layers)
                self.counts["events broken"] += 1
            except urllib.error.HTTPError as error:
                assert error.code in PATIENT, error
            except (OSError, http.client.HTTPException):
                self.counts["events broken"] += 1
            assert time.monotonic() < end, f"the events of {job} do not end"
            time.sleep(0.1)


class Faults:
    """Does something bad every now and then, and makes it good again."""

    def __init__(self, cluster, proxy, disk):
        self.cluster, self.proxy, self.disk = cluster, proxy, disk
        self.counts, self.lock = collections.Counter(), threading.Lock()
        self.next_stage = itertools.cycle(STAGES)

    @property
    def random(self):
        return draws.random

    def worker(self):
        names = [name for name in list(self.cluster.processes) if name != "gateway"]
        return self.random.choice(names)

    def kill_worker(self):
        """Of every stage in turn."""
        stage = next(self.next_stage)
        name = self.random.choice(self.cluster.names(stage))
        self.cluster.stop(name, signal.SIGKILL)
        self.counts[f"{stage} killed"] += 1
        self.start(stage)

    def restart_worker(self):
        name = self.worker()
        stage = name.rsplit("-", 1)[0]
        self.cluster.stop(name, signal.SIGTERM)
        self.counts[f"{stage} restarted"] += 1
        self.start(stage)

    def start(self, stage):
        port = self.random.choice([self.proxy.port, self.proxy.port, self.cluster.worker_port])
        self.cluster.start(stage, settings={"worker-gateways": f"tcp://127.0.0.1:{port}"})

    def freeze_worker(self):
        name = self.worker()
        self.freeze(name, self.random.choice([0.3, 1, 4.5]))
        self.counts[f"{name.rsplit('-', 1)[0]} stopped"] += 1

    def freeze_gateway(self):
        self.freeze("gateway", self.random.choice([0.3, 1, 2]))
        self.counts["gateway stopped"] += 1

    def freeze(self, name, seconds):
        process = self.cluster.processes[name]
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)

    def kill_gateway(self):
        self.cluster.stop("gateway", signal.SIGKILL)
        self.counts["gateway killed"] += 1
        time.sleep(self.random.choice([0, 0, 0.5, 2]))
        self.cluster.start_gateway()
        # Often too soon for anything to be finished.
        time.sleep(self.random.choice([0.05, 0.3, 1.5]))

    def restart_gateway(self):
        self.cluster.stop("gateway", signal.SIGTERM)
        self.counts["gateway restarted"] += 1
        self.cluster.start_gateway()
        time.sleep(0.5)

    def cut(self):
        self.proxy.cut()
        self.counts["connections cut"] += 1

    def disturb(self, mode):
        self.proxy.mode = mode
        time.sleep(self.random.choice([0.3, 1, 4]))
        self.proxy.mode = "pass"
        self.counts[f"network: {mode}"] += 1

    def fill_disk(self):
        self.disk.fill()
        time.sleep(self.random.choice([0.2, 1, 2]))
        self.disk.free()
        self.counts["disk filled"] += 1

    def total(self):
        return sum(self.counts.values())

    def loop(self, name, kinds, pause, is_over):
        draws.begin(name)
        while not is_over():
            time.sleep(self.random.random() * pause)
            self.random.choice(kinds)()
            self.revive()

    def revive(self):
        """What has ended by itself is a fault of ours, except for a gateway that finds the disk full."""
        with self.lock:
            for name, process in list(self.cluster.processes.items()):
                if process.poll() is None:
                    continue
                log = self.cluster.log(name)[-1500:]
                assert name == "gateway" and "full" in log or process.returncode == -signal.SIGKILL, f"{name} has ended: {log}"
                if name == "gateway":
                    self.cluster.start_gateway()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binaries", nargs="?", default=ROOT / ".build/release")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    Draws.seed = testing.seed() if options.seed is None else options.seed

    def attempt(is_secure, model=NANO, requests=requests_of_images, count=-(-options.faults // 2)):
        draws.begin("main")
        disk = Disk()
        try:
            run(pathlib.Path(options.binaries).resolve(), disk, count, is_secure, model, requests)
        finally:
            disk.close()

    def layers():
        with checkpoint("checkpoint-layered", "QwenImageLayeredPipeline", reference_area=4096, max_steps=400) as model:
            attempt(True, model, requests_of_layers, count=-(-options.faults // 4))

    # Damaged bytes break CURVE's own seal; without it they reach the checks of frames and messages.
    return testing.run("faults", [
        ("faults_with_curve", lambda: attempt(True)), ("faults_in_plaintext", lambda: attempt(False)), ("faults_of_layers", layers)])


def requests_of_images(cluster):
    """Pairs of a request and the flags with which `qwen-image local` makes the same image."""
    star, heart, mask = (cluster.folder / f"{name}.png" for name in ("star", "heart", "mask"))
    for path, prompt in ((star, "a blue star"), (heart, "a red heart")):
        result = cluster.local(path, prompt=prompt, seed=1, steps=8)
        assert result.returncode == 0, result.stderr
    Image.new("L", (64, 64)).save(mask)
    with Image.open(mask) as image:
        image.paste(255, (16, 16, 48, 48))
        image.save(mask)
    prompts = [f"a {color} {shape}" for color, shape in zip(("red", "blue", "green", "red", "blue"), ("star", "heart", "circle", "circle", "star"))]
    return [one(prompt, STEPS) for prompt in prompts] + [
        one("a blue circle", STEPS, cache="fast"), one("a green heart", STEPS, cache={"method": "taylor", "interval": 3, "order": 2}),
        one("make the star red", STEPS // 2, images=[star]),
        # Checkpoints of these samplers have a history.
        one("make the background yellow", STEPS // 3, images=[heart, star], sampler="er_sde"),
        one("a red circle", STEPS, images=[star], mask=mask, strength=0.9, sampler="unipc"),
        one("a green star", STEPS, images=[star], strength=0.7, pipeline="img2img", sampler="dpmpp_2m_sde")]


def requests_of_layers(cluster):
    return [one(prompt, STEPS, images=[INPUTS / f"{image}.png"], layers=layers) for prompt, image, layers in (
        ("a red circle", "rgba", 3), ("a star", "rgba", 2), ("a heart", "exact", 2), ("an odd one", "odd", 4))]


def one(prompt, steps, images=(), mask=None, **fields):
    """A request with all that differs from the model's defaults, and the flags that mean the same."""
    seed = len(prompt)
    request = {"prompt": prompt, "seed": seed, "num_inference_steps": steps, **fields}
    flags = ["--prompt", prompt, "--seed", seed, "--steps", steps]
    if images:
        request["image"] = [data_url(image) for image in images]
    if mask:
        request["mask"] = data_url(mask)
        flags += ["--mask", mask]
    for image in images:
        flags += ["--image", image]
    for name, value in fields.items():
        if isinstance(value, dict):  # the settings of a step cache
            value = value["method"] + ":" + ",".join(f"{key}={item}" for key, item in value.items() if key != "method")
        flags += [f"--{name}", value]
    return request, flags


def data_url(path):
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def expected_images(cluster, requests):
    """What one process gives, without any cluster: the files of each image, one behind the other."""
    images = []
    for request, flags in requests:
        folder = pathlib.Path(tempfile.mkdtemp(dir=cluster.folder))
        arguments = ["local", "--model", cluster.model, "--precision", cluster.precision, "--output", folder / "image.png", *flags]
        result = subprocess.run([cluster.binaries / "qwen-image", *map(str, arguments)], capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
        files = sorted(folder.iterdir())
        assert len(files) == request.get("layers", 1), files
        images.append(b"".join(file.read_bytes() for file in files))
    assert len(set(images)) == len(images)
    return images


def run(binaries, disk, count, is_secure, model, requests_of):
    settings = {
        "jobs-accept-seconds": 2, "jobs-max-attempts": 100, "jobs-step-seconds": 4, "jobs-first-step-seconds": 8,
        "journal-path": disk.folder / "gateway.journal", "journal-reserve-bytes": 12 << 20, "shutdown-grace-seconds": 0}
    start = time.monotonic()
    with Cluster(binaries, model, settings=settings, secure=is_secure) as cluster:
        requests = requests_of(cluster)
        expected = expected_images(cluster, requests)
        proxy = Proxy(cluster.worker_port, Draws.seed)
        for stage in STAGES:
            cluster.start(stage, settings={"worker-gateways": f"tcp://127.0.0.1:{proxy.port}"})
        faults = Faults(cluster, proxy, disk)
        begin = time.monotonic()
        try:
            clients, done = attack(cluster, faults, [request for request, _ in requests], expected, count)
            check(cluster, clients, done)
        except BaseException:
            explain(cluster, faults)
            raise
        proxy.close()
        report(faults, clients, done, begin, start, is_secure)


def attack(cluster, faults, requests, expected, count):
    """Clients and faults at once, until there were enough faults and a worker of each stage was killed; then everything is
    healed and the clients finish."""
    stop = threading.Event()
    clients, done = Client(cluster.url, collections.Counter()), []

    def is_over():
        return stop.is_set() or faults.total() >= count and all(faults.counts[f"{stage} killed"] for stage in STAGES)

    def draw(number):
        draws.begin(f"client {number}")
        ways = [clients.by_polling, clients.by_waiting, clients.by_leaving, clients.by_events]
        round_number = 0
        while not is_over():
            index = (number + 5 * round_number) % len(expected)
            key = f"{number}-{round_number}"
            image = ways[(number + round_number) % len(ways)](requests[index], key)
            assert image == expected[index], f"{key} got another image"
            done.append(key)
            round_number += 1

    gateway = [faults.kill_gateway, faults.kill_gateway, faults.freeze_gateway, faults.restart_gateway]
    if faults.disk.is_small:
        gateway.append(faults.fill_disk)
    network = [faults.cut, faults.cut] + [lambda mode=mode: faults.disturb(mode) for mode in ("delay", "corrupt", "hold", "refuse")]
    workers = [faults.kill_worker, faults.kill_worker, faults.freeze_worker, faults.restart_worker]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        jobs = [pool.submit(draw, number) for number in range(6)]
        jobs += [
            pool.submit(faults.loop, name, kinds, pause, is_over)
            for name, kinds, pause in (("gateway", gateway, 3), ("network", network, 2), ("workers", workers, 2))]
        try:
            for job in concurrent.futures.as_completed(jobs):
                job.result()
        finally:
            stop.set()
            faults.proxy.mode = "pass"
            faults.disk.free()
    return clients, done


def check(cluster, clients, done):
    """The gateway itself says that there is exactly one job for every key, and that each has succeeded."""
    cluster.wait_until_ready()
    listed, after = [], ""
    while True:
        status, page = cluster.get(f"/v1/jobs?limit=100{after}")
        assert status == 200, page
        listed += page["data"]
        if not page["has_more"]:
            break
        after = f"&after={page['data'][-1]['id']}"
    names = [job["id"] for job in listed]
    assert len(set(names)) == len(names) == len(clients.jobs) == len(done), (len(names), len(clients.jobs), len(done))
    assert set(names) == set(clients.jobs.values())
    assert all(job["status"] == "succeeded" for job in listed), [job for job in listed if job["status"] != "succeeded"]


def explain(cluster, faults):
    """What there is to see when something went wrong."""
    print(f"faults so far: {dict(faults.counts)}")
    for name, process in cluster.processes.items():
        print(f"== {name}: {'running' if process.poll() is None else f'ended with {process.returncode}'}\n{cluster.log(name)[-3000:]}")
    for path in ("/v1/workers", "/v1/jobs?limit=20"):
        print(f"== {path}: {json.dumps(cluster.get(path))[:6000]}", flush=True)


def report(faults, clients, done, begin, start, is_secure):
    for name, count in sorted(faults.counts.items()):
        print(f"    {count:4} {name}")
    answers = ", ".join(f"{name} {count}" for name, count in sorted(clients.counts.items()))
    print(f"    clients: {answers}; frames corrupted: {faults.proxy.corrupted}")
    now = time.monotonic()
    print(f"faults: {'CURVE' if is_secure else 'plaintext'}: {faults.total()} faults in {now - begin:.0f} s, {len(done)} jobs accepted, each with one result and the right bytes "
          f"({now - start:.0f} s in all)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
