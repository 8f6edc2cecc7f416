#!/usr/bin/env python
"""Tokenizer test data, recorded with the reference implementation (transformers 5.23, tokenizers 0.23).

    make_tokenizer_corpus.py QWEN2_TOKENIZER_DIR OUT_DIR

QWEN2_TOKENIZER_DIR holds the published vocab.json and merges.txt. Writes into OUT_DIR
    vocab.json.gz, merges.txt.gz     the published files, compressed
    added_tokens.json                the 22 added tokens
    corpus.json.gz                   {"lines": [text, ...], "ids": [[id, ...], ...]}
    normalization.json.gz            [[text, NFC of text], ...]
    unicode-classes.json             for every code point, how the reference's pattern sees it: sorted ranges [first, last] of
                                     "letter" (\\p{L}), "number" (\\p{N}), "space" (\\s); and how its NFC treats it: "changed" by itself,
                                     "reordered" when put next to a mark of another combining class (see unicode_classes)

The corpus is deterministic (one seed). The sentences below are this project's own.
"""
import gzip, json, os, random, sys, unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import AddedToken, Qwen2Tokenizer

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
            "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
            "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
            "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"]
FIRST_SPECIAL_ID = 151643

SENTENCES = {
    "English": "A watercolor fox reads yesterday's newspaper under a street lamp. It's raining; they've left, I'll stay, we're late, he'd "
               "know, don't you? The headline, in bold serif type, says GRAND OPENING. Photograph, 35mm film, shallow depth of field.",
    "German": "Über den Dächern der Großstadt schweben bunte Heißluftballons. Die Straßenbahn fährt größtenteils pünktlich zum Fußballplatz.",
    "French": "L'été dernier, un garçon naïf peignait des cœurs près du château où l'on fêtait Noël. Ça va, qu'est-ce que c'est ?",
    "Spanish": "¿Dónde está el pingüino? ¡Mañana por la mañana habrá un desfile de niños junto al río, según el señor Muñoz!",
    "Portuguese": "O avô não põe açúcar no café; a irmã traz pão, maçãs e limões à praça às três horas.",
    "Polish": "Zażółć gęślą jaźń, a potem narysuj źdźbło trawy, łódkę i świecący księżyc nad wodą.",
    "Czech": "Příliš žluťoučký kůň úpěl ďábelské ódy, zatímco řeka tiše tekla kolem starého mlýna.",
    "Turkish": "Işıklı sokakta küçük bir çocuk şemsiyesiyle yağmurda dans ediyor. İstanbul'da güneş doğuyor, ılık rüzgâr esiyor.",
    "Vietnamese": "Buổi sáng trên phố cổ Hà Nội, những người bán hoa đạp xe dưới hàng cây xanh mướt, tiếng rao vang vọng khắp ngõ nhỏ.",
    "Hungarian": "Árvíztűrő tükörfúrógép készíti a hűvös őszi erdőben a színes képeket.",
    "Icelandic": "Þriðja húsið á hæðinni er málað blátt; þar býr gömul kona með ævintýralegan kött.",
    "Hausa": "Ƙaramin yaro yana ɗaukar ɓauna ta zane a bakin kogi da safe.",
    "Yoruba": "Ọmọ náà ń yà àwòrán ẹyẹ aláwọ̀ mèremère lábẹ́ igi ọ̀pẹ.",
    "Russian": "Рыжая лиса читает газету под фонарём. Съешь ещё этих мягких французских булок, да выпей чаю! Мой ёжик подъехал к объекту.",
    "Ukrainian": "Їжак і ґава співають об'єднану пісню на подвір'ї біля під'їзду щовечора.",
    "Serbian": "Љубичаста ђаковачка џунгла чека на његово ћутање крај њиве.",
    "Mongolian": "Өвлийн өглөө цасан дээр улаан үнэг гүйж байна.",
    "Greek": "Η αλεπού διαβάζει την εφημερίδα κάτω από το φανάρι. Ξεσκεπάζω την ψυχοφθόρα βδελυγμία· ᾧ ἄνθρωπος ἐποίησε τὴν εἰκόνα.",
    "Armenian": "Կարմիր աղվեսը կարդում է թերթ լապտերի տակ։ Գեղեցիկ լեռների վրա արև է ծագում։",
    "Georgian": "წითელი მელა კითხულობს გაზეთს ლამპიონის ქვეშ. მთებზე მზე ამოდის.",
    "Hebrew": "שועל אדום קורא עיתון מתחת לפנס הרחוב. בְּרֵאשִׁית הָיָה אוֹר, וְהַצִּיּוּר הֻשְׁלַם.",
    "Yiddish": "אַ רויטער פֿוקס לייענט די צײַטונג אונטער אַ לאַמפּ.",
    "Arabic": "ثعلب أحمر يقرأ جريدة تحت مصباح الشارع. كَتَبَ الرَّسَّامُ لَوْحَةً جَمِيلَةً، فهل رأيتها؟ العدد ١٢٣٤٥٦٧٨٩٠.",
    "Persian": "روباه سرخ زیر چراغ خیابان روزنامه می‌خواند. گل‌های باغچه ۲۵ روز دیگر می‌شکفند.",
    "Urdu": "سرخ لومڑی چراغ کے نیچے اخبار پڑھ رہی ہے۔ یہ تصویر بہت خوبصورت ہے۔",
    "Syriac": "ܬܥܠܐ ܣܘܡܩܐ ܩܪܐ ܟܬܒܐ ܬܚܝܬ ܢܘܗܪܐ.",
    "Thaana": "ރަތް ހިޔަޅެއް ބައްތީގެ ދަށުގައި ނޫސް ކިޔަނީ.",
    "Hindi": "लाल लोमड़ी सड़क की बत्ती के नीचे अख़बार पढ़ रही है। क्या यह चित्र सुन्दर है? संख्या १२३४५६७८९०.",
    "Marathi": "लाल कोल्हा दिव्याखाली वर्तमानपत्र वाचतो आहे. डोंगरावर सूर्य उगवतो.",
    "Bengali": "লাল শেয়াল রাস্তার বাতির নিচে খবরের কাগজ পড়ছে। ছবিটি খুব সুন্দর, তাই না? ০১২৩৪৫৬৭৮৯",
    "Punjabi": "ਲਾਲ ਲੂੰਬੜੀ ਬੱਤੀ ਦੇ ਹੇਠਾਂ ਅਖ਼ਬਾਰ ਪੜ੍ਹ ਰਹੀ ਹੈ।",
    "Gujarati": "લાલ શિયાળ દીવા નીચે છાપું વાંચે છે. પર્વત પર સૂર્ય ઊગે છે.",
    "Odia": "ଲାଲ କୋକିଶିଆଳି ବତୀ ତଳେ ଖବରକାଗଜ ପଢ଼ୁଛି।",
    "Tamil": "சிவப்பு நரி விளக்கின் கீழ் செய்தித்தாள் படிக்கிறது. மலையின் மேல் சூரியன் உதிக்கிறது.",
    "Telugu": "ఎర్ర నక్క దీపం కింద వార్తాపత్రిక చదువుతోంది. కొండపై సూర్యుడు ఉదయిస్తున్నాడు.",
    "Kannada": "ಕೆಂಪು ನರಿ ದೀಪದ ಕೆಳಗೆ ಪತ್ರಿಕೆ ಓದುತ್ತಿದೆ. ಬೆಟ್ಟದ ಮೇಲೆ ಸೂರ್ಯ ಉದಯಿಸುತ್ತಾನೆ.",
    "Malayalam": "ചുവന്ന കുറുക്കൻ വിളക്കിന്റെ കീഴിൽ പത്രം വായിക്കുന്നു. മലമുകളിൽ സൂര്യൻ ഉദിക്കുന്നു.",
    "Sinhala": "රතු නරියා පහන යට පුවත්පතක් කියවයි. කන්ද උඩින් හිරු පායයි.",
    "Thai": "สุนัขจิ้งจอกสีแดงกำลังอ่านหนังสือพิมพ์ใต้แสงไฟถนน ภาพวาดสีน้ำ ๑๒๓๔๕",
    "Lao": "ໝາຈອກສີແດງກຳລັງອ່ານໜັງສືພິມຢູ່ໃຕ້ແສງໄຟ.",
    "Khmer": "កញ្ជ្រោងក្រហមកំពុងអានកាសែតនៅក្រោមចង្កៀងផ្លូវ។",
    "Burmese": "မြေခွေးနီလေးသည် လမ်းမီးတိုင်အောက်တွင် သတင်းစာဖတ်နေသည်။",
    "Tibetan": "ཝ་དམར་པོ་ཞིག་གིས་སྒྲོན་མེའི་འོག་ཏུ་ཚགས་པར་ཀློག་གི་འདུག།",
    "Amharic": "ቀይ ቀበሮ ከመንገድ መብራት ስር ጋዜጣ ያነባል። ስዕሉ በጣም ያምራል።",
    "Cherokee": "ᎩᎦᎨ ᏧᎳ ᎪᏪᎵ ᎠᎪᎵᏰᎠ ᎠᏨᏍᏗ ᎭᏫᏂᏗᏢ.",
    "Inuktitut": "ᑎᕆᒐᓂᐊᖅ ᐊᐅᐸᖅᑐᖅ ᐅᖃᓕᒫᖅᑐᖅ ᖁᓪᓕᐅᑉ ᐊᑖᓂ.",
    "Chinese": "一只红色的狐狸在路灯下读报纸，标题写着“通义千问”。山间的清晨，薄雾缭绕；湖面平静如镜，水彩画风格，高清细节！",
    "Traditional": "紅色的狐狸在路燈下閱讀報紙，標題寫著「盛大開幕」。臺灣夜市的霓虹燈與龍鳳雕刻，傳統工筆畫風。",
    "Japanese": "赤いキツネが街灯の下で新聞を読んでいる。見出しは「グランドオープン」、水彩画スタイルで、ﾊﾝｶｸ文字も少し。がぎぐげご、パピプペポ。",
    "Korean": "붉은 여우가 가로등 아래에서 신문을 읽고 있다. 제목은 ‘그랜드 오픈’이며, 수채화 느낌으로 그려 주세요.",
    "Mongol": "ᠤᠯᠠᠭᠠᠨ ᠦᠨᠡᠭᠡ ᠰᠣᠨᠢᠨ ᠤᠩᠰᠢᠵᠤ ᠪᠠᠢᠨ᠎ᠠ᠃",
    "Math": "∀ε>0 ∃δ: |x−a|<δ ⇒ |ƒ(x)−L|<ε; ∑ᵢ₌₁ⁿ i² = n(n+1)(2n+1)⁄6, 𝔼[𝒳] ≈ ½π√2 ≠ ∞, H₂O, x⁻¹, ℝ→ℂ, Å, Ω, K",
    "Code": "def render(prompt: str, *, steps=50) -> Image:\n    \"\"\"Draw it.\"\"\"\n\tif not prompt:\r\n        raise ValueError(f\"empty {prompt!r}\")\n"
            "    return [x**2 for x in range(1_000) if x % 3 == 0]  # TODO: μ-law\n\n\n",
    "Swift": "let sigma = schedule.sigmas[i] // \u03c3\nguard sigma > 0, case .some(let x) = optional else { fatalError(\"no \\(sigma)\") }\n",
    "Markup": "<div class=\"card\" id='a1'>&nbsp;<img src=\"https://example.org/a%20b.png?w=64&h=64#top\"/></div><!-- note -->{\"a\": [1, null, 2.5e-3]}",
}
EMOJI = ["😀", "🎉", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇫🇷🇯🇵", "👍🏽", "❤️‍🔥", "☃️", "🧑🏿‍🚀", "1️⃣", "🫠", "🪿", "🐦‍🔥", "™️", "⌚", "🀄", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n\n", " \n ", "\u00a0", "\u2003", "\u3000", "\u2028", "\u2029", "\u0085", "\u000b", "\u000c",
          "\u1680", "\u202f", "\u205f", "\u200b", "\u2060", "\ufeff", "        ", "\t\t", " \t \n\n  ", "\u180e", "\u001c", "\u001f"]
