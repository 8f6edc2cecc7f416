#!/usr/bin/env python3
"""A rolling upgrade of real processes while requests run: executables of two versions beside each other, in every order. Afterwards
every accepted job has exactly one result, with the bytes that one process of either version gives.

    upgrade_test.py OLD NEW [--jobs N] [--seed X] [--only TEST]

OLD and NEW are directories of executables. Each test ends when so many jobs are done and the upgrade is over.
"""

import argparse
import collections
import concurrent.futures
import pathlib
import signal
import sys
import threading
import time

from cluster import STAGES, Cluster
from faults_test import NANO, Client, Draws, check, draws, expected_images, explain, requests_of_images, testing

# Beside the one that a cluster starts with: a stage is never without a worker.
SPARE = 1


class Upgrade(Cluster):
    """A cluster whose gateway and whose workers are of different versions."""

    def __init__(self, gateway, workers, **options):
        super().__init__(gateway, NANO, **options)
        self.gateway_version, self.worker_version, self.counts = gateway, workers, collections.Counter()

    def start_gateway(self):
        self.binaries = self.gateway_version
        super().start_gateway()

    def start(self, stage, secret=None, settings=None):
        self.binaries = self.worker_version
        return super().start(stage, secret, settings)

    def versions(self):
        """Of what runs: directories of executables, the gateway's and the workers'."""
        folders = {name: pathlib.Path(f"/proc/{process.pid}/exe").resolve().parent for name, process in self.processes.items()}
        return folders.pop("gateway"), set(folders.values())

    def replace_gateway(self, version):
        """As a supervisor does: SIGTERM, then the next one on the same journal."""
        self.gateway_version = version
        assert self.stop("gateway", signal.SIGTERM) == 0, self.log("gateway")[-2000:]
        self.start_gateway()
        self.wait_until_ready()
        self.counts["gateways replaced"] += 1

    def replace_workers(self, version):
        """One by one: each new one serves before an old one goes."""
        self.worker_version = version
        for stage in STAGES:
            for old in self.names(stage):
                before = len(self.workers(stage))
                self.start(stage)
                self.wait(lambda: len(self.workers(stage)) > before, f"the new {stage} there")
                code = self.stop(old, signal.SIGTERM)
                assert code == 0, f"{old} ended with {code}: {self.log(old)[-2000:]}"
                self.counts[f"{stage} replaced"] += 1

    def numerics(self):
        return {worker["stage"]: worker["numerics_class"] for worker in self.get("/v1/workers")[1]["data"]}


def both(old, new):
    """What each version alone says of its arithmetic, and the images that a cluster may give: one each, or two where the class of
    equal results differs."""
    classes, images = [], []
    for version in (old, new):
        with Upgrade(version, version) as cluster:
            requests = requests_of_images(cluster)
            classes.append(cluster.numerics())
            images.append(expected_images(cluster, requests))
    changed = {stage for stage in STAGES if classes[0][stage] != classes[1][stage]}
    for request, earlier, later in zip(requests, *images):
        assert changed or earlier == later, f"the numerics classes are the same, but not the bytes of {request[0]['prompt']}"
    print(f"    numerics classes: {'all the same' if not changed else f'other ones of {sorted(changed)}'}", flush=True)
    return [set(pair) for pair in zip(*images)]


def run(cluster, requests, expected, upgrade, count):
    """Clients continue until `upgrade` is over and `count` jobs are done; then all they have asked for must be there."""
    stop, over = threading.Event(), threading.Event()
    clients, done = Client(cluster.url, collections.Counter()), []
    start = time.monotonic()

    def draw(number):
        draws.begin(f"client {number}")
        ways = [clients.by_polling, clients.by_waiting, clients.by_events]
        round_number = 0
        while not stop.is_set() and not (over.is_set() and len(done) >= count):
            index = (number + 5 * round_number) % len(expected)
            key = f"{number}-{round_number}"
            image = ways[(number + round_number) % len(ways)](requests[index][0], key)
            assert image in expected[index], f"{key} got another image"
            done.append(key)
            round_number += 1

    def change():
        upgrade(cluster)
        over.set()

    with concurrent.futures.ThreadPoolExecutor(7) as pool:
        jobs = [pool.submit(draw, number) for number in range(6)] + [pool.submit(change)]
        try:
            for job in concurrent.futures.as_completed(jobs):
                job.result()
        except BaseException:
            explain(cluster, cluster)
            raise
        finally:
            stop.set()
    check(cluster, clients, done)
    refused = {name: number for name, number in clients.counts.items() if name not in ("answer 200", "answer 202")}
    print(f"    {len(done)} jobs in {time.monotonic() - start:.0f} s, {dict(cluster.counts)}; asked again after {refused}", flush=True)


def tests(old, new, count):
    state = {}

    def expected():
        if not state:
            state["images"] = both(old, new)
        return state["images"]

    def attempt(gateway, workers, upgrade, after):
        images = expected()
        settings = {"jobs-max-attempts": 100}
        with Upgrade(gateway, workers, settings=settings) as cluster:
            requests = requests_of_images(cluster)
            for stage in STAGES[2:]:
                for _ in range(SPARE):
                    cluster.start(stage)
            run(cluster, requests, images, upgrade, count)
            assert cluster.versions() == after, cluster.versions()

    def workers_first(cluster):
        cluster.replace_workers(new)
        cluster.replace_gateway(new)

    def gateway_first(cluster):
        cluster.replace_gateway(new)
        cluster.replace_workers(new)

    def nothing(cluster):
        pass

    return [
        ("old_gateway_new_workers", lambda: attempt(old, new, nothing, (old, {new}))),
        ("new_gateway_old_workers", lambda: attempt(new, old, nothing, (new, {old}))),
        ("workers_first_then_the_gateway", lambda: attempt(old, old, workers_first, (new, {new}))),
        ("the_gateway_first_then_workers", lambda: attempt(old, old, gateway_first, (new, {new}))),
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("old", type=pathlib.Path)
    parser.add_argument("new", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--only")
    options = parser.parse_args()
    Draws.seed = testing.seed() if options.seed is None else options.seed
    chosen = tests(options.old.resolve(), options.new.resolve(), options.jobs)
    return testing.run("upgrade", [test for test in chosen if options.only in (None, test[0])])


if __name__ == "__main__":
    sys.exit(main())
