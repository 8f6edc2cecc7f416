#!/usr/bin/env python3
"""Images as input on the page of the gateway, in a real browser: uploads, masks, extension, comparison, layers.

    page_images_test.py [BINARIES]        needs playwright from PyPI, and chromium (Debian's, or what $CHROMIUM names)
"""

import base64
import io
import json
import signal
import subprocess
import sys

import numpy
from PIL import Image
from playwright.sync_api import expect

from browser import (
    BINARIES, MODEL, ROOT, ask, choose, drop, fresh, images, main, noise, pixels, save, set_slider, shown_mask, stroke)
from cluster import Cluster
from models import checkpoint


def sent(cluster, job):
    return cluster.get(f"/v1/jobs/{job.get_attribute('data-job')}")[1]


def test_an_image_is_begun_with(page, cluster):
    path = cluster.folder / "drawn.png"
    assert cluster.generate(path, prompt="a blue star", seed=1, steps=8).returncode == 0
    fresh(page, path)
    expect(page.locator("#inputs .about")).to_contain_text("64×64 · PNG")
    expect(page.locator("[name=strength]")).to_be_visible()
    expect(page.locator("#reasons")).to_contain_text("has loaded a control network")
    expect(page.locator("[name=mode][value=control]")).to_be_disabled()
    distances = []
    for strength, made in ((0.1, "2 of 12"), (1, "12 of 12")):
        page.fill("[name=steps]", "12")
        set_slider(page, "strength", strength)
        expect(page.locator("#strength-about")).to_contain_text(made)
        prompt = "a red circle\n  on white"
        job = ask(page, prompt, seed=11, steps=12, true_cfg_scale=3)
        made_image = images(job, 1)[0]
        assert sent(cluster, job)["prompt"] == prompt, "forms change line breaks"
        output = cluster.folder / "local.png"
        assert cluster.local(output, prompt=prompt, seed=11, steps=12, true_cfg_scale=3, image=path, strength=strength).returncode == 0
        assert (pixels(output.read_bytes()) == pixels(made_image)).all()
        expect(job.locator(".facts")).to_contain_text(f"img2img · strength {strength}")
        distances.append(numpy.abs(pixels(made_image).astype(int) - pixels(path.read_bytes())).mean())
    assert distances[0] < 25 < distances[1], distances


def test_results_are_compared_and_used_again(page, cluster):
    """After the test before: its last job has an input, also after reloading."""
    page.reload()
    job = page.locator(".job").first
    split = job.locator(".split")
    split.focus()
    split.press("End")
    assert job.locator(".frame").evaluate("(frame) => frame.style.getPropertyValue('--split')") == "100%"
    before = job.locator("img.before")
    expect(before).to_be_visible()
    assert before.evaluate("(image) => image.naturalWidth") == 64
    job.locator(".again").click()
    expect(page.locator("#inputs li")).to_have_count(1)
    expect(page.locator("[name=strength-value]")).to_have_text("1.00")
    job.locator(".use").click()
    expect(page.locator("#inputs .name")).to_have_text(f"{job.get_attribute('data-job')}-0.png")
    page.locator("#inputs .remove").click()
    expect(page.locator("#inputs li")).to_have_count(0)
    expect(page.locator("#strength-field")).to_be_hidden()


