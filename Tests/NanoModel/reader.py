#!/usr/bin/env python3
"""Reads an image of the small model's world back: its colours, and the string or the shape that was asked for. Needs numpy and Pillow.

    reader.py IMAGE.png --text 3        # a string of three letters and digits
    reader.py IMAGE.png --hanzi         # one Chinese character
    reader.py IMAGE.png --shape

The reader knows what kind of thing to look for and how many characters, never which: it compares with every colour, character, shape and
position of the world and takes the best.
"""

import argparse
import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image

from images import SIDE, centre, shape_mask, text_mask
from world import BLANK, CHARACTERS, COLOURS, HANZI, POSITIONS, SHAPES, WIDE, Request

WEAKEST_CONTRAST = 30  # of 441 between two colours: less than that is an empty image


@dataclass(frozen=True)
class Reading:
    """What an image shows. `content` is a string or a shape's name; `likeness` (−1…1) is its correlation with the template."""

    background: str
    foreground: str
    content: str
    position: str
    likeness: float

    def wrong(self, asked: Request) -> list[str]:
        """What is not as asked, in words; empty when all is right."""
        pairs = (
            ("background", self.background, asked.background), ("foreground", self.foreground, asked.foreground),
            ("content", self.content, asked.content), ("position", self.position, asked.position))
        empty = {"content": "nothing", "position": "centre"}
        return [
            f"{name} {seen or empty[name]} instead of {right or empty[name]}" for name, seen, right in pairs if seen != right]


def load(path) -> np.ndarray:
    """The image in a file as [64, width, 3] float32, 0…255."""
    with Image.open(path) as image:
        return as_array(image)


def as_array(image: Image.Image) -> np.ndarray:
    if image.height != SIDE or image.width not in (SIDE, WIDE):
        raise ValueError(f"an image of {image.width}x{image.height} pixels; only {SIDE}x{SIDE} and {WIDE}x{SIDE} can be read")
    return np.asarray(image.convert("RGB"), np.float32)


def _nearest(colour: np.ndarray) -> str:
    return min(COLOURS, key=lambda name: np.abs(colour - COLOURS[name][1]).sum())


def _separate(image: np.ndarray) -> tuple[str, str, np.ndarray]:
    """Background, foreground, and where the foreground is [64, width], 0…1. The outermost rows are taken to be background."""
    edge = np.concatenate([image[:3].reshape(-1, 3), image[-3:].reshape(-1, 3)])
    background = np.median(edge, axis=0)
    distance = np.linalg.norm(image - background, axis=2)
    strong = np.percentile(distance, 97)
    foreground = np.median(image[distance >= 0.8 * strong], axis=0)
    return _nearest(background), _nearest(foreground), np.clip(distance / max(strong, WEAKEST_CONTRAST), 0, 1)


def _normalise(mask: np.ndarray) -> np.ndarray:
    """Zero mean and unit length over the last two axes."""
    mask = mask - mask.mean((-2, -1), keepdims=True)
    return mask / (np.sqrt(np.square(mask).sum((-2, -1), keepdims=True)) + 1e-6)


@functools.cache
def _characters(alphabet: str, length: int, width: int) -> list[np.ndarray]:
    """For each cell of a string, the templates of all characters there: [characters, 64, cell width]."""
    whole = np.stack([text_mask(character * length, width) for character in alphabet])
    edges = [round(i * width / length) for i in range(length + 1)]
    return [_normalise(whole[:, :, a:b]) for a, b in zip(edges, edges[1:])]


@functools.cache
def _shapes(width: int) -> tuple[list[tuple[str, str]], np.ndarray]:
    names, masks = [], []
    for shape in SHAPES:
        for position in ("", *POSITIONS):
            for radius in (12, 13, 14) if position else (19, 21.5, 24):
                names.append((shape, position))
                masks.append(shape_mask(shape, *centre(position, width), radius, width))
    return names, _normalise(np.stack(masks))


def _read_text(mask: np.ndarray, alphabet: str, length: int) -> tuple[str, float]:
    text, likeness, left = "", 0.0, 0
    for templates in _characters(alphabet, length, mask.shape[1]):
        cell = _normalise(mask[:, left : left + templates.shape[2]])
        scores = (templates * cell).sum((1, 2))
        text += alphabet[scores.argmax()]
        likeness += float(scores.max()) / length
        left += templates.shape[2]
    return text, likeness


def read(image: np.ndarray, kind: str, length: int = 1, alphabet: str = CHARACTERS) -> Reading:
    """What [64, width, 3] `image` (0…255) shows: a shape when `kind` is "shape", nothing or something when it is "blank", else
    `length` characters of `alphabet`."""
    background, foreground, mask = _separate(image)
    if kind == BLANK:
        distance = np.linalg.norm(image - np.median(image.reshape(-1, 3), axis=0), axis=2)
        empty = np.percentile(distance, 99.5) < WEAKEST_CONTRAST
        return Reading(background, background if empty else foreground, "" if empty else "something", "", 1.0)
    if kind == "shape":
        names, templates = _shapes(mask.shape[1])
        scores = (templates * _normalise(mask)).sum((1, 2))
        shape, position = names[scores.argmax()]
        return Reading(background, foreground, shape, position, float(scores.max()))
    text, likeness = _read_text(mask, alphabet, length)
    return Reading(background, foreground, text, "", likeness)


def read_answer(image: np.ndarray, asked: Request) -> Reading:
    """Reads an image that was made for `asked`."""
    return read(image, asked.kind, len(asked.content), asked.alphabet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", type=int, metavar="LENGTH", choices=range(1, 8))
    what.add_argument("--hanzi", action="store_true")
    what.add_argument("--shape", action="store_true")
    options = parser.parse_args()
    reading = read(
        load(options.image), "shape" if options.shape else "text", options.text or 1, HANZI if options.hanzi else CHARACTERS)
    print(f"{reading.foreground} {reading.content} {reading.position} on {reading.background} (likeness {reading.likeness:.2f})")


if __name__ == "__main__":
    main()
