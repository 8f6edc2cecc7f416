#!/usr/bin/env python3
"""What fills the page's form in or sends it many times, in a real browser: grids, presets, parameters from files.

    page_form_test.py [BINARIES]        needs playwright from PyPI, and chromium (Debian's, or what $CHROMIUM names)
"""

import json
import sys

import numpy
from PIL import Image, PngImagePlugin
from playwright.sync_api import expect

from adapters_test import add, lora
from browser import (
    ask, choose, drop, filtered, fresh, images, main, noise, pixels, post, result, save, show, stroke, values, wait_until_done)


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


def test_adapters_are_named_and_come_back(page, cluster):
    folder = cluster.folder / "adapters"
    folder.mkdir()
    path = add(folder, "style", lora(1))
    fresh(page)
    expect(page.locator("#loras-field")).to_be_hidden()
    name = cluster.start("denoiser", settings={"adapters-directory": folder})
    # The page asks for models every few seconds.
    expect(page.locator("#loras-about")).to_contain_text("There are style.")
    page.fill("[name=loras]", "style:0.8, nothing")
    count = page.locator(".job").count()
    page.fill("[name=prompt]", "a red heart")
    page.click("#request button[type=submit]")
    expect(page.locator("#error-loras")).to_contain_text('there are "style"')
    expect(page.locator(".job")).to_have_count(count)
    page.fill("[name=loras]", "style:0.8")
    file = images(ask(page, "a red heart", steps=2, seed=4), 1)[0]
    alone = cluster.folder / "alone.png"
    assert cluster.local(alone, prompt="a red heart", steps=2, seed=4, lora=f"{path}:0.8").returncode == 0
    assert file == alone.read_bytes()
    page.fill("[name=loras]", "")
    alone.write_bytes(file)
    drop(page, alone)
    expect(page.locator("#restored")).to_contain_text("are in the form")
    assert values(page, "loras", "seed") == ["style:0.8", "4"]
    assert "not here" not in page.locator("#restored").text_content()
    # Of another content it is another adapter.
    digests = lambda: [each["sha256"] for each in cluster.get("/v1/models")[1]["data"][0]["loras"]]
    old = digests()
    add(folder, "style", lora(2))
    cluster.wait(lambda: len(digests()) == 1 and digests() != old, "the other contents listed")
    fresh(page)
    expect(page.locator("#loras-about")).to_contain_text("There are style.")
    drop(page, alone)
    expect(page.locator("#restored")).to_contain_text("or are others now: style")
    # A distillation is offered with all that belongs to it, and taken out again.
    add(folder, "Qwen-Image-Lightning-4steps-V2.0", lora(3))
    chip = page.locator("#speed-presets .chip", has_text="Lightning · 4 steps · V2.0")
    chip.click()
    filled = values(page, "loras", "schedule", "steps", "true_cfg_scale")
    assert filled == ["Qwen-Image-Lightning-4steps-V2.0:1", "lightning", "4", "1"], filled
    expect(chip).to_have_attribute("aria-pressed", "true")
    chip.click()
    assert values(page, "loras", "schedule", "steps", "true_cfg_scale") == ["", "", "", ""]
    cluster.stop(name)
    page.fill("[name=loras]", "")


def test_samplers_are_chosen_and_come_back(page, cluster):
    fresh(page)
    page.locator("#sampling summary").click()
    names = ["Euler", "Heun", "DPM++ 2M", "DPM++ 2M SDE", "ER SDE", "RES Multistep", "UniPC"]
    expect(page.locator("[name=sampler] option")).to_have_text(["the model's own", *names])
    expect(page.locator("[name=schedule] option")).to_have_text(["the model's own", "Simple", "Beta", "SGM Uniform", "Linear", "Lightning"])
    page.select_option("[name=sampler]", "unipc")
    page.select_option("[name=schedule]", "beta")
    page.fill("[name=cfg_steps]", "2")
    job = ask(page, "a blue star", seed=5, steps=4, true_cfg_scale=3, negative_prompt="red")
    path = cluster.folder / "sampled.png"
    fields = dict(seed=5, steps=4, true_cfg_scale=3, negative_prompt="red", sampler="unipc", schedule="beta", cfg_steps=2)
    assert cluster.local(path, prompt="a blue star", **fields).returncode == 0
    assert images(job, 1)[0] == path.read_bytes()
    expect(job.locator(".facts")).to_contain_text("UniPC · Beta · 2 of them guided")
    fresh(page)
    assert values(page, "sampler", "schedule", "cfg_steps") == ["", "", ""]
    drop(page, path)
    expect(page.locator("#restored")).to_be_visible()
    assert values(page, "sampler", "schedule", "cfg_steps") == ["unipc", "beta", "2"]
    fresh(page)
    page.locator(".job .again").first.click()
    assert values(page, "sampler", "schedule", "cfg_steps") == ["unipc", "beta", "2"]
    fresh(page)


def test_step_caches_are_chosen_and_come_back(page, cluster):
    fresh(page)
    expect(page.locator("[name=cache] option")).to_have_text(["Off", "Balanced", "Fast"])
    page.select_option("[name=cache]", "fast")
    job = ask(page, "a blue star", seed=5, steps=10)
    path = cluster.folder / "cached.png"
    assert cluster.local(path, prompt="a blue star", seed=5, steps=10, cache="fast").returncode == 0
    assert images(job, 1)[0] == path.read_bytes()
    # What comes back are the exact settings, whatever the preset may be later.
    fresh(page)
    assert values(page, "cache") == [""]
    drop(page, path)
    expect(page.locator("#restored")).to_be_visible()
    settings = json.loads(values(page, "cache")[0])
    assert settings["method"] == "first_block" and settings["threshold"] > 0, settings
    expect(page.locator("[name=cache] option")).to_have_count(4)
    again = ask(page, "a blue star", seed=5, steps=10)
    assert images(again, 1)[0] == path.read_bytes()
    fresh(page)
    page.locator(".job .again").first.click()
    assert json.loads(values(page, "cache")[0]) == settings
    fresh(page)


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


if __name__ == "__main__":
    sys.exit(main("page-form", globals()))
