#!/usr/bin/env python3
"""Cuts the Qwen2 tokenizer down to the merges that this world's words need: the originals, in their original order, and nothing else.

    tokenizer.py FOLDER      # writes FOLDER/tokenizer/

The prompt template, of which the pipelines drop the first 34 tokens, splits exactly as with the full tokenizer. No two capitals or
digits merge, so that a string has one token per character.
"""

import argparse
import gzip
import json
import pathlib
import re
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

import edits
from networks import EDIT_PREFIX_TOKENS, IMAGE_TOKENS, PREFIX_TOKENS
from world import (
    CHARACTERS, COLOURS, HANZI, PLACED_ENGLISH, POSITIONS, SHAPE_ENGLISH, SHAPES, TEXT_ENGLISH)

FULL = pathlib.Path(__file__).resolve().parent.parent / "Golden/qwen2-tokenizer"  # vocabulary and merges of the published tokenizer
SYSTEM = "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the objects and background:"
EDIT_SYSTEM = (
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain how the user's text "
    "instruction should alter or modify the image. Generate a new image that meets the user's requirements while maintaining consistency "
    "with the original input where appropriate.")
_FRAME = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}{{}}<|im_end|>\n<|im_start|>assistant\n"
IMAGE = "<|vision_start|>" + "<|image_pad|>" * IMAGE_TOKENS + "<|vision_end|>"
TEMPLATE = _FRAME.format(SYSTEM, "")
EDIT_TEMPLATES = {  # by the pipeline that uses it: what comes before the prompt
    "edit": _FRAME.format(EDIT_SYSTEM, IMAGE), "edit-plus": _FRAME.format(EDIT_SYSTEM, f"Picture 1: {IMAGE}")}
PIECES = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
ADDED = SPECIAL + [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"]


def texts() -> list[str]:
    """Everything whose words are to stay whole."""
    result = [SYSTEM, EDIT_SYSTEM, "Picture 1: ", "system\n", "user\n", "assistant\n", ' "', '"', '."', '",', "\n"]
    for sentence in TEXT_ENGLISH + SHAPE_ENGLISH + PLACED_ENGLISH:
        # The quoted string itself is left out: its letters must not merge with each other.
        sentence = sentence.format(fg="red", bg="red", s="circle", p="left", t='"').replace('"""', '""')
        result += [sentence, sentence[0].upper() + sentence[1:]]
    for sentence in edit_sentences():
        result += [sentence, sentence[0].upper() + sentence[1:]]
    words = [*COLOURS, *SHAPES, *POSITIONS, *"an the shape letter colored and with picture of image text word".split()]
    for word in words:
        result += [word, " " + word, word.capitalize(), " " + word.capitalize()]
    for colour, _ in COLOURS.values():
        result += [colour, colour + "色"]
    result += [*SHAPES.values(), *POSITIONS.values()]
    result += "背景 背景上 上 写着 写 着 的 字 牌子 文字 一个 有一个 有 ， 。 “ ” ： ！".split()
    return result + list(HANZI + "土金风云花雨雪马牛羊鱼鸟心好小东西南北茶酒书门喜")


def edit_sentences() -> list[str]:
    """The sentences of edits with common words in their places; quoted strings are left out."""
    result = list("shape text letter letters word middle center image".split()) + [edits.MIDDLE]
    for name, sentences in vars(edits).items():
        if name.endswith(("_ENGLISH", "_CHINESE")):
            chinese = name.endswith("CHINESE")
            for sentence in sentences:
                for quoted in ('"{o}"', '"{n}"'):
                    sentence = sentence.replace(quoted, '""')
                result.append(
                    sentence.format(o="圆形", n="星形", c="红", p="左边") if chinese
                    else sentence.format(o="circle", n="star", c="red", p=" on the left" if "{n}{p}" in sentence else "left"))
    return result


def byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte in the vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    letters.update({byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in letters)})
    return letters