def test_the_mask_is_painted_undone_and_kept_to(page, cluster):
    original = noise(cluster.folder / "image.png", 96, 80)
    fresh(page, cluster.folder / "image.png")
    choose(page, "Mask")
    page.click("#request button[type=submit]")  # the prompt is missing: the browser says so
    ask_count = page.locator(".job").count()
    page.fill("[name=prompt]", "a red circle")
    page.click("#request button[type=submit]")
    expect(page.locator("#error-mask")).to_contain_text("nothing is masked")
    assert page.locator(".job").count() == ask_count
    set_slider(page, "brush", 20)
    stroke(page, (0.25, 0.3), (0.3, 0.7))
    left = shown_mask(page)
    assert left[:, :48].any() and not left[:, 60:].any()
    expect(page.locator("#error-mask")).to_have_count(0)
    stroke(page, (0.8, 0.3), (0.8, 0.6))
    both = shown_mask(page)
    assert both[:, 60:].any()
    page.click("[data-do=undo]")
    assert (shown_mask(page) == left).all()
    page.click("[data-do=redo]")
    assert (shown_mask(page) == both).all()
    page.click("[data-do=undo]")
    page.click("[data-do=erase]")
    stroke(page, (0.3, 0.7), (0.3, 0.7))
    erased = shown_mask(page)
    assert erased.sum() < left.sum() and not (erased & ~left).any()
    page.click("[data-do=invert]")
    assert (shown_mask(page) == ~erased).all()
    page.locator("#mask canvas").press("Control+z")
    expect(page.locator(".covered")).not_to_have_text("0 % masked")
    set_slider(page, "strength", 1)
    made = pixels(images(ask(page, "a red circle", seed=4, steps=4), 1)[0])
    assert made.shape == original.shape
    assert (made[~erased] == original[~erased]).all(), "a pixel outside of the mask has changed"
    assert (made[erased] != original[erased]).any(axis=1).mean() > 0.9
    page.click("[data-do=clear]")
    assert not shown_mask(page).any()


def test_a_mask_has_the_size_of_a_large_image(page, cluster):
    """Larger than it is shown: the mask that is sent is not the one on the screen."""
    width, height, brush = 1501, 1100, 150
    original = noise(cluster.folder / "large.png", width, height)
    fresh(page, cluster.folder / "large.png")
    choose(page, "Mask")
    page.click("#enlarge")
    expect(page.locator("dialog .stage")).to_be_visible()
    set_slider(page, "brush", brush)
    stroke(page, (0.5, 0.5), (0.7, 0.5))
    page.locator("#large .close").click()
    set_slider(page, "strength", 1)
    made = pixels(images(ask(page, "a red circle", seed=4, steps=2), 1)[0])
    y, x = numpy.mgrid[:height, :width] + 0.5
    distance = numpy.hypot(numpy.maximum(numpy.maximum(width * 0.5 - x, x - width * 0.7), 0), y - height * 0.5)
    changed = (made != original).any(axis=2)
    slack = 4  # the browser gives the mouse's place in whole pixels of the screen
    assert not changed[distance > brush / 2 + slack].any(), "a pixel outside of the mask has changed"
    assert changed[distance < brush / 2 - slack].mean() > 0.9


def test_the_mask_by_keys_and_by_touch(page, cluster):
    noise(cluster.folder / "image.png", 64, 64)
    fresh(page, cluster.folder / "image.png")
    choose(page, "Mask")
    canvas = page.locator("#mask canvas")
    for key in ("Space", "ArrowRight", "ArrowRight", "ArrowRight"):
        canvas.press(key)
    page.keyboard.down("Shift")
    for _ in range(2):
        page.keyboard.press("ArrowDown")
    page.keyboard.up("Shift")
    mask = shown_mask(page)
    assert mask[32, 32] and mask[38, 44] and not mask[32, 20] and not mask[60, 60]
    canvas.press("Control+z")
    undone = shown_mask(page)
    assert undone[32, 32] and not undone[38, 44]
    canvas.press("Control+Shift+Z")
    assert (shown_mask(page) == mask).all()
    canvas.press("i")
    assert (shown_mask(page) == ~mask).all()
    canvas.press("Delete")
    page.mouse.move(5, 5)
    canvas.hover()  # no button is held
    assert not shown_mask(page).any()
    canvas.press("]")
    expect(page.locator("[name=brush-size]")).to_have_text("10 px")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    session = page.context.new_cdp_session(page)
    for kind, places in (("touchStart", [0.2]), ("touchMove", [0.5]), ("touchMove", [0.8]), ("touchEnd", [])):
        points = [{"x": box["x"] + box["width"] * place, "y": box["y"] + box["height"] * 0.2} for place in places]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    mask = shown_mask(page)
    assert mask[13, 13] and mask[13, 32] and mask[13, 50] and not mask[40].any()