CONTROLS = ["\u0000", "\u0001", "\u0007", "\u0008", "\u001b[31m", "\u007f", "\u0090", "\u200d", "\u200e", "\u202e", "\u2066", "\ufffd", "\ufffe",
            "\U0001ffff", "\U000e0001", "\ue000", "\U000f0000", "\u00ad", "\u034f", "\u061c", "\ufe0f"]
CONTRACTIONS = ["'s", "'S", "'t", "'re", "'RE", "'rE", "'ve", "'M", "'ll", "'lL", "'d", "'\u017f", "'x", "''s", "'", "\u2019s", "'se", "'r", "'l", "'le", "'\u212a"]
MARKS = [0x300, 0x301, 0x302, 0x303, 0x304, 0x307, 0x308, 0x30a, 0x30c, 0x31b, 0x323, 0x327, 0x328, 0x331, 0x334, 0x338, 0x345, 0x35d, 0x5b0, 0x5bc,
         0x5c1, 0x64b, 0x651, 0x653, 0x654, 0x93c, 0x94d, 0x9be, 0xbbe, 0xdcf, 0x1037, 0x302a, 0x3099, 0x309a, 0x20d2, 0x1d165, 0x1d16d, 0x200d,
         # newer than Unicode 9.0, which the reference's normalizer does not know
         0x8d3, 0x898, 0x9fe, 0xd3b, 0x1ac1, 0x1df6, 0x10f46, 0x11930, 0x11935, 0x1e2ec]
