"""Images of the small model's world: a flat background with a string or a shape on it. Needs numpy and Pillow, and no font."""

import functools
import pathlib
import random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from world import CHARACTERS, COLOURS, HANZI, NARROW, SIDE, WIDE, Request, training_request

GLYPHS = pathlib.Path(__file__).with_name("glyphs.npz")  # made by make_glyphs.py
EM, HANZI_EM = 256, 208  # pixels, of the stored glyphs
SUPERSAMPLING = 4
SHOWN_SIDE = 56  # pixels, of what the vision tower sees
CAP_HEIGHT = 0.729  # of the Latin font, in ems
CHARACTER_HEIGHT = {  # pixels, by the length of the string
    SIDE: (42, 32, 26),
    WIDE: (42, 42, 38, 32, 28, 26, 22),
}
HANZI_HEIGHT = 52
OFFSETS = {"": (0, 0), "left": (-0.25, 0), "right": (0.25, 0), "top": (0, -0.25), "bottom": (0, 0.25)}  # of width, of height


@functools.cache
def _glyphs() -> dict[str, tuple[Image.Image, int, int]]:
    """Large coverage of each character, and how far it reaches above and below the baseline, at least as far as a capital."""
    with np.load(GLYPHS) as file:
        extents = dict(zip(CHARACTERS, file["extents"].tolist()))
        return {c: (Image.fromarray(file[f"glyph_{ord(c)}"]), *extents.get(c, (0, 0))) for c in CHARACTERS + HANZI}


@functools.cache
def _hanzi(character: str, height: float) -> tuple[Image.Image, float]:
    """Coverage of one Chinese character whose em is `height` pixels, supersampled; and its shift downwards."""
    image = _glyphs()[character][0]
    scale = int(height * SUPERSAMPLING) / HANZI_EM
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.LANCZOS), 0.0


@functools.cache
def _letter(character: str, cell: float, height: float) -> tuple[Image.Image, float]:
    """Coverage of one letter or digit with capitals `height` pixels high, squeezed to 92 % of its cell; the baseline is kept."""
    image, above, below = _glyphs()[character]
    capital = EM * CAP_HEIGHT
    scale = height * SUPERSAMPLING / capital
    width = min(image.width * scale, cell * 0.92 * SUPERSAMPLING)
    glyph = image.resize((max(1, round(width)), max(1, round(image.height * scale))), Image.LANCZOS)
    return glyph, (below - above + capital) / 2 * scale


def text_mask(text: str, width: int = SIDE, scale: float = 1.0, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """Where `text` covers the image: [64, width] float32, 0…1. Each character has a cell of its own."""
    image = Image.new("L", (width * SUPERSAMPLING, SIDE * SUPERSAMPLING))
    cell = width / len(text) * scale
    for index, character in enumerate(text):
        if character in HANZI:
            glyph, down = _hanzi(character, round(HANZI_HEIGHT * scale, 2))
        else:
            glyph, down = _letter(character, cell, round(CHARACTER_HEIGHT[width][len(text) - 1] * scale, 2))
        x = ((index + 0.5 - len(text) / 2) * cell + width / 2 + dx) * SUPERSAMPLING
        y = (SIDE / 2 + dy) * SUPERSAMPLING
        image.paste(255, (round(x - glyph.width / 2), round(y - glyph.height / 2 + down)), glyph)
    return np.asarray(image.resize((width, SIDE), Image.BOX), np.float32) / 255


def _outline(shape: str) -> list[tuple[float, float]]:
    """The corners of a shape of radius 1 about the origin."""
    if shape == "square":
        return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
    if shape == "triangle":
        return [(0, -1), (1, 0.8), (-1, 0.8)]
    if shape == "cross":
        return [
            (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3),
            (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)]
    if shape == "star":
        angle = np.arange(10) * np.pi / 5
        radius = np.where(np.arange(10) % 2 == 0, 1.08, 0.45)
        return list(zip(np.sin(angle) * radius, 0.06 - np.cos(angle) * radius))
    angle = np.linspace(0, 2 * np.pi, 60)  # the heart curve
    y = (13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)) / 16
    return list(zip(np.sin(angle) ** 3, -y))


