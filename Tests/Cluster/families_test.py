#!/usr/bin/env python3
"""Qwen-Image-2.1, with transparency and references, through real processes and OpenAI's client, and two families in one cluster.

    families_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import base64
import concurrent.futures
import io
import json
import pathlib
import signal
import subprocess
import sys
import urllib.request

import numpy
import openai
from PIL import Image

from cluster import Cluster

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
FOLDER = ROOT / "Tests/Golden/tiny-2.1"
BASE, TURBO = FOLDER / "checkpoint", FOLDER / "checkpoint-turbo"
INPUTS = FOLDER / "inputs"
SMALL = {"output_resolution": 64}
STAGES = ["text-encoder", "vae-encoder", "denoiser", "vae-decoder"]


def client(cluster):
    return openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="unused", max_retries=0, timeout=300)


def image(response, index=0):
    return Image.open(io.BytesIO(base64.b64decode(response.data[index].b64_json)))


def generated(cluster, prompt="a fox sticker", **fields):
    standard = ("size", "background", "model", "output_format", "output_compression")
    return client(cluster).images.generate(
        prompt=prompt, **{name: fields.pop(name) for name in standard if name in fields},
        extra_body={"seed": 5, "steps": 3, **fields})


def edited(cluster, names, prompt="a blue star", **fields):
    files = [open(INPUTS / f"{name}.png", "rb") for name in names]
    standard = {name: fields.pop(name) for name in ("size", "background", "model") if name in fields}
    return client(cluster).images.edit(
        image=files, prompt=prompt, **standard, extra_body={"seed": 5, "steps": 3, **SMALL, **fields})


def local(cluster, *flags, model=BASE, precision=None, **options):
    """The file that `qwen-image local` writes."""
    path = cluster.folder / f"local.{options.pop('extension', 'png')}"
    arguments = {"model": model, "precision": precision or cluster.precision, "seed": 5, "steps": 3, "output": path, **options}
    command = [BINARIES / "qwen-image", "local", *flags, *(f"--{name}={value}" for name, value in arguments.items())]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return path.read_bytes()


def same(response, data):
    """The same file: its pixels, and what it says of its making."""
    drawn, expected = image(response), Image.open(io.BytesIO(data))
    assert (drawn.mode, drawn.size) == (expected.mode, expected.size), (drawn, expected)
    assert drawn.tobytes() == expected.tobytes(), "the pixels differ"
    assert base64.b64decode(response.data[0].b64_json) == data, "the pixels are the same, the bytes are not"


def test_images_with_transparency():
    with Cluster(BINARIES, BASE) as cluster:
        response = generated(cluster, size="64x96")
        assert response.background == "transparent" and image(response).mode == "RGBA"
        same(response, local(cluster, prompt="a fox sticker", width=64, height=96))
        # Guidance acts with a negative prompt and a scale above 1 only.
        same(generated(cluster, size="64x96", negative_prompt="blurry"), local(cluster, prompt="a fox sticker", width=64, height=96))
        same(generated(cluster, negative_prompt="", true_cfg_scale=2.5, **SMALL), local(
            cluster, "--negative-prompt", "", **{"prompt": "a fox sticker", "true-cfg-scale": 2.5, "output-resolution": 64}))
        # What the model has left transparent is white.
        opaque = generated(cluster, size="64x96", background="opaque")
        assert opaque.background == "opaque" and image(opaque).mode == "RGB"
        same(opaque, local(cluster, prompt="a fox sticker", width=64, height=96, background="opaque"))
        drawn = image(response)
        over = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
        assert abs(numpy.asarray(over).astype(int) - numpy.asarray(image(opaque))).max() <= 1
        # Transparency is asked for in words, unless the prompt does it.
        words = "This is an RGBA image with transparency. a fox sticker. The image has alpha channel and the background is transparent."
        transparent = generated(cluster, background="transparent", **SMALL)
        same(transparent, local(cluster, **{"prompt": words, "output-resolution": 64}))
        same(generated(cluster, words, background="transparent", **SMALL), local(cluster, **{"prompt": words, "output-resolution": 64}))
        # The command line says the same of both.
        same(transparent, local(cluster, **{"prompt": "a fox sticker", "background": "transparent", "output-resolution": 64}))
        same(opaque, local(cluster, prompt="a fox sticker", width=64, height=96, background="opaque"))
        path = cluster.folder / "opaque.png"
        run = cluster.generate(path, prompt="a fox sticker", width=64, height=96, seed=5, steps=3, background="opaque", model="checkpoint")
        assert run.returncode == 0, run.stderr
        assert path.read_bytes() == local(cluster, prompt="a fox sticker", width=64, height=96, background="opaque")
        listed = subprocess.run([BINARIES / "qwen-image", "models", "--gateway", cluster.url], capture_output=True, text=True, check=True)
        expected = "checkpoint ready Qwen Research License (non-commercial) text-to-image edit-plus"
        assert listed.stdout.split() == expected.split(), listed.stdout
        # Samplers, schedules and guidance in the first steps give the bytes of `local`, through checkpoints after every step.
        for sampler in ("euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "er_sde", "res_multistep", "unipc"):
            fields = {"sampler": sampler, "schedule": "beta", "cfg_steps": 2, "true_cfg_scale": 2.5}
            same(generated(cluster, negative_prompt="", **fields, **SMALL), local(
                cluster, "--negative-prompt", "", **{name.replace("_", "-"): value for name, value in (fields | SMALL).items()},
                prompt="a fox sticker"))
        # Noise levels of the caller's are the schedule.
        levels = [1.0, 0.7, 0.3, 0.1]
        same(generated(cluster, sigmas=levels, steps=None, **SMALL), local(
            cluster, **{"prompt": "a fox sticker", "sigmas": ",".join(map(str, levels)), "output-resolution": 64}))


def parameters(drawn):
    """What galleries read of an image: a text of PNG, else the comment of EXIF data, in UTF-16 after a word that says so."""
    if drawn.format == "PNG":
        return drawn.text["parameters"]
    exif = drawn.getexif()
    assert exif[0x131] == "qwen-image-cluster", dict(exif)
    directory = exif.get_ifd(0x8769)
    comment, note = directory[0x9286], directory[0x927C]
    assert comment.startswith(b"UNICODE\0") and note.startswith(b"qwen-image-cluster\0"), (comment, note)
    assert json.loads(note.partition(b"\0")[2])["seed"] == 5, note
    return comment[8:].decode("utf-16-be")


def test_formats():
    """Files of all formats as other programs read them: the same pixels where they are lossless, and the same parameters."""
    with Cluster(BINARIES, BASE) as cluster:
        def drawn(output_format, **fields):
            response = generated(cluster, "狐, a fox 🦊", size="64x96", output_format=output_format, **fields)
            assert response.output_format == output_format
            result = image(response)
            assert result.format.lower() == output_format and result.size == (64, 96), result
            return response, result

        _, original = drawn("png")
        over = Image.alpha_composite(Image.new("RGBA", original.size, "white"), original).convert("RGB")
        distances = []
        for output_format, compression, mode in [
            ("webp", None, "RGBA"), ("webp", 100, "RGBA"), ("webp", 80, "RGBA"), ("webp", 0, "RGBA"),
            ("jpeg", None, "RGB"), ("jpeg", 60, "RGB"), ("jpeg", 0, "RGB"),
        ]:
            fields = {} if compression is None else {"output_compression": compression}
            response, result = drawn(output_format, **fields)
            assert result.mode == mode and response.background == ("transparent" if mode == "RGBA" else "opaque")
            assert parameters(result) == parameters(original)
            if output_format == "webp" and compression in (None, 100):
                assert result.tobytes() == original.tobytes(), "lossless pixels differ"
            if output_format == "webp":
                assert result.getchannel("A").tobytes() == original.getchannel("A").tobytes(), "alpha differs"
            else:
                distances.append(numpy.abs(numpy.asarray(result).astype(int) - numpy.asarray(over)).mean())
            flags = {} if compression is None else {"output-compression": compression}
            expected = local(cluster, extension=output_format, prompt="狐, a fox 🦊", width=64, height=96, **flags)
            assert base64.b64decode(response.data[0].b64_json) == expected, "local writes other bytes"
        assert distances[0] < 2 and distances[0] < distances[1] < distances[2], distances
        for fields, part in [
            ({"background": "transparent", "output_format": "jpeg"}, "JPEG has no transparency"),
            ({"output_compression": 50}, "of PNG only 100"), ({"output_format": "gif"}, "gif"),
        ]:
            try:
                generated(cluster, size="64x64", **fields)
            except openai.BadRequestError as error:
                assert part in str(error), error
            else:
                raise AssertionError(f"{fields} was accepted")
        # By jobs, events and the command line.
        job = client(cluster).post("/jobs", cast_to=object, body={
            "prompt": "a fox", "seed": 5, "steps": 3, "size": "64x64", "output_format": "webp", "output_compression": 40})["id"]
        cluster.wait(lambda: cluster.get(f"/v1/jobs/{job}")[1]["status"] == "succeeded", "done")
        with urllib.request.urlopen(f"{cluster.url}/v1/jobs/{job}/result", timeout=60) as response:
            assert response.headers["content-type"] == "image/webp" and Image.open(response).format == "WEBP"
        path = cluster.folder / "drawn.jpg"
        run = cluster.generate(path, prompt="a fox", seed=5, steps=3, width=64, height=64, output_compression=70)
        assert run.returncode == 0, run.stderr
        assert path.read_bytes() == local(
            cluster, extension="jpg", prompt="a fox", width=64, height=64, **{"output-compression": 70})
        inspected = subprocess.run([BINARIES / "qwen-image", "inspect", path], capture_output=True, text=True, check=True)
        assert json.loads(inspected.stdout)["prompt"] == "a fox"
        # Files are read as images again, whatever the format.
        again = subprocess.run(
            [BINARIES / "qwen-image", "edit", "--image", path, "--prompt", "a star", "--steps", "1", "--output-resolution", "64",
             "--gateway", cluster.url, "-o", cluster.folder / "edited.webp"], capture_output=True, text=True, timeout=300)
        assert again.returncode == 0 and Image.open(cluster.folder / "edited.webp").format == "WEBP", again.stderr


def test_edits_with_references():
    with Cluster(BINARIES, BASE, precision="fp32") as cluster:
        def alone(names, prompt="a blue star", *flags, **options):
            images = [part for name in names for part in ("--image", INPUTS / f"{name}.png")]
            return local(cluster, *images, *flags, **{"prompt": prompt, "output-resolution": 64, **options})

        same(edited(cluster, ["wide"]), alone(["wide"]))
        same(edited(cluster, ["wide"]), alone(["wide"], "a blue star", "--no-prefix-cache"))
        same(edited(cluster, ["rgba"]), alone(["rgba"]))
        response = edited(cluster, ["wide", "tall"], "Put the square of <image1> into <image2>.", negative_prompt="", true_cfg_scale=2.5)
        same(response, alone(
            ["wide", "tall"], "Put the square of <image1> into <image2>.", "--negative-prompt", "", **{"true-cfg-scale": 2.5}))
        # The last reference decides the size.
        assert image(response).size == Image.open(io.BytesIO(alone(["tall"]))).size
        same(edited(cluster, [f"ref{number}" for number in range(1, 11)], size="64x64"),
             alone([f"ref{number}" for number in range(1, 11)], width=64, height=64))
        for names, fields, part in [
            ([f"ref{number}" for number in range(1, 11)] + ["wide"], {}, "10 at most"),
            (["wide"], {"prompt": "a <|image_pad|>"}, "<|image_pad|>"),
            (["wide"], {"strength": 0.5}, "img2img"),
            (["wide"], {"output_resolution": 8}, "output_resolution"),
        ]:
            try:
                edited(cluster, names, **fields)
            except openai.BadRequestError as error:
                assert part in str(error), error
            else:
                raise AssertionError(f"{fields} was accepted")


def test_references_beyond_the_memory_of_denoisers_are_refused_at_once():
    """Ten references of 16 tokens: 960 bytes each for keys and values in bf16."""
    limit = {"denoiser": {"denoiser-prefix-cache-bytes-max": 150 * 960}}
    with Cluster(BINARIES, BASE, stage_settings=limit) as cluster:
        names = [f"ref{number}" for number in range(1, 11)]
        try:
            edited(cluster, names, size="64x64")
        except openai.BadRequestError as error:
            assert "150" in str(error) and error.param == "image", error
        else:
            raise AssertionError("ten references were accepted")
        # Nothing was queued or encoded for it.
        assert not client(cluster).get("/jobs", cast_to=object)["data"]
        edited(cluster, names[:2], size="64x64")


def test_several_edits_keep_transparency():
    """Each of them begins with all four channels of what the one before has made."""
    with Cluster(BINARIES, BASE) as cluster:
        prompts = ["a blue star", "a red star"]
        several = client(cluster).post("/images/edits", cast_to=object, body={
            "prompt": "two edits", "seed": 5, "steps": 3, "image": base64.b64encode((INPUTS / "rgba.png").read_bytes()).decode(),
            "edit_instructions": [{"prompt": prompt, **SMALL} for prompt in prompts]})
        several = Image.open(io.BytesIO(base64.b64decode(several["data"][0]["b64_json"])))
        made = cluster.folder / "made.png"
        made.write_bytes(local(cluster, "--image", INPUTS / "rgba.png", **{"prompt": prompts[0], "output-resolution": 64}))
        expected = Image.open(io.BytesIO(local(cluster, "--image", made, **{"prompt": prompts[1], "output-resolution": 64})))
        assert several.mode == "RGBA" and several.tobytes() == expected.tobytes()


def test_an_edit_resumes_on_another_denoiser():
    """Keys and values of the prefix are computed again, to the same bytes."""
    names = ("wide", "tall")
    with Cluster(BINARIES, BASE, settings={"jobs-checkpoint-seconds": 0}) as cluster:
        images = [base64.b64encode((INPUTS / f"{name}.png").read_bytes()).decode() for name in names]
        job = client(cluster).post("/jobs", cast_to=object, body={
            "prompt": "a blue star", "seed": 5, "steps": 200, **SMALL, "output_resolution": 96, "image": images})["id"]
        step = lambda: cluster.get(f"/v1/jobs/{job}")[1]["step"]
        cluster.wait(lambda: step() > 20, "in the middle")
        cluster.stop(cluster.names("denoiser")[0], signal.SIGKILL)
        reached = step()
        cluster.start("denoiser")
        cluster.wait(lambda: cluster.get(f"/v1/jobs/{job}")[1]["status"] == "succeeded", "done")
        assert reached < 200, "the denoiser was too fast to be killed"
        with urllib.request.urlopen(f"{cluster.url}/v1/jobs/{job}/result", timeout=60) as response:
            data = response.read()
        files = [part for name in names for part in ("--image", INPUTS / f"{name}.png")]
        expected = local(cluster, *files, **{"prompt": "a blue star", "output-resolution": 96, "steps": 200})
        assert Image.open(io.BytesIO(data)).tobytes() == Image.open(io.BytesIO(expected)).tobytes()


def test_two_families_in_one_cluster():
    with Cluster(BINARIES, NANO) as cluster:
        for model in (BASE, TURBO):
            for stage in STAGES:
                cluster.start(stage, settings={"model-directory": model})
        ids = ["nano-qwen-image", "checkpoint", "checkpoint-turbo"]

        def is_served():
            models = {model["id"]: model for model in cluster.get("/v1/models")[1]["data"]}
            return all(name in models and all(p["ready"] for p in models[name]["pipelines"]) for name in ids)

        cluster.wait(is_served, "all models")
        models = {model["id"]: model for model in cluster.get("/v1/models")[1]["data"]}
        assert models["nano-qwen-image"]["license"] == "Apache-2.0" and not models["nano-qwen-image"]["transparency"]
        assert "non-commercial" in models["checkpoint"]["license"] and models["checkpoint"]["transparency"]
        assert models["checkpoint-turbo"]["schedule_steps"] == 8 == models["checkpoint-turbo"]["defaults"]["steps"]

        expected = {
            "nano-qwen-image": local(cluster, model=NANO, prompt="a blue star", steps=8),
            "checkpoint": local(cluster, prompt="a blue star", width=64, height=64, steps=8),
            # A distilled model has the steps of its schedule, whatever is asked for.
            "checkpoint-turbo": local(cluster, model=TURBO, prompt="a blue star", width=64, height=64, steps=50)}
        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            asked = [name for name in ids for _ in range(4)]
            responses = list(threads.map(
                lambda name: generated(cluster, "a blue star", model=name, size="64x64", steps=8), asked))
        for name, response in zip(asked, responses):
            same(response, expected[name])
        # Another family's task would have failed at first.
        assert all(worker["tasks_failed"] == 0 for worker in cluster.get("/v1/workers")[1]["data"])
        try:
            generated(cluster, "a fox", model="nano-qwen-image", background="transparent")
        except openai.BadRequestError as error:
            assert "opaque images only" in str(error), error
        else:
            raise AssertionError("a model without transparency has promised it")


def test_workers_switch_models():
    """One worker for each stage serves two families: each loads the model that jobs need when its own is not needed."""
    standby = {stage: {"model-standby-directories": BASE} for stage in STAGES}
    with Cluster(BINARIES, NANO, settings={"jobs-model-patience-seconds": 2}, stage_settings=standby) as cluster:
        ids = ["nano-qwen-image", "checkpoint"]
        cluster.wait(lambda: {model["id"] for model in cluster.get("/v1/models")[1]["data"] if model["pipelines"][0]["ready"]} == set(ids), "both models")
        workers = cluster.get("/v1/workers")[1]["data"]
        assert all((worker["model"], worker["standby_models"]) == (ids[0], ids[1:]) for worker in workers), workers
        expected = {
            ids[0]: local(cluster, model=NANO, prompt="a blue star", steps=8),
            ids[1]: local(cluster, prompt="a blue star", width=64, height=64, steps=8)}
        # One after the other, then both at once for longer than either waits.
        for name in ids + ids:
            same(generated(cluster, "a blue star", model=name, size="64x64", steps=8), expected[name])
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            asked = ids * 12
            for name, response in zip(asked, threads.map(
                    lambda name: generated(cluster, "a blue star", model=name, size="64x64", steps=8), asked)):
                same(response, expected[name])
        assert len(cluster.processes) == len(STAGES) + 1 and all(process.poll() is None for process in cluster.processes.values())
        assert cluster.log(cluster.names("denoiser")[0]).count("loading model") >= 3
        # SIGTERM ends a worker that has switched.
        for stage in STAGES:
            cluster.stop(cluster.names(stage)[0], signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(testing.run("families", testing.functions(globals())))
