"""Editing in the small model's world: what can be changed about an image, in which words, and what training never sees.

Pure Python: nothing here needs torch, numpy or a font.
"""

import hashlib
import random
from dataclasses import dataclass, replace

from world import (
    BLANK, CHARACTERS, COLOURS, HANZI, NARROW, POSITIONS, SHAPES, Request, another_prompt, held_out, random_text)

# What an edit does.
OPERATIONS = ("recolour", "background", "shape", "text", "letter", "kind", "move", "erase", "add", "restore", "describe")
# How often training asks for it; "character" is "letter" where the string has no other.
SHARES = {
    "recolour": 14, "background": 14, "shape": 6, "text": 7, "letter": 35, "character": 5, "kind": 1, "move": 6, "erase": 5,
    "add": 1, "restore": 5, "describe": 1}
LETTER_FAMILIES = 0.3  # share of the families
MIDDLE = "中间"

RECOLOUR_ENGLISH = (
    "make the {o} {c}", "change the color of the {o} to {c}", "make it {c}", "turn the {o} {c}", "paint the {o} {c}",
    "change the {o} to {c}")
RECOLOUR_CHINESE = ("把{o}变成{c}色", "把{o}改成{c}色", "将{o}的颜色改为{c}色", "把它变成{c}色", "把颜色改成{c}色")
BACKGROUND_ENGLISH = (
    "make the background {c}", "change the background to {c}", "change the color of the background to {c}",
    "turn the background {c}", "put it on a {c} background")
BACKGROUND_CHINESE = ("把背景改成{c}色", "把背景变成{c}色", "将背景换成{c}色", "背景换成{c}色", "将背景的颜色改为{c}色")
SHAPE_ENGLISH = (
    "turn the {o} into a {n}", "replace the {o} with a {n}", "change the {o} to a {n}", "make it a {n}",
    "turn it into a {n}")
SHAPE_CHINESE = ("把{o}换成{n}", "把{o}变成{n}", "将{o}替换为{n}", "把它换成{n}", "将{o}改为{n}")
TEXT_ENGLISH = (
    'replace "{o}" with "{n}"', 'change the text to "{n}"', 'change "{o}" to "{n}"', 'make it say "{n}"',
    'replace the text with "{n}"',
    'change the word to "{n}"')
TEXT_CHINESE = ('把"{o}"换成"{n}"', '把文字改成"{n}"', '将"{o}"替换为"{n}"', '把"{o}"改成"{n}"', '文字换成"{n}"')
LETTER_ENGLISH = (
    "replace the {o} with {n}", 'replace the letter "{o}" with "{n}"', "change the {o} to {n}",
    'turn the "{o}" into "{n}"',
    "change the letter {o} to {n}", "replace the {o} with a {n}", 'replace the "{o}" with "{n}"')
LETTER_CHINESE = ("把{o}换成{n}", '把字母"{o}"换成"{n}"', "将{o}替换为{n}", "把字母{o}改成{n}")
TO_TEXT_ENGLISH = (
    'replace the {o} with "{n}"', 'turn the {o} into the text "{n}"', 'replace the {o} with the letter "{n}"')
TO_TEXT_CHINESE = ('把{o}换成"{n}"', '将{o}替换为文字"{n}"')
TO_SHAPE_ENGLISH = ("replace the {o} with a {n}", "turn the {o} into a {n}", "make it a {n}")
TO_SHAPE_CHINESE = ("把{o}换成{n}", "将{o}替换为{n}", "把它变成{n}")
MOVE_ENGLISH = (
    "move the {o} to the {p}", "move it to the {p}", "put the {o} on the {p}", "put it on the {p}", "move the {o} {p}")
MOVE_CHINESE = ("把{o}移到{p}", "将{o}移动到{p}", "把它移到{p}", "把{o}放在{p}")
ERASE_ENGLISH = (
    "remove the {o}", "erase the {o}", "delete the {o}", "remove it", "remove the {o} from the image",
    "erase everything")
