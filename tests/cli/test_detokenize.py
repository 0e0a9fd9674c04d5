# SPDX-License-Identifier: Apache-2.0
"""myelin detokenize."""
import json
import unittest

import support
from support import TestCase


class Detokenize(TestCase):
    def test_prompts_of_the_reference(self):
        items = support.evaluation()
        answers = self.good_lines("detokenize", values=[item["prompt_ids"] for item in items])
        self.assertEqual(answers, [item["prompt"] for item in items])

    def test_argument(self):
        item = support.evaluation()[0]
        self.assertEqual(self.good_json("detokenize", str(item["prompt_ids"])), item["prompt"])
        self.assertEqual(self.good("detokenize", "[]"), b'""\n')
        self.assertIn("quote", self.bad(2, "detokenize", "1", "2"))
        for wrong in ("1", "", "[1", "[-1]", "[1.5]", "[6400000]", '["a"]', "[2147483648]"):
            self.bad(2, "detokenize", wrong)

    def test_special_tokens(self):
        ids = self.good_json("tokenize", "one<|im_end|>two")
        self.assertEqual(self.good_json("detokenize", str(ids)), "one<|im_end|>two")
        self.assertEqual(self.good_json("detokenize", "--skip-special", str(ids)), "onetwo")

    def test_half_a_character(self):
        ids = self.good_json("tokenize", "\U0001f9ff")
        self.assertGreater(len(ids), 1, "expected a character of several tokens")
        self.assertIn("\ufffd", self.good_json("detokenize", str(ids[:1])))

    def test_one_line_whatever_ends_lines(self):
        text = "a\u2028b\u0085c\u2029d\u000be\n\u00e9"
        ids = self.good_json("tokenize", text)
        output = self.good("detokenize", str(ids)).decode()
        self.assertEqual(len(output.splitlines()), 1)
        self.assertEqual(json.loads(output), text)
        self.assertIn("\u00e9", output)

    def test_bad_lines(self):
        bad = ["hello", "5", '"a"', "{}", "null", "[1.0]", "[-1]", "[4294967296]", "[[1]]",
               "[99999999]", "[true]", "[1"]
        answers = self.good_lines("detokenize", values=[line for b in bad for line in (b, "[40]")])
        for i in range(len(bad)):
            self.check_error(answers[2 * i], f"^line {2 * i + 1}: ")
            self.assertIsInstance(answers[2 * i + 1], str)


if __name__ == "__main__":
    unittest.main()