def test_an_image_is_extended(page, cluster):
    original = noise(cluster.folder / "image.png", 64, 48)
    fresh(page, cluster.folder / "image.png")
    choose(page, "Extend")
    page.fill("[name=prompt]", "a red circle")
    page.click("#request button[type=submit]")
    expect(page.locator("#error-outpaint")).to_contain_text("no pixels on any side")
    handle = page.locator("[data-side=right]")
    handle.scroll_into_view_if_needed()
    box, image = handle.bounding_box(), page.locator("#extend img").bounding_box()
    scale = image["width"] / 64
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30 * scale, y, steps=5)  # 32 is the next multiple of 16
    page.mouse.up()
    expect(page.locator("[name=extend-right]")).to_have_value("32")
    expect(page.locator("#error-outpaint")).to_have_count(0)
    page.locator("[data-side=bottom]").press("ArrowDown")
    page.fill("[name=extend-left]", "16")
    page.fill("[name=feather]", "0")
    expect(page.locator(".canvas-size")).to_have_text("64×48 → 112×64")
    job = ask(page, "a red circle", seed=4, steps=3)
    made = pixels(images(job, 1)[0])
    assert made.shape == (64, 112, 3)
    assert (made[:48, 16:80] == original).all()
    assert (made[48:, :] != 0).any()
    expect(job.locator("img.before")).to_have_attribute("style", "left: 14.2857%; top: 0%; width: 57.1429%; height: 75%;")


