#!/usr/bin/env python3
"""A content filter of the operator's, beside real processes.

    filter_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import base64
import io
import pathlib
import sys
import time

import openai
from PIL import Image

from cluster import Cluster
from endpoint import endpoint

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"


def judge(answer):
    """An endpoint that answers as `answer` says, and the questions that it was asked."""
    return endpoint(lambda path, question: (200, answer(question)))


def client(cluster):
    return openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="unused", max_retries=0, timeout=300)


def generate(cluster, prompt):
    return client(cluster).images.generate(prompt=prompt, extra_body={"seed": 3, "steps": 3})


def test_requests_and_images_are_judged():
    def answer(question):
        return {"allowed": question["phase"] == "request" and "square" not in question["prompt"] or "star" in question["prompt"],
                "reason": "shapes"}

    with judge(answer) as (url, questions), Cluster(BINARIES, NANO, settings={"filter-url": url}) as cluster:
        image = base64.b64decode(generate(cluster, "a blue star").data[0].b64_json)
        assert [question["phase"] for question in questions] == ["request", "result"], questions
        judged = Image.open(io.BytesIO(base64.b64decode(questions[1]["images"][0]["b64_json"])))
        assert judged.tobytes() == Image.open(io.BytesIO(image)).tobytes()
        for prompt, what in ("a red square", "request"), ("a red circle", "image"):
            try:
                generate(cluster, prompt)
            except openai.BadRequestError as error:
                assert error.code == "content_policy_violation" and f"refuses the {what}: shapes" in error.message, error
            else:
                raise AssertionError(f"{prompt} was let through")


def test_a_slow_judgement_of_an_image_does_not_have_it_made_again():
    """The worker is done with the image, and says so in several reports."""
    def answer(question):
        time.sleep(4 if question["phase"] == "result" else 0)
        return {"allowed": True}

    with judge(answer) as (url, questions), Cluster(BINARIES, NANO, settings={"filter-url": url}) as cluster:
        generate(cluster, "a blue star")
        assert len(questions) == 2, [question["phase"] for question in questions]


if __name__ == "__main__":
    sys.exit(testing.run("filter", testing.functions(globals())))
