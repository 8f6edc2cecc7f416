#!/usr/bin/env python3
"""The page in two languages, two themes, a phone, a screen reader (checked by axe), in a real browser.

    page_access_test.py [BINARIES]        needs playwright from PyPI, and chromium (Debian's, or what $CHROMIUM names)
"""

import re
import sys

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from browser import ask, choose, images, main, noise, show

# Impacts of axe's findings that are not accepted.
REFUSED = ("serious", "critical")
PHONE, DESK = 360, 1280  # pixels of width

# The texts that are seen, and those for screen readers; without what people have written, and what the gateway names.
TEXTS = """() => {
    const skipped = "script, style, template, textarea, kbd, .prompt, .value, .name, .facts, [lang], #model-table tbody, [name=model] option"
    const isSeen = (element) => element.checkVisibility({visibilityProperty: true})
    const texts = []
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement
        if (!element.closest(skipped) && isSeen(element)) texts.push(walker.currentNode.data)
    }
    for (const element of document.querySelectorAll("[aria-label], [title], [placeholder], [aria-valuetext]")) {
        if (element.closest(".facts, .name") || !isSeen(element)) continue
        for (const name of ["aria-label", "title", "placeholder", "aria-valuetext"]) texts.push(element.getAttribute(name) ?? "")
    }
    return texts.filter((text) => text.trim())
}"""
# Words that are the same in Chinese: names, formats, keys.
NAMES = {
    "Qwen", "Image", "English", "VAE", "PNG", "JPEG", "WebP", "API", "JSON", "Lightning", "Turbo", "Ctrl", "Shift", "Alt", "Space",
    "Enter", "Delete", "Esc", "Apache", "nano", "qwen", "image", "MB", "KB", "kB", "GB", "png", "job", "px",
}


def english(page, *own):
    """Texts of the page that have an English word in them which is neither a name nor one of `own`."""
    found = []
    for text in page.evaluate(TEXTS):
        plain = text
        for each in own:
            plain = plain.replace(each, "")
        plain = re.sub(r"\bjob-[0-9a-z-]+", "", plain)
        if [word for word in re.findall(r"[A-Za-z]{3,}", plain) if word not in NAMES]:
            found.append(text)
    return found


def check(page, where):
    """Lets axe judge what is shown, and the width of the page."""
    found = [each for each in Axe().run(page).response["violations"] if each["impact"] in REFUSED]
    problems = [(each["id"], each["help"], [node["html"][:200] for node in each["nodes"]][:5]) for each in found]
    assert not problems, (where, problems)
    width, wide = page.viewport_size["width"], page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width, f"{where}: {wide} pixels wide on a screen of {width}"


def choose_look(page, language, theme, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.select_option("#language", language)
    page.select_option("#theme", theme)
    expect(page.locator("html")).to_have_attribute("lang", {"en": "en", "zh": "zh-Hans"}[language])
    dark = "rgb(21, 20, 26)"
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == dark) == (theme == "dark"), theme


def test_the_tables_are_whole(page, cluster):
    rows = page.evaluate("import('./strings.js').then(({STRINGS}) => Object.entries(STRINGS))")
    assert len(rows) > 200
    for name, texts in rows:
        assert len(texts) == 2 and all(text.strip() for text in texts), name
        one, other = (sorted(re.findall(r"\{\w+\}", text)) for text in texts)
        assert one == other, (name, texts)
    # Names that the page's files use are there.
    names = {name for name, _ in rows}
    sources = page.evaluate("""async () => {
        const paths = performance.getEntriesByType("resource").map((each) => each.name).filter((name) => name.endsWith(".js"))
        return Promise.all(["./", ...paths].map(async (path) => (await fetch(path)).text()))
    }""")
    assert len(sources) > 30
    text = "\n".join(sources)
    used = set(re.findall(r'data-i18n="([^"]+)"', text)) | set(re.findall(r'\b(?:t|say|announce)\((?:[^",()]+(?:\([^)]*\))?, )?"([^"]+)"', text))
    for attributes in re.findall(r'data-i18n-attr="([^"]+)"', text):
        used |= {pair.split(":")[1].strip() for pair in attributes.split(";")}
    assert used and used <= names, used - names


def test_the_browsers_language_is_chosen_at_first(page, cluster):
    for tags, title in ((["zh-CN", "en"], "Qwen-Image 集群"), (["fr", "en-GB"], "Qwen-Image cluster"), (["de"], "Qwen-Image cluster")):
        context = page.context.browser.new_context(locale=tags[0])
        tab = context.new_page()
        tab.add_init_script(f"Object.defineProperty(navigator, 'languages', {{get: () => {tags}}})")
        tab.goto(cluster.url)
        expect(tab).to_have_title(title)
        expect(tab.locator("h1")).to_have_text(title)
        context.close()


def test_choices_are_kept(page, cluster):
    page.select_option("#language", "zh")
    page.select_option("#theme", "dark")
    page.reload()
    expect(page.locator("#request button[type=submit]")).to_have_text("生成")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    page.select_option("#language", "en")
    page.select_option("#theme", "auto")
    page.reload()
    expect(page.locator("#request button[type=submit]")).to_have_text("Draw")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light dark"