def test_images_are_pasted_and_dropped(page, cluster):
    path = cluster.folder / "small.webp"
    Image.new("RGB", (40, 30), (200, 30, 30)).save(path)
    fresh(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    png = io.BytesIO()
    Image.new("RGB", (48, 32), (30, 200, 30)).save(png, "png")
    page.evaluate("""async (text) => {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))
        await navigator.clipboard.write([new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})})])
    }""", base64.b64encode(png.getvalue()).decode())
    page.locator("h1").click()
    page.keyboard.press("Control+V")
    expect(page.locator("#inputs .about")).to_contain_text("48×32 · PNG")
    drop(page, path)  # this model takes one image: the new one replaces the other
    expect(page.locator("#inputs .about")).to_have_text("40×30 · WebP · 1 KB")


def test_bad_images_are_refused_at_their_field(page, cluster):
    gif, text, cut = (cluster.folder / name for name in ("image.gif", "text.png", "cut.png"))
    Image.new("RGB", (8, 8)).save(gif)
    text.write_text("no image")
    noise(cut, 64, 64)
    fresh(page)
    for path, message in ((gif, "image.gif is image/gif; PNG, JPEG and WebP are read"), (text, "text.png cannot be read as an image")):
        drop(page, path)
        expect(page.locator("#error-image")).to_have_text(message)
        expect(page.locator("#inputs li")).to_have_count(0)
    page.evaluate("""() => {
        const data = new DataTransfer()
        data.items.add(new File([new Uint8Array(51 << 20)], "huge.png", {type: "image/png"}))
        document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}))
    }""")
    expect(page.locator("#error-image")).to_have_text("huge.png has 51 MB, the limit is 50 MB")
    # What only the gateway refuses: a size that the model cannot make.
    fresh(page, cut)
    page.fill("[name=prompt]", "p")
    page.fill("[name=size]", "4096x16")
    page.click("#request button[type=submit]")
    expect(page.locator("#error-size")).to_contain_text("must be from 32 to 256")
    page.fill("[name=size]", "")
    page.route("**/v1/jobs", lambda route: route.fulfill(
        status=400, json={"error": {"message": "image: the file is damaged", "param": "image", "code": "invalid_value"}}))
    page.click("#request button[type=submit]")
    expect(page.locator("#error-image")).to_have_text("image: the file is damaged")
    page.unroute("**/v1/jobs")


def test_a_job_with_an_image_outlives_page_and_gateway(page, cluster):
    noise(cluster.folder / "image.png", 96, 96)
    fresh(page, cluster.folder / "image.png")
    choose(page, "Mask")
    stroke(page, (0.2, 0.5), (0.8, 0.5))
    set_slider(page, "strength", 1)
    job = ask(page, "a green star", seed=5, steps=150)
    name = job.get_attribute("data-job")
    expect(job.locator(".state")).to_contain_text("step")
    cluster.stop("gateway", signal.SIGKILL)
    cluster.start_gateway()
    cluster.wait_until_ready()
    page.reload()
    job = page.locator(f".job[data-job={name}]")
    images(job, 1)
    expect(job.locator(".split")).to_be_visible()
    job.locator(".again").click()
    expect(page.locator("[name=mode][value=mask]")).to_be_checked()
    assert shown_mask(page)[48, 20:76].all()


def test_a_request_that_is_too_large_is_refused_at_the_images(page, cluster):
    """The gateway's limit may be lower than the page's; it answers while the browser still sends."""
    noise(cluster.folder / "image.png", 1400, 1400)
    noise(cluster.folder / "small.png", 64, 64)
    cluster.stop("gateway", signal.SIGTERM)
    cluster.settings = {"http-max-body-bytes": 100_000}
    cluster.start_gateway()
    cluster.wait_until_ready()
    fresh(page, cluster.folder / "image.png")
    count = page.locator(".job").count()
    page.fill("[name=prompt]", "a red circle")
    page.click("#request button[type=submit]")
    expect(page.locator("#error-image")).to_contain_text("the limit is 100000")
    expect(page.locator("#files")).to_be_focused()
    expect(page.locator("#files")).to_have_attribute("aria-describedby", "error-image limits")
    expect(page.locator(".job")).to_have_count(count)
    page.set_input_files("#files", cluster.folder / "small.png")
    expect(page.locator("#error-image")).to_have_count(0)
    expect(page.locator("#files")).to_have_attribute("aria-describedby", "limits")
    images(ask(page, "a red circle", steps=2), 1)
    cluster.stop("gateway", signal.SIGTERM)
    cluster.settings = {}
    cluster.start_gateway()
    cluster.wait_until_ready()


# Elements that can be used, are seen, and have no name for screen readers.
NAMELESS = """() => [...document.querySelectorAll("a, button, input, select, textarea, canvas, [role=slider], progress")]
    .filter((element) => element.checkVisibility({visibilityProperty: true}) && !element.closest("[hidden]"))
    .filter((element) => !(element.getAttribute("aria-label") || [...(element.labels ?? [])].some((label) => label.innerText.trim())
        || element.innerText?.trim()))
    .map((element) => element.outerHTML.slice(0, 200))"""

# Texts whose contrast is below 4.5, that of WCAG's level AA.
PALE = """() => {
    const light = (color) => {
        const parts = color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
        const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const isClear = (color) => color === "rgba(0, 0, 0, 0)" || color === "transparent"
    const behind = (element) => {
        const color = getComputedStyle(element).backgroundColor
        return isClear(color) ? behind(element.parentElement) : color
    }
    return [...document.querySelectorAll("body *")].filter((element) =>
        element.checkVisibility() && !element.closest(":disabled, label:has(:disabled)")
        && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())
    ).map((element) => {
        const [one, other] = [light(getComputedStyle(element).color), light(behind(element))]
        return [(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), element.outerHTML.slice(0, 200)]
    }).filter(([contrast]) => contrast < 4.5)
}"""


def test_everything_fits_is_named_and_can_be_read(page, cluster):
    noise(cluster.folder / "a name that is far longer than the place where it is shown.png", 96, 80)
    for scheme, width in (("light", 1280), ("dark", 768), ("light", 390), ("dark", 320)):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        fresh(page, cluster.folder / "a name that is far longer than the place where it is shown.png")
        assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 20, 26)") == (scheme == "dark")
        images(ask(page, "a red circle", steps=2), 1)
        expect(page.locator("progress")).to_have_count(0)
        for mode in ("Change", "Mask", "Extend"):
            choose(page, mode)
            page.fill("[name=prompt]", "")
            for script in (NAMELESS, PALE):
                assert not (found := page.evaluate(script)), (scheme, width, mode, found)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{mode} is {wide} pixels wide on a screen of {width}"
            button = page.locator("#request button[type=submit]").bounding_box()
            assert button["y"] + button["height"] <= 800, f"{mode}, {width} pixels: the button is not seen"
    page.set_viewport_size({"width": 1280, "height": 720})
    page.emulate_media(color_scheme="light")


