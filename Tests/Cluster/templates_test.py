#!/usr/bin/env python3
"""Templates through real processes: the three examples draw what their rows say, a run that was interrupted continues, nothing is made
when a row breaks a rule, and the API makes the same jobs.

    templates_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import csv
import html
import html.parser
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import urllib.parse

import httpx2
from PIL import Image

from cluster import Cluster, Terminal, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tests/NanoModel"))
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402
from reader import as_array, read_answer  # noqa: E402
from world import Request  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
EXAMPLES = ROOT / "compose/templates"
# Images that are read wrongly, of those of all examples: the small model is not always right.
WRONG_AT_MOST = 1


class Page(html.parser.HTMLParser):
    """The images of a page and its text."""

    def __init__(self, text):
        super().__init__()
        self.images, self.text, self.tags = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(urllib.parse.unquote(dict(attributes)["src"]))

    def handle_data(self, data):
        self.text += data


def run(*arguments, status=0):
    result = subprocess.run([BINARIES / "qwen-image", "template", *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert result.returncode == status, (arguments, result.returncode, result.stderr)
    return result


def files(name):
    return EXAMPLES / f"{name}.yaml", EXAMPLES / f"{name}.csv"


def rows(name):
    return list(csv.DictReader(open(EXAMPLES / f"{name}.csv", encoding="utf-8")))


def asked(name):
    """What every image of an example shows, by its file."""
    images = {}
    for number, row in enumerate(rows(name), 1):
        if name == "sale-banners":
            colour = row["colour"] or "red"
            images[f"{row['word']}-banner.png"] = Request("text", row["word"], "white", colour, width=128)
        elif name == "shape-posters":
            for size, width in (("poster", 64), ("wide", 128)):
                for language in ("en", "zh"):
                    path = f"{language}/{number:04}-{row['colour']}-{row['shape']}-{size}.png"
                    images[path] = Request("shape", row["shape"], row["colour"], row["background"] or "white", width=width)
        else:
            for language in ("en", "zh"):
                text = row.get(f"text.{language}") or row["text"]
                images[f"{number:04}-{row['text']}-{language}.webp"] = Request("text", text, row["colour"] or "blue", "white")
    return images


def test_the_examples_draw_what_their_rows_say():
    wrong, count = [], 0
    with Cluster(BINARIES, NANO) as cluster, tempfile.TemporaryDirectory() as folder:
        for name in ("sale-banners", "shape-posters", "letter-cards"):
            assert f"{len(rows(name))} rows, {len(asked(name))} images" in run("check", *files(name)).stdout
            output = pathlib.Path(folder, name)
            shown = run("run", *files(name), "--output", output, "--gateway", cluster.url).stdout.splitlines()
            assert sorted(shown) == sorted(str(output / path) for path in asked(name)), shown
            for path, request in asked(name).items():
                image = Image.open(output / path)
                assert image.format == ("WEBP" if name == "letter-cards" else "PNG") and image.width == request.width
                reading = read_answer(as_array(image), request)
                wrong += [f"{name} {path}: {problem}" for problem in reading.wrong(request)]
            count += len(asked(name))
            page = Page((output / "index.html").read_text(encoding="utf-8"))
            assert sorted(page.images) == sorted(f"./{path}" for path in asked(name)), page.images
            sheet = Image.open(output / "contact-sheet.png")
            columns = next(n for n in range(1, 100) if n * n >= len(asked(name)))
            assert sheet.width == columns * 196 + 4 and sheet.getpixel((1, 1)) == (238, 238, 238), sheet.size
            jobs = cluster.get(f"/v1/jobs?tag=template:{name}")[1]["data"]
            assert len(jobs) == len(asked(name)) and {job["metadata"]["template"] for job in jobs} == {name}
    print(f"     {count - len(wrong)} of {count} images show what their rows say", flush=True)
    assert len(wrong) <= WRONG_AT_MOST, "\n".join(wrong)


def test_a_run_continues_where_it_stopped():
    with Cluster(BINARIES, NANO) as cluster, tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "t.yaml").write_text("name: many\nprompt: '{x}'\nslots: { x: {} }\nrequest: { steps: 40 }\n")
        (folder / "t.csv").write_text("x\n" + "".join(f"a {c} circle\n" for c in ("red", "blue", "green", "black", "purple", "orange") * 4))
        arguments = ["run", folder / "t.yaml", folder / "t.csv", "--output", folder / "out", "--gateway", cluster.url]
        first = Terminal([BINARIES / "qwen-image", "template", *arguments, "--concurrency", 2], stdout=subprocess.DEVNULL)
        made = lambda: sorted((folder / "out").glob("*.png"))
        wait_until(lambda: len(made()) >= 3 or first.process.poll() is not None, "three images made", details=lambda: first.shown)
        first.process.send_signal(signal.SIGINT)
        assert first.process.wait(60) == 130, first.shown
        there = {path: path.stat().st_mtime_ns for path in made()}
        assert 3 <= len(there) < 24, there
        answers = [json.loads(line) for line in run(*arguments, "--json").stdout.splitlines()]
        assert len(answers) == 24 and sum("job" not in answer for answer in answers) == len(there), answers
        assert len(made()) == 25 and {path: path.stat().st_mtime_ns for path in there} == there  # with the sheet
        # Nothing was made twice.
        assert len(cluster.get("/v1/jobs?tag=template:many&limit=100")[1]["data"]) == 24
        before = (folder / "out/index.html").read_bytes(), (folder / "out/contact-sheet.png").read_bytes()
        assert run(*arguments).stdout == ""
        assert before == ((folder / "out/index.html").read_bytes(), (folder / "out/contact-sheet.png").read_bytes())


def test_nothing_is_made_when_a_row_breaks_a_rule():
    with Cluster(BINARIES, NANO) as cluster, tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "rows.csv").write_text("word,colour\nSALE,\nFREE,\nWELCOMES,pink\n")
        result = run("run", EXAMPLES / "sale-banners.yaml", folder / "rows.csv", "--output", folder / "out", "--gateway", cluster.url, status=1)
        table = folder / "rows.csv"
        assert result.stderr.splitlines() == [
            f'{table}: row 2 (line 3), column word: it has the word "FREE" (brand.forbidden_words)',
            f"{table}: row 3 (line 4), column word: it has 8 characters, the limit is 7 (slots.word.max_length)",
            f"{table}: row 3 (line 4), column word: it has 8 characters, the limit is 7 (brand.max_text_length)",
            f'{table}: row 3 (line 4), column colour: "pink" is none of red, blue, green, purple (slots.colour.allowed)',
        ], result.stderr
        assert not (folder / "out").exists() and cluster.get("/v1/jobs")[1]["data"] == []
        (folder / "t.yaml").write_text("name: t\nprompt: p\nslotz: {}\n")
        assert f"{folder}/t.yaml: line 3: slotz: there is no such key" in run("check", folder / "t.yaml", status=1).stderr
        assert "must end with .csv or .jsonl" in run("expand", folder / "t.yaml", folder / "t.yaml", status=64).stderr


def test_expanded_rows_are_rows_of_a_batch():
    with Cluster(BINARIES, NANO) as cluster, tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        lines = run("expand", *files("letter-cards")).stdout
        assert run("run", *files("letter-cards"), "--dry-run").stdout == lines
        assert [json.loads(line)["seed"] for line in lines.splitlines()] == [8, 8, 9, 9, 10, 10]
        (folder / "rows.jsonl").write_text(lines)
        run("run", *files("letter-cards"), "--output", folder / "one", "--gateway", cluster.url)
        subprocess.run([BINARIES / "qwen-image", "batch", folder / "rows.jsonl", "-o", folder / "two", "--gateway", cluster.url],
                       check=True, stdout=subprocess.DEVNULL)
        for path in asked("letter-cards"):
            assert (folder / "one" / path).read_bytes() == (folder / "two" / path).read_bytes(), path


def test_files_of_rows_are_edited():
    with Cluster(BINARIES, NANO) as cluster, tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "products").mkdir()
        for name in ("star", "heart"):
            cluster.generate(folder / f"products/{name} 1.png", prompt=f"a red {name} on a white background", seed=1, steps=12)
        (folder / "t.yaml").write_text("""
