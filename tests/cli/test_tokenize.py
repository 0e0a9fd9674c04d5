# SPDX-License-Identifier: Apache-2.0
"""myelin tokenize."""
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import support
from support import TestCase


class Tokenize(TestCase):
    def test_prompts_of_the_reference(self):
        items = support.evaluation()
        answers = self.good_lines("tokenize",
                                  values=[json.dumps(item["prompt"]) for item in items])
        self.assertEqual(answers, [item["prompt_ids"] for item in items])

    def test_argument(self):
        item = support.evaluation()[0]
        self.assertEqual(self.good_json("tokenize", item["prompt"]), item["prompt_ids"])
        self.assertEqual(self.good("tokenize", ""), b"[]\n")
        self.assertIn("UTF-8", self.bad(2, "tokenize", b"\xff".decode(errors="surrogateescape")))
        self.bad(2, "tokenize", "a", "b")

    def test_where_no_memory_is_both_written_and_executed(self):
        """As under systemd's MemoryDenyWriteExecute: patterns are interpreted then."""
        set_mdwe, refuse_exec_gain = 65, 1
        libc = ctypes.CDLL(None, use_errno=True)
        probe = [sys.executable, "-c", "import ctypes, sys; "
                 f"sys.exit(ctypes.CDLL(None).prctl({set_mdwe}, {refuse_exec_gain}, 0, 0, 0) != 0)"]
        if subprocess.run(probe, check=False).returncode != 0:
            self.skipTest("this kernel cannot forbid it")
        item = support.evaluation()[0]
        process = support.start("tokenize", item["prompt"],
                                preexec_fn=lambda: libc.prctl(set_mdwe, refuse_exec_gain, 0, 0, 0))
        out, err = process.communicate(timeout=120)
        self.assertEqual((process.returncode, err), (0, b""))
        self.assertEqual(json.loads(out), item["prompt_ids"])

    def test_special_tokens(self):
        self.assertEqual(len(self.good_json("tokenize", "<|im_end|>")), 1)
        self.assertGreater(len(self.good_json("tokenize", "--no-special", "<|im_end|>")), 1)

    def test_bad_lines(self):
        bad = ["hello", "5", "[1]", "{}", "null", b'"\xff"', '"\\ud800"', '"a" "b"', '"a']
        answers = self.good_lines("tokenize", values=[line for b in bad for line in (b, '"a"')])
        for i in range(len(bad)):
            self.check_error(answers[2 * i], f"^line {2 * i + 1}: ")
            self.assertEqual(len(answers[2 * i + 1]), 1)

    def test_text_of_any_kind(self):
        texts = ["", " ", "\n\n \n", "a\u0000b", "\U0001f469\u200d\U0001f52c e\u0301 \ufffd\uffff",
                 "\u2028\u0085", "x" * 100000]
        ids = self.good_lines("tokenize", values=[json.dumps(text) for text in texts])
        self.assertEqual(ids[0], [])
        back = self.good_lines("detokenize", values=ids)
        import unicodedata
        self.assertEqual(back, [unicodedata.normalize("NFC", text) for text in texts])

    def test_many_lines_open_the_tokenizer_once(self):
        begun = time.monotonic()
        self.good("tokenize", "a")
        once = time.monotonic() - begun
        answers = self.good_lines("tokenize", values=['"hello there"'] * 4000)
        self.assertEqual(len(answers), 4000)
        self.assertLess(time.monotonic() - begun, 200 * once + 5)

    def test_needs_only_the_tokenizer(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(support.DEMO / "tokenizer.json", folder)
            self.assertEqual(self.good("tokenize", "-m", folder, "hello"),
                             self.good("tokenize", "hello"))
            os.unlink(os.path.join(folder, "tokenizer.json"))
            self.assertIn("tokenizer.json", self.bad(3, "tokenize", "-m", folder, "hello"))
            with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
                file.write('{"model": 5}')
            self.assertIn("tokenizer.json", self.bad(3, "tokenize", "-m", folder, "hello"))


if __name__ == "__main__":
    unittest.main()
