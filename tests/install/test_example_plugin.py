# SPDX-License-Identifier: Apache-2.0
"""Builds examples/plugin against an installed Myelin and compares it with the built-in plug-in."""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import support

SOURCES = Path(__file__).resolve().parents[2]
STRICT = ("-O3 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes -Wvla -Wundef "
          "-Werror")
MODELS = ("sharded-f32", "tied-bf16", "untied-f16", "yarn-bf16")

options = None


def run(*command, **extra):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, **extra)
    if done.returncode != 0:
        raise AssertionError(f"{command} exited with {done.returncode}:\n{done.stdout}")
    return done.stdout


def without_timing(answers):
    return [{key: value for key, value in answer.items() if key != "timing"}
            for answer in answers]


class Example(support.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.root = Path(cls.temporary.name)
        prefix = cls.root / "prefix"
        run(options.cmake, "--install", options.build, "--prefix", prefix)
        cls.source = cls.root / "outside"  # of the source tree: only what is installed is found
        shutil.copytree(SOURCES / "examples/plugin", cls.source,
                        ignore=shutil.ignore_patterns("*.so"))
        support.BINARY = str(prefix / "bin/myelin")
        cls.environment = support.environment(
            CC=options.cc, PKG_CONFIG_PATH=str(prefix / options.libdir / "pkgconfig"),
            PATH=f"{prefix / 'bin'}:{os.environ['PATH']}")
        run("make", "-C", cls.source, f"CFLAGS={STRICT}", env=cls.environment)
        cls.plugin = cls.source / "example.so"

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def test_it_stands_alone(self):
        self.assertNotIn("libmyelin", run("readelf", "-d", self.plugin))
        symbols = run("nm", "-D", "--defined-only", self.plugin).split("\n")
        self.assertEqual([line.split()[-1] for line in symbols if line], ["myelin_plugin_v1"])
        undefined = run("nm", "-D", "--undefined-only", self.plugin)
        self.assertNotRegex(undefined, "myelin|mln_")

    def both(self, command, *words, values):
        """What the composed plug-in and the example answer."""
        return tuple(self.good_lines(command, "-q", *words, *how, values=values)
                     for how in (["--fusion", "composed"], ["--plugin", self.plugin]))

    def test_same_tokens_as_the_composed_one(self):
        items = [item for item in support.evaluation()
                 if item["min_gap"] > support.SMALLEST_GAP][::11]
        self.assertGreater(len(items), 15)
        values = [{"prompt_ids": item["prompt_ids"], "max_new_tokens": len(item["output_ids"])}
                  for item in items]
        composed, example = self.both("batch", "-b", 4, values=values)
        for item, one, other in zip(items, composed, example, strict=True):
            self.assertEqual(other["token_ids"], item["output_ids"])
            self.assertEqual(without_timing([other]), without_timing([one]))
        for prompt in ("Once upon a time", "The dog", "What is 2 + 2?", "A"):
            told = [self.good("run", "-n", 40, *how, prompt)
                    for how in (["--fusion", "composed"], ["--plugin", self.plugin])]
            self.assertEqual(told[0], told[1])

    def test_same_tokens_of_every_dtype(self):
        for model in MODELS:
            items = [item for item in support.fixtures()
                     if item["model"] == model and item["min_gap"] > support.SMALLEST_GAP]
            self.assertGreater(len(items), 0)
            values = [{"prompt_ids": item["prompt_ids"], "max_new_tokens": 64} for item in items]
            answers = self.good_lines("batch", "-q", "-m", support.DATA / "models" / model,
                                      "--plugin", self.plugin, values=values)
            self.assertEqual([answer["token_ids"] for answer in answers],
                             [item["greedy_ids"] for item in items], model)

    def assert_scores_agree(self, *words, values):
        composed, example = self.both("score", *words, values=values)
        for one, other in zip(composed, example, strict=True):
            self.assertEqual(len(one["logprobs"]), len(other["logprobs"]))
            self.assertGreater(len(one["logprobs"]), 0)
            for a, b in zip(one["logprobs"], other["logprobs"]):
                self.assertLessEqual(abs(a - b), 1e-3)

    def test_scores_agree(self):
        ids = [{"ids": item["prompt_ids"] + item["output_ids"]}
               for item in support.evaluation()[::29]]
        self.assert_scores_agree(values=ids)
        for dtype in ("f32", "f16", "bf16"):
            self.assert_scores_agree("--dtype", dtype, values=ids[:2])
        for model in MODELS:
            values = [{"ids": item["prompt_ids"]} for item in support.fixtures()
                      if item["model"] == model and len(item["prompt_ids"]) > 1]
            self.assert_scores_agree("-m", support.DATA / "models" / model, values=values)
        for bits, group, scales in ((4, 32, "f16"), (4, 128, "bf16"), (8, 64, "bf16")):
            packed = self.root / f"{bits}bit-{group}"
            self.good("quantize", "-q", "-b", bits, "-g", group, "--scale-dtype", scales,
                      support.DEMO, packed)
            self.assert_scores_agree("-m", packed, values=ids)

    def test_same_bits_however_it_is_called(self):
        story = self.good_json("tokenize", "Once upon a time there was a little dog. ")
        values = [{"prompt_ids": prompt, "max_new_tokens": 12, "top_logprobs": 3,
                   "logprobs": True, "ignore_eos": True}
                  for prompt in (story, story[:1], story * 60, story[2:7], story * 9)]
        def answers(batch, threads, values=values):
            return without_timing(self.good_lines("batch", "-b", batch, "--threads", threads,
                                                  "--plugin", self.plugin, values=values))
        alone = [answers(1, 1, [value])[0] for value in values]
        for batch, threads in ((1, 2), (2, 1), (3, 3), (5, 1), (5, 2), (8, 16)):
            self.assertEqual(answers(batch, threads), alone, (batch, threads))
        # Prompt and answer in one reading, 32 tokens at a time.
        for answer, value in zip(alone, values):
            output = answer["token_ids"]
            scored, = self.good_lines("score", "--plugin", self.plugin,
                                      values=[{"ids": value["prompt_ids"] + output}])
            self.assertEqual(scored["logprobs"][-len(output):], answer["logprobs"])

    def test_its_name_is_shown(self):
        at = ("--plugin", self.plugin)
        self.assertEqual(self.good_json("inspect", "--json", *at)["plugin"], "example")
        self.assertRegex(self.good("inspect", *at).decode(), r"runs on +example, ")
        measure = ("bench", "-p", 8, "-n", 4, "-r", 1, *at)
        self.assertEqual(self.good_json(*measure, "--json")["plugin"], "example")
        self.assertIn("example", self.good(*measure).decode())

    def test_what_does_not_fit(self):
        limited = (f"ulimit -v 4000000; {support.BINARY} run -n 999999 --max-len 1000000 "
                   f"--plugin {self.plugin} A")
        done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False,
                              env=self.environment)
        self.assertEqual((done.returncode, done.stdout.strip()), (1, ""), done.stderr)
        self.assertRegex(done.stderr, r"KV cache of 999999 tokens: no room for 12287\d{6} bytes")
        done = support.myelin("run", "--fusion", "layer", "--plugin", self.plugin, "A")
        self.assertIn("plug-in example goes up to rung 1", done.stderr.decode())

    def test_every_command_of_the_guide(self):
        """The lines of docs/PLUGINS.md that begin with a prompt, one shell for all of them."""
        guide = (SOURCES / "docs/PLUGINS.md").read_text()
        commands = re.findall(r"^    \$ (.*(?:\n     .*)*)", guide, re.MULTILINE)
        self.assertGreater(len(commands), 8)
        shutil.copytree(SOURCES / "examples", self.root / "guide/examples",
                        ignore=shutil.ignore_patterns("*.so"))
        (self.root / "guide/models").symlink_to(SOURCES / "models")
        script = "set -euo pipefail\n" + "\n".join(commands)
        run("bash", "-xc", script, cwd=self.root / "guide", env=self.environment)
        built = self.root / "guide/examples/plugin/example.so"
        self.assertTrue(built.exists())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("build", "libdir", "cmake", "cc"):
        parser.add_argument(f"--{option}", required=True)
    options, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest])
