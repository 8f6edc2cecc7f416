#!/usr/bin/env python3
"""Denoisers make the predictions of guided steps together: the bytes of one alone, whatever happens to the other.

    assistance_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import contextlib
import pathlib
import sys
import threading
import urllib.request

from cluster import Cluster, free_port

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
# The embedded model's steps take milliseconds; the default is half a second.
EAGER = {"jobs-assisted-step-seconds": 0.0001}
GUIDED = {"prompt": "a red heart on blue", "negative-prompt": "a circle", "true-cfg-scale": 4, "seed": 3, "width": 256, "height": 256}


class Denoisers:
    """The denoisers of a cluster and what they count."""

    def __init__(self, cluster):
        self.cluster, self.ports = cluster, {}

    def start(self):
        port = free_port()
        name = self.cluster.start("denoiser", settings={"metrics-address": f"127.0.0.1:{port}"})
        self.ports[name] = port
        return name

    def count(self, outcome):
        """Predictions that other denoisers were asked for, of all that run."""
        total = 0
        for name, port in self.ports.items():
            if name not in self.cluster.processes:
                continue
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
                for line in response.read().decode().splitlines():
                    if line.startswith("qwenimage_denoiser_assisted_predictions_total") and f'"{outcome}"' in line:
                        total += float(line.rsplit(" ", 1)[1])
        return total

    def roles(self):
        """(who runs a task, who assists), by the number of the process."""
        workers = self.cluster.workers("denoiser")
        running = {worker["pid"]: [task["assists"] for task in worker["running"]] for worker in workers}
        return [pid for pid, tasks in running.items() if False in tasks], [pid for pid, tasks in running.items() if True in tasks]

    def pids(self):
        return {self.cluster.processes[name].pid for name in self.cluster.names("denoiser")}

    def name(self, pid):
        return next(name for name, process in self.cluster.processes.items() if process.pid == pid)


class Generation:
    """`qwen-image generate` in the background."""

    def __init__(self, cluster, name, **flags):
        self.output = cluster.folder / f"{name}.png"
        self.thread = threading.Thread(target=self.run, args=(cluster, flags))
        self.thread.start()

    def run(self, cluster, flags):
        self.result = cluster.generate(self.output, **flags)

    def bytes(self):
        self.thread.join(300)
        assert self.result.returncode == 0, self.result.stderr
        return self.output.read_bytes()


def expected(cluster, **flags):
    output = cluster.folder / "local.png"
    result = cluster.local(output, **flags)
    assert result.returncode == 0, result.stderr
    return output.read_bytes()


@contextlib.contextmanager
def denoising(count=2, settings=EAGER):
    """A cluster, whose first denoiser is replaced by others that serve their metrics."""
    with Cluster(BINARIES, NANO, settings={**settings, "jobs-checkpoint-seconds": 0}) as cluster:
        cluster.stop(cluster.names("denoiser")[0])
        denoisers = Denoisers(cluster)
        for _ in range(count):
            denoisers.start()
        cluster.wait(lambda: {worker["pid"] for worker in cluster.workers("denoiser")} == denoisers.pids(), "the denoisers")
        yield cluster, denoisers


def test_the_bytes_are_those_of_one_denoiser():
    with denoising() as (cluster, denoisers):
        flags = {**GUIDED, "steps": 200}
        drawn = Generation(cluster, "together", **flags).bytes()
        made = denoisers.count("made")
        assert made >= 20, f"{made} predictions were made by the other denoiser"
        assert drawn == expected(cluster, **flags)
        # Both are free afterwards.
        cluster.wait(lambda: all(worker["free_credits"] == worker["credits"] for worker in cluster.workers("denoiser")), "free")


def test_an_assistant_is_killed_and_then_the_denoiser():
    with denoising(count=3) as (cluster, denoisers):
        flags = {**GUIDED, "steps": 200}
        reference = expected(cluster, **flags)
        generation = Generation(cluster, "killed", **flags)
        cluster.wait(lambda: denoisers.roles()[1], "an assistant")
        cluster.stop(denoisers.name(denoisers.roles()[1][0]))
        cluster.wait(lambda: denoisers.roles()[0] and denoisers.roles()[1], "another assistant")
        cluster.stop(denoisers.name(denoisers.roles()[0][0]))
        assert generation.bytes() == reference


def test_a_task_takes_the_assistant():
    with denoising() as (cluster, denoisers):
        flags = {**GUIDED, "steps": 200}
        long = Generation(cluster, "long", **flags)
        cluster.wait(lambda: denoisers.roles()[1], "an assistant")
        short = Generation(cluster, "short", prompt="a blue circle", seed=1, steps=10)
        assert short.bytes() == expected(cluster, prompt="a blue circle", seed=1, steps=10)
        assert long.thread.is_alive(), "the first image was done too early for this test"
        assert long.bytes() == expected(cluster, **flags)


def test_short_steps_are_made_alone():
    with denoising(settings={}) as (cluster, denoisers):
        flags = {**GUIDED, "steps": 100}
        assert Generation(cluster, "alone", **flags).bytes() == expected(cluster, **flags)
        assert denoisers.count("made") + denoisers.count("missed") == 0


if __name__ == "__main__":
    sys.exit(testing.run("assistance", testing.functions(globals())))
