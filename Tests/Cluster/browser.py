"""The page of the gateway in a real browser: what its tests share.

Needs playwright from PyPI, and chromium (Debian's, or what $CHROMIUM names).
"""

import base64
import io
import json
import os
import pathlib
import shutil
import sys
import urllib.request

import numpy
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from cluster import PATIENCE_SECONDS, Cluster

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release")
MODEL = ROOT / "compose/models/nano-qwen-image"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
LONG_MS = PATIENCE_SECONDS * 1000


def ask(page, prompt, **fields):
    """Fills the form in and sends it; returns the job's article."""
    count = page.locator(".job").count()
    page.fill("[name=prompt]", prompt)
    for name in ("negative_prompt", "size", "steps", "true_cfg_scale", "seed"):
        page.fill(f"[name={name}]", str(fields.get(name, "")))
    page.fill("[name=n]", str(fields.get("n", 1)))
    page.click("#request button[type=submit]")
    expect(page.locator(".job")).to_have_count(count + 1)
    return page.locator(".job").first


def images(job, count):
    """The bytes of the job's images, as the browser saves them."""
    expect(job.locator("img.result")).to_have_count(count)
    expect(job.locator("progress")).to_have_count(0)
    saved = save(job.locator("figcaption a"))
    assert len(saved) == count
    return saved


def save(links):
    """The bytes of the files that the browser saves by `links`."""
    saved = []
    for link in links.all():
        with links.page.expect_download() as download:
            link.click()
        saved.append(download.value.path().read_bytes())
    return saved


def noise(path, width, height, seed=3):
    """An image file whose pixels are all different from what any model would make; returns its pixels."""
    array = numpy.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    Image.fromarray(array).save(path)
    return array


def pixels(data):
    return numpy.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def fresh(page, *paths):
    """Loads the page anew and adds images by the file chooser."""
    page.reload()
    expect(page.locator("#limits")).to_contain_text("PNG, JPEG or WebP")
    expect(page.locator("#inputs li")).to_have_count(0)
    if paths:
        with page.expect_file_chooser() as chooser:
            page.locator(".drop .button").click()
        chooser.value.set_files([str(path) for path in paths])
        expect(page.locator("#inputs li")).to_have_count(len(paths))


def show(page, view):
    """Goes to a view: create, gallery or workers."""
    page.locator(f"nav [data-view={view}]").click()
    expect(page.locator(f"#view-{view}")).to_be_visible()


def choose(page, mode):
    page.locator(".choices label", has_text=mode).click()


def stroke(page, *places):
    """Paints with the mouse through places of the mask, in shares of its sides."""
    canvas = page.locator("#mask canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    points = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points:
        page.mouse.move(*point, steps=4)
    page.mouse.up()


def shown_mask(page):
    """The mask as it is seen: true where it is painted. Animation frames paint it."""
    page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    data = page.locator("#mask canvas").evaluate("(canvas) => canvas.toDataURL()")
    return numpy.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGBA"))[:, :, 3] > 0


def set_slider(page, name, value):
    page.locator(f"[name={name}]").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})) }", str(value))


def drop(page, *paths):
    """Drops files from outside of the browser onto the page."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 600, "y": 300, "data": data})
        if kind == "dragOver":
            # As a mouse does, it stays there until the page has been painted: what is below it may just have come.
            expect(page.locator("#images.wanted")).to_have_count(1)
            page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    expect(page.locator("#images.wanted")).to_have_count(0)


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


def wait_until_done(cluster, *jobs):
    for job in jobs:
        cluster.wait(lambda job=job: cluster.get(f"/v1/jobs/{job}")[1]["status"] == "succeeded", f"{job} is done")


def filtered(page, **fields):
    """Sets the gallery's filters, and waits until they have been used."""
    for name, value in {"status": "", "text": "", "tag": "", **fields}.items():
        place = page.locator(f"#filters [name={name}]")
        place.select_option(value) if name == "status" else place.fill(value)


def main(name, module, model=MODEL):
    """Runs the tests of a module, each with the page and its cluster of one model; returns the exit status.

    A test fails as well when the page throws, opens a dialog, or loads anything from elsewhere.
    """
    expect.set_options(timeout=LONG_MS)
    with Cluster(BINARIES, model) as cluster, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context().new_page()
        page.set_default_timeout(LONG_MS)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: request.url.startswith(own) or errors.append(f"request: {request.url[:200]}"))
        own = (cluster.url + "/", f"blob:{cluster.url}/", "data:")
        page.goto(cluster.url)

        def check(test):
            test(page, cluster)
            assert not errors, errors

        status = testing.run(name, [(test, lambda function=function: check(function)) for test, function in testing.functions(module)])
        browser.close()
    return status
