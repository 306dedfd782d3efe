#!/usr/bin/env python3
"""Trains small tokenizers in the shape of each family and records what the library makes of texts.

    scratch/bin/pip install tokenizers==0.23.*
    scratch/bin/python make_tokenizers.py OUTPUT_FOLDER [--cases N] [--seed N] [--vocabulary N]

For each family one `NAME.json`: the `tokenizer.json` of the `tokenizers` library, and for each text
the ids with control tokens recognised, the text that they decode to, the ids with control tokens
as plain text (null if they are the same), and for some texts those between the opening and closing
tokens. The training text is made here. With more cases and a larger vocabulary this is
the long comparison: point COMMONS_TOKENIZER_CASES at its folder and run the tests.
"""

import argparse
import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

WORDS = """the a of and to in is that it was for on are with as his they at be this from have or by one had not
but what all were when we there can an your which their said if do will each about how up out them then she many some
so these would other into has more her two like him see time could no make than first been its who now people my made
over did down only way find use may water long little very after words called just where most know hello world weather
don't I'm you're we've he'd she'll it's Don'T I'M THEY'RE WE'VE HTTPServer camelCase snake_case fooBarBaz NASA iPhone
print return function class import while 0 1 2 12 123 1234 2024 3.14159 1,000,000 0x1F""".split()
FOREIGN = """Straße Übergrößenträger élève naïve façade Ærø Ελληνικά Σίσυφος ΟΔΟΣ Привет мир Здравствуйте 你好世界 中文分词 东京
日本語のテキスト カタカナ 한국어 문장 العربية مرحبا שלום हिन्दी नमस्ते ภาษาไทย Tiếng Việt İstanbul ﬁnance ǅungla ʰʷ ²³ ½ Ⅷ ٣٤٥""".split()
NASTY = [" ", "  ", "   ", "\t", "\t\t", "\n", "\n\n", "\r\n", " \n ", "\u00a0", "\u3000", "\u2028", "\u200b", "\u200d",
    "\ufeff", "\u0000", "\u0001", "\u007f", "\u0085", "\ufffd", "e\u0301", "a\u0308\u0323", "\u0301", "\u1100\u1161",
    "👍🏽", "👩\u200d👩\u200d👧", "🇩🇪", "🦙", "𐐀𐐨", "\U000e0001", "\ue000", "'S", "'ſ", "'re", "'VE", "'ll", "'",
    "''s", "...", "?!", "//", "/\n", "$5", "€", "^~|`", "<|", "|>", "<", ">", "[", "]", "</s>", "<s>", "<unk>",
    "<0x41>", "▁", "▁▁", "<|end|>", "<|user|>", "<|im_start|>", "<|im_end|>", "<bos>", "<eos>", "[CLS]", "[SEP]",
    "[UNK]", "[MASK]", "<tool>", "</tool>", "<start_of_turn>", "<|eot_id|>", "_", "-", "—", "“q”", "¿", "。", "，", "#", "##"]


def corpus(rng, lines):
    out = []
    for _ in range(lines):
        words = [rng.choice(WORDS if rng.random() < 0.8 else FOREIGN) for _ in range(rng.randint(3, 14))]
        out.append(" ".join(words) + rng.choice([".", "!", "?", ",\n", "\n\n", ""]))
    return out


def texts(rng, count):
    out = ["", " ", "  ", "Hello world", " leading", "trailing ", "a\n\n\n  b", "I'll I'LL i'Ll 'ſ", "1234567 12 ½٣٤٥"]
    while len(out) < count:
        kind = rng.random()
        if kind < 0.15:
            limits = rng.choice([0x80, 0x250, 0x2000, 0x3100, 0xD7FF, 0x1F9FF, 0x10FFFF])
            chars = [rng.randrange(limits + 1) for _ in range(rng.randint(1, 12))]
            out.append("".join(chr(c) for c in chars if not 0xD800 <= c < 0xE000))
            continue
        parts = []
        for _ in range(rng.randint(1, 9)):
            parts.append(rng.choice(rng.choice([WORDS, FOREIGN, NASTY, NASTY])))
            if rng.random() < 0.5:
                parts.append(" ")
        out.append("".join(parts))
    return out


def byte_level(split, normalizer=None, ignore_merges=False, behavior="isolated", invert=False):
    it = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        it.normalizer = normalizer
    steps = split if isinstance(split, list) else [pre_tokenizers.Split(Regex(split), behavior, invert)]
    last = [] if isinstance(split, list) else [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    it.pre_tokenizer = pre_tokenizers.Sequence(steps + last)
    it.decoder = decoders.ByteLevel()
    return it


def train_bytes(it, lines, size):
    it.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))


def opened(it, bos):
    it.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, it.token_to_id(bos))])])


def control(*names):
    return [AddedToken(name, special=True, normalized=False) for name in names]


def llama3(lines, size):
    it = byte_level(LLAMA3, ignore_merges=True)
    train_bytes(it, lines, size)
    it.add_special_tokens(control("<|begin_of_text|>", "<|eot_id|>", "<|im_start|>"))
    opened(it, "<|begin_of_text|>")
    return it