BASES = "aeiouAEIOUcnsyzCNSYZωαιυηΑЕеИиאבשלاويकनডযஒେெೆേෙဥかはハ\u212b\u2126\u1e9b\u0958\u09dc\ufb1d\ufb2a\u2adc\u0344\u0340\u0374\u037e\u1fef\uf900\u2f800\U0002f800\U0001d15e\U00011099"
BLOCKS = [(0x21, 0x7f), (0xa1, 0x180), (0x180, 0x250), (0x250, 0x300), (0x370, 0x400), (0x400, 0x530), (0x531, 0x58a), (0x590, 0x600), (0x600, 0x700),
          (0x700, 0x7c0), (0x7c0, 0x900), (0x900, 0xe00), (0xe00, 0x1000), (0x1000, 0x1200), (0x1100, 0x1200), (0x1200, 0x13a0), (0x13a0, 0x1700),
          (0x1700, 0x1c00), (0x1c00, 0x1e00), (0x1e00, 0x2000), (0x2000, 0x2c00), (0x2c00, 0x2e80), (0x2e80, 0x3100), (0x3100, 0x3400), (0x3400, 0x4e00),
          (0x4e00, 0xa000), (0xa000, 0xa960), (0xa960, 0xac00), (0xac00, 0xd7a4), (0xd7b0, 0xd800), (0xf900, 0xfb00), (0xfb00, 0xfe00), (0xfe00, 0x10000),
          (0x10000, 0x11000), (0x11000, 0x12000), (0x12000, 0x16000), (0x16000, 0x1b000), (0x1b000, 0x1d000), (0x1d000, 0x1d800), (0x1d800, 0x1f000),
          (0x1f000, 0x20000), (0x20000, 0x2a6e0), (0x2f800, 0x2fa20), (0x30000, 0x31350), (0xe0000, 0xe01f0), (0x0, 0x110000)]


