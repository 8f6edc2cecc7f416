#!/usr/bin/env python3
"""Uses a running gateway as its users do: through OpenAI's own Python client.

    QWEN_IMAGE_BASE_URL=http://127.0.0.1:8080/v1 python3 openai_client_test.py

Needs the package `openai`. Ends with status 0 when all is well. Knows nothing of the model but what /v1/models tells, so it runs against a cluster of any size.
"""

import asyncio
import base64
import os
import pathlib
import random
import struct
import sys
import traceback
import urllib.request

import openai

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "Support"))
import testing  # noqa: E402

BASE_URL = os.environ.get("QWEN_IMAGE_BASE_URL", "http://127.0.0.1:8080/v1")
STEPS = int(os.environ.get("QWEN_IMAGE_TEST_STEPS", "2"))
CONCURRENT_REQUESTS = int(os.environ.get("QWEN_IMAGE_TEST_REQUESTS", "8"))
TIMEOUT_SECONDS = float(os.environ.get("QWEN_IMAGE_TEST_TIMEOUT", "600"))

client = openai.OpenAI(base_url=BASE_URL, api_key="unused", max_retries=0, timeout=TIMEOUT_SECONDS)
model = client.models.list().data[0]
limits, defaults = model.limits, model.defaults
# The smallest image that the model makes: these tests are about the interface.
SIDE = -(-limits["min_side"] // limits["size_multiple"]) * limits["size_multiple"]
SIZE = f"{SIDE}x{SIDE}"


def generate(prompt="a red circle", **fields):
    extra = {"num_inference_steps": STEPS, **fields.pop("extra_body", {})}
    return client.images.generate(prompt=prompt, model=model.id, size=fields.pop("size", SIZE), extra_body=extra, **fields)


def png(image):
    """The bytes of an image, after a check of its header."""
    data = base64.b64decode(image.b64_json, validate=True)
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:16]
    return data


def png_size(data):
    assert data[12:16] == b"IHDR", data[12:16]
    return struct.unpack(">II", data[16:24])


def test_models():
    assert client.models.list().object == "list"
    assert client.models.retrieve(model.id).id == model.id
    assert model.owned_by and model.created > 1_700_000_000
    try:
        client.models.retrieve("no/such-model")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error.code
    else:
        raise AssertionError("an unknown model was found")


def test_one_image():
    response = generate(response_format="b64_json", n=1, quality="auto", user="somebody", extra_body={"seed": 7})
    assert len(response.data) == 1
    assert response.data[0].seed == 7
    assert response.size == SIZE and response.output_format == "png" and response.background == "opaque"
    assert png_size(png(response.data[0])) == (SIDE, SIDE)
    assert response.usage.input_tokens > 0 and response.usage.total_tokens > response.usage.input_tokens


def test_url():
    image = generate(response_format="url", extra_body={"seed": 7}).data[0]
    assert image.b64_json is None
    with urllib.request.urlopen(image.url, timeout=60) as answer:
        assert answer.headers["content-type"] == "image/png"
        assert answer.read() == png(generate(extra_body={"seed": 7}).data[0])


def test_sizes():
    wide = SIDE + limits["size_multiple"]
    assert png_size(png(generate(size=f"{wide}x{SIDE}").data[0])) == (wide, SIDE)
    by_sides = client.images.generate(
        prompt="p", extra_body={"width": SIDE, "height": wide, "num_inference_steps": STEPS})
    assert png_size(png(by_sides.data[0])) == (SIDE, wide)


def test_same_seed_same_image():
    fields = {"seed": 11, "negative_prompt": " ", "true_cfg_scale": 3.5}
    first, second = (png(generate(extra_body=fields).data[0]) for _ in range(2))
    assert first == second
    other = png(generate(extra_body={**fields, "seed": 12}).data[0])
    assert first != other
    unguided = png(generate(extra_body={"seed": 11, "true_cfg_scale": 1}).data[0])
    assert first != unguided


def test_several_images_have_consecutive_seeds():
    batch = generate(n=3, extra_body={"seed": 100}).data
    assert [image.seed for image in batch] == [100, 101, 102]
    alone = generate(extra_body={"seed": 101}).data[0]
    assert png(batch[1]) == png(alone)
    assert len({png(image) for image in batch}) == 3


def test_random_seed_is_reported_and_can_be_used_again():
    first = generate().data[0]
    assert png(generate(extra_body={"seed": first.seed}).data[0]) == png(first)
    assert generate().data[0].seed != first.seed


def test_stream():
    steps, completed = [], []
    with generate(stream=True, n=2, extra_body={"seed": 21}) as stream:
        for event in stream:
            if event.type == "image_generation.progress":
                steps.append((event.image_index, event.step))
                assert event.steps == STEPS
            else:
                assert event.type == "image_generation.completed", event.type
                completed.append(event)
    assert sorted(event.image_index for event in completed) == [0, 1]
    assert (0, STEPS) in steps and (1, STEPS) in steps, steps
    for event in completed:
        assert event.size == SIZE and event.output_format == "png"
        assert event.usage.output_tokens > 0
        assert event.seed == 21 + event.image_index
        assert png(event) == png(generate(extra_body={"seed": event.seed}).data[0])


