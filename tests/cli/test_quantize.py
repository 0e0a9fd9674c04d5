# SPDX-License-Identifier: Apache-2.0
"""myelin quantize: what it writes, what it leaves alone, and how the demo model answers in 4 bits."""
import collections
import json
import os
import pathlib
import resource
import subprocess
import tempfile
import unittest

import support
from support import TestCase


class Quantize(TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.made = self.folder / "made"

    def quantize(self, *options):
        return self.good_json("quantize", "--json", *options, support.DEMO, self.made)

    def test_what_is_written(self):
        answer = self.quantize("-b", "8", "-g", "32")
        self.assertEqual((answer["bits"], answer["group_size"]), (8, 32))
        self.assertLess(answer["weight_bytes"], answer["dense_bytes"])
        self.assertEqual(os.listdir(self.folder), ["made"])
        config = json.loads((self.made / "config.json").read_text(encoding="utf-8"))
        for name in ("quantization", "quantization_config"):
            self.assertEqual(config.pop(name), {"group_size": 32, "bits": 8})
        self.assertEqual(config, json.loads((support.DEMO / "config.json").read_text("utf-8")))
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json",
                     "chat_template.jinja"):
            self.assertEqual((self.made / name).read_bytes(), (support.DEMO / name).read_bytes())
        tensors = self.good_json("inspect", "--json", "-m", self.made)["tensors"]
        for tensor in tensors:
            self.assertEqual("bits" in tensor and tensor["bits"] == 8, len(tensor["shape"]) == 2)

    def test_same_bytes_each_time(self):
        self.quantize()
        again = self.folder / "again"
        self.good("quantize", support.DEMO, again)
        for name in os.listdir(self.made):
            self.assertEqual((self.made / name).read_bytes(), (again / name).read_bytes(), name)

    def test_an_empty_directory_is_taken_and_no_other(self):
        self.made.mkdir()
        self.quantize()
        message = self.bad(2, "quantize", support.DEMO, self.made)
        self.assertIn("expected a new or empty directory", message)
        file = self.folder / "file"
        file.write_text("x")
        self.assertIn("found a file", self.bad(2, "quantize", support.DEMO, file))
        self.assertEqual(file.read_text(), "x")

    def test_what_is_quantised_already_is_refused(self):
        self.quantize()
        message = self.bad(3, "quantize", self.made, self.folder / "twice")
        self.assertIn("expected a dense checkpoint", message)

    def test_wrong_usage(self):
        self.assertIn("expected a model and a new directory", self.bad(2, "quantize", "x"))
        self.bad(2, "quantize", "--bits", "5", support.DEMO, self.made)
        self.bad(3, "quantize", self.folder / "nowhere", self.made)
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_full_disk_leaves_nothing(self):
        def small_files():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        done = subprocess.run([support.BINARY, "quantize", support.DEMO, self.made],
                              capture_output=True, env=support.environment(), timeout=120,
                              preexec_fn=small_files, restore_signals=False, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn(b"model.safetensors", done.stderr)
        self.assertEqual(os.listdir(self.folder), [])

    def answers(self, model, lines):
        values = [{"messages": line["messages"], "tools": line["tools"], "max_len": 4096,
                   "enable_thinking": line["enable_thinking"], "max_new_tokens": 400}
                  for line in lines]
        return [answer["text"] for answer in self.good_lines("batch", "-q", "-m", model,
                                                             values=values)]

    def test_the_demo_model_answers_in_both_forms(self):
        """Of every kind of question, thinking or not: right in 4 bits as in bf16."""
        lines = [line for line in support.evaluation() if line["messages"] and line["correct"]
                 and line["expect"]]
        lines = lines[::2] if "MYELIN_SANITIZED" not in os.environ else lines[::25]
        kinds = collections.Counter(line["category"].split(":")[0] for line in lines)
        self.quantize("-b", "4", "-g", "64")
        for model in (support.DEMO, self.made):
            right = 0
            for line, text in zip(lines, self.answers(model, lines), strict=True):
                right += any(expected in text for expected in line["expect"])
            self.assertGreaterEqual(right, 0.97 * len(lines), model)
        if len(lines) > 50:
            for kind in ("facts", "arithmetic", "tools"):
                self.assertGreater(kinds[kind], 2)


if __name__ == "__main__":
    unittest.main()
