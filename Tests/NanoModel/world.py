"""The world that the small model knows: what can be asked for, in which words, and which strings training never sees.

Pure Python: nothing here needs torch, numpy or a font.
"""

import random
import zlib
from dataclasses import dataclass, replace

SIDE, WIDE = 64, 128  # pixels
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
HANZI = "福春大吉山水火木日月中国人天龙爱"
COLOURS = {  # name: (Chinese name, RGB)
    "red": ("红", (214, 40, 40)), "green": ("绿", (40, 150, 60)), "blue": ("蓝", (40, 80, 205)), "yellow": ("黄", (248, 212, 50)),
    "orange": ("橙", (243, 135, 30)), "purple": ("紫", (135, 55, 165)), "black": ("黑", (25, 25, 25)), "white": ("白", (248, 248, 248)),
}
SHAPES = {"circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "星形", "heart": "心形", "ring": "圆环", "cross": "十字"}
BLANK = "blank"  # the kind of an image that shows its background alone; only edits make such
POSITIONS = {"left": "左边", "right": "右边", "top": "上方", "bottom": "下方"}
# A few real words among the random strings, so that signs which people ask for are surely known.
WORDS = (
    "CAT DOG YES HI BYE WOW FUN HOT ICE TEA BUS NEW TOP SUN RED UP IN OUT POP ZOO MAX VIP DIY USA AI GPU CPU BIG ONE TWO SIX TEN GO NO OK HEY "
    "BOX CUP HAT PEN KEY EGG PIG COW BEE ANT OWL FOX SKY SEA WAY WIN JOY ART BAR GYM SPA ATM LAB MAP FAN CAR JAM PIE BBQ A1 B2 X9 007 100 123 "
    "911 365 42 24 99 TV PC OS UK EU UN IT "
    "HELLO OPEN STOP SALE EXIT CAFE LOVE TAXI FREE MOON STAR FISH BIRD TREE CAKE PIZZA MUSIC HAPPY SMILE WORLD PARTY QUIET PLEASE THANK GREEN "
    "BLUE BLACK WHITE LEFT RIGHT DOWN PUSH PULL KING QUEEN JAZZ ROCK QWEN CODE RUST LINUX SWIFT FAST SLOW SMALL HOME SHOP BANK PARK WELCOME "
    "COFFEE BAKERY HOTEL BOOKS LIBRARY MUSEUM STATION AIRPORT SCHOOL GARDEN KITCHEN FLOWERS SUMMER WINTER SPRING AUTUMN MONDAY FRIDAY SUNDAY "
    "PYTHON CLUSTER GATEWAY MODEL IMAGE PIXEL DANGER CLOSED TICKET PARKING LONDON PARIS BERLIN TOKYO ROME CHINA INDIA OCEAN RIVER FOREST "
    "2024 2025 1984 3000 ORANGE PURPLE YELLOW CIRCLE SQUARE HEART TIGER LION HORSE SHEEP ZEBRA PANDA MOUSE EAGLE WATER FIRE EARTH LIGHT NIGHT"
).split()

TEXT_ENGLISH = (
    'a {bg} sign that says "{t}"', '"{t}" in {fg} letters on a {bg} background', '{fg} text "{t}" on {bg}',
    'a {bg} sign with the word "{t}" in {fg}', 'the word "{t}" in {fg}', '"{t}"', 'a sign that says "{t}"', '{fg} letters "{t}"',
)
TEXT_CHINESE = (
    '{bg}色背景上写着"{t}"字', '{bg}色背景上写着{fg}色的"{t}"', '{fg}色的"{t}"字', '写着"{t}"的{bg}色牌子', '{bg}色背景，{fg}色文字"{t}"',
)
SHAPE_ENGLISH = ("a {fg} {s} on a {bg} background", "a {fg} {s}", "{fg} {s} on {bg}")
SHAPE_CHINESE = ("{bg}色背景上的{fg}色{s}", "一个{fg}色的{s}", "{bg}色背景，一个{fg}色的{s}")
PLACED_ENGLISH = ("a {fg} {s} on the {p}, {bg} background", "a {fg} {s} at the {p} of a {bg} background", "a {fg} {s} on the {p}")
PLACED_CHINESE = ("{p}有一个{fg}色的{s}，{bg}色背景", "{p}有一个{fg}色的{s}")


@dataclass(frozen=True)
class Request:
    """One image that can be requested, and the prompt that asks for it.

    `content` is the string to write (`kind` "text") or the name of the shape (`kind` "shape"); `position` is "" for the middle.
    Images are 64 pixels high and 64 or 128 wide; the prompt does not say which.
    """

    kind: str
    content: str
    foreground: str
    background: str
    position: str = ""
    prompt: str = ""
    width: int = SIDE

    @property
    def alphabet(self) -> str:
        """The characters that the content's are to be distinguished from."""
        return HANZI if self.content[:1] in HANZI else CHARACTERS


@dataclass(frozen=True)
class Mix:
    """What training draws at one width: shares between 0 and 1, weights of any sum for strings of 1, 2, … characters."""

    width: int
    shapes: float
    placed_shapes: float
    hanzi: float
    lengths: tuple[float, ...]
    words: float


NARROW = Mix(SIDE, shapes=0.2, placed_shapes=0.5, hanzi=0.06, lengths=(9, 22, 63), words=0.1)
WIDE_MIX = Mix(WIDE, shapes=0.05, placed_shapes=0.5, hanzi=0.02, lengths=(2, 4, 8, 20, 22, 22, 22), words=0.3)


def held_out(text: str) -> bool:
    """One in twenty of the strings of two or more characters is never trained on: it is there to be scored."""
    return len(text) > 1 and zlib.crc32(text.encode()) % 20 == 0


def default_background(foreground: str) -> str:
    """The background of a prompt that names the foreground alone."""
    return "black" if foreground in ("white", "yellow") else "white"


def default_foreground(background: str) -> str:
    """The foreground of a prompt that names the background alone."""
    return "black" if background in ("white", "yellow") else "white"


def templates(kind: str, position: str, chinese: bool) -> tuple[str, ...]:
    """The sentences that can ask for such an image."""
    if kind == "text":
        return TEXT_CHINESE if chinese else TEXT_ENGLISH
    if position:
        return PLACED_CHINESE if chinese else PLACED_ENGLISH
    return SHAPE_CHINESE if chinese else SHAPE_ENGLISH


def _fill(template: str, request: Request, chinese: bool, rng: random.Random) -> str:
    """The prompt, with the small differences that people's typing has: capitals, curly quotation marks."""
    if chinese:
        prompt = template.format(
            fg=COLOURS[request.foreground][0], bg=COLOURS[request.background][0], t=request.content,
            s=SHAPES.get(request.content, request.content), p=POSITIONS.get(request.position, ""))
        if '"' in prompt and rng.random() < 0.3:
            before, quoted, after = prompt.split('"')
            prompt = f"{before}“{quoted}”{after}"
        return prompt
    prompt = template.format(
        fg=request.foreground, bg=request.background, t=request.content, s=request.content, p=request.position)
    prompt = prompt.replace("a orange", "an orange")
    return prompt[0].upper() + prompt[1:] if rng.random() < 0.4 else prompt


def request(kind: str, content: str, rng: random.Random, position: str = "", width: int = SIDE) -> Request:
    """A request for `content` in random colours and words; colours that the words leave out take their defaults."""
    foreground, background = rng.sample(list(COLOURS), 2)
    chinese = rng.random() < (0.7 if content[0] in HANZI else 0.3)
    template = rng.choice(templates(kind, position, chinese))
    if "{fg}" not in template and "{bg}" not in template:
        foreground, background = "black", "white"
    elif "{bg}" not in template:
        background = default_background(foreground)
    elif "{fg}" not in template:
        foreground = default_foreground(background)
    blank = Request(kind, content, foreground, background, position, width=width)
    return replace(blank, prompt=_fill(template, blank, chinese, rng))


def another_prompt(asked: Request, rng: random.Random) -> str:
    """Other words for the same image: only sentences whose default colours agree with it."""
    colours = asked.foreground, asked.background
    while True:
        chinese = rng.random() < (0.7 if asked.content[0] in HANZI else 0.25)
        template = rng.choice(templates(asked.kind, asked.position, chinese))
        names_foreground, names_background = "{fg}" in template, "{bg}" in template
        if not (names_foreground or names_background or colours == ("black", "white")):
            continue
        if names_foreground and not names_background and asked.background != default_background(asked.foreground):
            continue
        if names_background and not names_foreground and asked.foreground != default_foreground(asked.background):
            continue
        return _fill(template, asked, chinese, rng)


def random_text(rng: random.Random, mix: Mix) -> str:
    """A string to train on: one Chinese character, a known word, or random letters and digits; never a held-out string."""
    while True:
        if rng.random() < mix.hanzi:
            return rng.choice(HANZI)
        length = rng.choices(range(1, len(mix.lengths) + 1), mix.lengths)[0]
        words = [word for word in WORDS if len(word) == length]
        if words and rng.random() < mix.words:
            text = rng.choice(words)
        else:
            text = "".join(rng.choice(CHARACTERS) for _ in range(length))
        if not held_out(text):
            return text


def training_request(rng: random.Random, mix: Mix) -> Request:
    """What one training image shows."""
    if rng.random() < mix.shapes:
        position = rng.choice(list(POSITIONS)) if rng.random() < mix.placed_shapes else ""
        return request("shape", rng.choice(list(SHAPES)), rng, position, mix.width)
    return request("text", random_text(rng, mix), rng, width=mix.width)


def _held_out_strings(length: int, count: int, rng: random.Random) -> list[str]:
    strings: list[str] = []
    while len(strings) < count:
        text = "".join(rng.choice(CHARACTERS) for _ in range(length))
        if held_out(text):
            strings.append(text)
    return strings


def examination(count: int = 48, seed: int = 7) -> dict[str, list[Request]]:
    """The requests that a checkpoint is scored on, by group; strings of two and more characters are held out from training.

    `count` is the size of a group of strings of two or three characters or of shapes; one request for every single character.
    """
    rng = random.Random(seed)
    groups: dict[str, list[Request]] = {}
    for length in (2, 3):
        groups[f"{length} characters"] = [request("text", text, rng) for text in _held_out_strings(length, count, rng)]
    groups["1 character"] = [request("text", character, rng) for character in CHARACTERS]
    groups["1 hanzi"] = [request("text", character, rng) for character in HANZI]
    groups["shape"] = [request("shape", rng.choice(list(SHAPES)), rng) for _ in range(count)]
    groups["shape and position"] = [
        request("shape", rng.choice(list(SHAPES)), rng, rng.choice(list(POSITIONS))) for _ in range(count)]
    for length in (4, 5, 6, 7):
        strings = _held_out_strings(length, count // 2, rng)
        groups[f"{length} characters, wide"] = [request("text", text, rng, width=WIDE) for text in strings]
    unseen = [word for word in WORDS if len(word) > 3 and held_out(word)]
    groups["held-out words, wide"] = [request("text", word, rng, width=WIDE) for word in unseen * 3]
    seen = [word for word in WORDS if len(word) > 3 and not held_out(word)]
    groups["known words, wide"] = [request("text", word, rng, width=WIDE) for word in rng.sample(seen, count // 2)]
    return groups
