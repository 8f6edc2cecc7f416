#!/usr/bin/env python3
"""Draws the world's characters once, large, from the two fonts into glyphs.npz, so that nothing else here needs a font.

Debian: fonts-dejavu-core, fonts-noto-cjk. Other places of the same files can be named in NANO_LATIN_FONT and NANO_CJK_FONT.
"""

import os

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from images import EM, GLYPHS, HANZI_EM
from world import CHARACTERS, HANZI

LATIN_FONT = os.environ.get("NANO_LATIN_FONT", "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf")
CJK_FONT = os.environ.get("NANO_CJK_FONT", "/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc")
CJK_FACE = 2  # simplified Chinese


def coverage(character: str, font: ImageFont.FreeTypeFont, above: int) -> np.ndarray:
    """[rows, columns] uint8, cropped to the ink sideways; `above` > 0: rows from at least that far above the baseline down to it."""
    image = Image.new("L", (3 * EM, 3 * EM))
    ImageDraw.Draw(image).text((EM, 2 * EM), character, fill=255, font=font, anchor="ls")
    left, top, right, bottom = image.getbbox()
    if above:
        top, bottom = min(top, 2 * EM - above), max(bottom, 2 * EM)
    return np.asarray(image)[top:bottom, left:right]


def main() -> None:
    latin, cjk = ImageFont.truetype(LATIN_FONT, EM), ImageFont.truetype(CJK_FONT, HANZI_EM, index=CJK_FACE)
    capital = -latin.getbbox("H", anchor="ls")[1]
    glyphs = {character: coverage(character, latin, capital) for character in CHARACTERS}
    glyphs |= {character: coverage(character, cjk, 0) for character in HANZI}
    # How far each letter reaches below the baseline and above the capitals, in pixels: Q, J and round letters.
    rows = {character: latin.getbbox(character, anchor="ls")[1::2] for character in CHARACTERS}
    extents = np.array([(max(capital, -rows[c][0]), max(0, rows[c][1])) for c in CHARACTERS], np.int16)
    np.savez_compressed(GLYPHS, extents=extents, **{f"glyph_{ord(c)}": glyph for c, glyph in glyphs.items()})
    print(f"{GLYPHS.name}: {len(glyphs)} characters, {GLYPHS.stat().st_size} bytes; capitals are {capital} pixels high")


if __name__ == "__main__":
    main()
