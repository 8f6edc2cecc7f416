#!/usr/bin/env python3
"""What an assistant gains: guided steps of one denoiser, and of one that an idle denoiser assists.

    assistance.py [DIRECTORY OF THE EXECUTABLES] [--blocks N] [--size N] [--steps N] [--precision MODE]

Writes a checkpoint whose transformer has published width and a few blocks of random weights, starts a gateway and stages with one
compute thread each, and makes the same image with one denoiser and with two. Needs two processors that have nothing else to do.
Prints the seconds of a step, its ratio, and whether the bytes are the same.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Cluster"))
from cluster import Cluster  # noqa: E402

NANO = ROOT / "compose/models/nano-qwen-image"


def write_checkpoint(binaries, folder, blocks, precision):
    """A checkpoint with the embedded model's text encoder and VAE sizes, and `blocks` full-size blocks."""
    configuration = folder / "configuration"
    shutil.copytree(NANO, configuration, ignore=shutil.ignore_patterns("*.safetensors", "generation_defaults.json"))
    path = configuration / "transformer/config.json"
    transformer = json.loads(path.read_text())
    transformer |= {"num_layers": blocks, "num_attention_heads": 24, "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56]}
    path.write_text(json.dumps(transformer))
    model = folder / "model"
    command = [binaries / "qwen-image", "synth", "--config", configuration, "--precision", precision, "--packed", "--seed", "1", model]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return model


def make(cluster, size, steps):
    """The image, and the mean seconds of the steps after the third: by then an assistant is there."""
    request = {"prompt": "a red heart", "negative_prompt": "a circle", "true_cfg_scale": 4, "seed": 3, "steps": steps,
               "size": f"{size}x{size}"}
    call = urllib.request.Request(
        f"{cluster.url}/v1/jobs", json.dumps(request).encode(), {"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(call, timeout=60) as response:
        job = json.load(response)["id"]
    ends = {}
    while True:
        state = cluster.get(f"/v1/jobs/{job}")[1]
        ends.setdefault(state["step"], time.monotonic())
        if state["status"] not in ("queued", "running"):
            break
        time.sleep(0.1)  # more would take what is measured of the processors
    assert state["status"] == "succeeded", state
    with urllib.request.urlopen(f"{cluster.url}/v1/jobs/{job}/result", timeout=60) as response:
        image = response.read()
    seen = [step for step in ends if 3 <= step < steps]
    return image, (ends[seen[-1]] - ends[seen[0]]) / (seen[-1] - seen[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", nargs="?", type=pathlib.Path, default=ROOT / ".build/release")
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--precision", default="bf16")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="assistance-") as folder:
        model = write_checkpoint(options.binaries, pathlib.Path(folder), options.blocks, options.precision)
        with Cluster(options.binaries, model, precision=options.precision, threads=1) as cluster:
            alone, one = make(cluster, options.size, options.steps)
            cluster.start("denoiser")
            cluster.wait(lambda: len(cluster.workers("denoiser")) == 2, "two denoisers")
            together, two = make(cluster, options.size, options.steps)
    print(f"{options.blocks} full-size blocks, {options.size}², {options.precision}, one thread each: a guided step takes {one:.3f} s with one "
          f"denoiser, {two:.3f} s with an assistant: {one / two:.2f} times as fast; the bytes are {'the same' if alone == together else 'DIFFERENT'}")
    sys.exit(alone != together)


if __name__ == "__main__":
    main()
