#!/usr/bin/env python3
"""What the page has besides its form, in a real browser: gallery, comparison, the cluster, keys.

    page_gallery_test.py [BINARIES]        needs playwright from PyPI, and chromium (Debian's, or what $CHROMIUM names)
"""

import io
import json
import re
import signal
import sys
import urllib.request

from PIL import Image
from playwright.sync_api import expect

from browser import ask, filtered, fresh, images, main, post, result, show, values, wait_until_done


def described(place):
    """A list of parameters as a dictionary."""
    return dict(zip(place.locator("dt").all_text_contents(), place.locator("dd").all_text_contents()))


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
    post(cluster, prompt="a slow one", steps=200, size="256x256", n=4, tags=["many"])
    expect(tiles).to_have_count(64)
    expect(tiles.first.locator("progress")).to_be_visible()
    expect(tiles.first.locator(".state")).to_contain_text("step")
    tiles.first.locator(".cancel").click()
    # The first image may have been done by then.
    expect(tiles.nth(3).locator(".error")).to_have_text("cancelled")
    expect(tiles.nth(3).locator(".open")).to_be_disabled()
    filtered(page, tag="many", status="cancelled")
    expect(tiles.nth(2)).to_be_visible()
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
