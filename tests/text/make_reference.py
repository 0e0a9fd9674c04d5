#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/tokenizer/{demo,small}.jsonl with the reference's results.

A development tool, not a test: it needs the `tokenizers` package (pip install tokenizers==0.23.3).

demo.jsonl: {"text", "ids", "decoded", "skipped"} for models/demo/tokenizer.json; "skipped" is the
text decoded without special tokens. small.jsonl: {"name", "tokenizer", "cases"}, small tokenizers
that between them use every feature Myelin accepts, each with cases like those of demo.jsonl and
{"ids", "decoded", "skipped"} ones.
"""

import json
import pathlib
import random

from tokenizers import Tokenizer

from compare_tokenizers import CODE, CONTRACTIONS, Generator

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE.parent / "data" / "tokenizer"
DEMO = HERE.parent.parent / "models" / "demo" / "tokenizer.json"

WRITTEN = [
    "", " ", "\n", "Hello, world!", "Once upon a time there was a little fox.", "hello\r\nworld\r\r\n",
    "I'm you're WE'LL they'D it'S 'tis", "  two  spaces   three", "tab\tand\n\nlines \n \n", "a\u0000b\u0000",
    "3.14159 and 1,000,000 or \u0661\u0662\u0663", "caf\u00e9 cafe\u0301 \u00e5 a\u030a \u212b", "\u1100\u1161\u11a8 \uac00\u11a8",
    "a\u0301\u0323 a\u0323\u0301 \u0344 \u0958", "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!",
    "\U0001F468\u200d\U0001F469\u200d\U0001F467 \U0001F1E9\U0001F1EA \u2764\ufe0f", "\u180e\u180e x\u180ey", "\u2028\u2029\u3000\u00a0",
    "\U00031350\U0002ebf0 \U00016d40 \U0001e030 \ua7cb", "\u0cf3\u0ece\u0897", "it\u017fs '\u017f '\u212a", "\U00010d40\U00010d49 7",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", "<|im_end|", "<<|im_end|>>",
    " <|im_end|> ", "e<|im_end|>\u0301", "<tool_call>\n{\"name\": \"f\"}\n</tool_call>", "\U000e0001\U000e01ef\U0010ffff\ufffe",
]


def alphabet():
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in own]
    return {**{b: chr(b) for b in own}, **{b: chr(0x100 + i) for i, b in enumerate(rest)}}


BYTES = alphabet()


def added(token_id, content, **flags):
    known = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    return {"id": token_id, "content": content, **known, **flags}


def byte_level(use_regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": use_regex}


def split(**pattern):
    return {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}, byte_level(False)]}


def tokenizer(merges=(), extra=(), absent=(), added_tokens=(), pairs=True, model=(), **parts):
    vocab = {BYTES[b]: b for b in range(256) if b not in absent}
    for token in [*("".join(m) for m in merges), *extra]:
        vocab.setdefault(token, 256 + len(vocab) - (256 - len(absent)))
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(added_tokens),
            "normalizer": None, "pre_tokenizer": byte_level(True), "post_processor": None,
            "decoder": byte_level(True),
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "ignore_merges": False, **dict(model), "vocab": vocab,
                      "merges": [list(m) if pairs else " ".join(m) for m in merges]}, **parts}


MERGES = [("\u0120", "a"), ("a", "b"), ("ab", "c"), ("b", "c"), ("a", "a"), ("aa", "aa"), ("\u0120", "\u0120"), ("a", "bc")]
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+")
WORDY = ["ab abc aabc aaaaaaa", "ab <m>  ab", "a<m>b", "_<m>\u00e9", "  <m>  ", " <m><m> ", "<m>", "\u200d<m>", "\u24b6<m>",
         "\u3000<m>\u3000x", "<m>1", "\U00016d40<m>", "\u0301<m>", "<mm><m><m", "<M>"]


def small():
    nfc = {"type": "NFC"}
    yield "merges as pairs, GPT-2 split", tokenizer(MERGES), WRITTEN[:20] + WORDY
    yield "merges as text, Qwen split", tokenizer(MERGES, pairs=False, normalizer=nfc, pre_tokenizer=split(Regex=QWEN)), WRITTEN
    yield "no split at all", tokenizer(MERGES, pre_tokenizer=byte_level(False)), WORDY
    yield "a split by a string", tokenizer(MERGES, pre_tokenizer=split(String="b.c")), ["ab.cab.b.c", "b.c", "abxc", "b.cb.c"]
    yield "a split by an empty string", tokenizer(MERGES, pre_tokenizer=split(String="")), ["abc\u00e9", "aabc"]
    yield "a split that can be empty", tokenizer(MERGES, pre_tokenizer=split(Regex="b*")), ["abcabbca", "bbb", "\u00e9b\u00e9"]
    yield "a split with lazy and possessive parts", tokenizer(MERGES, pre_tokenizer=split(Regex=r"(?:a+?b|[a-c]{2,3}|\P{L}++|.)")), \
        ["aab abc aaaa", "\n\n\u00e9 a", "cab!!b"]
    yield "unseen bytes leave nothing", tokenizer(MERGES, absent=[ord("z"), 0xC3]), ["zab", "z", "\u00e9", "azb"]
    yield "ignore_merges", tokenizer(MERGES, extra=["zzz", "\u0120abcab", "\u00c3\u00a9\u00c3\u00a9"], model={"ignore_merges": True}.items()), \
        ["zzz zzz zzzz", "x abcab abcab", "\u00e9\u00e9", "abcab"]
    for flags in ({}, {"single_word": True}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True},
                  {"single_word": True, "lstrip": True, "rstrip": True}, {"normalized": True, "special": True}):
        yield f"an added token {flags}", tokenizer(MERGES, normalizer=nfc, added_tokens=[
            added(263, "<m>", **flags), added(264, "<m><m", special=True), added(265, "<mm>", special=True)]), WORDY
    yield "normalised added tokens", tokenizer(normalizer=nfc, added_tokens=[
        added(256, "o\u030cx", normalized=True, special=True), added(257, "a\u030c", normalized=False, special=True),
        added(258, "\u01ce", normalized=True), added(259, "\u01d2", special=True)]), \
        ["o\u030cx \u01d2x", "a\u030c \u01ce \u01ce\u030c", "\u01d2 o\u030c", "xa\u030c\u030c"]
    yield "white space as tokens", tokenizer(added_tokens=[added(256, "a b", rstrip=True), added(257, " "), added(258, "\n", lstrip=True)]), \
        ["xa b    y", "a b a b", "  \n  \n", " a b "]
    yield "added tokens of the vocabulary", tokenizer(MERGES, extra=["<x>"], added_tokens=[added(263, "<x>", special=True), added(97, "a")]), \
        ["a<x>b aa", "<x>"]
    yield "tokens outside the alphabet", tokenizer(extra=["\u65e5\u672c", "a b", "\u00e9\u00e8", "\u0120\u65e5", "", "\u0100"]), ["a b", "\u65e5\u672c"]
    yield "a template that adds nothing", tokenizer(MERGES, normalizer={"type": "Sequence", "normalizers": [nfc, nfc]}, post_processor={
        "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {}}), ["abc e\u0301"]


def case(reference, text):
    ids = reference.encode(text, add_special_tokens=False).ids
    return {"text": text, **decoded(reference, ids)}


def decoded(reference, ids):
    return {"ids": ids, "decoded": reference.decode(ids, skip_special_tokens=False),
            "skipped": reference.decode(ids, skip_special_tokens=True)}


def main():
    DATA.mkdir(parents=True, exist_ok=True)
    reference = Tokenizer.from_file(str(DEMO))
    generator = Generator(20, [t.content for t in reference.get_added_tokens_decoder().values()])
    texts = WRITTEN + CODE + CONTRACTIONS
    texts += [generator.text()[:60] for _ in range(300 - len(texts))]
    with open(DATA / "demo.jsonl", "w", encoding="ascii") as out:
        for text in texts:
            out.write(json.dumps(case(reference, text)) + "\n")
    chooser = random.Random(21)
    with open(DATA / "small.jsonl", "w", encoding="ascii") as out:
        for name, document, texts in small():
            reference = Tokenizer.from_str(json.dumps(document))
            for token in document["added_tokens"]:
                assert reference.token_to_id(token["content"]) == token["id"], (name, token)
            high = max(reference.get_vocab(with_added_tokens=True).values())
            cases = [case(reference, t) for t in texts]
            cases += [decoded(reference, [high - i for i in range(min(high, 8))])]
            cases += [decoded(reference, [chooser.randint(0, high) for _ in range(12)]) for _ in range(3)]
            out.write(json.dumps({"name": name, "tokenizer": document, "cases": cases}) + "\n")


if __name__ == "__main__":
    main()
