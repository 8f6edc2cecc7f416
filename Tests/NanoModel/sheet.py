#!/usr/bin/env python3
"""Has a running cluster draw a fixed list of prompts and puts the images on one sheet, each above its prompt.

    sheet.py --gateway http://127.0.0.1:8080 compose/models/sheet.png
    sheet.py --gateway http://127.0.0.1:8080 --edits compose/models/edits.png     # images, and what edits make of them

Needs Pillow, and for the prompts a font with Latin and Chinese characters (Debian: fonts-noto-cjk).
"""

import argparse
import pathlib

from PIL import Image, ImageDraw, ImageFont

from evaluate import with_gateway
from evaluate_edits import edit_with_gateway
from world import SIDE, WIDE, Request

FONT = "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"
ENLARGED, MARGIN, LINE = 2, 6, 14  # factor; pixels
COLUMNS = 8
STEPS, SCALE = 20, 3.5

PROMPTS = (
    "a green circle on a white background", "a blue star", "a purple heart on a yellow background", "orange ring on black",
    "a red triangle on a yellow background", "a white cross on a red background", "黑色背景上的黄色星形", "一个红色的圆形",
    "a blue square on the left", "an orange circle on the right, blue background", "a green triangle at the top of a black background",
    "a blue heart on the bottom", "左边有一个红色的正方形，白色背景", "上方有一个白色的星形",
    'a yellow sign that says "A"', '"7" in white letters on a red background',
    '红色背景上写着"福"字', '蓝色背景上写着白色的"山"', "红色的“龙”字", '白色背景上写着黑色的"中"',
    'white letters "OK"', '绿色背景，黄色文字"K9"', 'yellow text "42" on purple', '"3D" in white letters on a black background',
    'a red sign that says "CAT"', '"DOG" in blue letters on a yellow background', 'the word "SUN" in orange', 'a sign that says "YES"',
    'black text "R2D" on orange', '"Q7Z" in red letters on a white background', 'red letters "JFK"', '"100" in green letters on a white background',
)
WIDE_PROMPTS = (
    'a red sign that says "OPEN"', 'a sign that says "HELLO"', '"SWIFT" in orange letters on a white background', '蓝色背景上写着"2025"字',
)

# What is drawn, and what is asked for then, one thing after the other.
EDITS = (
    ("a red star on a white background", ("make the star blue", "turn the star into a heart", "move it to the left", "remove it")),
    ('"CAT" in blue letters on a yellow background', (
        "make the background green", "replace the A with U", 'change the text to "DOG"', "make it red")),
    ("黑色背景上的黄色圆形", ("把圆形换成三角形", "把背景改成紫色", "把它移到右边", "把三角形变成白色")),
    ('红色背景上写着白色的"山"', ("把山换成水", "把文字变成黄色", "将背景换成蓝色", "去掉文字")),
)


def captioned(prompt: str, image: Image.Image, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The enlarged image with up to two lines of prompt under it."""
    width, height = image.width * ENLARGED, image.height * ENLARGED
    result = Image.new("RGB", (width + MARGIN, height + 2 * LINE + MARGIN), "white")
    result.paste(image.resize((width, height), Image.NEAREST), (0, 0))
    draw, lines = ImageDraw.Draw(result), [""]
    for character in prompt:
        if draw.textlength(lines[-1] + character, font=font) > width:
            lines.append("")
        lines[-1] += character
    for i, line in enumerate(lines[:2]):
        draw.text((0, height + i * LINE), line, fill="black", font=font)
    return result


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    result = Image.new("RGB", (max(sum(p.width for p in row) for row in rows), sum(row[0].height for row in rows)), "white")
    y = 0
    for row in rows:
        x = 0
        for image in row:
            result.paste(image, (x, y))
            x += image.width
        y += row[0].height
    return result


def prompt_rows(options: argparse.Namespace, font: ImageFont.FreeTypeFont) -> list[list[Image.Image]]:
    asked = [(prompt, SIDE) for prompt in PROMPTS] + [(prompt, WIDE) for prompt in WIDE_PROMPTS] * options.wide
    requests = [
        (Request("text", "", "", "", prompt=prompt, width=width), options.seed + i) for i, (prompt, width) in enumerate(asked)]
    images = with_gateway(options.gateway, requests, STEPS, SCALE)
    cells = [captioned(prompt, image.convert("RGB"), font) for (prompt, _), image in zip(asked, images)]
    narrow, wide = cells[: len(PROMPTS)], cells[len(PROMPTS) :]
    return [narrow[i : i + COLUMNS] for i in range(0, len(narrow), COLUMNS)] + ([wide] if wide else [])


def edit_rows(options: argparse.Namespace, font: ImageFont.FreeTypeFont) -> list[list[Image.Image]]:
    """A row for each image of `EDITS`: how it was drawn, and what one edit after the other made of it."""
    rows = []
    for i, (prompt, instructions) in enumerate(EDITS):
        request = Request("text", "", "", "", prompt=prompt)
        images = with_gateway(options.gateway, [(request, options.seed + i)], STEPS, SCALE)
        for instruction in instructions:
            images += edit_with_gateway(options.gateway, [(instruction, images[-1], options.seed + i)], STEPS, SCALE)
        rows.append([captioned(words, image.convert("RGB"), font) for words, image in zip((prompt, *instructions), images)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--gateway", metavar="URL", default="http://127.0.0.1:8080")
    parser.add_argument("--font", default=FONT)
    parser.add_argument("--seed", type=int, default=1, help="of the first image; each next one has the next (default %(default)s)")
    parser.add_argument("--wide", action="store_true", help="also a row of images of 128x64")
    parser.add_argument("--edits", action="store_true", help="images and their edits instead")
    options = parser.parse_args()
    font = ImageFont.truetype(options.font, 11)
    rows = (edit_rows if options.edits else prompt_rows)(options, font)
    sheet(rows).quantize(256).save(options.output, optimize=True)
    print(f"{options.output}: {sum(map(len, rows))} images, {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