def shape_mask(shape: str, x: float, y: float, radius: float, width: int = SIDE) -> np.ndarray:
    """Where a shape about (x, y) covers the image: [64, width] float32, 0…1. Lengths in pixels."""
    image = Image.new("L", (width * SUPERSAMPLING, SIDE * SUPERSAMPLING))
    draw = ImageDraw.Draw(image)
    x, y, r = x * SUPERSAMPLING, y * SUPERSAMPLING, radius * SUPERSAMPLING
    if shape in ("circle", "ring"):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        if shape == "ring":
            r *= 0.58
            draw.ellipse((x - r, y - r, x + r, y + r), fill=0)
    else:
        draw.polygon([(x + r * a, y + r * b) for a, b in _outline(shape)], fill=255)
    return np.asarray(image.resize((width, SIDE), Image.BOX), np.float32) / 255


def centre(position: str, width: int) -> tuple[float, float]:
    """Where the middle of a shape at `position` belongs, in pixels."""
    dx, dy = OFFSETS[position]
    return (0.5 + dx) * width, (0.5 + dy) * SIDE


class Placement(NamedTuple):
    """Where a shape is, in pixels."""

    x: float
    y: float
    radius: float


def placement(asked: Request, rng: random.Random | None = None) -> Placement:
    """Where the shape of `asked` may be; without `rng`, the middle of that."""
    x, y = centre(asked.position, asked.width)
    low, high = (12, 14) if asked.position else (19, 24)
    if rng is None:
        return Placement(x, y, (low + high) / 2)
    radius = rng.uniform(low, high)
    return Placement(x + rng.uniform(-1, 1), y + rng.uniform(-1, 1), radius)


def mask(asked: Request, place: Placement | None = None) -> np.ndarray:
    """Where the string or shape of `asked` covers the image: [64, width] float32, 0…1; a shape is at `place`."""
    if asked.kind == "text":
        return text_mask(asked.content, asked.width)
    if asked.kind != "shape":
        return np.zeros((SIDE, asked.width), np.float32)
    return shape_mask(asked.content, *(place or placement(asked)), asked.width)


def shade(name: str, rng: random.Random, jitter: float) -> np.ndarray:
    """A colour as RGB, 0…1; each channel varies by up to `jitter` of 255."""
    return np.clip([(c + rng.uniform(-jitter, jitter)) / 255 for c in COLOURS[name][1]], 0, 1)


def blend(mask: np.ndarray, background: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    return (background + (foreground - background) * mask[..., None]).astype(np.float32)


def render(asked: Request, rng: random.Random, jitter: float = 9) -> np.ndarray:
    """What `asked` asks for: [64, width, 3] float32, 0…1; each colour's channels vary by up to `jitter` of 255."""
    drawn = mask(asked, placement(asked, rng) if asked.kind == "shape" else None)
    return blend(drawn, shade(asked.background, rng, jitter), shade(asked.foreground, rng, jitter))


def damage(image: np.ndarray, most: int, rng: random.Random) -> np.ndarray:
    """`image` [64, 64, 3] with a grey box, of up to `most` pixels each way, over a part of its middle."""
    width, height = rng.randint(most // 2, most), rng.randint(most // 2, most)
    left, top = rng.randint(10, SIDE - 10 - width), rng.randint(10, SIDE - 10 - height)
    damaged = image.copy()
    damaged[top : top + height, left : left + width] = 0.5
    return damaged


def shown(image: np.ndarray) -> np.ndarray:
    """An image [64, 64, 3], 0…1, as the vision tower gets it: [56, 56, 3] uint8."""
    pixels = np.round(image * 255).clip(0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((SHOWN_SIDE, SHOWN_SIDE), Image.BICUBIC))


def render_varied(rng: random.Random) -> np.ndarray:
    """An image for the autoencoder, [64, 64, 3]: one in five has any two colours, and moved and scaled content."""
    asked = training_request(rng, NARROW)
    if rng.random() < 0.8:
        return render(asked, rng)
    if asked.kind == "text":
        mask = text_mask(asked.content, SIDE, rng.choice((0.7, 0.8, 0.9, 1.0)), rng.uniform(-6, 6), rng.uniform(-10, 10))
    else:
        mask = shape_mask(asked.content, rng.uniform(12, SIDE - 12), rng.uniform(12, SIDE - 12), rng.uniform(8, 24))
    return blend(mask, *(np.array([rng.random() for _ in range(3)]) for _ in range(2)))
