# SPDX-License-Identifier: Apache-2.0
"""Running the command and what tests of it share."""
import json
import os
import pathlib
import subprocess
import unittest

BINARY = os.environ["MYELIN_BINARY"]
DATA = pathlib.Path(os.environ["MYELIN_TEST_DATA"])
DEMO = pathlib.Path(os.environ["MYELIN_DEMO_MODEL"])
COMMANDS = ("run", "chat", "batch", "score", "template", "tokenize", "detokenize", "inspect",
            "quantize", "bench", "serve")
# Of greedy picks: below this the two best logits are too close to ask for the same pick.
SMALLEST_GAP = 1e-3


def environment(**changes):
    """This process's, without what tells myelin where models are."""
    kept = dict(os.environ)
    for name in ("MYELIN_MODEL", "HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        kept.pop(name, None)
    kept.update(changes)
    return kept


def myelin(*arguments, stdin=b"", env=None, timeout=120):
    if isinstance(stdin, str):
        stdin = stdin.encode()
    return subprocess.run([BINARY, *map(str, arguments)], input=stdin, capture_output=True,
                          env=env or environment(), timeout=timeout, check=False)


def start(*arguments, **options):
    return subprocess.Popen([BINARY, *map(str, arguments)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
                            bufsize=0, **options)


def lines(values):
    """JSON, one value a line; bytes and strings are lines already."""
    out = []
    for value in values:
        if isinstance(value, bytes):
            out.append(value)
        elif isinstance(value, str):
            out.append(value.encode())
        else:
            out.append(json.dumps(value).encode())
    return b"".join(line + b"\n" for line in out)


def strict(text):
    """JSON without the NaN and Infinity Python would let pass."""
    def refuse(name):
        raise ValueError(f"{name} is no JSON")
    return json.loads(text, parse_constant=refuse)


def read_jsonl(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def evaluation():
    return read_jsonl(DEMO / "eval.jsonl")


def fixtures():
    """What transformers computes from the files of tests/data/models."""
    return read_jsonl(DATA / "models_from_files.jsonl")


class TestCase(unittest.TestCase):
    maxDiff = 2000

    def good(self, *arguments, **options):
        """Standard output of a run that must succeed and say nothing."""
        done = myelin(*arguments, **options)
        self.assertEqual(done.stderr.decode(), "")
        self.assertEqual(done.returncode, 0)
        return done.stdout

    def bad(self, code, *arguments, **options):
        """Standard error of a run that must fail without results."""
        done = myelin(*arguments, **options)
        self.assertEqual((done.returncode, done.stdout), (code, b""),
                         f"{arguments}: {done.stderr!r}")
        message = done.stderr.decode(errors="replace")
        self.assertRegex(message, r"^myelin( \w+)?: .*\n$")
        return message

    def good_json(self, *arguments, **options):
        return strict(self.good(*arguments, **options))

    def good_lines(self, *arguments, values, **options):
        out = self.good(*arguments, stdin=lines(values), **options)
        self.assertTrue(out.endswith(b"\n") or out == b"")
        return [strict(line) for line in out.splitlines()]

    def check_error(self, answer, pattern, status="MYELIN_ERROR_ARGUMENT"):
        self.assertEqual(list(answer), ["error"])
        self.assertEqual(sorted(answer["error"]), ["message", "status"])
        self.assertEqual(answer["error"]["status"], status)
        self.assertRegex(answer["error"]["message"], pattern)
