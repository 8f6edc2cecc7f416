#!/usr/bin/env python3
"""What the page has besides its form, in a real browser: gallery, comparison, grids, presets, parameters from files, the cluster.

    page_gallery_test.py [BINARIES]        needs playwright from PyPI, and chromium (Debian's, or what $CHROMIUM names)
"""

import io
import json
import re
import signal
import sys
import urllib.request

import numpy
from PIL import Image, PngImagePlugin
from playwright.sync_api import expect

from browser import ask, choose, drop, fresh, images, main, noise, pixels, save, show, stroke


def post(cluster, path="/v1/jobs", **fields):
    """Submits a job, or several as `jobs`, beside the page; returns the answer."""
    body = json.dumps(fields.pop("jobs", None) or {"prompt": "a red circle", "steps": 1, **fields}).encode()
    request = urllib.request.Request(cluster.url + path, method="POST", headers={"content-type": "application/json"}, data=body)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def result(cluster, job, index=0):
    with urllib.request.urlopen(f"{cluster.url}/v1/jobs/{job}/result?index={index}", timeout=60) as response:
        return response.read()


def values(page, *names):
    """What the form's fields of these names hold."""
    return [page.input_value(f"#request [name={name}]") for name in names]


def described(place):
    """A list of parameters as a dictionary."""
    return dict(zip(place.locator("dt").all_text_contents(), place.locator("dd").all_text_contents()))


def wait_until_done(cluster, *jobs):
    for job in jobs:
        cluster.wait(lambda job=job: cluster.get(f"/v1/jobs/{job}")[1]["status"] == "succeeded", f"{job} is done")


def filtered(page, **fields):
    """Sets the gallery's filters, and waits until they have been used."""
    for name, value in {"status": "", "text": "", "tag": "", **fields}.items():
        place = page.locator(f"#filters [name={name}]")
        place.select_option(value) if name == "status" else place.fill(value)


# MARK: Gallery


def test_the_gallery_has_images_with_their_parameters(page, cluster):
    images(ask(page, "a yellow star", seed=7, n=2, steps=3, true_cfg_scale=2.5, size="128x64"), 2)
    tagged = post(cluster, prompt="a green ring", seed=5, steps=2, tags=["shelf"])["id"]
    wait_until_done(cluster, tagged)
    show(page, "gallery")
    tiles = page.locator(".tile")
    expect(tiles).to_have_count(3)
    expect(tiles.locator("canvas")).to_have_count(3)
    expect(tiles.locator(".prompt")).to_have_text(["a green ring", "a yellow star", "a yellow star"])
    expect(tiles.nth(1).locator(".facts")).to_have_text("128×64 · 3 steps · guidance 2.5 · nano-qwen-image · seed 7")
    assert tiles.nth(1).locator("canvas").evaluate("(canvas) => [canvas.width, canvas.height]") == [128, 64]
    for filters, prompts in (
        ({"tag": "shelf"}, ["a green ring"]), ({"text": "STAR  yellow"}, ["a yellow star"] * 2), ({"status": "failed"}, []),
        ({"status": "succeeded"}, ["a green ring", "a yellow star", "a yellow star"]),
    ):
        filtered(page, **filters)
        expect(tiles.locator(".prompt")).to_have_text(prompts)
    filtered(page, text="no such words")
    expect(page.locator("#gallery-count")).to_have_text("No job matches.")
    # The view is there again after reloading.
    page.reload()
    expect(page.locator("#view-create")).to_be_hidden()
    expect(tiles).to_have_count(3)
    tiles.nth(1).locator(".again").click()
    expect(page.locator("#view-create")).to_be_visible()
    fields = ("prompt", "size", "steps", "true_cfg_scale", "seed", "n")
    assert values(page, *fields) == ["a yellow star", "128x64", "3", "2.5", "7", "1"]


