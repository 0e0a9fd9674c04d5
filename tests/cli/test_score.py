# SPDX-License-Identifier: Apache-2.0
"""myelin score: log-probabilities against the reference, perplexity, bad lines."""
import math
import os
import tempfile
import unittest

import support
from support import TestCase

TEXT = "Once upon a time there was a little dog."


class Lines(TestCase):
    def check_fixtures(self, model):
        items = [item for item in support.fixtures() if item["model"] == model]
        self.assertEqual(len(items), 6)
        values = [{"ids": item["prompt_ids"], "top": len(item["top_ids"])} for item in items]
        done = support.myelin("score", "-q", "--fusion", "composed", "-m", support.DATA / "models" / model,
                              stdin=support.lines(values))
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        for line, item in zip(done.stdout.splitlines(), items, strict=True):
            answer = support.strict(line)
            self.assertEqual(sorted(answer), ["logprobs", "top_ids", "top_logprobs"])
            self.assertEqual(answer["top_ids"][0], item["top_ids"][0])
            self.assertEqual(len(set(answer["top_ids"])), 20)
            for name, expected in (("logprobs", item["prompt_logprobs"]),
                                   ("top_logprobs", item["top_logprobs"])):
                self.assertEqual(len(answer[name]), len(expected))
                apart = [abs(value - wanted) for value, wanted in zip(answer[name], expected)]
                if apart:
                    self.assertLessEqual(max(apart), 2e-3)
                    self.assertLessEqual(sum(apart) / len(apart), 5e-4)

    def test_fixture_in_single_precision(self):
        self.check_fixtures("sharded-f32")

    def test_fixtures_in_half_precision(self):
        for model in ("tied-bf16", "untied-f16", "yarn-bf16"):
            with self.subTest(model):
                self.check_fixtures(model)

    def test_demo_model_in_half_precision(self):
        items = support.evaluation()[::10]
        values = [{"ids": item["prompt_ids"], "top": 5} for item in items]
        largest = 0
        for answer, item in zip(self.good_lines("score", "--fusion", "composed", values=values), items,
                                strict=True):
            reference = item["first_top5"]
            self.assertEqual(answer["top_ids"][0], reference["ids"][0])
            found = dict(zip(answer["top_ids"], answer["top_logprobs"]))
            for token, logit in zip(reference["ids"], reference["logits"]):
                if token in found:  # the fifth and the sixth may be almost equal
                    apart = found[answer["top_ids"][0]] - found[token]
                    largest = max(largest, abs(apart - (reference["logits"][0] - logit)))
        self.assertLess(largest, 2e-3)

    def test_forms(self):
        ids = self.good_json("tokenize", TEXT)
        by_ids, by_text, short, all_of_them = self.good_lines(
            "score", values=[{"ids": ids, "id": "x"}, {"text": TEXT, "top": 2},
                             {"ids": ids[:1], "top": None}, {"ids": [5], "top": 6400}])
        self.assertEqual(by_ids["id"], "x")
        self.assertEqual((by_ids["top_ids"], by_ids["top_logprobs"]), ([], []))
        self.assertEqual(by_text["ids"], ids)
        self.assertEqual(by_text["logprobs"], by_ids["logprobs"])
        self.assertEqual(len(by_text["top_ids"]), 2)
        self.assertEqual(short, {"logprobs": [], "top_ids": [], "top_logprobs": []})
        self.assertEqual(sorted(all_of_them["top_ids"]), list(range(6400)))
        self.assertAlmostEqual(sum(map(math.exp, all_of_them["top_logprobs"])), 1, delta=1e-4)
        falling = all_of_them["top_logprobs"]
        self.assertEqual(falling, sorted(falling, reverse=True))

    def test_bad_lines(self):
        bad = [("{", "not valid JSON"), ("5", "expected an object"), ("{}", "found none"),
               ({"ids": [1], "text": "a"}, "found both"), ({"ids": 5}, "ids: expected an array"),
               ({"ids": []}, "at least one token"), ({"text": ""}, "at least one token"),
               ({"text": 5}, "text: expected a string"), ({"ids": ["a"]}, "ids: .*found \"a\""),
               ({"ids": [6400, 1]}, "6400"), ({"ids": [-1]}, "ids"), ({"ids": [1.5]}, "ids"),
               ({"ids": [1, 2], "top": -1}, "top: "), ({"ids": [1, 2], "top": 6401}, "top: "),
               ({"ids": [1, 2], "top": 1.0}, "top: "), ({"ids": [1, 2], "tops": 1}, '"top"')]
        answers = self.good_lines("score", values=[line for line, _ in bad])
        for i, (answer, (_, pattern)) in enumerate(zip(answers, bad, strict=True)):
            self.check_error(answer, f"^line {i + 1}: .*{pattern}")
        answer = self.good_lines("score", "-m", support.DATA / "models" / "tied-bf16",
                                 values=[{"text": "hi"}])[0]
        self.check_error(answer, "tokenizer.json")


class Perplexity(TestCase):
    def test_of_a_text(self):
        line = self.good_lines("score", values=[{"text": TEXT}])[0]
        answer = self.good_json("score", "--json", "--text", TEXT)
        self.assertEqual(sorted(answer), ["logprob_sum", "num_tokens", "perplexity"])
        self.assertEqual(answer["num_tokens"], len(line["ids"]))
        total = math.fsum(line["logprobs"])
        self.assertAlmostEqual(answer["logprob_sum"], total, delta=1e-4)
        self.assertAlmostEqual(answer["perplexity"], math.exp(-total / len(line["logprobs"])),
                               delta=1e-3 * answer["perplexity"])
        plain = self.good("score", "--text", TEXT).decode()
        self.assertRegex(plain, r"^perplexity [0-9.e+]+ \(\d+ tokens, .*\)\n$")

    def test_of_a_file(self):
        expected = self.good_json("score", "--json", "-t", TEXT)
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "text")
            with open(name, "w", encoding="utf-8") as file:
                file.write(TEXT)
            self.assertEqual(self.good_json("score", "--json", "--text-file", name), expected)
            self.bad(1, "score", "--text-file", name + "x")
        self.assertEqual(self.good_json("score", "--json", "-f", "-", stdin=TEXT), expected)

    def test_cache_types(self):
        exact = self.good_json("score", "--json", "--cache-type", "f32", "-t", TEXT)["logprob_sum"]
        found = {name: self.good_json("score", "--json", "--cache-type", name, "-t", TEXT)["logprob_sum"]
                 for name in ("auto", "f16", "int8")}
        self.assertEqual(found["auto"], found["f16"])
        self.assertNotEqual(found["int8"], found["f16"])
        for value in found.values():
            self.assertAlmostEqual(value, exact, delta=0.1)
        self.assertIn("int8", self.bad(2, "score", "--cache-type", "int4", "-t", TEXT))

    def test_refusals(self):
        for text in ("", "a"):
            self.assertIn("at least two tokens", self.bad(2, "score", "--text", text))
        self.assertIn("UTF-8", self.bad(2, "score", "-f", "-", stdin=b"one two \xff"))
        self.assertIn("expected one of", self.bad(2, "score", "--text", "a b", "file"))
        self.bad(2, "score", "--text", "a b", "--text-file", "x")
        self.bad(3, "score", "-m", support.DATA / "models" / "tied-bf16", "--text", "a b c")


if __name__ == "__main__":
    unittest.main()
