#!/usr/bin/env python3
"""The page of the gateway in a real browser: draws, follows, survives a killed gateway, cancels, refuses, asks for a key.

    page_test.py [BINARIES]        needs playwright from PyPI, and chromium (Debian's, or what $CHROMIUM names)
"""

import signal
import subprocess
import sys

from playwright.sync_api import expect

from browser import BINARIES, ask, images, main


def test_images_are_those_of_the_command_line(page, cluster):
    job = ask(page, 'the word "CAT" in yellow', seed=7, n=2)
    shown = images(job, 2)
    for seed, image in zip((7, 8), shown):
        path = cluster.folder / f"{seed}.png"
        assert cluster.local(path, prompt='the word "CAT" in yellow', seed=seed).returncode == 0
        assert path.read_bytes() == image, f"seed {seed}"
    expect(job.locator("figcaption").nth(1)).to_contain_text("seed 8")
    job.locator(".again").click()
    expect(page.locator("[name=seed]")).to_have_value("7")
    assert images(ask(page, page.input_value("[name=prompt]"), seed=7, n=1), 1) == shown[:1]


def test_a_seed_keeps_all_its_digits(page, cluster):
    seed = str(2**63 - 1)
    job = ask(page, "a red heart", seed=seed, steps=2)
    images(job, 1)
    expect(job.locator("figcaption")).to_contain_text(seed)
    job.locator(".again").click()
    expect(page.locator("[name=seed]")).to_have_value(seed)


def test_a_killed_gateway_is_waited_for(page, cluster):
    job = ask(page, "a green star", seed=11, size="256×256", steps=100)
    expect(job.locator(".state")).to_contain_text("step")
    cluster.stop("gateway", signal.SIGKILL)
    expect(job.locator(".state")).to_contain_text("cannot be reached")
    cluster.start_gateway()
    shown = images(job, 1)
    path = cluster.folder / "alone.png"
    assert cluster.local(path, prompt="a green star", seed=11, width=256, height=256, steps=100).returncode == 0
    assert [path.read_bytes()] == shown


def test_jobs_are_there_after_reloading_and_can_be_cancelled(page, cluster):
    ask(page, "a blue ring", size="256x256", steps=100, n=2)
    count = page.locator(".job").count()
    page.reload()
    expect(page.locator(".job")).to_have_count(count)
    job = page.locator(".job").first
    job.locator(".cancel").click()
    expect(job.locator(".state")).to_have_text("cancelled")
    expect(job.locator(".cancel")).to_be_hidden()


def test_previews_are_shown_until_the_image_is_there(page, cluster):
    job = ask(page, "a red circle", size="256x256", steps=100)
    preview = job.locator(".preview")
    preview.wait_for()
    first = preview.get_attribute("src")
    page.wait_for_function("([preview, first]) => preview.src !== first", arg=[preview.element_handle(), first])
    assert preview.evaluate("image => image.decode().then(() => image.naturalWidth)") == 256
    # The progress lies over it.
    box, bar = preview.bounding_box(), job.locator("progress").bounding_box()
    assert box["y"] < bar["y"] < box["y"] + box["height"], (box, bar)
    images(job, 1)
    assert job.locator(".preview").count() == 0


def test_refusals_name_the_field(page, cluster):
    count = page.locator(".job").count()
    page.fill("[name=prompt]", "p")
    page.fill("[name=size]", "63x64")
    page.click("#request button[type=submit]")
    expect(page.locator("#error-size")).to_have_text("width is 63, but must be a multiple of 16")
    expect(page.locator("[name=size]")).to_be_focused()
    expect(page.locator("[name=size]")).to_have_attribute("aria-describedby", "error-size")
    expect(page.locator(".job")).to_have_count(count)
    page.fill("[name=size]", "")
    expect(page.locator("#error-size")).to_have_count(0)


def test_markup_in_a_prompt_is_text(page, cluster):
    prompt = "<img src=x onerror=alert(1)> <b>a red heart</b>"
    job = ask(page, prompt, steps=2)
    expect(job.locator(".prompt")).to_have_text(prompt)
    images(job, 1)


def test_a_key_is_asked_for(page, cluster):
    keys = cluster.folder / "api-keys"
    made = subprocess.run([BINARIES / "qwen-image", "api-key", "shop"], check=True, capture_output=True, text=True)
    keys.write_text(made.stdout)
    key = made.stderr.split()[-1]
    cluster.stop("gateway", signal.SIGTERM)
    cluster.settings = {"http-api-keys-file": keys}
    cluster.start_gateway()
    cluster.wait_until_ready()
    page.reload()
    page.fill("[name=key]", key)
    page.click("#access button")
    expect(page.locator("#empty")).to_be_visible()  # the jobs before were another tenant's
    images(ask(page, "a red heart"), 1)


if __name__ == "__main__":
    sys.exit(main("page", globals()))
