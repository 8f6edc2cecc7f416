#!/usr/bin/env python3
"""The embedded model draws through a real cluster what fixed prompts ask for: catches whatever breaks prompt-following, not only arithmetic.

    prompt_following_test.py [DIRECTORY OF THE EXECUTABLES]

QWEN_IMAGE_TEST_PRECISIONS (default "bf16,int8,q4") names the arithmetic to test. Needs numpy and Pillow.
"""

import base64
import concurrent.futures
import io
import json
import os
import pathlib
import sys
import urllib.request

from PIL import Image

from cluster import Cluster

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/NanoModel"))
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402
from reader import as_array, read_answer  # noqa: E402
from world import WIDE, Request  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
MODEL = ROOT / "compose/models/nano-qwen-image"
PRECISIONS = os.environ.get("QWEN_IMAGE_TEST_PRECISIONS", "bf16,int8,q4").split(",")
STEPS = 8  # all are right from 4 on, at each precision
SEED = 1

REQUESTS = [
    Request("shape", "circle", "green", "white", "", "a green circle on a white background"),
    Request("shape", "heart", "purple", "yellow", "", "a purple heart on a yellow background"),
    Request("shape", "star", "yellow", "black", "", "黑色背景上的黄色星形"),
    Request("shape", "triangle", "green", "black", "top", "a green triangle at the top of a black background"),
    Request("shape", "heart", "red", "white", "left", "左边有一个红色的心形，白色背景"),
    Request("shape", "square", "blue", "yellow", "", "a blue square on a yellow background"),
    Request("shape", "ring", "orange", "blue", "right", "an orange ring on the right, blue background"),
    Request("text", "A", "black", "yellow", "", 'a yellow sign that says "A"'),
    Request("text", "7", "white", "red", "", '"7" in white letters on a red background'),
    Request("text", "福", "white", "red", "", '红色背景上写着"福"字'),
    Request("text", "山", "white", "blue", "", '蓝色背景上写着白色的"山"'),
    Request("text", "OK", "white", "black", "", 'white letters "OK"'),
    Request("text", "K9", "yellow", "green", "", '绿色背景，黄色文字"K9"'),
    Request("text", "CAT", "white", "red", "", 'a red sign that says "CAT"'),
    Request("text", "R2D", "black", "orange", "", 'black text "R2D" on orange'),
    Request("text", "HELLO", "black", "white", "", 'a sign that says "HELLO"', WIDE),
    Request("text", "7UP2GO", "blue", "yellow", "", '"7UP2GO" in blue letters on a yellow background', WIDE),
]


def draw(cluster: Cluster, asked: Request) -> Image.Image:
    body = {"prompt": asked.prompt, "seed": SEED, "num_inference_steps": STEPS, "size": f"{asked.width}x64", "response_format": "b64_json"}
    call = urllib.request.Request(
        f"{cluster.url}/v1/images/generations", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=300) as response:
        return Image.open(io.BytesIO(base64.b64decode(json.load(response)["data"][0]["b64_json"])))


def failures(precision: str) -> list[str]:
    """What the cluster draws wrongly at this precision, in words."""
    wrong = []
    with Cluster(BINARIES, MODEL, precision=precision) as cluster:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            images = list(pool.map(lambda asked: draw(cluster, asked), REQUESTS))
    for asked, image in zip(REQUESTS, images):
        reading = read_answer(as_array(image), asked)
        if reading.wrong(asked):
            wrong.append(f"{asked.prompt}: {', '.join(reading.wrong(asked))} (likeness {reading.likeness:.2f})")
    return wrong


def check(precision: str) -> None:
    wrong = failures(precision)
    print(f"     {len(REQUESTS) - len(wrong)} of {len(REQUESTS)} prompts followed at {precision}, {STEPS} steps", flush=True)
    assert not wrong, "\n".join(wrong)


if __name__ == "__main__":
    tests = [(f"prompts_are_followed_at_{precision}", lambda precision=precision: check(precision)) for precision in PRECISIONS]
    sys.exit(testing.run("prompts", tests))
