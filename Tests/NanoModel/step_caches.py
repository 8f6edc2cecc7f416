#!/usr/bin/env python3
"""Step caches of the embedded model: speed against error, as a table with a line for each setting.

    step_caches.py --binaries .build/release [--steps 30] [SETTING…]

Every setting draws the examination's prompts on a cluster of its own. Time is that of the denoiser's tasks, relative to the run
without a cache; PSNR is that of the images beside those without a cache; the score is the mean of the shares of right
answers (`evaluate.py`).
"""

import argparse
import pathlib
import sys
import urllib.request

import numpy as np

from evaluate import CHECKPOINT, FIRST_SEED, ROOT, fetch, score
from world import SIDE, examination

sys.path.insert(0, str(ROOT / "Tests/Cluster"))
from cluster import Cluster, free_port  # noqa: E402

SETTINGS = [
    "balanced", "fast",
    *(f"first_block:threshold={threshold},warmup=4,max_consecutive={most}" for threshold, most in (
        (0.05, 2), (0.08, 2), (0.1, 3), (0.15, 3), (0.2, 3), (0.3, 4))),
    *(f"dual_block:front={front},back={back},threshold=0.15,warmup=4" for front, back in ((2, 0), (1, 1), (2, 1))),
    *(f"taylor:interval={interval},order={order}" for interval in (2, 3, 4) for order in (0, 1, 2)),
    "mask:skip=" + "+".join(str(step) for step in range(6, 29, 2)) + ",order=1",
]


def settings(text):
    """The field `cache` of a request."""
    method, _, values = text.partition(":")
    if not values:
        return text
    pairs = [pair.split("=") for pair in values.split(",")]
    return {"method": method} | {name: [int(step) for step in value.split("+")] if name == "skip" else float(value) if name == "threshold"
                                 else int(value) for name, value in pairs}


def metrics(port):
    """What the denoiser tells Prometheus: sums and counts by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def drawn(options, requests, cache):
    """The images, the denoiser's seconds for them, and the share of steps that ran the whole network."""
    port = free_port()
    stages = {"denoiser": {"metrics-address": f"127.0.0.1:{port}"}}
    with Cluster(options.binaries, CHECKPOINT, precision=options.precision, stage_settings=stages) as cluster:
        images = [
            fetch(f"{cluster.url}/v1/images/generations", {
                "prompt": asked.prompt, "negative_prompt": " ", "seed": seed, "steps": options.steps, "true_cfg_scale": options.scale,
                "size": f"{asked.width}x{SIDE}", "response_format": "b64_json", "cache": settings(cache)})
            for asked, seed in requests]
        found = metrics(port)
    whole, part = (found.get(f'qwenimage_denoiser_steps_total{{network="{kind}"}}', 0) for kind in ("whole", "part"))
    return images, found['qwenimage_worker_task_seconds_sum{stage="denoiser"}'], whole / (whole + part)


def psnr(image, other):
    """In dB, of 8-bit channels."""
    error = np.mean((np.asarray(image.convert("RGB"), float) - np.asarray(other.convert("RGB"), float)) ** 2)
    return np.inf if error == 0 else 10 * np.log10(255**2 / error)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=SETTINGS, help="as `qwen-image --cache` takes them (default: a selection)")
    parser.add_argument("--binaries", type=pathlib.Path, default=ROOT / ".build/release")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--scale", type=float, default=3.5, help="true_cfg_scale")
    parser.add_argument("--count", type=int, default=16, help="requests in the large groups (default %(default)s)")
    options = parser.parse_args()
    groups = {name: asked for name, asked in examination(options.count).items() if asked[0].width == SIDE}
    requests = [(asked, FIRST_SEED + i) for i, asked in enumerate(asked for group in groups.values() for asked in group)]
    reference, seconds, _ = drawn(options, requests, "off")
    right = np.mean(list(score(groups, reference, False).values()))
    print(f"{len(requests)} images, {options.steps} steps, true_cfg_scale {options.scale}, {options.precision}; "
          f"{seconds / len(requests) * 1000:.0f} ms of the denoiser for an image without a cache\n", flush=True)
    print("| cache | whole steps | time | PSNR, mean | PSNR, worst tenth | score |\n|---|---|---|---|---|---|", flush=True)
    print(f"| off | 100% | 1.00 | – | – | {right:.1%} |".replace("%", " %"), flush=True)
    for cache in options.settings:
        images, took, share = drawn(options, requests, cache)
        errors = [min(psnr(image, other), 99) for image, other in zip(images, reference)]
        right = np.mean(list(score(groups, images, False).values()))
        row = f"| `{cache}` | {share:.0%} | {took / seconds:.2f} | {np.mean(errors):.1f} | {np.percentile(errors, 10):.1f} | {right:.1%} |"
        print(row.replace("%", " %"), flush=True)


if __name__ == "__main__":
    main()