ERASE_CHINESE = ("去掉{o}", "删除{o}", "把{o}擦掉", "移除{o}", "把它去掉")
ADD_ENGLISH = ("add a {c} {n}", "add a {c} {n}{p}", "draw a {c} {n}{p}", "put a {c} {n}{p}")
ADD_CHINESE = ("{p}加一个{c}色的{n}", "{p}画一个{c}色的{n}", "{p}添加{c}色的{n}")
WRITE_ENGLISH = ('write "{n}" in {c}', 'add the text "{n}" in {c}', 'add {c} text "{n}"')
WRITE_CHINESE = ('写上{c}色的"{n}"', '添加{c}色文字"{n}"')
RESTORE_ENGLISH = (
    "fill in the missing part", "restore the missing part", "fill the gray area", "remove the gray box",
    "repair the image", "complete the image")
RESTORE_CHINESE = ("补全缺失的部分", "修复图像", "填补灰色区域", "去掉灰色方块")


@dataclass(frozen=True)
class Edit:
    """One change of one image: what it is about, what it becomes, and the words that ask for it.

    `damaged` says that a grey box hides a part of the first image.
    """

    operation: str
    before: Request
    after: Request
    damaged: bool = False

    @property
    def is_held_out(self) -> bool:
        """One in twenty of the changes, and whatever shows a string that is held out, is never trained on."""
        if any(scene.kind == "text" and held_out(scene.content) for scene in (self.before, self.after)):
            return True
        parts = [self.operation, *scene_key(self.before), *scene_key(self.after)]
        return int.from_bytes(hashlib.sha256("/".join(parts).encode()).digest()[:4]) % 20 == 0


def damage_size(scene: Request) -> int:
    """The longest side of a grey box, in pixels, that leaves enough of a scene to guess the rest."""
    return 14 if len(scene.content) in (2, 3) else 28


def scene_key(scene: Request) -> tuple[str, ...]:
    return scene.kind, scene.content, scene.foreground, scene.background, scene.position


def blank(background: str) -> Request:
    return Request(BLANK, "", background, background)


def changed_letter(before: str, after: str) -> tuple[str, str] | None:
    """The only character in which two strings of one length differ, when the first string has it once."""
    pairs = [(a, b) for a, b in zip(before, after) if a != b]
    return pairs[0] if len(before) == len(after) and len(pairs) == 1 and before.count(pairs[0][0]) == 1 else None


def operation_between(before: Request, after: Request) -> str | None:
    """The operation that makes one scene of the other; None when no single one does."""
    if before.kind == BLANK or after.kind == BLANK:
        if before.background != after.background or before.kind == after.kind:
            return None
        return "add" if before.kind == BLANK else "erase"
    fields = ("kind", "content", "foreground", "background", "position")
    different = {name for name in fields if getattr(before, name) != getattr(after, name)}
    if "kind" in different:
        return "kind" if different <= {"kind", "content", "position"} else None
    if different == {"content"}:
        if before.kind == "shape":
            return "shape"
        return "letter" if changed_letter(before.content, after.content) else "text"
    return {("foreground",): "recolour", ("background",): "background", ("position",): "move"}.get(tuple(different))


def _thing(scene: Request, chinese: bool, rng: random.Random) -> str:
    """What a scene shows, as one speaks of it."""
    if scene.kind == "shape":
        return SHAPES[scene.content] if chinese else rng.choice((scene.content, scene.content, "shape"))
    if chinese:
        return rng.choice(("文字", "字", f'"{scene.content}"'))
    many = "letters" if len(scene.content) > 1 else "letter"
    return rng.choice(("text", many, "word" if len(scene.content) > 1 else scene.content, f'"{scene.content}"'))


