#!/usr/bin/env python3
"""The page of a gateway that serves models of two families, in a real browser: the form follows the chosen model.

    page_families_test.py [BINARIES]        needs playwright from PyPI, and chromium (Debian's, or what $CHROMIUM names)
"""

import io
import subprocess
import sys
import urllib.request

from PIL import Image
from playwright.sync_api import expect

from browser import BINARIES, ROOT, ask, choose, fresh, images, main, noise

FOLDER = ROOT / "Tests/Golden/tiny-2.1"
BASE, TURBO = FOLDER / "checkpoint", FOLDER / "checkpoint-turbo"
STAGES = ("text-encoder", "vae-encoder", "denoiser", "vae-decoder")
MODELS = ["nano-qwen-image", "checkpoint", "checkpoint-turbo"]


def local(cluster, model, *flags, **options):
    """The pixels of `qwen-image local`."""
    path = cluster.folder / "local.png"
    arguments = {"model": model, "precision": cluster.precision, "output": path, **options}
    command = [BINARIES / "qwen-image", "local", *flags, *(f"--{name}={value}" for name, value in arguments.items())]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=300)
    return opened(path.read_bytes())


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def same(image, expected):
    assert (image.mode, image.size) == (expected.mode, expected.size), (image, expected)
    assert image.tobytes() == expected.tobytes(), "the pixels differ"


def job(cluster, element):
    return cluster.get(f"/v1/jobs/{element.get_attribute('data-job')}")[1]


def is_served(cluster, name):
    """Whether all pipelines of a model can be used now."""
    models = {model["id"]: model for model in cluster.get("/v1/models")[1]["data"]}
    return name in models and all(pipeline["ready"] for pipeline in models[name]["pipelines"])


def test_one_model_needs_no_choice(page, cluster):
    expect(page.locator("#model-about")).to_contain_text("Licence: Apache-2.0")
    expect(page.locator("#model-field")).to_be_hidden()
    expect(page.locator("#background-field")).to_be_hidden()
    # The gateway lists models in the order in which they came.
    for model in (BASE, TURBO):
        for stage in STAGES:
            cluster.start(stage, settings={"model-directory": model})
        cluster.wait(lambda: is_served(cluster, model.name), model.name)
    # The page notices by itself.
    expect(page.locator("[name=model] option")).to_have_text(MODELS)
    expect(page.locator("[name=model]")).to_have_value(MODELS[0])


def test_the_form_follows_the_model(page, cluster):
    about, steps, size = page.locator("#model-about"), page.locator("[name=steps]"), page.locator("[name=size]")
    cards = {model["id"]: model for model in cluster.get("/v1/models")[1]["data"]}
    for name in MODELS + MODELS[:2]:
        page.select_option("[name=model]", name)
        card = cards[name]
        expect(about).to_contain_text(f"Licence: {card['license']}")
        expect(page.locator("[name=true_cfg_scale]")).to_have_attribute("placeholder", f"{card['defaults']['true_cfg_scale']:g}")
        expect(size).to_have_attribute("placeholder", "{width}x{height}".format(**card["defaults"]["size"]))
        sizes = page.locator("#sizes option").evaluate_all("(options) => options.map((each) => each.value)")
        assert sizes == ["{width}x{height}".format(**each) for each in card["recommended_sizes"]], sizes
        expect(page.locator("#background-field")).to_be_visible(visible=card["transparency"])
        expect(page.locator("#limits")).to_contain_text(f"up to {min(card['max_references'], 16)} images")
        expect(page.locator("#resolution-field")).to_be_visible()
        if name == "checkpoint-turbo":
            expect(steps).to_be_disabled()
            expect(steps).to_have_attribute("placeholder", "8")
            expect(about).to_contain_text("8 steps, distilled")
        else:
            expect(steps).to_be_enabled()
            expect(steps).to_have_attribute("placeholder", f"{card['defaults']['steps']}")
    # What is typed for one model and is not of the next is not sent.
    page.select_option("[name=background]", "transparent")
    page.select_option("[name=model]", "nano-qwen-image")
    element = ask(page, "a blue star", seed=5, steps=2)
    same(opened(images(element, 1)[0]), local(cluster, cluster.model, prompt="a blue star", seed=5, steps=2))
    expect(element.locator(".frame.transparent")).to_have_count(0)


