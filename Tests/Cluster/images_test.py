#!/usr/bin/env python3
"""Images as input through real processes and OpenAI's client: the pixels of a cluster are those of one process, and those outside of
a mask are the input's.

    images_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import base64
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

import numpy
import openai
from PIL import Image

from cluster import Cluster
from models import TINY, checkpoint

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
INPUTS = TINY / "inputs"


def client(cluster):
    return openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="unused", max_retries=0, timeout=300)


def pixels(data):
    return numpy.asarray(Image.open(io.BytesIO(data)))


def edited(cluster, images, mask=None, **fields):
    """The pixels of an edit by OpenAI's client, which sends a form."""
    files = [open(image, "rb") for image in images]
    response = client(cluster).images.edit(
        image=files if len(files) > 1 else files[0], prompt=fields.pop("prompt", "a red circle"),
        **({"mask": open(mask, "rb")} if mask else {}), extra_body={"seed": 11, "steps": 3, "true_cfg_scale": 3, **fields})
    return pixels(base64.b64decode(response.data[0].b64_json))


def local(cluster, *flags, **options):
    """The pixels of `qwen-image local` with the same model and arithmetic."""
    path = cluster.folder / "local.png"
    arguments = {"model": cluster.model, "precision": cluster.precision, "prompt": "a red circle", "seed": 11, "steps": 3,
                 "true-cfg-scale": 3, "output": path, **options}
    command = [BINARIES / "qwen-image", "local", *flags, *(str(x) for name, value in arguments.items() for x in (f"--{name}", value))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return pixels(path.read_bytes()) if "layers" not in options else None


def agree(cluster, command, *flags, local=None, stdin=None, **options):
    """`qwen-image COMMAND` writes, through the cluster, the bytes of `qwen-image local` with the same flags, or those of `local`."""
    common = {"prompt": "a red circle", "seed": 11, "steps": 3, "true-cfg-scale": 3, **options}
    common = [f"--{name}={value}" for name, value in common.items()]
    alone = ["local", f"--model={cluster.model}", f"--precision={cluster.precision}", *(flags if local is None else local)]
    written = []
    for name, arguments in ("cluster", [command, f"--gateway={cluster.url}", *flags]), ("alone", alone):
        folder = pathlib.Path(tempfile.mkdtemp(dir=cluster.folder))
        result = subprocess.run([BINARIES / "qwen-image", *map(str, arguments), *common, "--output", folder / "out.png"],
                                input=stdin, capture_output=True, timeout=300)
        assert result.returncode == 0, (name, result.stderr)
        written.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert written[0].keys() == written[1].keys(), written
    for name, data in written[0].items():
        same(pixels(data), pixels(written[1][name]))
        assert data == written[1][name], f"{command}: the pixels of {name} are the same, the bytes are not"
    return list(written[0])


def result(cluster, job):
    """The pixels of a job's first image."""
    with urllib.request.urlopen(f"{cluster.url}/v1/jobs/{job}/result", timeout=60) as response:
        return pixels(response.read())


def same(one, other):
    assert one.shape == other.shape and (one == other).all(), f"{one.shape} and {other.shape} differ"


def test_an_image_to_begin_with():
    with Cluster(BINARIES, NANO) as cluster:
        drawn = cluster.folder / "drawn.png"
        assert cluster.generate(drawn, prompt="a blue star", seed=1, steps=8).returncode == 0
        results = [edited(cluster, [drawn], strength=strength, steps=12) for strength in (0.09, 1)]
        same(results[0], local(cluster, "--image", drawn, strength=0.09, steps=12))
        same(results[1], local(cluster, "--image", drawn, strength=1, steps=12))
        distances = [numpy.abs(result.astype(int) - pixels(drawn.read_bytes())).mean() for result in results]
        assert distances[0] < 20 < distances[1], distances
        # Variations need no prompt; data URLs are as good as forms.
        variation = client(cluster).images.create_variation(image=open(drawn, "rb"), extra_body={"seed": 2, "steps": 4})
        address = "data:image/png;base64," + base64.b64encode(drawn.read_bytes()).decode()
        again = client(cluster).post(
            "/images/variations", cast_to=object, body={"image": address, "seed": 2, "steps": 4})
        assert variation.data[0].b64_json == again["data"][0]["b64_json"]
        agree(cluster, "edit", "--image", drawn, "--strength", 0.5, steps=12)
        agree(cluster, "edit", "--image", "-", "--strength", 0.5, "--negative-prompt", "", stdin=drawn.read_bytes(), steps=12)


def test_what_the_mask_leaves_is_kept():
    """By edit-inpaint, and by inpaint where the model does not edit."""
    check_that_the_rest_is_kept(NANO, transparency_is_a_mask=False)
    with checkpoint(NANO.name, "QwenImagePipeline", NANO.parent) as model:
        check_that_the_rest_is_kept(model, transparency_is_a_mask=True)


def check_that_the_rest_is_kept(model, transparency_is_a_mask):
    random = numpy.random.default_rng(5)
    with Cluster(BINARIES, model) as cluster:
        for width, height in ((64, 64), (97, 80), (128, 66)):
            original = random.integers(0, 256, (height, width, 3), dtype=numpy.uint8)
            mask = (random.random((height // 4 + 1, width // 4 + 1)) < 0.4).repeat(4, 0).repeat(4, 1)[:height, :width]
            image_file, mask_file = cluster.folder / "image.png", cluster.folder / "mask.png"
            Image.fromarray(original).save(image_file)
            Image.fromarray((mask * 255).astype(numpy.uint8)).save(mask_file)
            painted = edited(cluster, [image_file], mask_file, strength=1)
            assert (painted[~mask] == original[~mask]).all(), "a pixel outside of the mask has changed"
            assert (painted[mask] != original[mask]).any()
            same(painted, local(cluster, "--paste-back", image=image_file, mask=mask_file, strength=1))
        if not transparency_is_a_mask:
            return agree(cluster, "inpaint", "--image", image_file, "--mask", mask_file, "--strength", 1)
        image = ["--image", image_file, "--mask", mask_file]
        agree(cluster, "inpaint", *image, "--strength", 0.9, "--mask-blur", 1.5)
        agree(cluster, "inpaint", *image, "--strength", 1, "--padding-mask-crop", 4)
        agree(cluster, "inpaint", *image, "--no-paste-back")
        agree(cluster, "outpaint", "--image", image_file, "--left", 16, "--bottom", 14, "--feather", 5, "--strength", 1)
        # The same by transparency, as OpenAI's API has it.
        alpha = Image.fromarray(numpy.dstack([original, numpy.where(mask, 0, 255).astype(numpy.uint8)]))
        alpha.save(image_file)
        same(edited(cluster, [image_file], strength=1), painted)
        agree(cluster, "inpaint", "--image", image_file, "--mask", image_file, "--strength", 1)
        same(local(cluster, image=image_file, strength=1), painted)


def test_edits_of_one_and_several_images():
    odd, tall, exact, mask = (INPUTS / f"{name}.png" for name in ("odd", "tall", "exact", "mask"))
    with checkpoint("checkpoint-edit", "QwenImageEditPipeline") as model, Cluster(BINARIES, model, precision="fp32") as cluster:
        same(edited(cluster, [odd]), local(cluster, "--image", odd))
        same(edited(cluster, [tall], size="80x96"), local(cluster, "--image", tall, width=80, height=96))
        kept = edited(cluster, [exact], mask, strength=0.8)
        same(kept, local(cluster, "--paste-back", image=exact, mask=mask, strength=0.8))
        agree(cluster, "edit", "--image", odd)
        agree(cluster, "inpaint", "--image", exact, "--mask", mask, "--strength", 0.8)
        agree(cluster, "outpaint", "--image", exact, "--top", 32)
        outside = numpy.asarray(Image.open(mask)) == 0
        assert (kept[outside] == numpy.asarray(Image.open(exact))[outside]).all()
    for name in ("checkpoint-edit", "checkpoint-edit2511"):
        with checkpoint(name, "QwenImageEditPlusPipeline") as model, Cluster(BINARIES, model) as cluster:
            both = edited(cluster, [odd, tall], size="96x80")
            same(both, local(cluster, "--image", odd, "--image", tall, width=96, height=80))
            assert (both != edited(cluster, [tall, odd], size="96x80")).any(), "the order says nothing"
            agree(cluster, "edit", "--image", odd, "--image", tall, width=96, height=80)


def test_layers():
    image = INPUTS / "rgba.png"
    with checkpoint("checkpoint-layered", "QwenImageLayeredPipeline", reference_area=4096) as model, Cluster(
            BINARIES, model, precision="fp32") as cluster:
        fields = {"seed": 11, "steps": 3, "true_cfg_scale": 3, "layers": 3}
        edit = lambda **more: client(cluster).images.edit(image=open(image, "rb"), prompt="a red circle", extra_body=fields, **more)
        response = edit()
        assert [layer.layer for layer in response.data] == [0, 1, 2] and response.background == "transparent"
        layers = [pixels(base64.b64decode(layer.b64_json)) for layer in response.data]
        local(cluster, "--image", image, layers=3)
        for index, layer in enumerate(layers):
            assert layer.shape == (64, 64, 4), layer.shape
            same(layer, pixels((cluster.folder / f"local.{index}.png").read_bytes()))
        events = [event for event in edit(stream=True) if event.type.endswith("completed")]
        assert [event.layer for event in events] == [0, 1, 2], events
        same(pixels(base64.b64decode(events[2].b64_json)), layers[2])
        addresses = [layer.url for layer in edit(response_format="url").data]
        for address, layer in zip(addresses, layers):
            with urllib.request.urlopen(address, timeout=60) as answer:
                same(pixels(answer.read()), layer)
        files = agree(cluster, "layers", image, "-n", 3, local=["--image", image, "--layers", 3])
        assert files == ["out.0.png", "out.1.png", "out.2.png"], files


def test_control_images():
    exact, odd, mask = (INPUTS / f"{name}.png" for name in ("exact", "odd", "mask"))
    for network, has_mask in (("controlnet", False), ("controlnet-inpaint", True)):
        directory = TINY / network
        with checkpoint("checkpoint", "QwenImagePipeline") as model, Cluster(
                BINARIES, model, precision="fp32", stage_settings={"denoiser": {"model-control-networks": directory}}) as cluster:
            fields = {"control_image": base64.b64encode(exact.read_bytes()).decode(), "control_scale": 0.8, "seed": 11, "steps": 3,
                      "true_cfg_scale": 3, "size": "96x64"}
            if has_mask:
                fields["mask"] = base64.b64encode(mask.read_bytes()).decode()
            response = client(cluster).images.generate(prompt="a red circle", extra_body=fields)
            flags = ["--mask", mask] if has_mask else []
            same(pixels(base64.b64decode(response.data[0].b64_json)), local(
                cluster, *flags, width=96, height=64, **{"control-image": exact, "control-scale": 0.8, "controlnet": directory}))
            flags = ["--control-image", exact, "--control-scale", 0.8, *flags]
            agree(cluster, "control", *flags, local=["--controlnet", directory, *flags], width=96, height=64)
    check_several_control_networks(exact, odd)
    with checkpoint("checkpoint", "QwenImagePipeline") as model, Cluster(BINARIES, model) as cluster:
        try:
            client(cluster).images.generate(prompt="a red circle", extra_body={"control_image": base64.b64encode(odd.read_bytes()).decode()})
        except openai.BadRequestError as error:
            assert "controlnet" in error.message and error.param == "control_image", error
        else:
            raise AssertionError("there is no control network")


def check_several_control_networks(exact, odd):
    """A denoiser loads two; each reads its own image, with its own scale and steps, and their residuals are added."""
    network = TINY / "controlnet"
    with checkpoint("checkpoint", "QwenImagePipeline") as model, Cluster(
            BINARIES, model, precision="fp32", stage_settings={"denoiser": {"model-control-networks": f"{network},{network}"}}) as cluster:
        def drawn(images, **fields):
            body = {"control_image": [data_url(image) for image in images], "seed": 11, "steps": 4, "true_cfg_scale": 3, "size": "96x64"}
            response = client(cluster).images.generate(prompt="a red circle", extra_body={**body, **fields})
            return pixels(base64.b64decode(response.data[0].b64_json)).astype(int)

        networks = ["--controlnet", network, "--controlnet", network]
        flags = ["--control-image", exact, "--control-image", odd, "--control-scale", 0.8, "--control-scale", 0.3,
                 "--control-start", 0, "--control-start", 0.25, "--control-end", 0.75, "--control-end", 1]
        agree(cluster, "control", *flags, local=[*networks, *flags], width=96, height=64)
        flags = ["--control-image", exact, "--control-image", odd, "--control-scale", 0.5]
        agree(cluster, "control", *flags, local=[*networks, *flags], width=96, height=64)
        both = drawn([exact, odd], control_scale=[0.8, 0.3])
        assert (both != drawn([exact, odd], control_scale=[0.3, 0.8])).any(), "each image has its own scale"
        assert (both != drawn([exact, odd], control_scale=[0.8, 0.3], control_end=[1, 0.5])).any(), "each image has its own steps"
        # Of three images the third has no network; a network that is alone reads them all.
        for images, fields, param in (([exact, odd, exact], {}, "control_image"), ([exact, odd], {"control_scale": [1, 1, 1]}, "control_scale"),
                                      ([exact, odd], {"control_start": [0, 0.5], "control_end": 0.25}, "control_end")):
            try:
                drawn(images, **fields)
            except openai.APIStatusError as error:
                assert 400 <= error.status_code < 500 and error.param == param, error
            else:
                raise AssertionError(f"{fields} were taken")
    with checkpoint("checkpoint", "QwenImagePipeline") as model, Cluster(
            BINARIES, model, precision="fp32", stage_settings={"denoiser": {"model-control-networks": network}}) as cluster:
        flags = ["--control-image", exact, "--control-image", odd, "--control-scale", 0.8, "--control-scale", 0.3]
        agree(cluster, "control", *flags, local=["--controlnet", network, *flags], width=96, height=64)
        same(drawn([exact, odd], control_scale=[0.8, 0.3]), both)


def test_objects_of_an_image():
    random = numpy.random.default_rng(7)
    with Cluster(BINARIES, NANO) as cluster:
        original = random.integers(0, 256, (64, 96, 3), dtype=numpy.uint8)
        image, mask = cluster.folder / "image.png", cluster.folder / "mask.png"
        Image.fromarray(original).save(image)
        white = numpy.zeros((64, 96), dtype=numpy.uint8)
        white[16:40, 8:40] = 255
        Image.fromarray(white).save(mask)
        box = {"x": 8, "y": 16, "width": 32, "height": 24}
        same(edited(cluster, [image], region=json.dumps(box)), edited(cluster, [image], mask))
        two = [{**box, "width": 16}, {**box, "x": 24, "width": 16}]
        same(edited(cluster, [image], boxes=json.dumps(two)), edited(cluster, [image], mask))
        # The object is the same bytes in its new place, its old place is made anew, the rest is kept.
        moved = edited(cluster, [image], region=json.dumps(box), move=json.dumps({"x": 44, "y": 2}))
        assert (moved[22:38, 56:80] == original[20:36, 12:36]).all(), "the object has changed on its way"
        assert (moved[16:40, 8:40] != original[16:40, 8:40]).mean() > 0.9, "the object is still where it was"
        assert (moved[:10] == original[:10]).all() and (moved[:, :4] == original[:, :4]).all()
        same(moved, edited(cluster, [image], mask, move=json.dumps({"x": 44, "y": 2}), strength=1))
        larger = edited(cluster, [image], region=json.dumps(box), scale=2)
        assert (larger[:8] != original[:8]).any() and (larger[:, 80:] == original[:, 80:]).all()
        for fields, param in (({"region": {**box, "width": 200}}, "region"), ({"move": {"x": 1}}, "region"), ({"scale": 2}, "region"),
                              ({"region": {"x": 1}}, "region.y"), ({"region": box, "boxes": two}, "region"), ({"boxes": []}, "boxes")):
            try:
                edited(cluster, [image], **{name: json.dumps(value) for name, value in fields.items()})
            except openai.BadRequestError as error:
                assert error.param == param, (fields, error)
            else:
                raise AssertionError(f"{fields} was taken")


def several(image, instructions, **fields):
    return {"prompt": "a red circle", "seed": 11, "steps": 3, "true_cfg_scale": 3, "edit_instructions": instructions,
            "image": base64.b64encode(image.read_bytes()).decode(), **fields}


def test_several_edits_are_one_job():
    box = {"x": 8, "y": 16, "width": 32, "height": 24}
    with checkpoint("checkpoint-edit", "QwenImageEditPipeline", max_steps=400) as model, Cluster(
            BINARIES, model, settings={"jobs-checkpoint-seconds": 0}) as cluster:
        step_file, odd = cluster.folder / "step.png", INPUTS / "odd.png"
        instructions = [{}, {"prompt": "a blue star", "region": box, "strength": 0.7},
                        {"region": box, "move": {"x": 30, "y": 5}}, {"prompt": "at night", "negative_prompt": "day"}]

        def one_by_one(steps):
            now = odd
            for instruction in instructions:
                fields = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in instruction.items()}
                Image.fromarray(edited(cluster, [now], steps=steps, **fields)).save(step_file)
                now = step_file
            return pixels(step_file.read_bytes())

        response = client(cluster).post("/images/edits", cast_to=object, body=several(odd, instructions))
        same(pixels(base64.b64decode(response["data"][0]["b64_json"])), one_by_one(3))
        # A denoiser is killed in the third edit, and then the gateway.
        whole = one_by_one(100)
        job = client(cluster).post("/jobs", cast_to=object, body=several(odd, instructions, steps=100))["id"]
        state = lambda: cluster.get(f"/v1/jobs/{job}")[1]
        assert state()["images"][0]["steps"] == 100 + 70 + 100 + 100, state()
        cluster.wait(lambda: state()["step"] > 175, "in the third edit")
        cluster.stop(cluster.names("denoiser")[0])
        cluster.start("denoiser")
        cluster.wait(lambda: state()["step"] > 220, "further in the third edit")
        cluster.stop("gateway")
        cluster.start_gateway()
        cluster.wait_until_ready()
        assert state()["step"] == 0 or state()["step"] > 170, state()
        cluster.wait(lambda: state().get("status") == "succeeded", "done")
        same(result(cluster, job), whole)
        for bad, param in (([{"mask": "x"}], "edit_instructions[0].mask"), ([{}, {"region": {**box, "x": 900}}], "edit_instructions[1].region"),
                           ([{"pipeline": "layered"}], "edit_instructions[0].pipeline"), ([{}] * 9, "edit_instructions"),
                           ([], "edit_instructions")):
            try:
                client(cluster).post("/images/edits", cast_to=object, body=several(odd, bad))
            except openai.BadRequestError as error:
                assert error.param == param, (bad, error)
            else:
                raise AssertionError(f"{bad} was taken")


def test_an_edit_resumes_on_another_denoiser():
    with checkpoint("checkpoint-edit", "QwenImageEditPipeline", max_steps=400) as model, Cluster(
            BINARIES, model, settings={"jobs-checkpoint-seconds": 0}) as cluster:
        odd = INPUTS / "odd.png"
        whole = edited(cluster, [odd], steps=200)
        body = {"prompt": "a red circle", "seed": 11, "steps": 200, "true_cfg_scale": 3,
                "image": base64.b64encode(odd.read_bytes()).decode()}
        job = client(cluster).post("/jobs", cast_to=object, body=body)["id"]
        step = lambda: cluster.get(f"/v1/jobs/{job}")[1]["step"]
        cluster.wait(lambda: step() > 60, "in the middle")
        cluster.stop(cluster.names("denoiser")[0])
        reached = step()
        cluster.start("denoiser")
        cluster.wait(lambda: cluster.get(f"/v1/jobs/{job}")[1]["status"] == "succeeded", "done")
        assert reached < 200, "the denoiser was too fast to be killed"
        same(result(cluster, job), whole)


def test_a_job_with_images_outlives_the_gateway():
    with Cluster(BINARIES, NANO) as cluster:
        drawn = cluster.folder / "drawn.png"
        assert cluster.generate(drawn, prompt="a blue star", seed=1, steps=8).returncode == 0
        whole = edited(cluster, [drawn], strength=1, steps=90)
        body = {"prompt": "a red circle", "seed": 11, "steps": 90, "true_cfg_scale": 3, "strength": 1,
                "image": base64.b64encode(drawn.read_bytes()).decode()}
        job = client(cluster).post("/jobs", cast_to=object, body=body)["id"]
        cluster.stop("gateway")
        cluster.start_gateway()
        cluster.wait_until_ready()
        cluster.wait(lambda: cluster.get(f"/v1/jobs/{job}")[1].get("status") == "succeeded", "done")
        same(result(cluster, job), whole)


def test_an_image_is_made_again_from_its_record():
    """The record names pipeline, files and settings; sent once more, it gives the same bytes."""
    box = {"x": 8, "y": 16, "width": 32, "height": 24}
    with Cluster(BINARIES, NANO) as cluster:
        image, mask = cluster.folder / "image.png", cluster.folder / "mask.png"
        Image.fromarray(numpy.random.default_rng(3).integers(0, 256, (64, 96, 3), dtype=numpy.uint8)).save(image)
        Image.fromarray(numpy.arange(64 * 96, dtype=numpy.uint8).reshape(64, 96)).save(mask)
        files = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in (image, mask)}
        whole = {"prompt": "a red circle", "seed": 5, "steps": 3, "image": data_url(image)}
        for fields in (
                {}, {"pipeline": "img2img", "strength": 0.5}, {"mask": data_url(mask), "mask_blur": 1.5, "paste_back": False},
                {"pipeline": "inpaint", "mask": data_url(mask), "padding_mask_crop": 4},
                {"outpaint": {"left": 16, "right": 16}}, {"region": box, "move": {"x": 30}},
                {"edit_instructions": [{"region": box}, {"prompt": "a blue star", "pipeline": "edit-plus"}]}):
            made = edit_json(cluster, {**whole, **fields})
            inspected = subprocess.run([BINARIES / "qwen-image", "inspect", "-"], input=made, capture_output=True, timeout=60)
            assert inspected.returncode == 0, inspected.stderr
            record = json.loads(inspected.stdout)
            inputs = record.pop("inputs")
            assert [entry["role"] for entry in inputs] == ["image"] + ["mask"] * ("mask" in fields), inputs
            again = {entry["role"]: data_url(files[entry["sha256"]]) for entry in inputs}
            for name in ("software", "software_version", "fingerprint"):
                del record[name]
            if "edit_instructions" in fields:
                for name in ("pipeline", "size"):
                    del record[name]
            assert edit_json(cluster, {**record, **again}) == made, f"{fields}: {record}"
        # The same from files by the command line, with and without a cluster.
        agree(cluster, "edit", "--image", image, "--image", mask)


def data_url(path):
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def edit_json(cluster, body):
    """The file that an edit gives whose body is JSON."""
    return base64.b64decode(client(cluster).post("/images/edits", cast_to=object, body=body)["data"][0]["b64_json"])


def test_previews_look_like_the_image():
    """Of an image and of an edit: the more the later."""
    with Cluster(BINARIES, NANO) as cluster:
        images = client(cluster).images
        fields = {"prompt": "a red circle", "stream": True, "partial_images": 3, "size": "64x64",
                  "extra_body": {"seed": 11, "steps": 200}}
        for kind, begin in (("image_generation", lambda: images.generate(**fields)),
                            ("image_edit", lambda: images.edit(image=open(INPUTS / "exact.png", "rb"), **fields))):
            events = [event for event in begin() if event.type != f"{kind}.progress"]
            assert [event.type for event in events] == [f"{kind}.partial_image"] * 3 + [f"{kind}.completed"], [e.type for e in events]
            *partial, final = (pixels(base64.b64decode(event.b64_json))[..., :3].astype(float) for event in events)
            assert all(preview.shape == final.shape for preview in partial)
            distances = [numpy.sqrt(((preview - final) ** 2).mean()) for preview in partial]
            print(f"{kind}: RMS difference of previews to the image {' '.join(f'{x:.1f}' for x in distances)}")
            assert distances[-1] < distances[0] and distances[-1] < 48, distances


def test_bad_images_are_named():
    with Cluster(BINARIES, NANO) as cluster:
        good = (INPUTS / "exact.png").read_bytes()
        for name, image, mask, param in (
                ("text", b"hello, world", None, "image"), ("cut off", good[:900], None, "image"), ("empty", b"", None, "image"),
                ("another size", good, (INPUTS / "odd.png").read_bytes(), "mask"),
                ("huge", good[:16] + (100_000).to_bytes(4, "big") * 2 + good[24:], None, "image")):
            try:
                client(cluster).images.edit(
                    image=("image.png", image), prompt="p", **({"mask": ("mask.png", mask)} if mask else {}))
            except openai.APIStatusError as error:
                assert 400 <= error.status_code < 500 and error.param == param, (name, error)
                assert error.message and "internal" not in error.message.lower(), (name, error)
            else:
                raise AssertionError(f"{name} was taken")
        try:
            client(cluster).images.edit(image=[("image.png", good)] * 17, prompt="p")
        except openai.APIStatusError as error:
            assert error.status_code == 400 and error.param in ("image", "image[]"), error
        else:
            raise AssertionError("17 images were taken")
        assert cluster.get("/readyz")[0] == 200


if __name__ == "__main__":
    sys.exit(testing.run("images", testing.functions(globals())))
