#!/usr/bin/env python3
"""The reader reads what the world draws, also blurred and noisy, and does not see what is not there. Needs numpy and Pillow."""

import pathlib
import random
import sys
import unittest

import numpy as np
from PIL import Image

import edits
from images import render
from reader import as_array, read_answer
from world import COLOURS, NARROW, WIDE_MIX, Request, held_out, request, training_request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "Support"))
import testing  # noqa: E402


class ReaderTest(unittest.TestCase):
    def wrong(self, spoil) -> list[str]:
        rng, wrong = random.Random(11), []
        for _ in range(150):
            for mix in (NARROW, WIDE_MIX):
                asked = training_request(rng, mix)
                reading = read_answer(spoil(render(asked, rng) * 255), asked)
                wrong += [f"{asked.prompt}: {fault}" for fault in reading.wrong(asked)]
        return wrong

    def test_reads_what_is_drawn(self):
        self.assertEqual(self.wrong(lambda pixels: pixels), [])

    def test_reads_through_noise(self):
        noise = np.random.default_rng(3)
        self.assertEqual(self.wrong(lambda pixels: np.clip(pixels + noise.normal(0, 12, pixels.shape), 0, 255)), [])

    def test_names_what_is_wrong(self):
        rng = random.Random(4)
        drawn = request("text", "CAT", rng)
        other = [name for name in COLOURS if name not in (drawn.foreground, drawn.background)]
        asked = Request("text", "CAR", other[0], other[1])
        self.assertEqual(read_answer(render(drawn, rng) * 255, asked).wrong(asked), [
            f"background {drawn.background} instead of {other[1]}", f"foreground {drawn.foreground} instead of {other[0]}",
            "content CAT instead of CAR"])
        placed = request("shape", "star", rng, "left")
        asked = Request("shape", "star", placed.foreground, placed.background, "right")
        self.assertEqual(read_answer(render(placed, rng) * 255, asked).wrong(asked), ["position left instead of right"])

    def test_an_empty_image_is_like_nothing(self):
        pixels = np.full((64, 64, 3), 200, np.float32) + np.random.default_rng(5).normal(0, 3, (64, 64, 3))
        self.assertLess(read_answer(pixels, Request("text", "A", "red", "white")).likeness, 0.5)

    def test_reads_an_empty_image(self):
        rng = random.Random(8)
        for background in COLOURS:
            empty = edits.blank(background)
            self.assertEqual(read_answer(render(empty, rng) * 255, empty).wrong(empty), [])
        drawn = request("shape", "ring", rng, "left")
        wrong = read_answer(render(drawn, rng) * 255, edits.blank(drawn.background)).wrong(edits.blank(drawn.background))
        self.assertEqual(wrong[-1], "content something instead of nothing")

    def test_edits_that_are_trained_on_are_not_scored(self):
        rng, operations = random.Random(9), set()
        for _ in range(300):
            scenes = edits.family(rng)
            self.assertFalse(any(scene.kind == "text" and held_out(scene.content) for scene in scenes))
            for before in scenes:
                for after in scenes:
                    if operation := edits.operation_between(before, after):
                        operations.add(operation)
                        self.assertTrue(edits.instruction(edits.Edit(operation, before, after), rng))
        self.assertEqual(operations, set(edits.OPERATIONS) - {"restore", "describe"})
        for group, asked in edits.examination(12).items():
            self.assertTrue(all(edit.is_held_out for edit, _ in asked), group)

    def test_other_sizes_are_refused(self):
        with self.assertRaisesRegex(ValueError, "96x64"):
            as_array(Image.new("RGB", (96, 64)))

    def test_held_out_strings_are_never_drawn(self):
        rng = random.Random(6)
        texts = [asked.content for mix in (NARROW, WIDE_MIX) for asked in (training_request(rng, mix) for _ in range(4000)) if asked.kind == "text"]
        self.assertEqual([text for text in texts if held_out(text)], [])


if __name__ == "__main__":
    sys.exit(testing.run_unittest("reader"))
