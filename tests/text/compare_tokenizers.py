#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the tokenizer with the reference on generated texts.

A development tool, not a test: it needs the `tokenizers` package (pip install tokenizers==0.23.3).

    compare_tokenizers.py DRIVER DIRECTORY [--seed N] [--rounds N]

DRIVER is the program tokenizer_driver of the test build, DIRECTORY holds a tokenizer.json. Prints
each text whose ids or decoded form differ, and exits with 1 when there is one.
"""

import argparse
import random
import struct
import subprocess
import sys

from tokenizers import Tokenizer

SCALARS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
MARKS = [0x300, 0x301, 0x302, 0x303, 0x304, 0x306, 0x307, 0x308, 0x30A, 0x30C, 0x31B, 0x323, 0x327,
         0x328, 0x330, 0x331, 0x334, 0x338, 0x345, 0x315, 0x35C, 0x5B0, 0x5BC, 0x64B, 0x651, 0x670,
         0x93C, 0x94D, 0x9BC, 0x9BE, 0x9D7, 0xB3E, 0xB56, 0xBBE, 0xCC2, 0xCD5, 0xD3E, 0xDCF, 0xE38,
         0xF71, 0xF72, 0xF74, 0x102E, 0x1B35, 0x3099, 0x309A, 0x11127, 0x1133E, 0x114BA, 0x115AF,
         0x11930, 0x16FF0, 0x1D165, 0x1DFA, 0x1E08F]
SPACES = [9, 10, 11, 12, 13, 0x1C, 0x1F, 0x20, 0x85, 0xA0, 0x1680, 0x180E, 0x2000, 0x2001, 0x2003,
          0x200A, 0x200B, 0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'Re", "'\u017f", "'", "''",
                "\u2019s", "'\u212a", "'st", "'lL", "'e", "'v", "'l", "'r"]
CODE = ["def f(x):\n    return x**2\n", "if (a[i]!=b){\r\n\tc++;\r\n}", "#include <stdio.h>\n",
        "</div>\n\n  <p class=\"x\">", "SELECT * FROM t WHERE a='b';", "0x1F 3.14e-10 1_000", "a->b::c<T>&&",
        "\\frac{1}{2} $x_1^2$", "https://x.org/a?b=c&d=%20#e", "{\"k\": [1, null, true]}"]


class Driver:
    def __init__(self, program, directory):
        self.process = subprocess.Popen([program, directory], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def ask(self, mode, count, data, size):
        self.process.stdin.write(struct.pack("<II", mode, count) + data)
        self.process.stdin.flush()
        n, = struct.unpack("<I", self.process.stdout.read(4))
        return None if n == 0xFFFFFFFF else self.process.stdout.read(n * size)

    def encode(self, text):
        data = text.encode()
        answer = self.ask(0, len(data), data, 4)
        return None if answer is None else list(struct.unpack(f"<{len(answer) // 4}i", answer))

    def decode(self, ids, skip):
        answer = self.ask(3 if skip else 2, len(ids), struct.pack(f"<{len(ids)}i", *ids), 1)
        return None if answer is None else answer.decode()


class Generator:
    def __init__(self, seed, added):
        self.r = random.Random(seed)
        self.added = added or ["<none>"]
        self.blocks = [(0x20, 0x7E), (0xA1, 0x17F), (0x370, 0x3FF), (0x400, 0x52F), (0x590, 0x6FF),
                       (0x900, 0xDFF), (0xE00, 0xFFF), (0x1100, 0x11FF), (0x1E00, 0x1FFF),
                       (0x2000, 0x2BFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xA000, 0xABFF),
                       (0xAC00, 0xD7A3), (0xF900, 0xFFEF), (0x10000, 0x11FFF), (0x1D100, 0x1D7FF),
                       (0x1F000, 0x1FAFF), (0x20000, 0x2FA1F), (0xE0000, 0xE01EF), (0, 0x1F)]

    def char(self):
        low, high = self.r.choice(self.blocks)
        return chr(self.r.randint(low, high))

    def any_char(self):
        return chr(self.r.choice(SCALARS))

    def run(self):
        c = self.r.choice([self.char, self.any_char, lambda: chr(self.r.choice(SPACES)),
                           lambda: chr(self.r.choice(MARKS)), lambda: "\u1100", lambda: "\uac00"])()
        return c * self.r.choice([1, 2, 3, 7, 30, 100, 300])

    def hangul(self):
        return "".join(chr(self.r.choice([self.r.randint(0x10FF, 0x1113), self.r.randint(0x1160, 0x1176),
                                          self.r.randint(0x11A6, 0x11C3), self.r.randint(0xAC00, 0xD7A3),
                                          0xAC00 + 28 * self.r.randint(0, 398)]))
                       for _ in range(self.r.randint(1, 6)))

    def accents(self):
        return self.char() + "".join(chr(self.r.choice(MARKS)) for _ in range(self.r.randint(1, 24)))

    def emoji(self):
        parts = ["\U0001F468", "\U0001F469", "\U0001F467", "\u200d", "\ufe0f", "\U0001F3FD", "\u2764",
                 "\U0001F1E9\U0001F1EA", "\u20e3", "1", "\U000E0067"]
        return "".join(self.r.choice(parts) for _ in range(self.r.randint(1, 8)))

    def noise(self):
        return bytes(self.r.randrange(256) for _ in range(self.r.randint(1, 20))).decode("utf-8", "replace")

    def word(self):
        return "".join(self.r.choice("etaoinshrdlucmfwypvbgkqjxzETAOIN") for _ in range(self.r.randint(1, 12)))

    def added_token(self):
        token = self.r.choice(self.added)
        return self.r.choice([token, token, token[:-1], token[1:], token + token, token.upper()])

    def text(self):
        r = self.r
        makers = [self.char, self.any_char, self.run, self.hangul, self.accents, self.emoji, self.noise,
                  self.word, self.word, lambda: " ", lambda: " ", lambda: chr(r.choice(SPACES)),
                  lambda: "".join(chr(r.choice(SPACES)) for _ in range(r.randint(1, 6))),
                  lambda: r.choice(CONTRACTIONS), lambda: r.choice(CODE), self.added_token,
                  lambda: str(r.randrange(10 ** r.randint(1, 9))), lambda: r.choice("!?.,;:-()[]{}<>|/\\\"'`~@#$%^&*_+=")]
        few = r.sample(makers, r.randint(1, len(makers)))
        return "".join(r.choice(few)() for _ in range(r.randint(1, 20)))


def every_code_point():
    for c in SCALARS:
        yield chr(c)
    for i in range(0, len(SCALARS), 8):
        chars = [chr(c) for c in SCALARS[i:i + 8]]
        yield "".join(f"a{c}b 1{c}2 {c} {c}x\n{c}\n'{c}'s{c}" for c in chars)
        yield "".join(f" \u0301{c}\u0301\u0323{c}\u0334 {c}\u3099\u11a8{c}\t{c}\u0345\u0315" for c in chars)
    for i in range(0, len(SCALARS), 500):
        yield "".join(map(chr, SCALARS[i:i + 500]))


def long_runs():
    for c in "a \n'\u0301\u00e9\u4e2d\t1.\u3099\u1100\r":
        yield c * 5000
    yield "ab" * 5000
    yield "\u0301\u0323" * 3000
    yield "a" + "\u0301\u0323\u0334\u0345\u0327" * 2000
    yield " \n" * 3000
    yield "\r\n\t " * 2000
    yield " " * 3000 + "x"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("driver")
    parser.add_argument("directory")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40000)
    parser.add_argument("--no-code-points", action="store_true")
    options = parser.parse_args()
    reference = Tokenizer.from_file(options.directory + "/tokenizer.json")
    driver = Driver(options.driver, options.directory)
    added = [t.content for t in reference.get_added_tokens_decoder().values()]
    generator = Generator(options.seed, added)
    size = max(reference.get_vocab(with_added_tokens=True).values()) + 1
    count = wrong = 0

    def check(what, given, expected, got):
        nonlocal wrong
        if expected != got:
            wrong += 1
            if wrong <= 20:
                print(f"{what} of {given!a}:\n  expected {expected!a}\n  found    {got!a}"[:2000])

    def check_text(text):
        nonlocal count
        count += 1
        ids = reference.encode(text, add_special_tokens=False).ids
        check("ids", text, ids, driver.encode(text))
        if count % 8 == 0:
            check("decode", ids, reference.decode(ids, skip_special_tokens=True), driver.decode(ids, True))

    for text in long_runs():
        check_text(text)
    if not options.no_code_points:
        for text in every_code_point():
            check_text(text)
    for _ in range(options.rounds):
        check_text(generator.text())
        ids = [generator.r.randrange(size) for _ in range(generator.r.randint(1, 12))]
        for skip in (False, True):
            check("decode", ids, reference.decode(ids, skip_special_tokens=skip), driver.decode(ids, skip))
    print(f"{count} texts, {wrong} differences (seed {options.seed})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