def test_an_image_is_opened_and_saved(page, cluster):
    show(page, "gallery")
    page.locator(".tile .open").nth(1).click()
    viewer = page.locator("#viewer")
    expect(viewer.locator("img.result")).to_have_count(1)
    expect(page.locator("#viewer-title")).to_have_text("Image 2 of 3")
    shown = described(viewer)
    job = shown["Job"]
    assert (shown["Prompt"], shown["Seed"], shown["Status"], shown["File"]) == ("a yellow star", "7", "done", "png"), shown
    with page.expect_download() as download:
        viewer.locator("button", has_text="Download").click()
    assert download.value.suggested_filename == f"{job}-0.png"
    data = download.value.path().read_bytes()
    assert data == result(cluster, job)
    assert json.loads(Image.open(io.BytesIO(data)).text["qwen-image-cluster"])["seed"] == 7
    with page.expect_download() as download:
        viewer.locator("button", has_text="Parameters as JSON").click()
    request = json.loads(download.value.path().read_text())
    assert (request["seed"], request["steps"], request["size"]) == (7, 3, "128x64"), request
    again = post(cluster, **request)["id"]
    wait_until_done(cluster, again)
    assert result(cluster, again) == data, "the parameters give another image"
    # Arrow keys go to the neighbours, and not beyond.
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-title")).to_have_text("Image 3 of 3")
    expect(viewer.locator(".later")).to_be_disabled()
    assert described(viewer)["Seed"] == "8"
    expect(viewer.locator("img.result")).to_have_count(1)
    viewer.locator("button", has_text="use as input").click()
    expect(viewer).to_be_hidden()
    expect(page.locator("#inputs .name")).to_have_text(f"{job}-1.png")
    page.locator("#inputs .remove").click()
    show(page, "gallery")
    page.locator(".tile .open").first.focus()
    page.keyboard.press("Enter")
    expect(viewer).to_be_visible()
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(page.locator(".tile .open").first).to_be_focused()


def test_the_gallery_follows_and_has_older_ones(page, cluster):
    post(cluster, "/v1/jobs/bulk", jobs=[{"prompt": f"ring {n}", "steps": 1, "seed": n, "tags": ["many"]} for n in range(60)])
    show(page, "gallery")
    filtered(page, tag="many")
    tiles, count = page.locator(".tile"), page.locator("#gallery-count")
    expect(tiles).to_have_count(24)
    expect(count).to_have_text("24 of 24 jobs; there are older ones.")
    # Words of prompts are searched for in older ones, too.
    filtered(page, tag="many", text="ring 3")
    expect(tiles).to_have_count(15)
    expect(count).to_have_text("15 of 60 jobs.")
    filtered(page, tag="many")
    for number in (48, 60):
        page.locator("#gallery-more").click()
        expect(tiles).to_have_count(number)
    expect(page.locator("#gallery-more")).to_be_hidden()
    expect(tiles.last.locator(".prompt")).to_have_text("ring 0")
    # A new one comes by itself, is followed, and can be cancelled.
    post(cluster, prompt="a slow one", steps=200, size="256x256", n=2, tags=["many"])
    expect(tiles).to_have_count(62)
    expect(tiles.first.locator("progress")).to_be_visible()
    expect(tiles.first.locator(".state")).to_contain_text("step")
    tiles.first.locator(".cancel").click()
    expect(tiles.first.locator(".error")).to_have_text("cancelled")
    expect(tiles.first.locator(".open")).to_be_disabled()
    filtered(page, tag="many", status="cancelled")
    expect(tiles).to_have_count(2)
    filtered(page)


