#!/usr/bin/env python3
"""Step caches through real processes: the bytes of one process alone, also when denoiser and gateway are killed.

    step_cache_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import base64
import io
import json
import pathlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request

from PIL import Image

from cluster import Cluster

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
TINY21 = ROOT / "Tests/Golden/tiny-2.1/checkpoint"
EXACT = {
    "first_block:threshold=0.3,warmup=2": {"method": "first_block", "threshold": 0.3, "warmup": 2},
    "dual_block:front=1,back=1,threshold=0.3": {"method": "dual_block", "front": 1, "back": 1, "threshold": 0.3},
    "taylor:interval=3,order=2": {"method": "taylor", "interval": 3, "order": 2},
    "mask:skip=3+5+6,order=1": {"method": "mask", "skip": [3, 5, 6], "order": 1},
}


def post(cluster, path, **body):
    """(status, JSON) of a request."""
    call = urllib.request.Request(cluster.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(call, timeout=300) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def drawn(cluster, **fields):
    status, answer = post(cluster, "/v1/images/generations", response_format="b64_json", **fields)
    assert status == 200, answer
    return base64.b64decode(answer["data"][0]["b64_json"])


def recorded(image):
    """What a file says of its making."""
    return json.loads(Image.open(io.BytesIO(image)).text["qwen-image-cluster"])


def local(cluster, cache, **flags):
    path = cluster.folder / "local.png"
    result = cluster.local(path, **({"cache": cache} if cache else {}), **flags)
    assert result.returncode == 0, result.stderr
    return path.read_bytes()


def check_bytes(model, **size):
    with Cluster(BINARIES, model) as cluster:
        asked = {"prompt": "a blue star", "negative_prompt": " ", "true_cfg_scale": 3.5, "seed": 4, "steps": 12, **size}
        plain = local(cluster, None, **asked)
        assert drawn(cluster, **asked) == drawn(cluster, cache="off", **asked) == plain
        caches = {"balanced": "balanced", "fast": "fast", **EXACT}
        images = {text: drawn(cluster, cache=field, **asked) for text, field in caches.items()}
        for text, image in images.items():
            assert image == local(cluster, text, **asked), text
        assert all(images[text] != plain for text in EXACT)
        # The command line says the same, and so does a form.
        path = cluster.folder / "generated.png"
        for text in ("fast", *EXACT):
            result = cluster.generate(path, cache=text, **asked)
            assert result.returncode == 0 and path.read_bytes() == images[text], (text, result.stderr)
        models = cluster.get("/v1/models")[1]["data"]
        assert [model["step_caches"] for model in models] == [True], models


def test_bytes_of_the_first_family():
    check_bytes(NANO)


def test_bytes_of_the_second_family():
    check_bytes(TINY21, width=64, height=64)


def test_files_and_jobs_have_exact_settings():
    with Cluster(BINARIES, NANO) as cluster:
        status, job = post(cluster, "/v1/jobs", prompt="a red heart", seed=1, steps=8, cache="fast")
        assert status == 202, job
        cluster.wait(lambda: cluster.get(f"/v1/jobs/{job['id']}")[1]["status"] == "succeeded", "finished")
        settings = cluster.get(f"/v1/jobs/{job['id']}")[1]["cache"]
        assert settings["method"] == "first_block" and settings["threshold"] > 0, settings
        with urllib.request.urlopen(f"{cluster.url}/v1/jobs/{job['id']}/result") as response:
            image = response.read()
        # What the file says can be sent again.
        record = recorded(image)
        assert record["cache"] == settings, record
        again = drawn(cluster, prompt=record["prompt"], seed=record["seed"], steps=record["steps"], cache=record["cache"])
        assert again == image
        assert "cache" not in recorded(drawn(cluster, prompt="a red heart", seed=1, steps=8))


def test_what_is_wrong_is_said():
    with Cluster(BINARIES, NANO) as cluster:
        for cache, param, words in (
            ("faster", "cache", '"off", "balanced", "fast"'), (3, "cache", "a name or an object"),
            ({"method": "first_block", "threshold": 11}, "cache.threshold", "from 0.0 to 10.0"),
            ({"method": "first_block", "treshold": 1}, "cache.treshold", "those are method, threshold"),
            ({"threshold": 1}, "cache.method", "must be a string"),
            ({"method": "dual_block", "front": 4, "back": 1}, "cache.front", "the network has 5 blocks"),
            ({"method": "mask", "skip": [9]}, "cache.skip", "there are 8 steps"),
            ({"method": "mask", "skip": "9"}, "cache.skip", "a number or a list of steps"),
        ):
            status, answer = post(cluster, "/v1/images/generations", prompt="x", steps=8, cache=cache)
            assert status == 400, answer
            assert answer["error"]["param"] == param and words in answer["error"]["message"], answer
        result = cluster.local(cluster.folder / "x.png", prompt="x", cache="first_block:threshold=11")
        assert result.returncode == 64 and "cache.threshold is 11.0" in result.stderr, result
        result = cluster.local(cluster.folder / "x.png", prompt="x", steps=8, cache="mask:skip=9")
        assert result.returncode != 0 and "cache.skip has step 9" in result.stderr, result


def test_killed_denoisers_and_gateways_change_nothing():
    """Each method resumes on another denoiser, and after a restart of the gateway, with the bytes of an undisturbed run."""
    asked = {"prompt": "a green star", "seed": 11, "width": 256, "height": 256, "steps": 200}
    caches = {
        "first_block:threshold=0.02,warmup=5,max_consecutive=4": None, "dual_block:front=2,back=1,threshold=0.02": None,
        "taylor:interval=3,order=2": None, "mask:skip=" + "+".join(str(step) for step in range(5, 200, 3)): None}
    for text in caches:
        with Cluster(BINARIES, NANO, settings={"jobs-checkpoint-seconds": 0}) as cluster:
            flags = [f"--{name}={value}" for name, value in asked.items()]
            command = [BINARIES / "qwen-image", "jobs", "submit", "--gateway", cluster.url, "--cache", text, *flags]
            job = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]

            def has(condition):
                """Whether the gateway is there, and the job as it should be."""
                status, body = cluster.get(f"/v1/jobs/{job}")
                return status == 200 and condition(body)

            cluster.wait(lambda: has(lambda body: body["step"] > 30), "at step 30")
            cluster.stop(cluster.names("denoiser")[0], signal.SIGKILL)
            cluster.start("denoiser")
            cluster.wait(lambda: has(lambda body: body["step"] > 90), "at step 90")
            cluster.stop("gateway", signal.SIGKILL)
            cluster.stop(cluster.names("denoiser")[0], signal.SIGKILL)
            cluster.start_gateway()
            cluster.start("denoiser")
            cluster.wait(lambda: has(lambda body: body["status"] == "succeeded"), "finished")
            with urllib.request.urlopen(f"{cluster.url}/v1/jobs/{job}/result") as response:
                assert response.read() == local(cluster, text, **asked), f"{text} was resumed with another image"


if __name__ == "__main__":
    sys.exit(testing.run("step-caches", testing.functions(globals())))
