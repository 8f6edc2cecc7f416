"""One image through a cluster on a full-size checkpoint, drawn or edited: load time, time per step and peak memory of every stage.

full-size.sh calls it."""

import argparse
import base64
import json
import os
import pathlib
import random
import signal
import struct
import sys
import time
import urllib.request
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "Cluster"))
from cluster import Cluster, STAGES  # noqa: E402


class FullSizeCluster(Cluster):
    """Loading may take minutes."""

    def wait_until_ready(self, timeout_seconds=3600):
        super().wait_until_ready(timeout_seconds)


def events(response):
    """(seconds, data) of each server-sent event."""
    for line in response:
        if line.startswith(b"data: "):
            yield time.monotonic(), json.loads(line[6:])


def random_image(side, seed):
    """A PNG file of side² pixels: blocks of random colours."""
    colours, blocks = random.Random(seed), 16
    rows = [[bytes(colours.randrange(256) for _ in range(3)) for _ in range(blocks)] for _ in range(blocks)]
    scan = b"".join(
        b"\0" + b"".join(row[x * blocks // side] for x in range(side)) for row in (rows[y * blocks // side] for y in range(side)))
    chunks = ((b"IHDR", struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(scan)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)


def draw(cluster, arguments):
    """Draws or edits an image; returns it and when each (stage, step) was first reported: seconds by the clock, and seconds of
    the denoiser's processor time divided by the number of processors, what the clock would show on an idle machine."""
    body = {"prompt": "a red heart on a white table, watercolour", "size": arguments.size, "num_inference_steps": arguments.steps,
            "true_cfg_scale": 1, "seed": 7, "stream": True}
    if arguments.references:
        body["image"] = ["data:image/png;base64," + base64.b64encode(random_image(arguments.reference_side, seed)).decode()
                         for seed in range(arguments.references)]
    if arguments.pipeline:
        body["pipeline"] = arguments.pipeline
    address = "/v1/images/edits" if arguments.references else "/v1/images/generations"
    request = urllib.request.Request(cluster.url + address, json.dumps(body).encode(), {"content-type": "application/json"})
    denoiser = cluster.processes[cluster.names("denoiser")[0]].pid
    start, used, reached = time.monotonic(), processor_seconds(denoiser), {}

    def note(key, seconds):
        reached.setdefault(key, (seconds - start, (processor_seconds(denoiser) - used) / os.cpu_count()))

    with urllib.request.urlopen(request, timeout=6 * 3600) as response:
        for seconds, event in events(response):
            if event["type"].endswith(".progress"):
                note((event["stage"], event["step"]), seconds)
            elif event["type"].endswith(".completed"):
                note("completed", seconds)
                return base64.b64decode(event["b64_json"]), reached
            else:
                raise SystemExit(f"the cluster reports {event}")
    raise SystemExit("the stream ended without an image")


def processor_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    """The kernel's figures of a process in GB: peak and present resident memory, of which anonymous and of files."""
    status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if ":" in line)
    return {key: int(status[field].split()[0]) * 1024 / 1e9
            for key, field in (("peak", "VmHWM"), ("now", "VmRSS"), ("anonymous", "RssAnon"), ("files", "RssFile"))}


def entries(cluster, name):
    """What a stage has logged."""
    return [json.loads(line) for line in cluster.log(name).splitlines() if line.startswith("{")]


def loaded_seconds(cluster, name):
    """What the stage itself says its loading took."""
    for entry in entries(cluster, name):
        if entry.get("message") == "loaded":
            return float(entry.get("seconds", entry.get("metadata", {}).get("seconds", "nan")))
    return float("nan")


def show(cluster, title):
    print(f"== {title}\n{'stage':14}{'load s':>8}{'peak GB':>10}{'now GB':>9}{'anonymous':>11}{'files':>8}")
    for stage in STAGES:
        for name in cluster.names(stage):
            m = memory(cluster.processes[name].pid)
            print(f"{stage:14}{loaded_seconds(cluster, name):8.1f}{m['peak']:10.2f}{m['now']:9.2f}{m['anonymous']:11.2f}{m['files']:8.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binaries")
    parser.add_argument("model")
    parser.add_argument("--output", help="where to write the last image")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--images", type=int, default=1, help="how often to draw it; from the second on its prompt is cached")
    parser.add_argument("--references", type=int, default=0, help="edits so many square images")
    parser.add_argument("--reference-side", type=int, default=1024, help="their side in pixels")
    parser.add_argument("--pipeline", help="what is done with them, where the model leaves it open: img2img")
    parser.add_argument("--denoiser-setting", action="append", default=[], metavar="FLAG=VALUE", help="repeatable")
    arguments = parser.parse_args()
    # SIGTERM must reach the `with` block, which ends the processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    settings = {"jobs-first-step-seconds": 86400, "jobs-step-seconds": 86400, "jobs-timeout-seconds": 604800, "cluster-lease-seconds": 60}
    # Every stage takes all processors: they work one after the other.
    denoiser = dict(setting.split("=", 1) for setting in arguments.denoiser_setting)
    with FullSizeCluster(arguments.binaries, arguments.model, precision="auto", settings=settings, threads=0,
                         stage_settings={"denoiser": denoiser}) as cluster:
        show(cluster, "loaded")
        for entry in entries(cluster, cluster.names("denoiser")[0]):
            if "do not fit" in entry.get("message", ""):
                print(entry["message"])
        for number in range(1, arguments.images + 1):
            image, reached = draw(cluster, arguments)
            if arguments.output:
                pathlib.Path(arguments.output).write_bytes(image)
            steps = [reached[("denoiser", step)] for step in range(1, arguments.steps + 1) if ("denoiser", step) in reached]
            clock, processor = ([later[i] - earlier[i] for earlier, later in zip(steps, steps[1:])] for i in (0, 1))
            print(f"== image {number}: {len(image)} bytes in {reached['completed'][0]:.1f} s")
            print(f"first step done after {steps[0][0]:.1f} s (encoding, what all steps share, and the step; "
                  f"{steps[0][1]:.1f} s of the denoiser's processor time), then per step "
                  + " ".join(f"{t:.1f}" for t in clock) + " s, of processor time "
                  + " ".join(f"{t:.1f}" for t in processor) + f" s; decoding {reached['completed'][0] - steps[-1][0]:.1f} s")
            print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
            show(cluster, "memory")
        print("== as the gateway reports it")
        for worker in cluster.get("/v1/workers")[1]["data"]:
            print(f"{worker['stage']:14}{worker['numerics_class']:34}peak {worker['peak_resident_bytes'] / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