def test_two_results_are_compared(page, cluster):
    show(page, "create")
    job = ask(page, "a yellow star", seed=7, steps=6, size="128x64")
    images(job, 1)
    tray = page.locator("#tray")
    expect(tray).to_be_hidden()
    job.locator(".compare-pick").click()
    expect(job.locator(".compare-pick")).to_have_attribute("aria-pressed", "true")
    expect(tray).to_contain_text("1 image is chosen")
    expect(page.locator("#tray-compare")).to_be_disabled()
    # The other one is an older job's, from the gallery.
    show(page, "gallery")
    filtered(page, text="yellow star")
    tiles = page.locator(".tile")
    expect(tiles).to_have_count(4)
    expect(tiles.first.locator(".pick")).to_be_checked()
    tiles.last.locator(".pick").check()
    page.locator("#tray-compare").click()
    pair = page.locator("#pair")
    expect(pair.locator("img.result")).to_have_count(2)
    rows = [row.locator("th, td").all_text_contents() for row in pair.locator("tbody tr").all()]
    assert rows == [["Steps", "6", "3"], ["Guidance", "3.5", "2.5"], ["Seed", "7", "8"]], rows
    split = pair.locator(".split")
    split.press("End")
    expect(split).to_have_attribute("aria-valuetext", "100 % left image")
    pair.locator("label", has_text="Side by side").click()
    expect(pair.locator("#pair-place .frame")).to_have_count(2)
    expect(split).to_have_count(0)
    pair.locator("label", has_text="With a slider").click()
    expect(split).to_have_count(1)
    page.keyboard.press("Escape")
    expect(pair).to_be_hidden()
    # A result with itself made anew: nothing differs.
    tiles.last.locator(".pick").uncheck()
    tiles.first.locator(".pick").uncheck()
    expect(tray).to_be_hidden()
    for index in (1, 2):
        tiles.nth(index).locator(".pick").check()
    page.locator("#tray-compare").click()
    expect(page.locator("#pair-same")).to_be_visible()
    page.locator("#pair .close").click()
    page.locator("#tray-clear").click()
    expect(tray).to_be_hidden()
    filtered(page)


# MARK: Grids


def make_grid(page, parameter, text, **fields):
    """Sends the form with a grid; returns the last grid's element, once there is one more."""
    count = page.locator("article.grid").count()
    if not page.locator("#grid").evaluate("(details) => details.open"):
        page.locator("#grid summary").click()
    page.select_option("[name=grid-parameter]", parameter)
    page.fill("[name=grid-values]", text)
    for name, value in {"seed": "", "n": 1, "steps": "", "true_cfg_scale": "", "size": "", **fields}.items():
        page.fill(f"#request [name={name}]", str(value))
    page.click("#request button[type=submit]")
    expect(page.locator("article.grid")).to_have_count(count + 1)
    return page.locator("article.grid").first


def cells(grid):
    return [[save(cell.locator("figcaption a"))[0] for cell in row.locator("td").all()] for row in grid.locator("tbody tr").all()]


def test_a_grid_of_seeds_and_steps(page, cluster):
    fresh(page)
    show(page, "create")
    page.fill("[name=prompt]", "a blue star")
    grid = make_grid(page, "steps", "1, 2 4", seed=5, n=2)
    expect(grid.locator("img.result")).to_have_count(6)
    expect(grid.locator("thead th")).to_have_text(["Steps", "seed 5", "seed 6"])
    expect(grid.locator("tbody .value")).to_have_text(["Steps: 1", "Steps: 2", "Steps: 4"])
    made = cells(grid)
    for row, steps in enumerate((1, 2, 4)):
        for column, seed in enumerate((5, 6)):
            path = cluster.folder / "cell.png"
            assert cluster.local(path, prompt="a blue star", steps=steps, seed=seed).returncode == 0
            assert made[row][column] == path.read_bytes(), f"{steps} steps, seed {seed}"
    # It is there again after reloading, and each row can be repeated.
    page.reload()
    expect(grid.locator("img.result")).to_have_count(6)
    expect(grid.locator("tbody .value")).to_have_text(["Steps: 1", "Steps: 2", "Steps: 4"])
    grid.locator(".again").nth(1).click()
    assert values(page, "steps", "seed", "n") == ["2", "5", "2"]
    # The gallery finds it by its tag.
    job = cluster.get(f"/v1/jobs/{grid.locator('tbody tr').first.get_attribute('data-job')}")[1]
    show(page, "gallery")
    filtered(page, tag=job["tags"][0])
    expect(page.locator(".tile")).to_have_count(6)
    filtered(page)
    show(page, "create")