def cut(vocabulary: dict[str, int], merges: list[str]) -> tuple[dict[str, int], list[str]]:
    """The single bytes and the merges that `texts` use, numbered anew in the original order."""
    rank = {tuple(merge.split(" ")): i for i, merge in enumerate(merges)}
    letters, split, used = byte_letters(), pre_tokenizers.Split(Regex(PIECES), "isolated"), set()
    for text in texts():
        for piece, _ in split.pre_tokenize_str(unicodedata.normalize("NFC", text)):
            parts = [letters[byte] for byte in piece.encode()]
            while len(parts) > 1:
                first, at = min((rank.get((parts[i], parts[i + 1]), len(rank)), i) for i in range(len(parts) - 1))
                if first == len(rank):
                    break
                used.add(first)
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
    kept = [merges[i] for i in sorted(used)]
    for merge in kept:
        if re.search("[A-Z0-9][A-Z0-9]", merge.replace(" ", "")):
            raise ValueError(f"the merge {merge} would join two characters of a string")
    names = sorted(letters.values(), key=vocabulary.__getitem__) + [merge.replace(" ", "") for merge in kept]
    return {name: i for i, name in enumerate(names)}, kept


def _fast(vocabulary: dict[str, int], merges: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(m.split(" ")) for m in merges], fuse_unk=False, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    for name in ADDED:
        tokenizer.add_tokens([AddedToken(name, special=name in SPECIAL, normalized=False)])
    return tokenizer


def write(folder: pathlib.Path) -> None:
    """Writes the tokenizer's files into `folder`."""
    read = lambda name: gzip.decompress((FULL / name).read_bytes()).decode()
    lines = read("merges.txt.gz").split("\n")[1:]
    vocabulary, merges = cut(json.loads(read("vocab.json.gz")), [line for line in lines if line])
    added = {name: len(vocabulary) + i for i, name in enumerate(ADDED)}
    token = lambda name: dict(content=name, lstrip=False, normalized=False, rstrip=False, single_word=False)
    files = {
        "vocab.json": vocabulary, "added_tokens.json": added,
        "tokenizer_config.json": dict(
            add_bos_token=False, add_prefix_space=False,
            added_tokens_decoder={str(i): dict(token(name), special=name in SPECIAL) for name, i in added.items()},
            additional_special_tokens=SPECIAL[1:], bos_token=None, clean_up_tokenization_spaces=False, eos_token="<|im_end|>",
            errors="replace", extra_special_tokens={}, model_max_length=131072, pad_token="<|endoftext|>", split_special_tokens=False,
            tokenizer_class="Qwen2Tokenizer", unk_token=None),
        "special_tokens_map.json": dict(
            additional_special_tokens=SPECIAL[1:], eos_token=token("<|im_end|>"), pad_token=token("<|endoftext|>")),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=None if name == "vocab.json" else 2))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(merge + "\n" for merge in merges))
    _fast(vocabulary, merges).save(str(folder / "tokenizer.json"), pretty=False)


class Prompts:
    """Turns prompts into token ids the way the pipelines do."""

    def __init__(self, folder: pathlib.Path):
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer/tokenizer.json"))
        self.vocabulary = self._tokenizer.get_vocab_size()
        self.prefix = self._tokenizer.encode(TEMPLATE.split("{}")[0]).ids
        if len(self.prefix) != PREFIX_TOKENS:
            raise SystemExit(f"{folder}/tokenizer: the template starts with {len(self.prefix)} tokens, not {PREFIX_TOKENS}")
        start = EDIT_TEMPLATES["edit"].split("<|vision_start|>")[0]
        self.edit_prefix = self._tokenizer.encode(start).ids
        if len(self.edit_prefix) != EDIT_PREFIX_TOKENS:
            raise SystemExit(
                f"{folder}/tokenizer: the template of edits starts with {len(self.edit_prefix)} tokens, not {EDIT_PREFIX_TOKENS}")
        self.image_pad = self._tokenizer.token_to_id("<|image_pad|>")

    def ids(self, prompt: str) -> list[int]:
        """The tokens after the template's first 34."""
        return self._tokenizer.encode(TEMPLATE.format(prompt)).ids[PREFIX_TOKENS:]

    def edit_ids(self, prompt: str, pipeline: str) -> list[int]:
        """The tokens after the first 64 of the template of "edit" or "edit-plus", for one image."""
        return self._tokenizer.encode(EDIT_TEMPLATES[pipeline].format(prompt)).ids[EDIT_PREFIX_TOKENS:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    write(folder / "tokenizer")
    prompts = Prompts(folder)
    end = len(prompts.ids(""))
    for character in CHARACTERS + HANZI:
        if len(prompts.ids(character)) != end + 1:
            raise SystemExit(f"{character} is not one token")
    print(f"{folder}/tokenizer: {prompts.vocabulary} tokens")


if __name__ == "__main__":
    main()