def test_layers_are_shown_and_saved_one_by_one(page, cluster):
    image = ROOT / "Tests/Golden/tiny/inputs/rgba.png"
    with checkpoint("checkpoint-layered", "QwenImageLayeredPipeline", reference_area=4096) as model, Cluster(BINARIES, model) as other:
        tab = page.context.new_page()
        tab.goto(other.url)
        expect(tab.locator("#limits")).to_contain_text("it needs one")
        tab.set_input_files("#files", image)
        expect(tab.locator("#modes")).to_be_hidden()  # there is nothing to choose
        expect(tab.locator("[name=layers]")).to_have_attribute("placeholder", "4")
        tab.fill("[name=layers]", "3")
        job = ask(tab, "a red circle", seed=11, steps=3, true_cfg_scale=3)
        layers = job.locator(".layers li")
        expect(layers).to_have_count(3)
        expect(layers.locator("label")).to_have_text(["Layer 1, bottom", "Layer 2", "Layer 3, top"])
        expect(job.locator(".facts")).to_contain_text("layered in 3 layers")
        saved = save(layers.locator("a"))
        subprocess.run([str(part) for part in (
            BINARIES / "qwen-image", "local", "--image", image, "--model", model, "--precision", "bf16", "--prompt", "a red circle",
            "--seed", 11, "--steps", 3, "--true-cfg-scale", 3, "--layers", 3, "--output", other.folder / "local.png")],
            check=True, capture_output=True)
        for index, data in enumerate(saved):
            one, expected = (numpy.asarray(Image.open(io.BytesIO(file)))
                             for file in (data, (other.folder / f"local.{index}.png").read_bytes()))
            assert one.shape == (64, 64, 4) and (one == expected).all(), f"layer {index}"
        # Each can be left out of the composite.
        parts = job.locator("figure > .frame img.result")
        expect(parts).to_have_count(3)
        layers.nth(1).locator("input").uncheck()
        expect(parts.nth(1)).to_be_hidden()
        expect(parts.nth(2)).to_be_visible()
        layers.nth(1).locator("input").check()
        expect(parts.nth(1)).to_be_visible()
        assert not (found := tab.evaluate(NAMELESS)), found
        tab.reload()
        expect(layers).to_have_count(3)
        expect(job.locator("img.before")).to_be_visible()
        job.locator(".again").click()
        expect(tab.locator("[name=layers]")).to_have_value("3")
        layers.nth(2).locator(".use").click()
        expect(tab.locator("#inputs .name")).to_have_text(f"{job.get_attribute('data-job')}-0-layer-3.png")
        tab.fill("[name=layers]", "11")
        count = tab.locator(".job").count()
        tab.click("#request button[type=submit]")
        assert tab.locator("[name=layers]").evaluate("(field) => field.validity.rangeOverflow")
        assert tab.locator(".job").count() == count
        tab.close()


def test_a_model_that_edits_several_images(page, cluster):
    """Another cluster, with another model: what is offered is what it has."""
    inputs = ROOT / "Tests/Golden/tiny/inputs"
    with checkpoint("checkpoint-edit", "QwenImageEditPlusPipeline") as model, Cluster(BINARIES, model) as other:
        tab = page.context.new_page()
        tab.goto(other.url)
        expect(tab.locator("#limits")).to_contain_text("up to 16 images, 50 MB each, 64 MB together")
        for name in ("odd", "tall", "exact"):
            tab.set_input_files("#files", inputs / f"{name}.png")
        expect(tab.locator("#inputs .name")).to_have_text(["odd.png", "tall.png", "exact.png"])
        expect(tab.locator("#strength-field")).to_be_hidden()
        tab.click("[aria-label='Move image 2 earlier']")
        expect(tab.locator("#inputs .name")).to_have_text(["tall.png", "odd.png", "exact.png"])
        tab.click("[aria-label='Remove image 3']")
        tab.locator("#inputs li").nth(0).drag_to(tab.locator("#inputs li").nth(1))
        expect(tab.locator("#inputs .name")).to_have_text(["odd.png", "tall.png"])
        job = ask(tab, "a red circle", seed=11, steps=3, true_cfg_scale=3, size="96x80")
        made = images(job, 1)[0]
        expect(job.locator(".facts")).to_contain_text("edit-plus of 2 images")
        output = other.folder / "local.png"
        arguments = ["local", "--image", inputs / "odd.png", "--image", inputs / "tall.png", "--model", model, "--precision", "bf16",
                     "--prompt", "a red circle", "--seed", 11, "--steps", 3, "--true-cfg-scale", 3, "--width", 96, "--height", 80,
                     "--output", output]
        subprocess.run([BINARIES / "qwen-image", *map(str, arguments)], check=True, capture_output=True)
        assert (pixels(output.read_bytes()) == pixels(made)).all()
        tab.close()


