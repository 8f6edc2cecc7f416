#!/usr/bin/env python3
"""The embedded model draws through a real cluster what fixed prompts ask for, and edits what it drew: catches whatever breaks
prompt-following, not only arithmetic.

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
from dataclasses import replace

from PIL import Image

from cluster import Cluster

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/NanoModel"))
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402
from edits import Edit, blank, operation_between  # noqa: E402
from evaluate_edits import edit_with_gateway  # noqa: E402
from reader import as_array, read_answer  # noqa: E402
from world import WIDE, Request  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
MODEL = ROOT / "compose/models/nano-qwen-image"
PRECISIONS = os.environ.get("QWEN_IMAGE_TEST_PRECISIONS", "bf16,int8,q4").split(",")
STEPS = 8  # all are right from 4 on, at each precision
EDIT_STEPS, EDIT_SCALE = 12, 3.5
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


def changes(before: Request, prompt: str, **fields: str) -> tuple[Request, str, Request]:
    return before, prompt, replace(before, **fields)


def erases(before: Request, prompt: str) -> tuple[Request, str, Request]:
    return before, prompt, blank(before.background)


GREEN_STAR = Request("shape", "star", "green", "white", "", "a green star on a white background")
YELLOW_HEART = Request("shape", "heart", "yellow", "black", "", "黑色背景上的黄色心形")
YELLOW_CIRCLE = Request("shape", "circle", "yellow", "black", "", "a yellow circle on a black background")
WHITE_A = Request("text", "A", "white", "black", "", '"A" in white letters on a black background')
WHITE_MOUNTAIN = Request("text", "山", "white", "black", "", '黑色背景上写着白色的"山"')
BLUE_HI = Request("text", "HI", "blue", "yellow", "", '"HI" in blue letters on a yellow background')
BLUE_BOY = Request("text", "BOY", "blue", "yellow", "", '"BOY" in blue letters on a yellow background')
# What is drawn, how it is to be changed, and what that makes of it; the model was trained on none of these changes.
EDITS = [
    changes(GREEN_STAR, "make the star purple", foreground="purple"),
    changes(GREEN_STAR, "make the background blue", background="blue"),
    changes(Request("shape", "heart", "blue", "yellow", "left", "a blue heart on the left, yellow background"),
            "turn the heart red", foreground="red"),
    changes(Request("shape", "circle", "red", "white", "", "白色背景上的红色圆形"), "把背景改成黑色", background="black"),
    changes(YELLOW_CIRCLE, "turn the circle into a star", content="star"),
    changes(YELLOW_CIRCLE, "把圆形换成圆环", content="ring"),
    changes(YELLOW_HEART, "move the heart to the left", position="left"),
    changes(Request("shape", "triangle", "green", "white", "left", "a green triangle on the left, white background"),
            "move it to the right", position="right"),
    erases(YELLOW_HEART, "去掉心形"),
    erases(Request("shape", "star", "red", "white", "", "a red star on a white background"), "remove the star"),
    changes(WHITE_A, "replace the A with D", content="D"),
    changes(WHITE_MOUNTAIN, "把山换成火", content="火"),
    changes(BLUE_HI, 'change the text to "GO"', content="GO"),
    changes(BLUE_BOY, "replace the B with T", content="TOY"),
]


def draw(cluster: Cluster, asked: Request) -> Image.Image:
    body = {"prompt": asked.prompt, "seed": SEED, "num_inference_steps": STEPS, "size": f"{asked.width}x64", "response_format": "b64_json"}
    call = urllib.request.Request(
        f"{cluster.url}/v1/images/generations", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=300) as response:
        return Image.open(io.BytesIO(base64.b64decode(json.load(response)["data"][0]["b64_json"])))


def failures(precision: str) -> tuple[list[str], list[str]]:
    """What the cluster draws and edits wrongly at this precision, in words."""
    requests = REQUESTS + [before for before, _, _ in EDITS]
    with Cluster(BINARIES, MODEL, precision=precision) as cluster:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            images = list(pool.map(lambda asked: draw(cluster, asked), requests))
        drawn = images[len(REQUESTS) :]
        edited = edit_with_gateway(
            cluster.url, [(prompt, image, SEED) for (_, prompt, _), image in zip(EDITS, drawn)], EDIT_STEPS, EDIT_SCALE)
    wrong = [described(asked.prompt, image, asked) for asked, image in zip(REQUESTS, images)]
    wrong_edits = [described(prompt, image, after) for (_, prompt, after), image in zip(EDITS, edited)]
    return [words for words in wrong if words], [words for words in wrong_edits if words]


def described(prompt: str, image: Image.Image, asked: Request) -> str | None:
    """What is wrong with an image, if anything is."""
    reading = read_answer(as_array(image), asked)
    wrong = reading.wrong(asked)
    return f"{prompt}: {', '.join(wrong)} (likeness {reading.likeness:.2f})" if wrong else None


def check_that_edits_are_new() -> None:
    for before, prompt, after in EDITS:
        operation = operation_between(before, after)
        assert operation and Edit(operation, before, after).is_held_out, f"{prompt} may have been trained on"


def check(precision: str) -> None:
    wrong, wrong_edits = failures(precision)
    print(
        f"     {len(REQUESTS) - len(wrong)} of {len(REQUESTS)} prompts and {len(EDITS) - len(wrong_edits)} of {len(EDITS)} edits "
        f"followed at {precision}", flush=True)
    assert not wrong + wrong_edits, "\n".join(wrong + wrong_edits)


if __name__ == "__main__":
    tests = [("edits_are_held_out_from_training", check_that_edits_are_new)]
    tests += [(f"prompts_are_followed_at_{precision}", lambda precision=precision: check(precision)) for precision in PRECISIONS]
    sys.exit(testing.run("prompts", tests))
