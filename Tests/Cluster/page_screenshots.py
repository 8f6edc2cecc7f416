#!/usr/bin/env python3
"""Takes screenshots of the page in use, to be looked at; page.png is the one of the README.

    page_screenshots.py BINARIES FOLDER        needs playwright from PyPI, and chromium (Debian's, or what $CHROMIUM names)
"""

import pathlib
import sys

from playwright.sync_api import expect, sync_playwright

from browser import BINARIES, CHROMIUM, MODEL, ask, choose, images, show, stroke
from cluster import Cluster

FOLDER = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "screenshots")
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 740}


def take(page, name, language="en", theme="light", size=None):
    page.set_viewport_size(size or DESK)
    page.select_option("#language", language)
    page.select_option("#theme", theme)
    page.wait_for_timeout(500)  # scrollbars fade
    page.screenshot(path=FOLDER / f"{name}.png")


def make_jobs(page):
    """Jobs of all kinds, the newest still running."""
    images(ask(page, "a yellow triangle and a blue ring", seed=3, n=3, size="128x64"), 3)
    page.fill("[name=prompt]", "a blue star")
    page.locator("#grid summary").click()
    page.select_option("[name=grid-parameter]", "steps")
    page.fill("[name=grid-values]", "2, 6, 20")
    for name, value in (("seed", "5"), ("n", "4"), ("size", ""), ("steps", "")):
        page.fill(f"#request [name={name}]", value)
    page.click("#request button[type=submit]")
    expect(page.locator("article.grid img.result")).to_have_count(12)


def take_form(page):
    page.reload()
    star = page.locator(".job", has_text="triangle")
    expect(star.locator("img.result")).to_have_count(3)
    take(page, "grid")
    star.locator(".use").first.click()
    choose(page, "Mask")
    page.fill("[name=prompt]", "a red circle")
    stroke(page, (0.55, 0.35), (0.75, 0.65))
    running = ask(page, "a red circle", steps=200, n=5, seed=1, size="256x256")
    expect(running.locator(".preview").first).to_be_visible()
    page.evaluate("() => { window.scrollTo(0, 0); document.querySelector('#request .fields').scrollTop = 0 }")
    for name, look in {"create-dark": ("en", "dark"), "create-zh": ("zh", "light"), "page": ("en", "light")}.items():
        take(page, name, *look)
    take(page, "create-phone", "en", "light", PHONE)
    take(page, "create-phone-zh", "zh", "dark", PHONE)
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    take(page, "jobs-phone", "en", "light", PHONE)


def take_workers(page):
    page.set_viewport_size(DESK)
    show(page, "create")
    page.reload()
    for seed in range(3):
        ask(page, "a red circle", steps=200, n=10, seed=seed, size="256x256")
    show(page, "workers")
    expect(page.locator(".worker progress")).not_to_have_count(0)
    for name, look in {"workers": ("en", "light"), "workers-zh": ("zh", "dark")}.items():
        take(page, name, *look)
    take(page, "workers-phone", "en", "light", PHONE)


def take_gallery(page):
    show(page, "gallery")
    page.wait_for_timeout(1500)  # thumbnails in view
    take(page, "gallery")
    take(page, "gallery-dark-zh", "zh", "dark")
    take(page, "gallery-phone", "en", "light", PHONE)
    picks = page.locator(".tile .pick:visible")
    page.set_viewport_size(DESK)
    page.locator(".tile .open:enabled").first.click()
    expect(page.locator("#viewer .actions button")).not_to_have_count(0)
    take_dialog(page, "viewer")
    page.keyboard.press("Escape")
    picks.nth(0).check()
    picks.nth(8).check()
    take(page, "tray")
    take(page, "tray-phone", "en", "light", PHONE)
    page.locator("#tray-compare").click()
    expect(page.locator("#pair img.result")).to_have_count(2)
    take_dialog(page, "pair")
    page.locator("#pair label").nth(1).click()
    take_dialog(page, "pair-sides")
    page.keyboard.press("Escape")
    page.locator("#show-keys").click()
    take_dialog(page, "keys")
    page.keyboard.press("Escape")
    page.locator("#tray-clear").click()


def take_dialog(page, name):
    """A dialog lies over the choosers: it is taken as the page is."""
    for suffix, size in (("", DESK), ("-phone", PHONE)):
        page.set_viewport_size(size)
        page.wait_for_timeout(300)
        page.screenshot(path=FOLDER / f"{name}{suffix}.png")
    page.set_viewport_size(DESK)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=30_000)
    with Cluster(BINARIES, MODEL) as cluster, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_context().new_page()
        tab.set_default_timeout(30_000)
        tab.goto(cluster.url)
        make_jobs(tab)
        take_form(tab)
        take_gallery(tab)
        take_workers(tab)
        browser.close()
