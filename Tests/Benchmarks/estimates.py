#!/usr/bin/env python3
"""How right `estimated_start_at` and `estimated_end_at` are on a steady queue: the embedded model, on one and on two denoisers.

    estimates.py [DIRECTORY OF THE EXECUTABLES] [--jobs 10] [--steps 200] [--size 128x128] [--limit 0.2]

For each job, as of the moment after the last one was submitted: the estimated seconds to its start and its end, what they were, and
the error as a part of what they were. Jobs of less than a second are shown and not judged. Exit status 1: an error is above the limit.
"""

import argparse
import json
import pathlib
import sys
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Cluster"))
from cluster import Cluster  # noqa: E402

MIN_SECONDS = 1


def call(cluster, path, body=None):
    request = urllib.request.Request(
        cluster.url + path, data=json.dumps(body).encode() if body else None, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def follow(cluster, job, times):
    """Notes when the job's denoiser begins and when the job ends."""
    with urllib.request.urlopen(f"{cluster.url}/v1/jobs/{job}/events", timeout=600) as events:
        for line in events:
            if not line.startswith(b"data: "):
                continue
            data, now = json.loads(line[6:]), time.time()
            if data.get("image", {}).get("stage") == "denoiser" and not data["image"].get("queue_position"):
                times.setdefault("start", now)
            if data["type"] == "job.ended":
                times["end"] = now


def begin(cluster, jobs, times):
    """Follows all jobs, each in a thread that ends with it."""
    threads = []
    for job in jobs:
        times[job] = {}
        threads.append(threading.Thread(target=follow, args=(cluster, job, times[job])))
        threads[-1].start()
    return threads


def submit(cluster, number, options):
    return call(cluster, "/v1/jobs", {"prompt": f"a red circle {number}", "seed": number, "steps": options.steps, "size": options.size})["id"]


def measure(cluster, options):
    """Pairs of estimated and actual seconds, to the start and to the end of each job."""
    # What new workers do first is slower, and so may be several workers on one machine with a client that listens.
    for thread in begin(cluster, [submit(cluster, 1000 + number, options) for number in range(6)], {}):
        thread.join()
    times = {}
    jobs = [submit(cluster, number, options) for number in range(options.jobs)]
    threads = begin(cluster, jobs, times)
    time.sleep(0.6)  # estimates are made anew after half a second
    expected = {}
    for job in jobs:
        shown = call(cluster, f"/v1/jobs/{job}")
        expected[job] = (time.time(), shown.get("estimated_start_at"), shown.get("estimated_end_at"))
    for thread in threads:
        thread.join()
    rows = []
    for job in jobs:
        now, start, end = expected[job]
        for what, estimate in (("start", start), ("end", end)):
            actual = times[job].get(what, now) - now
            if actual > 0 and (estimate is not None or actual >= MIN_SECONDS):
                rows.append((job, what, None if estimate is None else estimate - now, actual))
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binaries", nargs="?", default=ROOT / ".build/release")
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--size", default="128x128")
    parser.add_argument("--limit", type=float, default=0.2)
    options = parser.parse_args()
    status = 0
    for denoisers in (1, 2):
        with Cluster(pathlib.Path(options.binaries).resolve(), ROOT / "compose/models/nano-qwen-image") as cluster:
            for _ in range(denoisers - 1):
                cluster.start("denoiser")
            cluster.wait(lambda: len(cluster.workers("denoiser")) == denoisers, f"{denoisers} denoisers")
            print(f"{denoisers} denoiser(s), {options.jobs} jobs of {options.steps} steps, {options.size}")
            worst = 0
            for job, what, estimate, actual in measure(cluster, options):
                error = 1.0 if estimate is None else abs(estimate - actual) / actual
                is_judged = actual >= MIN_SECONDS
                shown = "none" if estimate is None else f"{estimate:.2f}"
                print(f"  {job[:12]} {what:5}  estimated {shown:>7} s  actual {actual:7.2f} s  error {error:6.1%}"
                      + ("" if is_judged else "  (short)"))
                if is_judged:
                    worst = max(worst, error)
            print(f"  largest error {worst:.1%}, limit {options.limit:.0%}")
            if worst > options.limit:
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