def test_a_grid_of_prompts_and_of_an_image(page, cluster):
    fresh(page)
    page.fill("[name=prompt]", "")
    grid = make_grid(page, "prompt", "a red circle\n\n a blue star, small\n", steps=2, n=3)
    expect(grid.locator("img.result")).to_have_count(6)
    expect(grid.locator("tbody .value")).to_have_text(["Prompt: a red circle", "Prompt: a blue star, small"])
    # Rows without a seed have the same ones.
    seeds = [[image["seed"] for image in cluster.get(f"/v1/jobs/{row.get_attribute('data-job')}")[1]["images"]]
             for row in grid.locator("tbody tr").all()]
    assert seeds[0] == seeds[1] and seeds[0][2] == seeds[0][0] + 2, seeds
    noise(cluster.folder / "input.png", 64, 64)
    fresh(page, cluster.folder / "input.png")
    choose(page, "Mask")
    stroke(page, (0.3, 0.3), (0.7, 0.7))
    page.fill("[name=prompt]", "a red circle")
    grid = make_grid(page, "true_cfg_scale", "1;3,5", seed=5, steps=2)
    expect(grid.locator("img.result")).to_have_count(3)
    expect(grid.locator("img.before")).to_have_count(3)
    made = [pixels(row[0]) for row in cells(grid)]
    original = pixels((cluster.folder / "input.png").read_bytes())
    assert all((each[:4] == original[:4]).all() for each in made), "a pixel outside of the mask has changed"
    assert (made[0] != made[2]).any()


def test_what_is_wrong_with_a_grid_is_said(page, cluster):
    fresh(page)
    page.fill("[name=prompt]", "a red circle")
    page.locator("#grid summary").click()
    page.select_option("[name=grid-parameter]", "steps")
    count, error = page.locator(".job").count(), page.locator("#error-grid-values")
    for text, message in (
        ("", "a grid needs at least one value"), ("1, two", "“two” is no value of this parameter"),
        (" ".join(str(n) for n in range(1, 12)), "11 rows are too many: 10 at most"), ("1, 9999", "[1]: steps is 9999, but must be"),
    ):
        page.fill("[name=grid-values]", text)
        page.click("#request button[type=submit]")
        expect(error).to_contain_text(message)
        expect(page.locator("[name=grid-values]")).to_be_focused()
    expect(page.locator(".job")).to_have_count(count)
    page.select_option("[name=grid-parameter]", "")
    images(ask(page, "a red circle", steps=1), 1)
    expect(page.locator("article.grid")).not_to_have_count(0)


# MARK: Presets