def test_transparency_is_chosen_and_shown(page, cluster):
    page.select_option("[name=model]", "checkpoint")
    words = "This is an RGBA image with transparency. a fox sticker. The image has alpha channel and the background is transparent."
    for background, prompt in [("", "a fox sticker"), ("transparent", words), ("opaque", "a fox sticker")]:
        page.select_option("[name=background]", background)
        element = ask(page, "a fox sticker", size="64x96", seed=5, steps=3)
        made = opened(images(element, 1)[0])
        expected = local(cluster, BASE, prompt=prompt, width=64, height=96, seed=5, steps=3)
        if background == "opaque":
            assert made.mode == "RGB" and made.size == (64, 96)
        else:
            same(made, expected)
        frame = element.locator(".frame")
        expect(element.locator(".frame.transparent")).to_have_count(0 if background == "opaque" else 1)
        pattern = frame.evaluate("(frame) => getComputedStyle(frame).backgroundImage")
        assert ("conic-gradient" in pattern) == (background != "opaque"), pattern
        assert job(cluster, element)["background"] == ("opaque" if background == "opaque" else "transparent")
    element.locator(".again").click()
    expect(page.locator("[name=background]")).to_have_value("opaque")
    expect(page.locator("[name=model]")).to_have_value("checkpoint")


def test_a_distilled_model_has_its_steps(page, cluster):
    page.select_option("[name=model]", "checkpoint")
    page.fill("[name=steps]", "3")
    page.select_option("[name=model]", "checkpoint-turbo")
    page.select_option("[name=background]", "")
    expect(page.locator("[name=steps]")).to_have_value("")
    page.fill("[name=prompt]", "a fox")
    page.fill("[name=size]", "64x64")
    page.fill("[name=seed]", "5")
    count = page.locator(".job").count()
    page.click("#request button[type=submit]")
    expect(page.locator(".job")).to_have_count(count + 1)
    element = page.locator(".job").first
    same(opened(images(element, 1)[0]), local(cluster, TURBO, prompt="a fox", width=64, height=64, seed=5))
    expect(element.locator(".facts")).to_contain_text("8 steps")


def test_references_up_to_the_models_number(page, cluster):
    files = [cluster.folder / f"reference-{number}.png" for number in range(11)]
    for number, path in enumerate(files):
        noise(path, 64, 64, seed=number)
    fresh(page)
    page.select_option("[name=model]", "checkpoint")
    with page.expect_file_chooser() as chooser:
        page.locator(".drop .button").click()
    chooser.value.set_files([str(path) for path in files])
    expect(page.locator("#error-image")).to_contain_text("10 images at most")
    expect(page.locator("#inputs li")).to_have_count(10)
    page.fill("[name=output_resolution]", "64")
    element = ask(page, "the square of <image1> in <image2>", size="64x64", seed=5, steps=2)
    made = opened(images(element, 1)[0])
    flags = [part for path in files[:10] for part in ("--image", path)]
    same(made, local(
        cluster, BASE, *flags, **{"prompt": "the square of <image1> in <image2>", "output-resolution": 64, "width": 64, "height": 64,
                                 "seed": 5, "steps": 2}))
    expect(element.locator(".facts")).to_contain_text("edit-plus of 10 images")
    element.locator(".again").click()
    expect(page.locator("[name=output_resolution]")).to_have_value("64")
    # A mode that has no such field hides it, and does not send it.
    fresh(page, files[0])
    page.select_option("[name=model]", "nano-qwen-image")
    page.fill("[name=output_resolution]", "64")
    choose(page, "Mask")
    expect(page.locator("#resolution-field")).to_be_hidden()
    choose(page, "Change")
    expect(page.locator("#resolution-field")).to_be_visible()


def test_results_of_other_formats_are_shown_and_saved_by_their_names(page, cluster):
    for name, extension in (("webp", "webp"), ("jpeg", "jpg")):
        request = urllib.request.Request(
            f"{cluster.url}/v1/jobs", method="POST", headers={"content-type": "application/json"},
            data=f'{{"prompt":"a {name} file","model":"checkpoint","size":"64x64","steps":1,"output_format":"{name}"}}'.encode())
        with urllib.request.urlopen(request, timeout=60):
            pass
        page.reload()
        element = page.locator(".job").first
        expect(element.locator(".prompt")).to_have_text(f"a {name} file")
        assert opened(images(element, 1)[0]).format == name.upper()
        assert element.locator("figcaption a").get_attribute("download").endswith(f".{extension}")
        expect(element.locator(".frame.transparent")).to_have_count(1 if name == "webp" else 0)


if __name__ == "__main__":
    sys.exit(main("page-families", globals()))
