#!/usr/bin/env python3
"""Prompts that a chat endpoint of the operator's rewrites, beside real processes.

    enhancement_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import base64
import contextlib
import io
import json
import pathlib
import signal
import subprocess
import sys
import urllib.request

import openai
from PIL import Image

from cluster import Cluster
from endpoint import endpoint

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"


@contextlib.contextmanager
def chat(answer):
    """A chat endpoint that says what `answer` makes of a prompt (None: an error): the gateway's settings for it, and the questions that
    have come."""
    def reply(path, question):
        text = answer(question["messages"][1]["content"]) if path == "/v1/chat/completions" else None
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return 500 if text is None else 200, {"choices": [choice]}

    with endpoint(reply) as (url, questions):
        yield {"enhancement-url": f"{url}/v1", "enhancement-model": "chat"}, questions


def client(cluster):
    return openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="unused", max_retries=0, timeout=300)


def generate(cluster, prompt, **fields):
    return client(cluster).images.generate(prompt=prompt, extra_body={"seed": 3, "steps": 3, **fields}).data[0]


def pixels(data):
    return Image.open(io.BytesIO(base64.b64decode(data.b64_json))).tobytes()


def test_prompts_are_rewritten_and_both_are_kept():
    with chat(lambda prompt: {"star": "a blue star", "red": "make the star red"}[prompt]) as (settings, questions):
        with Cluster(BINARIES, NANO, settings=settings) as cluster:
            plain, enhanced = generate(cluster, "a blue star"), generate(cluster, "star", enhance_prompt=True)
            assert plain.revised_prompt is None and enhanced.revised_prompt == "a blue star", enhanced.revised_prompt
            assert pixels(plain) == pixels(enhanced)
            image = base64.b64decode(plain.b64_json)
            edited = client(cluster).images.edit(
                image=image, prompt="red", extra_body={"seed": 3, "steps": 3, "enhance_prompt": True, "pipeline": "edit-plus"}).data[0]
            assert edited.revised_prompt == "make the star red"
            assert questions[0]["messages"][0] != questions[1]["messages"][0], "edits have instructions of their own"

            file = cluster.folder / "star.png"
            arguments = [BINARIES / "qwen-image", "generate", "--gateway", cluster.url, "--seed", "3", "--steps", "3", "-o", file]
            done = subprocess.run(arguments + ["--prompt", "star", "--enhance-prompt"], capture_output=True, text=True, timeout=300)
            assert done.returncode == 0 and "prompt a blue star" in done.stderr, done
            assert Image.open(file).tobytes() == pixels(plain)
            inspected = subprocess.run([BINARIES / "qwen-image", "inspect", file], capture_output=True, text=True, timeout=60)
            assert "a blue star" in inspected.stdout, inspected
            assert len(questions) == 2, "the command line's prompt was asked about before"


def test_a_job_stays_the_same_after_the_gateway_was_killed():
    count = iter(range(1, 100))
    with chat(lambda prompt: f"a red circle {next(count)}") as (settings, questions):
        with Cluster(BINARIES, NANO, settings={**settings, "enhancement-max-cached": 0}) as cluster:
            def submit():
                body = json.dumps({"prompt": "circle", "enhance_prompt": True, "seed": 1, "steps": 20}).encode()
                request = urllib.request.Request(
                    f"{cluster.url}/v1/jobs", body, {"content-type": "application/json", "idempotency-key": "k"})
                with urllib.request.urlopen(request, timeout=60) as response:
                    return json.load(response)

            job = submit()
            assert (job["prompt"], job["original_prompt"]) == ("a red circle 1", "circle"), job
            cluster.stop("gateway", signal.SIGKILL)
            cluster.start_gateway()
            cluster.wait_until_ready()
            again = submit()
            assert again["id"] == job["id"] and again["revised_prompt"] == "a red circle 1", again
            ended = cluster.get(f"/v1/jobs/{job['id']}?wait=60")[1]
            assert ended["status"] == "succeeded" and ended["original_prompt"] == "circle", ended
            assert len(questions) == 1, questions


def test_an_endpoint_that_fails():
    with chat(lambda prompt: None) as (settings, questions):
        with Cluster(BINARIES, NANO, settings=settings) as cluster:
            try:
                generate(cluster, "a blue star", enhance_prompt=True)
            except openai.InternalServerError as error:
                assert error.status_code == 503 and error.param == "enhance_prompt", error
            else:
                raise AssertionError("a request was served without the prompt that it asked for")
            assert cluster.get("/v1/jobs")[1]["data"] == []
            assert generate(cluster, "a blue star").revised_prompt is None
            assert cluster.metric("qwenimage_gateway_prompt_enhancements_total") == 1


if __name__ == "__main__":
    sys.exit(testing.run("enhancement", testing.functions(globals())))