def test_everything_is_translated_at_once(page, cluster):
    """Also what was shown before, and what is half done: nothing of it is lost."""
    noise(cluster.folder / "7.png", 64, 64)
    images(ask(page, "12", seed=5, steps=1, n=2), 2)
    open_job = ask(page, "34", steps=200, size="256x256", n=5)
    page.set_input_files("#files", cluster.folder / "7.png")
    choose(page, "Mask")
    page.fill("[name=prompt]", "34")
    page.locator("#grid summary").click()
    page.locator("#own-presets summary").click()
    page.select_option("[name=grid-parameter]", "steps")
    page.select_option("#language", "zh")
    expect(page.locator("[name=prompt]")).to_have_value("34")
    expect(page.locator("#inputs li")).to_have_count(1)
    expect(page.locator(".covered")).to_have_text("已遮罩 0 %")
    assert not (found := english(page)), found
    expect(open_job.locator(".state")).to_contain_text("步")
    open_job.locator(".cancel").click()
    expect(open_job.locator(".state")).to_have_text("已取消")
    page.click("#request button[type=submit]")
    expect(page.locator("#error-mask")).to_have_text("尚未涂抹：请涂抹要重绘的部分")
    for mode in ("修改", "扩展"):
        choose(page, mode)
        assert not (found := english(page)), found
    page.locator(".job .compare-pick").first.click()
    page.locator(".job .compare-pick").nth(1).click()
    page.locator("#tray-compare").click()
    expect(page.locator("#pair img.result")).to_have_count(2)
    assert not (found := english(page)), found
    page.locator("#pair .close").click()
    page.locator("#show-keys").click()
    assert not (found := english(page)), found
    page.keyboard.press("Escape")
    show(page, "workers")
    expect(page.locator(".worker")).not_to_have_count(0)
    assert not (found := english(page)), found
    show(page, "gallery")
    expect(page.locator(".tile canvas")).not_to_have_count(0)
    assert not (found := english(page)), found
    page.locator(".tile .open:enabled").first.click()
    expect(page.locator("#viewer .actions button")).not_to_have_count(0)
    assert not (found := english(page, "12", "34")), found
    page.keyboard.press("Escape")
    page.locator("#tray-clear").click()
    # And back: English is what it was.
    page.select_option("#language", "en")
    expect(page.locator("#filters option").first).to_have_text("All")
    show(page, "create")
    expect(page.locator(".job").nth(1).locator(".facts")).to_contain_text("1 step")


def each_look():
    for width in (DESK, PHONE):
        for language in ("en", "zh"):
            for theme in ("light", "dark"):
                yield language, theme, width


def test_nothing_serious_is_found_in_the_form(page, cluster):
    noise(cluster.folder / "a name that is far longer than the place where it is shown.png", 64, 64)
    page.reload()
    page.set_input_files("#files", cluster.folder / "a name that is far longer than the place where it is shown.png")
    page.locator("#grid summary").click()
    page.locator("#own-presets summary").click()
    page.select_option("[name=grid-parameter]", "steps")
    page.fill("[name=preset-name]", "wide")
    page.click("#save-preset")
    for language, theme, width in each_look():
        choose_look(page, language, theme, width)
        for mode in ("whole", "mask", "extend"):
            page.locator(f".choices label:has([value={mode}])").click()
            check(page, (language, theme, width, mode))
    page.locator(".choices label:has([value=mask])").click()
    page.fill("[name=prompt]", "p")
    page.click("#request button[type=submit]")
    expect(page.locator("#error-mask")).to_be_visible()
    check(page, "errors")


def test_nothing_serious_is_found_in_jobs(page, cluster):
    page.reload()
    page.select_option("#language", "en")
    page.locator("#grid summary").click()
    page.select_option("[name=grid-parameter]", "steps")
    page.fill("[name=grid-values]", "1 2")
    page.fill("[name=prompt]", "a red circle")
    page.fill("[name=n]", "3")
    page.click("#request button[type=submit]")
    expect(page.locator("article.grid img.result")).to_have_count(6)
    page.select_option("[name=grid-parameter]", "")
    running = ask(page, "a slow one", steps=200, size="256x256", n=2)
    expect(running.locator(".state")).to_contain_text("step")
    page.locator(".compare-pick").first.click()
    for language, theme, width in each_look():
        choose_look(page, language, theme, width)
        check(page, (language, theme, width))
    running.locator(".cancel").click()
    page.locator("#tray-clear").click()


def test_nothing_serious_is_found_in_other_views(page, cluster):
    for language, theme, width in each_look():
        choose_look(page, language, theme, width)
        look = (language, theme, width)
        show(page, "workers")
        expect(page.locator(".worker")).not_to_have_count(0)
        check(page, (*look, "workers"))
        show(page, "gallery")
        page.locator(".tile .open:enabled").first.scroll_into_view_if_needed()
        expect(page.locator(".tile canvas")).not_to_have_count(0)
        check(page, (*look, "gallery"))
        page.locator(".tile .open:enabled").first.click()
        expect(page.locator("#viewer .actions button")).not_to_have_count(0)
        check(page, (*look, "viewer"))
        page.keyboard.press("Escape")
        picks = page.locator(".tile .pick:visible")
        picks.nth(0).check()
        picks.nth(1).check()
        page.locator("#tray-compare").click()
        expect(page.locator("#pair img.result")).to_have_count(2)
        check(page, (*look, "pair"))
        page.keyboard.press("Escape")
        page.locator("#tray-clear").click()
        page.locator("#show-keys").click()
        check(page, (*look, "keys"))
        page.keyboard.press("Escape")
    choose_look(page, "en", "auto" if page.evaluate("matchMedia('(prefers-color-scheme: light)').matches") else "light", DESK)


if __name__ == "__main__":
    sys.exit(main("page-access", globals()))