def qwen2(lines, size):
    it = byte_level(QWEN2, normalizers.NFC())
    train_bytes(it, lines, size)
    it.add_special_tokens(control("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    it.add_tokens([AddedToken("<tool>", special=False, normalized=False), AddedToken("</tool>", special=False)])
    it.post_processor = processors.ByteLevel(trim_offsets=False)
    return it


def qwen35(lines, size):
    it = byte_level(QWEN35, normalizers.NFC())
    train_bytes(it, lines, size)
    it.add_special_tokens(control("<|im_start|>", "<|im_end|>"))
    return it


def tekken(lines, size):
    it = byte_level(TEKKEN, ignore_merges=True)
    train_bytes(it, lines, size)
    it.add_special_tokens(control("<s>", "</s>", "<unk>"))
    opened(it, "<s>")
    return it


def gpt4o(lines, size):
    it = byte_level(GPT4O)
    train_bytes(it, lines, size)
    it.add_special_tokens(control("<|end|>", "<|user|>"))
    return it


def phi4(lines, size):
    it = byte_level(LLAMA3, behavior="removed", invert=True)
    train_bytes(it, lines, size)
    it.add_special_tokens([AddedToken("<|im_start|>", lstrip=True, rstrip=True, normalized=False, special=True),
        AddedToken("<|im_end|>", lstrip=True, rstrip=True, normalized=False, special=True)])
    return it


def smollm(lines, size):
    it = byte_level([pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    train_bytes(it, lines, size)
    it.add_special_tokens(control("<|im_start|>", "<|im_end|>"))
    return it


def gpt2(lines, size):
    it = Tokenizer(models.BPE())
    it.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    it.decoder = decoders.ByteLevel()
    train_bytes(it, lines, size)
    it.add_tokens([AddedToken("world", single_word=True), AddedToken("[MASK]", lstrip=True, special=True)])
    return it


def spaced(lines, size, names):
    """A SentencePiece vocabulary: control tokens, byte tokens, then what training finds."""
    it = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    it.pre_tokenizer = pre_tokenizers.Metaspace(split=True, prepend_scheme="always")
    it.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=size, show_progress=False, limit_alphabet=90,
        special_tokens=names + [f"<0x{byte:02X}>" for byte in range(256)]))
    data = json.loads(it.to_str())
    data["added_tokens"] = []
    data["pre_tokenizer"] = None
    return data


def rebuilt(data):
    return Tokenizer.from_str(json.dumps(data))


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
FALLBACK = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
STRIP = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]


def llama2(lines, size):
    data = spaced(lines, size, ["<unk>", "<s>", "</s>"])
    data["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    data["decoder"] = {"type": "Sequence", "decoders": FALLBACK + STRIP}
    it = rebuilt(data)
    it.add_special_tokens(control("<unk>", "<s>", "</s>"))
    it.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return it


def phi3(lines, size):
    data = spaced(lines, size, ["<unk>", "<s>", "</s>"])
    data["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, REPLACE]}
    data["decoder"] = {"type": "Sequence", "decoders": FALLBACK + STRIP}
    it = rebuilt(data)
    it.add_special_tokens(control("<unk>", "<s>"))
    it.add_tokens([AddedToken("</s>", rstrip=True, normalized=False)])
    it.add_special_tokens([AddedToken(name, rstrip=True, normalized=False, special=True) for name in ["<|end|>", "<|user|>"]])
    it.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return it


def gemma(lines, size):
    data = spaced(lines, size, ["<pad>", "<eos>", "<bos>", "<unk>"])
    data["normalizer"] = REPLACE
    data["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    data["decoder"] = {"type": "Sequence", "decoders": FALLBACK}
    it = rebuilt(data)
    it.add_special_tokens(control("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>"))
    it.add_tokens([AddedToken(name, normalized=False) for name in ["\n\n", "▁▁", "<tool>"]])
    it.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 2)])
    return it


def bert(lines, size):
    it = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    it.normalizer = normalizers.BertNormalizer(lowercase=True)
    it.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    it.decoder = decoders.WordPiece(cleanup=False)
    it.train_from_iterator(lines, trainers.WordPieceTrainer(vocab_size=size, show_progress=False, limit_alphabet=200,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    it.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return it


FAMILIES = {f.__name__: f for f in [llama3, qwen2, qwen35, tekken, gpt4o, phi4, smollm, gpt2, llama2, phi3, gemma, bert]}


def encode(it, text, plain, whole):
    it.encode_special_tokens = plain
    return it.encode(text, add_special_tokens=whole).ids


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("output", type=pathlib.Path)
    arguments.add_argument("--cases", type=int, default=60)
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument("--vocabulary", type=int, default=330)
    options = arguments.parse_args()
    for name, family in FAMILIES.items():
        rng = random.Random(options.seed)
        lines = corpus(rng, 400)
        # Beyond the bytes and the alphabet that each shape begins with.
        size = options.vocabulary + (150 if name in ("llama2", "phi3", "gemma") else 0)
        it = family(lines, size)
        cases = []
        for text in texts(random.Random(f"{name} {options.seed}"), options.cases):
            ids = encode(it, text, False, False)
            decoded = it.decode(ids, skip_special_tokens=True)
            plain = encode(it, text, True, False)
            whole = encode(it, text, True, True) if len(cases) < 6 else None
            cases.append([text, ids, decoded, plain if plain != ids else None, whole])
        it.encode_special_tokens = False
        record = {"tokenizer": json.loads(it.to_str()), "cases": cases}
        text = json.dumps(record, ensure_ascii=True, separators=(",", ":"))
        (options.output / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