def test_presets_fill_the_form_in(page, cluster):
    fresh(page)
    sizes, speeds = page.locator("#size-presets .chip"), page.locator("#speed-presets .chip")
    expect(sizes).to_have_text(["1:1", "2:1"])
    expect(speeds).to_have_text(["Standard", "Draft · 8 steps", "No guidance"])
    expect(speeds.first).to_have_attribute("aria-pressed", "true")
    sizes.nth(1).click()
    speeds.nth(1).click()
    assert values(page, "size", "steps", "true_cfg_scale") == ["128x64", "8", ""]
    expect(sizes.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(speeds.first).to_have_attribute("aria-pressed", "false")
    page.fill("[name=size]", "64x64")
    expect(sizes.first).to_have_attribute("aria-pressed", "true")
    speeds.nth(2).click()
    assert values(page, "steps", "true_cfg_scale") == ["", "1"]
    sizes.first.click()
    assert values(page, "size") == [""]


def test_own_presets_are_kept(page, cluster):
    fresh(page)
    own, notice = page.locator("#own-list li"), page.locator("#own-notice")
    page.locator("#own-presets summary").click()
    page.click("#save-preset")
    expect(notice).to_have_text("Give the preset a name.")
    for name, value in (("size", "128x64"), ("steps", "9"), ("negative_prompt", "blurred <b>")):
        page.fill(f"#request [name={name}]", value)
    page.fill("[name=preset-name]", "wide <i>")
    page.press("[name=preset-name]", "Enter")
    expect(notice).to_have_text("“wide <i>” is saved.")
    page.reload()
    page.locator("#own-presets summary").click()
    expect(own).to_have_text(["wide <i>×"])
    assert values(page, "size", "steps") == ["", ""]
    own.locator("button").first.click()
    assert values(page, "size", "steps", "negative_prompt") == ["128x64", "9", "blurred <b>"]
    for number in range(20):
        page.fill("[name=preset-name]", f"preset {number}")
        page.click("#save-preset")
    expect(notice).to_have_text("20 presets at most: remove one first.")
    expect(own).to_have_count(20)
    page.click("[aria-label='Remove preset wide <i>']")
    expect(own).to_have_count(19)
    # What something else has written there does not stop the page.
    page.evaluate("localStorage.setItem('qwen-image.presets', JSON.stringify([1, {name: 'x', values: {prompt: 'y'}}, null]))")
    page.reload()
    page.locator("#own-presets summary").click()
    expect(page.locator("#own-empty")).to_be_visible()
    page.evaluate("localStorage.removeItem('qwen-image.presets')")


# MARK: Parameters from files


def test_parameters_come_back_from_a_dropped_image(page, cluster):
    seed = str(2**63 - 1)
    prompt = "the characters “你好” — é\nin red"
    for name, extension in (("png", "png"), ("webp", "webp"), ("jpeg", "jpg")):
        job = post(cluster, prompt=prompt, seed=int(seed), steps=3, size="128x64", true_cfg_scale=2.5, negative_prompt="a frame",
                   output_format=name)["id"]
        wait_until_done(cluster, job)
        path = cluster.folder / f"made.{extension}"
        path.write_bytes(result(cluster, job))
        fresh(page)
        drop(page, path)
        expect(page.locator("#restored")).to_contain_text(f"The parameters of made.{extension} are in the form.")
        fields = ("prompt", "seed", "steps", "size", "true_cfg_scale", "negative_prompt", "n", "model")
        assert values(page, *fields) == [prompt, seed, "3", "128x64", "2.5", "a frame", "1", "nano-qwen-image"]
        expect(page.locator("#inputs li")).to_have_count(0)
    # It can be an input after all.
    page.locator("#restored button").click()
    expect(page.locator("#inputs .name")).to_have_text("made.jpg")
    expect(page.locator("#restored")).to_be_hidden()
    # The same by the file chooser; and the same parameters give the same image.
    fresh(page)
    page.set_input_files("#restore-file", cluster.folder / "made.png")
    expect(page.locator("#restored")).to_be_visible()
    count = page.locator(".job").count()
    page.locator("[name=prompt]").press("Control+Enter")
    expect(page.locator(".job")).to_have_count(count + 1)
    assert images(page.locator(".job").first, 1)[0] == (cluster.folder / "made.png").read_bytes()


def test_an_edit_brings_its_settings_back(page, cluster):
    noise(cluster.folder / "input.png", 64, 48)
    fresh(page, cluster.folder / "input.png")
    choose(page, "Extend")
    page.fill("[name=extend-right]", "32")
    page.fill("[name=feather]", "3")
    made = images(ask(page, "a red circle", seed=4, steps=2), 1)[0]
    (cluster.folder / "extended.png").write_bytes(made)
    fresh(page)
    drop(page, cluster.folder / "extended.png")
    expect(page.locator("#restored")).to_contain_text("It was made of an image: add it again.")
    page.set_input_files("#files", cluster.folder / "input.png")
    expect(page.locator("[name=mode][value=extend]")).to_be_checked()
    expect(page.locator("[name=extend-right]")).to_have_value("32")
    page.click("#request button[type=submit]")
    again = page.locator(".job").first
    expect(again.locator("img.result")).to_have_count(1)
    assert (pixels(images(again, 1)[0]) == pixels(made)).all()


def test_a_file_without_parameters_is_an_input(page, cluster):
    noise(cluster.folder / "plain.png", 40, 30)
    fresh(page)
    drop(page, cluster.folder / "plain.png")
    expect(page.locator("#inputs .name")).to_have_text("plain.png")
    expect(page.locator("#restored")).to_have_text("plain.png has no parameters of this software: it is an input image now.")
    assert values(page, "prompt", "seed") == ["", ""]
    # Files that only claim to have parameters.
    whole = {"software": "qwen-image-cluster", "prompt": "p", "seed": 1}
    for number, text in enumerate((
        "{", "[]", json.dumps({**whole, "prompt": 5}), json.dumps({**whole, "software": "other"}), json.dumps({"prompt": "p"}),
        json.dumps({**whole, "prompt": "p" * 70_000}),
    )):
        info = PngImagePlugin.PngInfo()
        info.add_text("qwen-image-cluster", text)
        path = cluster.folder / f"claims-{number}.png"
        Image.new("RGB", (16, 16)).save(path, pnginfo=info)
        fresh(page)
        drop(page, path)
        expect(page.locator("#restored")).to_contain_text("has no parameters")
        assert values(page, "prompt") == [""], text[:80]
    # Values that are out of range are left out; others are taken.
    info = PngImagePlugin.PngInfo()
    info.add_itxt("qwen-image-cluster", json.dumps({
        **whole, "prompt": "<b>p</b>", "steps": 1e9, "size": "1x1x1", "true_cfg_scale": "2", "model": "x", "seed": -3, "strength": {}}))
    Image.new("RGB", (16, 16)).save(cluster.folder / "odd.png", pnginfo=info)
    fresh(page)
    drop(page, cluster.folder / "odd.png")
    expect(page.locator("#restored")).to_contain_text("Its model x is not served here.")
    fields = ("prompt", "steps", "size", "true_cfg_scale", "seed", "model")
    assert values(page, *fields) == ["<b>p</b>", "", "", "", "", "nano-qwen-image"]
    # A file that is cut anywhere is one without parameters, or with all of them.
    made = (cluster.folder / "made.png").read_bytes()
    random = numpy.random.default_rng(5)
    results = page.evaluate("""async (files) => {
        const { readParameters } = await import("./metadata.js")
        const read = (bytes) => readParameters(new Blob([Uint8Array.from(bytes)]))
        return Promise.all(files.map(async (bytes) => (await read(bytes))?.steps ?? null))
    }""", [list(made[:length]) for length in random.integers(0, len(made), 60).tolist()])
    assert set(results) == {None, 3}, results


# MARK: The cluster


def test_the_cluster_is_shown_as_it_works(page, cluster):
    show(page, "workers")
    stages = page.locator(".stage-workers")
    expect(stages.locator("h2")).to_have_text(["Text encoders1", "VAE encoders1", "Denoisers1", "VAE decoders1"])
    expect(page.locator("#queue dd").first).to_have_text("ready")
    expect(page.locator("#model-table tbody tr")).to_contain_text(["nano-qwen-image"])
    jobs = [post(cluster, prompt="a long one", steps=200, size="256x256")["id"] for _ in range(3)]
    denoiser = page.locator("[data-stage=denoiser] .worker")
    expect(denoiser.locator(".state")).to_have_text("working")
    expect(denoiser.locator(".tasks li").first).to_contain_text(re.compile(r"job-\S+: step \d+ of 200"))
    expect(denoiser.locator("progress").first).to_be_visible()
    expect(page.locator("#queue dd").nth(2)).not_to_have_text("0")
    more = cluster.start("denoiser")
    expect(denoiser).to_have_count(2)
    for job in jobs:
        urllib.request.urlopen(urllib.request.Request(f"{cluster.url}/v1/jobs/{job}", method="DELETE"), timeout=60).close()
    cluster.stop(more)
    expect(denoiser).to_have_count(1)
    expect(denoiser.locator(".state")).to_have_text("idle")
    # The other views do not ask for it.
    show(page, "create")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "readyz" in request.url else None)
    page.wait_for_timeout(5000)
    assert len(asked) <= 1, asked
    show(page, "workers")
    cluster.stop("gateway", signal.SIGTERM)
    expect(page.locator("#workers-notice")).to_have_text("the gateway cannot be reached")
    cluster.start_gateway()
    cluster.wait_until_ready()
    expect(page.locator("#workers-notice")).to_be_hidden()
    show(page, "create")


