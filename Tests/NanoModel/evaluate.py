#!/usr/bin/env python3
"""Scores a checkpoint: draws the examination's prompts, reads the images, and prints a table with a column for each way of drawing.

    evaluate.py --stock                                   # diffusers' QwenImagePipeline, fp32
    evaluate.py --binaries .build/release --precision bf16 --precision int8
    evaluate.py --gateway http://127.0.0.1:8080           # a cluster that runs already

The ways can be combined. Only --stock needs torch; a real cluster of this project's executables scores all prompts in seconds.
`evaluate_edits.py` scores edits.
"""

import argparse
import base64
import concurrent.futures
import io
import json
import pathlib
import sys
import time
import urllib.request

import numpy as np
from PIL import Image

from reader import as_array, read_answer
from world import SIDE, WIDE, Request, examination

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CHECKPOINT = ROOT / "compose/models/nano-qwen-image"
FIRST_SEED = 1000
SUFFIX = {SIDE: "", WIDE: ", wide"}  # of the groups, by the images' width
Seeded = tuple[Request, int]  # a request and its seed


def with_stock_pipeline(checkpoint: pathlib.Path, requests: list[Seeded], steps: int, scale: float) -> list[Image.Image]:
    """Draws with diffusers; images of one width in batches, each with the seed that it has alone."""
    import torch
    from diffusers import QwenImagePipeline

    pipeline = QwenImagePipeline.from_pretrained(checkpoint, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    images: dict[Seeded, Image.Image] = {}
    for width in {asked.width for asked, _ in requests}:
        of_width = [seeded for seeded in requests if seeded[0].width == width]
        for first in range(0, len(of_width), 16):
            batch = of_width[first : first + 16]
            drawn = pipeline(
                [asked.prompt for asked, _ in batch], negative_prompt=[" "] * len(batch), true_cfg_scale=scale, width=width, height=SIDE,
                num_inference_steps=steps, generator=[torch.Generator().manual_seed(seed) for _, seed in batch]).images
            images.update(zip(batch, drawn))
    return [images[seeded] for seeded in requests]


def fetch(url: str, body: dict) -> Image.Image:
    """The image that a cluster answers with."""
    call = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=600) as response:
        return Image.open(io.BytesIO(base64.b64decode(json.load(response)["data"][0]["b64_json"])))


def with_gateway(url: str, requests: list[Seeded], steps: int, scale: float) -> list[Image.Image]:
    """Draws with a cluster, a few requests at a time."""

    def draw(seeded: Seeded) -> Image.Image:
        asked, seed = seeded
        body = {
            "prompt": asked.prompt, "negative_prompt": " ", "seed": seed, "num_inference_steps": steps, "true_cfg_scale": scale,
            "size": f"{asked.width}x{SIDE}", "response_format": "b64_json"}
        return fetch(f"{url}/v1/images/generations", body)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(draw, requests))


def cluster_of(binaries: pathlib.Path, checkpoint: pathlib.Path, precision: str):
    """A cluster of given executables, to be used in a `with` statement."""
    sys.path.insert(0, str(ROOT / "Tests/Cluster"))
    from cluster import Cluster

    return Cluster(binaries, checkpoint, precision=precision)


def with_executables(binaries: pathlib.Path, checkpoint: pathlib.Path, precision: str, requests: list[Seeded], steps: int, scale: float):
    """Draws with a cluster that is started for it."""
    with cluster_of(binaries, checkpoint, precision) as cluster:
        return with_gateway(cluster.url, requests, steps, scale)


def score(groups: dict[str, list[Request]], images: list[Image.Image], tell: bool) -> dict[str, float]:
    """Shares of right answers: colours by the images' width, the rest by group; strings by character."""
    left, scores = iter(images), {}
    colours = {f"{name} colour{suffix}": [] for suffix in SUFFIX.values() for name in ("background", "foreground")}
    for group, requests in groups.items():
        right = []
        for asked in requests:
            reading = read_answer(as_array(next(left)), asked)
            colours["background colour" + SUFFIX[asked.width]].append(reading.background == asked.background)
            colours["foreground colour" + SUFFIX[asked.width]].append(reading.foreground == asked.foreground)
            if asked.kind == "text":
                right += [a == b for a, b in zip(reading.content, asked.content)]
            else:
                right.append((reading.content, reading.position) == (asked.content, asked.position))
            if tell and reading.wrong(asked):
                print(f"{asked.prompt}: {', '.join(reading.wrong(asked))}", file=sys.stderr)
        scores[group] = float(np.mean(right))
    return scores | {name: float(np.mean(right)) for name, right in colours.items() if right}


def table(groups: dict[str, list[Request]], columns: dict[str, dict[str, float]]) -> str:
    """The scores in Markdown."""
    counts = {name: len(requests) for name, requests in groups.items()}
    for width, suffix in SUFFIX.items():
        total = sum(asked.width == width for requests in groups.values() for asked in requests)
        counts |= {f"{name} colour{suffix}": total for name in ("background", "foreground")}
    lines = ["| right | images | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for name in next(iter(columns.values())):
        values = " | ".join(f"{column[name]:.1%}".replace("%", " %") for column in columns.values())
        lines.append(f"| {name} | {counts[name]} | {values} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=pathlib.Path, default=CHECKPOINT)
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--gateway", metavar="URL")
    parser.add_argument("--binaries", type=pathlib.Path, metavar="DIRECTORY")
    parser.add_argument("--precision", action="append", choices=("fp32", "bf16", "int8", "q4"), help="of --binaries; may be repeated")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scale", type=float, default=3.5, help="true_cfg_scale")
    parser.add_argument("--count", type=int, default=48, help="requests in the large groups (default %(default)s)")
    parser.add_argument("--wide", action="store_true", help="also the groups of 128x64")
    parser.add_argument("--tell", action="store_true", help="print what is wrong in each image")
    options = parser.parse_args()
    groups = {name: asked for name, asked in examination(options.count).items() if options.wide or asked[0].width == SIDE}
    requests = [(asked, FIRST_SEED + i) for i, asked in enumerate(asked for group in groups.values() for asked in group)]
    ways = {}
    if options.stock:
        ways["stock pipeline, fp32"] = lambda: with_stock_pipeline(options.checkpoint, requests, options.steps, options.scale)
    if options.gateway:
        ways["this cluster"] = lambda: with_gateway(options.gateway, requests, options.steps, options.scale)
    for precision in (options.precision or ["bf16"]) if options.binaries else []:
        ways[f"this project, {precision}"] = lambda precision=precision: with_executables(
            options.binaries, options.checkpoint, precision, requests, options.steps, options.scale)
    if not ways:
        parser.error("one of --stock, --gateway, --binaries is needed")
    columns = {}
    for name, draw in ways.items():
        start = time.monotonic()
        images = draw()
        print(f"{name}: {len(requests)} images in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        columns[name] = score(groups, images, options.tell)
    print(f"\n{options.steps} steps, true_cfg_scale {options.scale}, seeds from {FIRST_SEED}\n\n{table(groups, columns)}")


if __name__ == "__main__":
    main()