def _templates(operation: str, after: Request, chinese: bool) -> tuple[str, ...]:
    to_text = after.kind == "text"
    english, other = {
        "recolour": (RECOLOUR_ENGLISH, RECOLOUR_CHINESE), "background": (BACKGROUND_ENGLISH, BACKGROUND_CHINESE),
        "shape": (SHAPE_ENGLISH, SHAPE_CHINESE), "text": (TEXT_ENGLISH, TEXT_CHINESE),
        "letter": (LETTER_ENGLISH, LETTER_CHINESE),
        "kind": (TO_TEXT_ENGLISH, TO_TEXT_CHINESE) if to_text else (TO_SHAPE_ENGLISH, TO_SHAPE_CHINESE),
        "move": (MOVE_ENGLISH, MOVE_CHINESE), "erase": (ERASE_ENGLISH, ERASE_CHINESE),
        "add": (WRITE_ENGLISH, WRITE_CHINESE) if to_text else (ADD_ENGLISH, ADD_CHINESE),
        "restore": (RESTORE_ENGLISH, RESTORE_CHINESE),
    }[operation]
    return other if chinese else english


def instruction(edit: Edit, rng: random.Random) -> str:
    """Words that ask for an edit, with the small differences that people's typing has."""
    before, after, operation = edit.before, edit.after, edit.operation
    if operation == "describe":
        return another_prompt(after, rng)
    chinese = rng.random() < (0.6 if (before.content + after.content)[:1] in tuple(HANZI) else 0.3)
    template = rng.choice(_templates(operation, after, chinese))
    old, new = before.content, after.content
    if operation == "letter":
        old, new = changed_letter(before.content, after.content)
    elif operation != "text" and before.kind != BLANK:
        old = _thing(before, chinese, rng)
    if operation in ("shape", "kind", "add") and after.kind == "shape" and chinese:
        new = SHAPES[new]
    colour = after.background if operation == "background" else after.foreground
    if operation == "add":
        place = ""
        if after.position:
            place = POSITIONS[after.position] if chinese else f" on the {after.position}"
            template = template if "{p}" in template else ADD_ENGLISH[1]
    else:
        place = POSITIONS.get(after.position, MIDDLE) if chinese else after.position or rng.choice(("middle", "center"))
    if operation == "move" and template == "move the {o} {p}" and after.position not in ("left", "right"):
        template = MOVE_ENGLISH[0]
    prompt = template.format(o=old, n=new, c=COLOURS[colour][0] if chinese else colour, p=place)
    if chinese:
        if prompt.count('"') == 2 and rng.random() < 0.3:
            first, quoted, last = prompt.split('"')
            prompt = f"{first}“{quoted}”{last}"
        return prompt
    prompt = prompt.replace("a orange", "an orange")
    return prompt[0].upper() + prompt[1:] if rng.random() < 0.4 else prompt


# Families of scenes: a first scene and what single edits make of it.

def first_scene(rng: random.Random) -> Request:
    foreground, background = rng.sample(list(COLOURS), 2)
    if rng.random() < 0.5:
        position = rng.choice(list(POSITIONS)) if rng.random() < 0.5 else ""
        return Request("shape", rng.choice(list(SHAPES)), foreground, background, position)
    return Request("text", any_text(rng), foreground, background)


def any_text(rng: random.Random) -> str:
    """Any string to train on: every length as often."""
    if rng.random() < 0.12:
        return rng.choice(HANZI)
    length = rng.randint(1, 3)
    while len(text := random_text(rng, NARROW)) != length or text in HANZI:
        pass
    return text


def other(values, *excluded, rng: random.Random):
    return rng.choice([value for value in values if value not in excluded])


def with_another_letter(text: str, rng: random.Random) -> str | None:
    """`text` with one of its characters replaced, and not held out; None where no character occurs once."""
    places = [i for i, character in enumerate(text) if text.count(character) == 1]
    alphabet = HANZI if text in HANZI else CHARACTERS
    for _ in range(20):
        if places:
            i = rng.choice(places)
            changed = text[:i] + other(alphabet, *text, rng=rng) + text[i + 1 :]
            if not held_out(changed):
                return changed
    return None


def letter_family(rng: random.Random) -> list[Request]:
    """A string of two or three characters, and four with one other character each."""
    foreground, background = rng.sample(list(COLOURS), 2)
    while len(text := any_text(rng)) < 2:
        pass
    changed = [with_another_letter(text, rng) for _ in range(4)]
    return [Request("text", each, foreground, background) for each in dict.fromkeys([text, *filter(None, changed)])]