def test_partial_images():
    partial, completed = [], None
    with generate(stream=True, partial_images=3, extra_body={"seed": 21}) as stream:
        for event in stream:
            if event.type == "image_generation.partial_image":
                assert completed is None and event.partial_image_index == len(partial)
                partial.append(event)
            elif event.type == "image_generation.completed":
                completed = event
    assert png(completed) == png(generate(extra_body={"seed": 21}).data[0])
    # Steps of a few milliseconds are not all shown.
    assert 1 <= len(partial) <= min(3, STEPS), partial
    for event in partial:
        assert png_size(png(event)) == (SIDE, SIDE) and event.size == SIZE and event.output_format == "png"


def test_leaving_a_stream_does_no_harm():
    with generate(stream=True, extra_body={"num_inference_steps": limits["max_steps"]}) as stream:
        next(iter(stream))
    assert len(generate().data) == 1


def bad(kind, code, param, call=generate, **fields):
    try:
        call(**fields)
    except kind as error:
        assert error.code == code and error.param == param, (fields, error.code, error.param)
        assert error.type == "invalid_request_error", error.type
        assert error.body["message"], error.body
    else:
        raise AssertionError(f"{fields} was accepted")


def test_bad_requests():
    request = openai.BadRequestError
    bad(request, "invalid_value", "prompt", prompt="")
    bad(request, "prompt_too_long", "prompt", prompt="x" * (limits["max_prompt_bytes"] + 1))
    bad(request, "invalid_value", "size", size="17x17")
    bad(request, "invalid_value", "size", size="huge")
    bad(request, "invalid_value", "size", size=f"{limits['max_side'] + limits['size_multiple']}x{SIDE}")
    bad(request, "invalid_value", "n", n=0)
    bad(request, "invalid_value", "n", n=11)
    bad(request, "invalid_value", "response_format", response_format="link")
    bad(request, "unsupported_value", "output_format", extra_body={"output_format": "gif"})
    bad(request, "invalid_value", "output_compression", output_compression=50)
    bad(request, "unsupported_value", "background", background="transparent")
    bad(request, "invalid_value", "quality", quality="splendid")
    bad(request, "invalid_value", "partial_images", partial_images=4, stream=True)
    for value, code in [(0, "invalid_value"), (limits["max_steps"] + 1, "invalid_value"), (2.5, "invalid_type"), ("4", "invalid_type")]:
        bad(request, code, "num_inference_steps", extra_body={"num_inference_steps": value})
    for value, code in [(-1, "invalid_value"), (2**63, "invalid_value"), (1.0, "invalid_type"), ("7", "invalid_type")]:
        bad(request, code, "seed", extra_body={"seed": value})
    for value, code in [(-1, "invalid_value"), (1e9, "invalid_value"), ("NaN", "invalid_type")]:
        bad(request, code, "true_cfg_scale", extra_body={"true_cfg_scale": value})
    bad(request, "invalid_type", "negative_prompt", extra_body={"negative_prompt": ["a"]})
    bad(request, "unknown_parameter", "guidance", extra_body={"guidance": 4})
    bad(openai.NotFoundError, "model_not_found", "model",
        call=lambda **_: client.images.generate(prompt="p", model="dall-e-3"))
    bad(openai.NotFoundError, "route_not_found", None, call=lambda **_: client.post("/images/nothing", cast_to=object, body={}))
    bad(openai.APIStatusError, "body_too_large", None, extra_body={"user": "x" * 70_000_000})


def test_errors_in_a_stream_are_raised():
    # Too many tokens, though not too many bytes: only the text encoder can tell.
    words = "a " * (limits["max_prompt_tokens"] + 50)
    if len(words) > limits["max_prompt_bytes"]:
        return
    try:
        for _ in generate(prompt=words, stream=True):
            pass
    except openai.APIError as error:
        assert error.code == "prompt_too_long" and error.param == "prompt", error.body
    else:
        raise AssertionError("a prompt with too many tokens was accepted")
    bad(openai.BadRequestError, "prompt_too_long", "prompt", prompt=words)


def test_concurrent_requests_get_their_own_images():
    async def run():
        connection = openai.AsyncOpenAI(base_url=BASE_URL, api_key="unused", max_retries=4, timeout=TIMEOUT_SECONDS)
        seeds = random.sample(range(1_000_000), CONCURRENT_REQUESTS)

        async def one(seed):
            response = await connection.images.generate(
                prompt="a blue square", size=SIZE, extra_body={"seed": seed, "num_inference_steps": STEPS})
            assert response.data[0].seed == seed
            return png(response.data[0])

        images = await asyncio.gather(*(one(seed) for seed in seeds))
        again = await asyncio.gather(*(one(seed) for seed in reversed(seeds)))
        assert images == list(reversed(again))
        assert len(set(images)) == len(seeds)

    asyncio.run(run())


if __name__ == "__main__":
    random.seed(testing.seed())
    sys.exit(testing.run("openai", testing.functions(globals())))
