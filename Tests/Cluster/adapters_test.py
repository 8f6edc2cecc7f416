#!/usr/bin/env python3
"""Adapters in requests, on real processes: the bytes are those of one process, whichever denoiser makes the image.

    adapters_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import base64
import hashlib
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

from cluster import Cluster

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
WIDTH = 160  # of the nano model's blocks
PROMPT = "a red heart"
LONG = {"steps": 200, "true_cfg_scale": 3, "negative_prompt": "blue"}  # seconds, at 256 x 256


def safetensors(tensors):
    """A safetensors file of fp32 tensors: {name: (shape, values)}."""
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        own = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(own)]}
        data += own
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def lora(seed, layers=("transformer_blocks.0.attn.to_q", "transformer_blocks.1.attn.to_out.0"), rank=4, width=WIDTH):
    draw = random.Random(seed)
    numbers = lambda count: [draw.uniform(-0.4, 0.4) for _ in range(count)]
    tensors = {}
    for layer in layers:
        tensors[f"transformer.{layer}.lora_A.weight"] = ([rank, width], numbers(rank * width))
        tensors[f"transformer.{layer}.lora_B.weight"] = ([width, rank], numbers(width * rank))
    return safetensors(tensors)


def add(directory, name, data):
    """Puts a file there as it should be done: written elsewhere, then renamed."""
    path = directory / f"{name}.safetensors"
    path.with_suffix(".part").write_bytes(data)
    path.with_suffix(".part").rename(path)
    return path


def directory(cluster, name="adapters", **files):
    folder = cluster.folder / name
    folder.mkdir()
    for adapter, seed in files.items():
        add(folder, adapter, lora(seed))
    return folder


def post(cluster, path, body):
    """(status, JSON) of a request with a JSON body."""
    call = urllib.request.Request(cluster.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(call, timeout=170) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def image(cluster, **body):
    status, answer = post(cluster, "/v1/images/generations", {"prompt": PROMPT, "steps": 4, **body})
    assert status == 200, answer
    return base64.b64decode(answer["data"][0]["b64_json"])


def local(cluster, *loras, **flags):
    """The same image of one process; adapters are FILE:SCALE."""
    path = cluster.folder / "local.png"
    flags = {"prompt": PROMPT, "steps": 4, **flags}
    arguments = [BINARIES / "qwen-image", "local", "--model", NANO, "--precision", cluster.precision, "-o", path]
    for each in loras:
        arguments += ["--lora", each]
    for flag, value in flags.items():
        arguments += [f"--{flag.replace('_', '-')}", str(value)]
    result = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return path.read_bytes()


def recorded(file):
    """The adapters of an image, by its metadata."""
    text = file[file.index(b"qwen-image-cluster\0{") + len(b"qwen-image-cluster\0"):]
    return json.JSONDecoder().raw_decode(text.decode("utf-8", "replace"))[0]["loras"]


def names(cluster):
    return [each["name"] for each in cluster.get("/v1/models")[1]["data"][0]["loras"]]


def test_same_bytes_as_one_process():
    with Cluster(BINARIES, NANO) as cluster:
        folder = directory(cluster, style=1, poster=2)
        name = cluster.start("denoiser", settings={"adapters-directory": folder})
        cluster.wait(lambda: names(cluster) == ["poster", "style"], "both adapters listed")
        one, other = folder / "style.safetensors", folder / "poster.safetensors"
        plain = image(cluster, seed=1)
        assert plain == local(cluster, seed=1)
        first = image(cluster, seed=1, loras=[{"name": "style", "scale": 0.8}])
        assert first == local(cluster, f"{one}:0.8", seed=1) and first != plain
        both = image(cluster, seed=1, loras=[{"name": "style", "scale": -0.5}, {"name": "poster"}])
        assert both == local(cluster, f"{one}:-0.5", other, seed=1) and both not in (plain, first)
        # What the file says of its adapters makes the same image again.
        assert image(cluster, seed=1, loras=recorded(first)) == first
        for format in ("webp", "jpeg"):
            assert image(cluster, seed=1, output_format=format, loras=[{"name": "style"}]) != image(
                cluster, seed=1, output_format=format)
        # Only the denoiser that has them was asked, and it holds them now.
        workers = {each["id"]: each for each in cluster.workers("denoiser")}
        served = [each for each in workers.values() if each.get("adapters")]
        assert len(served) == 1 and all(each["loaded"] for each in served[0]["adapters"]), workers
        assert "task started" in cluster.log(name)
        through = cluster.folder / "cli.png"
        result = cluster.generate(through, prompt=PROMPT, steps=4, seed=1, lora="style:0.8")
        assert result.returncode == 0 and through.read_bytes() == first, result.stderr


def test_presets_of_distillations():
    with Cluster(BINARIES, NANO) as cluster:
        folder = directory(cluster, **{"style": 1, "Qwen-Image-Lightning-4steps-V2.0": 2})
        cluster.start("denoiser", settings={"adapters-directory": folder})
        cluster.wait(lambda: len(names(cluster)) == 2, "both adapters listed")
        (preset,) = cluster.get("/v1/models")[1]["data"][0]["presets"]
        assert (preset["name"], preset["title"]) == ("lightning-4-v2.0", "Lightning · 4 steps · V2.0"), preset
        # Sent as it is, it is the image of one process with the same schedule, which is not the model's own.
        fields = {name: preset[name] for name in ("steps", "true_cfg_scale", "schedule", "loras")}
        file = folder / "Qwen-Image-Lightning-4steps-V2.0.safetensors"
        found = image(cluster, seed=1, **fields)
        assert found == local(cluster, file, seed=1, schedule="lightning", true_cfg_scale=1)
        assert found != image(cluster, seed=1, **{**fields, "schedule": None})


def test_what_there_is_not_is_refused():
    with Cluster(BINARIES, NANO) as cluster:
        status, answer = post(cluster, "/v1/jobs", {"prompt": "x", "loras": [{"name": "style"}]})
        assert status == 400 and "--adapters-directory" in answer["error"]["message"], answer
        folder = directory(cluster, style=1)
        add(folder, "foreign", lora(3, layers=("transformer_blocks.99.attn.to_q",)))
        add(folder, "narrow", lora(4, width=96))
        add(folder, "broken", b"\x10\0\0\0\0\0\0\0not a header....")
        (folder / "a b.safetensors").write_bytes(lora(5))
        for path in folder.iterdir():
            os.utime(path, (time.time() - 60, time.time() - 60))  # complete for a while
        name = cluster.start("denoiser", settings={"adapters-directory": folder})
        cluster.wait(lambda: names(cluster) == ["style"], "the good one listed")
        for text in ("foreign", "transformer_blocks.99", "narrow", "broken", "a b.safetensors"):
            assert text in cluster.log(name), text
        for loras, message in [
            ([{"name": "foreign"}], 'there are "style"'), ([{"name": "../style"}], "A-Z"),
            ([{"name": "style", "scale": 11}], "-10.0 to 10.0"), ([{"name": "style"}, {"name": "style"}], "there before"),
            ([{"name": "style", "weight": 1}], "weight"), ([{"scale": 1}], "name is missing"),
            ([{"name": "style", "sha256": "0" * 64}], "have "), ([{"name": f"a{index}"} for index in range(9)], "9 elements"),
            ("style", "list"),
        ]:
            status, answer = post(cluster, "/v1/jobs", {"prompt": "x", "loras": loras})
            assert status == 400 and message in answer["error"]["message"], answer
            assert answer["error"]["param"].startswith("loras"), answer
        digest = cluster.get("/v1/models")[1]["data"][0]["loras"][0]["sha256"]
        assert image(cluster, seed=2, loras=[{"name": "style", "sha256": digest}]) == local(
            cluster, folder / "style.safetensors", seed=2)
        assert image(cluster, seed=2, loras=[]) == local(cluster, seed=2)


def test_files_come_and_go():
    with Cluster(BINARIES, NANO) as cluster:
        folder = directory(cluster)
        cluster.start("denoiser", settings={"adapters-directory": folder})
        cluster.wait(lambda: len(cluster.workers("denoiser")) == 2, "both denoisers there")
        path = add(folder, "late", lora(1))
        cluster.wait(lambda: names(cluster) == ["late"], "the new adapter listed")
        before = image(cluster, seed=3, loras=[{"name": "late"}])
        assert before == local(cluster, path, seed=3)
        old = cluster.get("/v1/models")[1]["data"][0]["loras"][0]["sha256"]
        add(folder, "late", lora(2))
        cluster.wait(lambda: [each["sha256"] for each in cluster.get("/v1/models")[1]["data"][0]["loras"]] not in ([], [old]), "the other contents listed")
        after = image(cluster, seed=3, loras=[{"name": "late"}])
        assert after == local(cluster, path, seed=3) and after != before
        status, answer = post(cluster, "/v1/jobs", {"prompt": "x", "loras": [{"name": "late", "sha256": old}]})
        assert status == 400 and old in answer["error"]["message"], answer
        peft = folder / "peft"
        peft.mkdir()
        (peft / "adapter_model.safetensors").write_bytes(lora(7))
        cluster.wait(lambda: names(cluster) == ["late", "peft"], "the directory listed")
        assert image(cluster, seed=3, loras=[{"name": "peft"}]) == local(cluster, peft, seed=3)
        path.unlink()
        cluster.wait(lambda: names(cluster) == ["peft"], "the adapter gone")


def test_a_killed_denoiser_is_replaced_in_the_middle_of_an_image():
    with Cluster(BINARIES, NANO) as cluster:
        folder = directory(cluster, style=1)
        holder = cluster.start("denoiser", settings={"adapters-directory": folder})
        cluster.wait(lambda: names(cluster) == ["style"], "the adapter listed")
        request = {"prompt": PROMPT, "seed": 5, "size": "256x256", **LONG, "loras": [{"name": "style", "scale": 1.5}]}
        status, job = post(cluster, "/v1/jobs", request)
        assert status == 202, job
        address = f"/v1/jobs/{job['id']}"
        cluster.wait(lambda: cluster.get(address)[1]["step"] >= 20, "some steps made")
        cluster.stop(holder)
        cluster.wait(lambda: len(cluster.workers("denoiser")) == 1, "the denoiser given up")
        # The one that is left has no adapters: the job waits.
        time.sleep(1.5)
        waiting = cluster.get(address)[1]
        assert waiting["status"] == "running" and waiting["step"] < 200, waiting
        # Requests for it are taken all the same, as for any stage that is away.
        status, later = post(cluster, "/v1/jobs", {**request, "steps": 2})
        assert status == 202, later
        other = directory(cluster, "moved", style=1)
        cluster.start("denoiser", settings={"adapters-directory": other})
        cluster.wait(lambda: cluster.get(address)[1]["status"] == "succeeded", "the image made")
        with urllib.request.urlopen(f"{cluster.url}{address}/result", timeout=60) as response:
            made = response.read()
        alone = local(cluster, f"{folder / 'style.safetensors'}:1.5", seed=5, width=256, height=256, **LONG)
        assert made == alone, (hashlib.sha256(made).hexdigest(), hashlib.sha256(alone).hexdigest())
        cluster.wait(lambda: cluster.get(f"/v1/jobs/{later['id']}")[1]["status"] == "succeeded", "the later one made")


def test_a_restarted_gateway_remembers():
    with Cluster(BINARIES, NANO) as cluster:
        folder = directory(cluster, style=1)
        holder = cluster.start("denoiser", settings={"adapters-directory": folder})
        cluster.wait(lambda: names(cluster) == ["style"], "the adapter listed")
        request = {"prompt": PROMPT, "seed": 6, "size": "256x256", **LONG, "loras": [{"name": "style"}]}
        status, job = post(cluster, "/v1/jobs", request)
        assert status == 202 and job["loras"][0]["name"] == "style", job
        address = f"/v1/jobs/{job['id']}"
        cluster.wait(lambda: cluster.get(address)[1]["step"] >= 20, "some steps made")
        cluster.stop("gateway")
        cluster.stop(holder)
        cluster.start_gateway()
        cluster.start("denoiser", settings={"adapters-directory": folder})
        cluster.wait(lambda: (cluster.get(address)[1] or {}).get("status") == "succeeded", "the image made")
        with urllib.request.urlopen(f"{cluster.url}{address}/result", timeout=60) as response:
            made = response.read()
        assert made == local(cluster, folder / "style.safetensors", seed=6, width=256, height=256, **LONG)


if __name__ == "__main__":
    sys.exit(testing.run("adapters", testing.functions(globals())))