name: variants
prompt: make the {shape} {colour}
slots:
  photo: { kind: file }
  shape:
  colour: { allowed: [blue, green] }
inputs: { image: photo }
request: { steps: 12, true_cfg_scale: 3.5 }
seed: 1
output: "{colour} {shape}"
""")
        (folder / "t.csv").write_text("photo,shape,colour\nproducts/star 1.png,star,blue\nproducts/heart 1.png,heart,green\n")
        run("run", folder / "t.yaml", folder / "t.csv", "--output", folder / "out", "--gateway", cluster.url, "--cell", 64)
        for colour, shape in (("blue", "star"), ("green", "heart")):
            asked = Request("shape", shape, colour, "white")
            reading = read_answer(as_array(Image.open(folder / f"out/{colour} {shape}.png")), asked)
            assert reading.wrong(asked) == [], reading
        assert Page((folder / "out/index.html").read_text()).images == ["./blue star.png", "./green heart.png"]
        # A row whose file is not there fails; the other is made, and the page says so.
        (folder / "t.csv").write_text("photo,shape,colour\nproducts/gone.png,star,blue\nproducts/heart 1.png,heart,green\n")
        result = run("run", folder / "t.yaml", folder / "t.csv", "--output", folder / "other", "--gateway", cluster.url, status=1)
        assert "row 1: line 1: image" in result.stderr and "1 of 2 rows have failed" in result.stderr, result.stderr
        assert "not made" in Page((folder / "other/index.html").read_text()).text


def test_pages_show_what_rows_say_and_obey_none_of_it():
    with Cluster(BINARIES, NANO) as cluster, tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        text = "</figure><script>alert('1')</script>\" onload=\"x"
        (folder / "t.yaml").write_text("name: t\ndescription: <b>&\nprompt: '{x}'\nslots: { x: {} }\nrequest: { steps: 1 }\noutput: '{row} {x}'\n")
        with open(folder / "t.csv", "w", newline="") as file:
            csv.writer(file).writerows([["x"], [text]])
        run("run", folder / "t.yaml", folder / "t.csv", "--output", folder / "out", "--gateway", cluster.url)
        page = Page((folder / "out/index.html").read_text())
        assert "script" not in page.tags and text in page.text and "<b>&" in page.text, page.text
        (image,) = page.images
        assert (folder / "out" / image).exists() and "<" not in image and html.unescape(image) == image, image


def test_the_api_makes_the_jobs_of_the_command():
    with Cluster(BINARIES, NANO) as cluster, tempfile.TemporaryDirectory() as folder:
        template, table = files("shape-posters")
        body = {"template": template.read_text(), "rows": table.read_text(), "idempotency_key": "posters-1"}
        dry = httpx2.post(f"{cluster.url}/v1/templates/jobs", json={**body, "dry_run": True}, timeout=90).json()
        lines = [json.loads(line) for line in run("expand", template, table).stdout.splitlines()]
        assert [{**item["request"], "output": item["output"]} for item in dry["data"]] == lines
        assert cluster.get("/v1/jobs")[1]["data"] == []
        answer = httpx2.post(f"{cluster.url}/v1/templates/jobs", json=body, timeout=90)
        assert answer.status_code == 200, answer.text
        made = answer.json()["data"]
        assert [item["output"] for item in made] == [line["output"] for line in lines]
        cluster.stop("gateway")
        cluster.start_gateway()
        cluster.wait_until_ready()
        again = httpx2.post(f"{cluster.url}/v1/templates/jobs", json=body, timeout=90).json()["data"]
        assert [item["job"]["id"] for item in again] == [item["job"]["id"] for item in made] and all(item["replayed"] for item in again)
        run("run", template, table, "--output", folder, "--gateway", cluster.url)
        for item in made:
            job = httpx2.get(f"{cluster.url}/v1/jobs/{item['job']['id']}?wait=60", timeout=90).json()
            assert job["status"] == "succeeded" and job["metadata"]["row"] == str(item["row"]), job
            image = httpx2.get(cluster.url + job["images"][0]["result"], timeout=90).content
            assert image == pathlib.Path(folder, item["output"] + ".png").read_bytes(), item["output"]
        broken = httpx2.post(f"{cluster.url}/v1/templates/jobs", json={**body, "rows": "shape,colour\nheart,red\nheart,pink\n"}, timeout=90)
        assert broken.status_code == 400 and broken.json()["error"]["param"] == "rows[1].colour", broken.text


if __name__ == "__main__":
    sys.exit(testing.run("templates", testing.functions(globals())))