def test_control_images_with_and_without_a_mask(page, cluster):
    """A mask is asked for where the denoisers have a control network for masks."""
    tiny = ROOT / "Tests/Golden/tiny"
    image, whole, masked = tiny / "inputs/exact.png", tiny / "controlnet", tiny / "controlnet-inpaint"
    fields = {"seed": 11, "steps": 3, "true_cfg_scale": 3, "size": "96x64"}
    with checkpoint("checkpoint", "QwenImagePipeline") as model, Cluster(
            BINARIES, model, stage_settings={"denoiser": {"model-control-networks": masked}}) as other:
        tab = page.context.new_page()
        tab.goto(other.url)
        tab.set_input_files("#files", image)
        choose(tab, "Control")
        expect(tab.locator("#mask-about")).to_contain_text("the rest follows the control image")
        tab.fill("[name=control_scale]", "0.8")
        tab.fill("[name=prompt]", "a red circle")
        tab.click("#request button[type=submit]")
        expect(tab.locator("#error-mask")).to_contain_text("nothing is masked")
        set_slider(tab, "brush", 20)
        stroke(tab, (0.3, 0.3), (0.6, 0.6))
        made, record = made_with_control(tab, fields)
        assert record["pipeline"] == "controlnet-inpaint" and record["control_scale"] == [0.8], record
        assert [entry["role"] for entry in record["inputs"]] == ["control", "mask"], record
        # The mask is that of the page, so the same is asked for by it and by the command line.
        mask = other.folder / "mask.png"
        Image.fromarray((shown_mask(tab) * 255).astype(numpy.uint8)).save(mask)
        alone = other.folder / "alone.png"
        result = other.local(alone, prompt="a red circle", seed=11, steps=3, true_cfg_scale=3, width=96, height=64, mask=mask,
                             controlnet=masked, control_image=image, control_scale=0.8)
        assert result.returncode == 0, result.stderr
        assert (pixels(alone.read_bytes()) == pixels(made)).all()
        tab.close()
    with checkpoint("checkpoint", "QwenImagePipeline") as model, Cluster(
            BINARIES, model, stage_settings={"denoiser": {"model-control-networks": whole}}) as other:
        tab = page.context.new_page()
        tab.goto(other.url)
        tab.set_input_files("#files", image)
        choose(tab, "Control")
        expect(tab.locator("#mask")).to_be_hidden()
        alone = other.folder / "alone.png"
        followed, record = made_with_control(tab, fields)
        assert record["pipeline"] == "controlnet" and [entry["role"] for entry in record["inputs"]] == ["control"], record
        result = other.local(alone, prompt="a red circle", seed=11, steps=3, true_cfg_scale=3, width=96, height=64,
                             controlnet=whole, control_image=image)
        assert result.returncode == 0, result.stderr
        assert (pixels(alone.read_bytes()) == pixels(followed)).all()
        tab.close()


def made_with_control(tab, fields):
    """The image of the next job, and what it says of its making."""
    made = images(ask(tab, "a red circle", **fields), 1)[0]
    inspected = subprocess.run([BINARIES / "qwen-image", "inspect", "-"], input=made, capture_output=True, check=True)
    return made, json.loads(inspected.stdout)


if __name__ == "__main__":
    # Begins with images and masks them; what an editing model has instead is seen in tests of their own.
    own = json.loads((MODEL / "generation_defaults.json").read_text())
    with checkpoint(MODEL.name, "QwenImagePipeline", MODEL.parent, **own) as begins_with_images:
        sys.exit(main("page-images", globals(), begins_with_images))