def character(rng, block):
    while True:
        c = rng.randrange(*block)
        if not 0xd800 <= c < 0xe000:
            return chr(c)


def lines(rng):
    words = {name: text.split(" ") for name, text in SENTENCES.items()}
    names = list(SENTENCES)
    every_word = [w for name in names for w in words[name]]
    yield from ["", " ", "\n", "\u0301", "a\u0301", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u110c\u1168\uc8fc"]
    for name in names:                                                              # whole sentences and their other normal forms
        for form in (None, "NFC", "NFD", "NFKC", "NFKD"):
            yield unicodedata.normalize(form, SENTENCES[name]) if form else SENTENCES[name]
        yield SENTENCES[name].upper()
        yield SENTENCES[name].replace(" ", "\u3000")
    for _ in range(1500):                                                           # stretches of one language
        w = words[rng.choice(names)]
        start = rng.randrange(len(w))
        yield " ".join(w[start:start + rng.randint(1, 12)])
    for _ in range(1000):                                                           # mixed languages, odd spaces, emoji
        parts = []
        for _ in range(rng.randint(2, 8)):
            parts.append(rng.choice(every_word))
            parts.append(rng.choice(SPACES) if rng.random() < 0.6 else rng.choice(EMOJI + ["", "", ", ", "...", "!?", "—"]))
        yield "".join(parts)
    for _ in range(600):                                                            # marks in any order on any base, newer ones too
        text = ""
        for _ in range(rng.randint(1, 6)):
            text += rng.choice(BASES) + "".join(chr(rng.choice(MARKS)) for _ in range(rng.randint(0, 5)))
            text += rng.choice(["", "", " "])
        yield text
    for _ in range(300):                                                            # jamo, in and out of order, with syllables
        text = ""
        for _ in range(rng.randint(1, 8)):
            text += rng.choice([chr(rng.randrange(0x1100, 0x1113)), chr(rng.randrange(0x1161, 0x1176)), chr(rng.randrange(0x11a7, 0x11c3)),
                                chr(0xac00 + 28 * rng.randrange(399)), chr(rng.randrange(0xac00, 0xd7a4)), chr(rng.randrange(0x1100, 0x1200))])
        yield text
    for _ in range(500):                                                            # digits of all scripts, numbers, contractions
        parts = []
        for _ in range(rng.randint(1, 6)):
            kind = rng.randrange(4)
            if kind == 0:
                parts.append(str(rng.randrange(10 ** rng.randint(1, 9))) + rng.choice(["", ".5", ",000", "%", "px", "e-3"]))
            elif kind == 1:
                zero = rng.choice([0x660, 0x6f0, 0x966, 0x9e6, 0xe50, 0xf20, 0x1040, 0x17e0, 0xff10, 0x1d7ce, 0x2160, 0x2460, 0x3220, 0xbc, 0x1e950])
                parts.append("".join(chr(zero + rng.randrange(10)) for _ in range(rng.randint(1, 5))))
            elif kind == 2:
                parts.append(rng.choice(every_word) + rng.choice(CONTRACTIONS) + rng.choice(["", " ", "x", "S", "1"]))
            else:
                parts.append("".join(rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \n\r\t") for _ in range(rng.randint(1, 10))))
        yield rng.choice(["", " "]).join(parts)
    for _ in range(500):                                                            # added-token literals, whole, nested and broken
        parts = []
        for _ in range(rng.randint(1, 6)):
            s = rng.choice(SPECIALS)
            parts.append(rng.choice([s, s, s[:rng.randrange(len(s))], s[rng.randrange(len(s)):], s.upper(), "<|" + s, s + "\u0338", "<" + s + ">",
                                     rng.choice(every_word), rng.choice(SPACES), "<|not_special|>", "\u0301" + s]))
        yield "".join(parts)
    for _ in range(200):                                                            # control and format characters
        yield "".join(rng.choice([rng.choice(CONTROLS), rng.choice(every_word), rng.choice(SPACES)]) for _ in range(rng.randint(1, 8)))
    for _ in range(1200):                                                           # random characters of one or more blocks
        block = rng.choice(BLOCKS)
        yield "".join(character(rng, block if rng.random() < 0.8 else rng.choice(BLOCKS)) for _ in range(rng.randint(1, 16)))


def ranges(code_points):
    result = []
    for c in sorted(code_points):
        if result and result[-1][1] == c - 1:
            result[-1][1] = c
        else:
            result.append([c, c])
    return result


def unicode_classes():
    everything = [c for c in range(0x110000) if not 0xd800 <= c < 0xe000]
    result = {}
    for name, pattern in (("letter", r"\p{L}"), ("number", r"\p{N}"), ("space", r"\s")):
        splitter = pre_tokenizers.Split(Regex(pattern), "removed")
        result[name] = ranges(c for c in everything if not splitter.pre_tokenize_str(chr(c)))
    nfc = normalizers.NFC()
    # A mark of class 1 moves before one of a higher class, one of class 240 behind one of a lower: what moves is a mark.
    probes = lambda c: ("a" + chr(c) + "\u0334", "a\u0345" + chr(c))
    result["reordered"] = ranges(c for c in everything if any(nfc.normalize_str(p) != p for p in probes(c)))
    result["changed"] = ranges(c for c in everything if nfc.normalize_str(chr(c)) != chr(c))
    return result


def normalization(rng):
    """Texts, mostly of marks and of what composes, with what the reference's NFC makes of them."""
    everything = [chr(c) for c in range(0x110000) if not 0xd800 <= c < 0xe000]
    composing = [c for c in everything if unicodedata.combining(c) or unicodedata.normalize("NFD", c) != c and not "\uac00" <= c <= "\ud7a3"]
    decomposed = [unicodedata.normalize("NFD", c) for c in composing]
    firsts, seconds = sorted({d[0] for d in decomposed}), sorted({d[-1] for d in decomposed})
    texts = [d + rng.choice(["", "\u0334", rng.choice(seconds)]) for d in decomposed]
    for _ in range(8000):
        texts.append("".join(rng.choice([rng.choice(composing), rng.choice(seconds), rng.choice(firsts), chr(rng.choice(MARKS)),
                                         chr(rng.randrange(0x1100, 0x1200)), chr(rng.randrange(0xac00, 0xd7a4))]) for _ in range(rng.randint(1, 6))))
    nfc = normalizers.NFC()
    return [[t, nfc.normalize_str(t)] for t in texts]


def main(source, out):
    os.makedirs(out, exist_ok=True)
    tokenizer = Qwen2Tokenizer.from_pretrained(source)
    tokenizer.add_tokens([AddedToken(s, normalized=False, special=i < 14) for i, s in enumerate(SPECIALS)])
    assert [tokenizer.convert_tokens_to_ids(s) for s in SPECIALS] == list(range(FIRST_SPECIAL_ID, FIRST_SPECIAL_ID + len(SPECIALS)))

    def write_gz(name, data):
        with open(os.path.join(out, name), "wb") as f, gzip.GzipFile("", "wb", 9, f, mtime=0) as g:
            g.write(data)

    for name in ("vocab.json", "merges.txt"):
        with open(os.path.join(source, name), "rb") as f:
            write_gz(name + ".gz", f.read())
    with open(os.path.join(out, "added_tokens.json"), "w") as f:
        json.dump({s: FIRST_SPECIAL_ID + i for i, s in enumerate(SPECIALS)}, f, indent=1)
    texts = list(lines(random.Random(20240801)))
    ids = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    write_gz("corpus.json.gz", json.dumps({"lines": texts, "ids": ids}, ensure_ascii=False, separators=(",", ":")).encode())
    write_gz("normalization.json.gz", json.dumps(normalization(random.Random(9)), separators=(",", ":")).encode())
    with open(os.path.join(out, "unicode-classes.json"), "w") as f:
        json.dump(unicode_classes(), f, separators=(",", ":"))
    print(len(texts), "lines,", sum(map(len, ids)), "ids,", len({i for l in ids for i in l}), "different")


if __name__ == "__main__":
    main(*sys.argv[1:])
