#!/usr/bin/env python3
"""Scores the edits of a checkpoint: draws images, asks for changes that training never saw, and reads the results.

    evaluate_edits.py --stock                                   # diffusers' pipelines, fp32
    evaluate_edits.py --binaries .build/release --precision bf16 --precision int8
    evaluate_edits.py --gateway http://127.0.0.1:8080           # a cluster that runs already

An edit is right when everything is: the change as asked (whole strings), and what was to be kept of colours, content
and position.
"""

import argparse
import base64
import concurrent.futures
import io
import pathlib
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

import edits
from evaluate import CHECKPOINT, FIRST_SEED, cluster_of, fetch, with_gateway, with_stock_pipeline
from images import damage
from reader import as_array, read_answer
from world import SIDE, Request, another_prompt

AREA = SIDE * SIDE  # pixels of an image to edit, for both text encoder and autoencoder
Asked = tuple[str, Image.Image, int]  # an edit: words, the image, a seed


@dataclass(frozen=True)
class Way:
    """One way to draw and to edit; images come back in the order of what was asked."""

    draw: Callable[[list[tuple[Request, int]]], list[Image.Image]]
    edit: Callable[[list[Asked]], list[Image.Image]]


def edit_with_stock_pipeline(
        checkpoint: pathlib.Path, asked: list[Asked], steps: int, scale: float) -> list[Image.Image]:
    """Edits with diffusers, at this model's sizes; an image's tokens have rotary positions in two dimensions."""
    import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as module
    import torch

    module.CONDITION_IMAGE_SIZE = module.VAE_IMAGE_SIZE = AREA
    pipeline = module.QwenImageEditPlusPipeline.from_pretrained(checkpoint, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    encode, image_token = pipeline.text_encoder.forward, pipeline.text_encoder.config.image_token_id
    # transformers 5 counts these tokens like text unless mm_token_type_ids names them, which diffusers leaves out.
    pipeline.text_encoder.forward = lambda input_ids, **others: encode(
        input_ids=input_ids, mm_token_type_ids=(input_ids == image_token).int(), **others)
    return [
        pipeline(image=image, prompt=prompt, negative_prompt=" ", true_cfg_scale=scale, num_inference_steps=steps,
                 width=image.width, height=image.height, generator=torch.Generator().manual_seed(seed)).images[0]
        for prompt, image, seed in asked]


def _as_png(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def edit_with_gateway(url: str, asked: list[Asked], steps: int, scale: float) -> list[Image.Image]:
    """Edits with a cluster, a few requests at a time."""

    def edit(one: Asked) -> Image.Image:
        prompt, image, seed = one
        return fetch(f"{url}/v1/images/edits", {
            "prompt": prompt, "image": _as_png(image), "negative_prompt": " ", "seed": seed,
            "num_inference_steps": steps,
            "true_cfg_scale": scale, "response_format": "b64_json"})

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(edit, asked))


def before_images(asked: list[tuple[edits.Edit, str]], way: Way) -> list[Image.Image]:
    """The images that are edited: drawn by the same model, some with a grey box over a part."""
    rng = random.Random(3)
    requests = []
    for i, (edit, _) in enumerate(asked):
        requests.append((replace(edit.before, prompt=another_prompt(edit.before, rng)), FIRST_SEED + i))
    images = []
    for (edit, _), image in zip(asked, way.draw(requests)):
        if edit.damaged:
            pixels = damage(np.asarray(image.convert("RGB"), np.float32) / 255, edits.damage_size(edit.before), rng)
            image = Image.fromarray(np.round(pixels * 255).astype(np.uint8))
        images.append(image)
    return images


def score(groups: dict[str, list[tuple[edits.Edit, str]]], images: list[Image.Image], tell: bool) -> dict[str, float]:
    """The share of right edits of each group, and of all."""
    left, scores, all_right = iter(images), {}, []
    for group, asked in groups.items():
        right = []
        for edit, prompt in asked:
            wrong = read_answer(as_array(next(left)), edit.after).wrong(edit.after)
            right.append(not wrong)
            if tell and wrong:
                print(f"{group}: {prompt}: {', '.join(wrong)}", file=sys.stderr)
        scores[group] = float(np.mean(right))
        all_right += right
    return scores | {"all": float(np.mean(all_right))}


def table(groups: dict[str, list], columns: dict[str, dict[str, float]]) -> str:
    """The scores in Markdown."""
    counts = {name: len(asked) for name, asked in groups.items()}
    counts["all"] = sum(counts.values())
    lines = ["| right | edits | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for name, count in counts.items():
        values = " | ".join(f"{column[name]:.1%}".replace("%", " %") for column in columns.values())
        lines.append(f"| {name} | {count} | {values} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=pathlib.Path, default=CHECKPOINT)
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--gateway", metavar="URL")
    parser.add_argument("--binaries", type=pathlib.Path, metavar="DIRECTORY")
    parser.add_argument(
        "--precision", action="append", choices=("fp32", "bf16", "int8", "q4"), help="of --binaries; may be repeated")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scale", type=float, default=3.5, help="true_cfg_scale")
    parser.add_argument("--count", type=int, default=24, help="edits of a group (default %(default)s)")
    parser.add_argument("--tell", action="store_true", help="print what is wrong with each image")
    options = parser.parse_args()
    groups = edits.examination(options.count)
    asked = [one for group in groups.values() for one in group]
    columns = {}

    def evaluate(name: str, way: Way) -> None:
        start = time.monotonic()
        images = before_images(asked, way)
        prompts = [prompt for _, prompt in asked]
        results = way.edit([(*one, FIRST_SEED + i) for i, one in enumerate(zip(prompts, images))])
        seconds = time.monotonic() - start
        print(f"{name}: {len(asked)} images drawn and edited in {seconds:.0f} s", file=sys.stderr, flush=True)
        columns[name] = score(groups, results, options.tell)

    rest = options.steps, options.scale
    if options.stock:
        evaluate("stock pipelines, fp32", Way(
            lambda requests: with_stock_pipeline(options.checkpoint, requests, *rest),
            lambda asked: edit_with_stock_pipeline(options.checkpoint, asked, *rest)))
    by_cluster = lambda url: Way(
        lambda requests: with_gateway(url, requests, *rest), lambda asked: edit_with_gateway(url, asked, *rest))
    if options.gateway:
        evaluate("this cluster", by_cluster(options.gateway))
    for precision in (options.precision or ["bf16"]) if options.binaries else []:
        with cluster_of(options.binaries, options.checkpoint, precision) as cluster:
            evaluate(f"this project, {precision}", by_cluster(cluster.url))
    if not columns:
        parser.error("one of --stock, --gateway, --binaries is needed")
    print(f"\n{options.steps} steps, true_cfg_scale {options.scale}, seeds from {FIRST_SEED}\n\n{table(groups, columns)}")


if __name__ == "__main__":
    main()