def test_a_waiting_job_says_when_it_will_be_done(page, cluster):
    fresh(page)
    for _ in range(3):  # the first ones measure
        images(ask(page, "a red circle", size="256x256", steps=20), 1)
    jobs = [post(cluster, prompt="in front", steps=200, size="256x256", n=2)["id"] for _ in range(2)]
    job = ask(page, "a red circle", size="256x256", steps=20)
    expect(job.locator(".state")).to_have_text(
        re.compile(r"waiting, place \d+, about \d+ (s|min) · begins at about \d\d:\d\d.*, ends at about \d\d:\d\d"))
    for each in jobs:
        urllib.request.urlopen(urllib.request.Request(f"{cluster.url}/v1/jobs/{each}", method="DELETE"), timeout=60).close()
    images(job, 1)


# MARK: Keys, and what a server may offer


def test_keys_reach_everything(page, cluster):
    fresh(page)
    page.locator("h1").click()
    page.keyboard.press("2")
    expect(page.locator("#view-gallery")).to_be_visible()
    page.keyboard.press("3")
    expect(page.locator("#view-workers")).to_be_visible()
    page.keyboard.press("p")
    expect(page.locator("[name=prompt]")).to_be_focused()
    page.keyboard.type("123?")
    expect(page.locator("[name=prompt]")).to_have_value("123?")
    expect(page.locator("#view-create")).to_be_visible()
    page.locator("h1").click()
    page.keyboard.press("?")
    keys = page.locator("#keys")
    expect(keys).to_be_visible()
    expect(keys.locator("dt").first).to_have_text("Ctrl+Enter")
    keys.locator("[name=single-keys]").uncheck()
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    page.keyboard.press("2")
    expect(page.locator("#view-gallery")).to_be_hidden()
    page.locator("#show-keys").click()
    keys.locator("[name=single-keys]").check()
    keys.locator(".close").click()
    # Everything that has the focus shows it.
    page.locator("h1").click()
    for _ in range(25):
        page.keyboard.press("Tab")
        style = page.evaluate("""() => {
            const element = document.activeElement, shown = element.closest(".button, .file-button, .choices label") ?? element
            return [getComputedStyle(shown).outlineStyle, element.outerHTML.slice(0, 100)]
        }""")
        assert style[0] != "none", style
    # The browser's own back and forward go through the views.
    show(page, "gallery")
    page.go_back()
    expect(page.locator("#view-create")).to_be_visible()
    page.go_forward()
    expect(page.locator("#view-gallery")).to_be_visible()
    show(page, "create")


def test_prompts_are_enhanced_where_the_server_can(page, cluster):
    fresh(page)
    expect(page.locator("[name=enhance_prompt]")).to_be_hidden()
    sent = []

    def models(route):
        answer = route.fetch()
        body = answer.json()
        for model in body["data"]:
            model["enhance_prompt"] = True
        route.fulfill(response=answer, json=body)

    def job(route):
        if route.request.method != "POST":
            return route.fallback()
        sent.append(route.request.post_data_json)
        made = {**route.request.post_data_json}
        del made["enhance_prompt"]
        answer = route.fetch(post_data=json.dumps(made))
        route.fulfill(response=answer, json={**answer.json(), "revised_prompt": "a red circle, finely drawn"})

    page.route("**/v1/models", models)
    page.route("**/v1/jobs", job)
    page.reload()
    page.locator("#enhance-field").click()
    element = ask(page, "a red circle", steps=1)
    assert sent[0]["enhance_prompt"] is True, sent
    expect(element.locator(".revised")).to_have_text("Enhanced prompt: a red circle, finely drawn")
    page.unroute("**/v1/models")
    page.unroute("**/v1/jobs")
    page.reload()


if __name__ == "__main__":
    sys.exit(main("page-gallery", globals()))