def family(rng: random.Random) -> list[Request]:
    """A scene and its variations; any two of them may be one edit apart."""
    if rng.random() < LETTER_FAMILIES:
        return letter_family(rng)
    first = first_scene(rng)
    colours = first.foreground, first.background
    scenes = [
        first, replace(first, foreground=other(COLOURS, *colours, rng=rng)),
        replace(first, background=other(COLOURS, *colours, rng=rng))]
    if first.kind == "shape":
        one = other(SHAPES, first.content, rng=rng)
        places = rng.sample([place for place in ("", *POSITIONS) if place != first.position], 2)
        scenes += [
            replace(first, content=one), replace(first, content=other(SHAPES, first.content, one, rng=rng)),
            replace(first, position=places[0]), replace(first, position=places[1]), blank(first.background)]
        if rng.random() < 0.3:
            scenes.append(replace(first, kind="text", content=any_text(rng), position=""))
    else:
        scenes += [replace(first, content=text) for text in (with_another_letter(first.content, rng),) if text]
        scenes += [replace(first, content=text) for text in (any_text(rng), any_text(rng)) if text != first.content]
        scenes.append(blank(first.background))
        if rng.random() < 0.3:
            scenes.append(replace(first, kind="shape", content=rng.choice(list(SHAPES))))
    return scenes


# The examination.

GROUPS = {  # operation and the lengths of strings; 0 is a shape
    "recolour a shape": ("recolour", 0), "recolour a string": ("recolour", 3),
    "recolour the background": ("background", None),
    "replace a shape": ("shape", 0), "replace a character": ("letter", 1),
    "replace a letter of two or three": ("letter", 3), "replace a string": ("text", 3), "move a shape": ("move", 0),
    "erase": ("erase", None), "restore a shape": ("restore", 0), "restore a character": ("restore", 1),
}


def _scene(length: int | None, rng: random.Random) -> Request:
    """Any scene: a shape (0), one character (1), two or three of them (3), or whichever."""
    foreground, background = rng.sample(list(COLOURS), 2)
    if length is None:
        length = rng.choice((0, 0, 1, 3))
    if length == 0:
        return Request("shape", rng.choice(list(SHAPES)), foreground, background, rng.choice(("", *POSITIONS)))
    return Request("text", _string(length, rng), foreground, background)


def _string(length: int, rng: random.Random) -> str:
    if length == 1 and rng.random() < 0.3:
        return rng.choice(HANZI)
    return "".join(rng.choice(CHARACTERS) for _ in range(1 if length == 1 else rng.randint(2, 3)))


def _changed(operation: str, before: Request, rng: random.Random) -> Request:
    """What `operation` may make of a scene."""
    colours = before.foreground, before.background
    match operation:
        case "recolour":
            return replace(before, foreground=other(COLOURS, *colours, rng=rng))
        case "background":
            return replace(before, background=other(COLOURS, *colours, rng=rng))
        case "shape":
            return replace(before, content=other(SHAPES, before.content, rng=rng))
        case "move":
            return replace(before, position=other(("", *POSITIONS), before.position, rng=rng))
        case "erase":
            return blank(before.background)
        case "text":
            return replace(before, content=_string(len(before.content), rng))
        case "letter":
            i = rng.randrange(len(before.content))
            new = other(HANZI if before.content in HANZI else CHARACTERS, *before.content, rng=rng)
            return replace(before, content=before.content[:i] + new + before.content[i + 1 :])
    return before


def examination(count: int = 24, seed: int = 11) -> dict[str, list[tuple[Edit, str]]]:
    """`count` edits of each group with the words that ask for them, all held out from training."""
    rng = random.Random(seed)
    groups: dict[str, list[tuple[Edit, str]]] = {}
    for name, (operation, length) in GROUPS.items():
        asked = groups[name] = []
        while len(asked) < count:
            before = _scene(length, rng)
            after = _changed(operation, before, rng)
            if operation != "restore" and operation_between(before, after) != operation:
                continue
            edit = Edit(operation, before, after, operation == "restore")
            if edit.is_held_out:
                asked.append((edit, instruction(edit, rng)))
    return groups
