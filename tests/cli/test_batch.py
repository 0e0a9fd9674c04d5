# SPDX-License-Identifier: Apache-2.0
"""myelin batch: order, equality with single runs, bad lines."""
import json
import os
import select
import signal
import tempfile
import unittest

import support
from support import TestCase

STORY = "Once upon a time"


def without_timing(answer):
    return {key: value for key, value in answer.items() if key != "timing"}


class Results(TestCase):
    def test_demo_model_gives_the_reference_tokens(self):
        items = [item for item in support.evaluation()
                 if item["min_gap"] > support.SMALLEST_GAP][::7]
        values = [{"prompt_ids": item["prompt_ids"], "id": item["id"],
                   "max_new_tokens": len(item["output_ids"])} for item in items]
        answers = self.good_lines("batch", values=values)
        self.assertEqual([answer["id"] for answer in answers], [item["id"] for item in items])
        for answer, item in zip(answers, items):
            self.assertEqual(answer["token_ids"], item["output_ids"], item["id"])
            self.assertEqual(answer["finish_reason"] == "stop", item["complete"])
        self.assertGreater(len(items), 30)

    def test_models_without_a_tokenizer(self):
        by_model = {}
        for item in support.fixtures():
            by_model.setdefault(item["model"], []).append(item)
        self.assertEqual(len(by_model), 4)
        for model, items in by_model.items():
            values = [{"prompt_ids": item["prompt_ids"], "max_new_tokens": 64} for item in items]
            done = support.myelin("batch", "-q", "-m", support.DATA / "models" / model,
                                  stdin=support.lines(values))
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            for line, item in zip(done.stdout.splitlines(), items, strict=True):
                answer = support.strict(line)
                self.assertIsNone(answer["text"])
                self.assertEqual(answer["num_tokens"], len(answer["token_ids"]))
                if item["min_gap"] > support.SMALLEST_GAP:
                    self.assertEqual(answer["token_ids"], item["greedy_ids"], model)

    def test_equals_run_for_each_line_whatever_the_batch_size(self):
        values = [{"prompt": STORY, "max_new_tokens": 30},
                  {"prompt": "What is 2 + 2?", "sampler": "sampled", "seed": 5},
                  {"prompt": "The dog", "temperature": 1.3, "seed": 2, "top_k": 50,
                   "logprobs": True, "top_logprobs": 2, "max_new_tokens": 9},
                  {"prompt": "A", "stop": "e", "max_new_tokens": 50},
                  {"prompt": STORY, "logit_bias": {"11": -100}, "max_new_tokens": 10}]
        options = [["-n", 30], ["--sampler", "sampled", "--seed", 5],
                   ["-t", 1.3, "--seed", 2, "--top-k", 50, "--top-logprobs", 2, "-n", 9],
                   ["--stop", "e", "-n", 50], ["--logit-bias", "11=-100", "-n", 10]]
        single = [without_timing(self.good_json("run", "--json", *option, value["prompt"]))
                  for value, option in zip(values, options)]
        for size in (1, 2, 3, 8):
            answers = self.good_lines("batch", "-b", size, values=values)
            self.assertEqual([without_timing(answer) for answer in answers], single)

    def test_every_option_by_its_name(self):
        value = {"prompt": STORY, "max_new_tokens": 5, "max_len": 100, "sampler": "sampled",
                 "temperature": 0.9, "top_k": 40, "top_p": 0.9, "min_p": 0.01,
                 "repetition_penalty": 1.1, "presence_penalty": 0.1, "frequency_penalty": -0.1,
                 "logit_bias": [[5, -1.5], [6, "-inf"]], "seed": 3, "stop_strings": ["zebra"],
                 "stop_ids": [6258], "sync": "token", "sync_tokens": 4, "stream_mode": "stable",
                 "logprobs": True, "top_logprobs": 1, "parse_special": False, "ignore_eos": False}
        answer = self.good_lines("batch", values=[value])[0]
        self.assertEqual(answer["num_tokens"], 5)
        self.assertEqual(len(answer["top_logprobs"][0]), 1)
        nothing = {key: None for key in value if key != "prompt"}
        plain, same = self.good_lines("batch", values=[{"prompt": STORY},
                                                       {"prompt": STORY, **nothing}])
        self.assertEqual(without_timing(plain), without_timing(same))

    def test_json_schema(self):
        schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}
        answers = self.good_lines("batch", values=[
            {"prompt": STORY, "json_schema": schema},
            {"messages": [{"role": "user", "content": "Hi"}], "json_schema": schema},
            {"prompt": STORY, "json_schema": {"not": {}}},
            {"prompt": STORY, "json_schema": "{}"}])
        for text in (answers[0]["text"], answers[1]["content"]):
            self.assertIn(len(json.loads(text)), (2, 3))
        self.assertIn("json_schema: schema keyword", answers[2]["error"]["message"])
        self.assertIn("json_schema: expected", answers[3]["error"]["message"])

    def test_sync_in_every_form(self):
        values = [{"prompt": STORY, "max_new_tokens": 40, "sync": sync}
                  for sync in ("token", "end", "chunk", 1, 13)]
        answers = self.good_lines("batch", values=values)
        self.assertEqual(len({json.dumps(without_timing(answer)) for answer in answers}), 1)

    def test_command_line_options_are_defaults(self):
        answers = self.good_lines(
            "batch", "-n", 3, "--stop", "zebra", "--logprobs",
            values=[{"prompt": STORY}, {"prompt": STORY, "max_new_tokens": 5},
                    {"prompt": STORY, "logprobs": False}])
        self.assertEqual([answer["num_tokens"] for answer in answers], [3, 5, 3])
        self.assertEqual(["logprobs" in answer for answer in answers], [True, True, False])

    def test_ids_of_any_kind_come_back(self):
        ids = [1, -0.1, 1e300, "a\u0000é\U0001f600", None, True, [1, {"a": []}], {"": {}}]
        answers = self.good_lines("batch", "-n", 1,
                                  values=[{"prompt": "hi", "id": value} for value in ids])
        self.assertEqual([answer["id"] for answer in answers], ids)
        answer = self.good_lines("batch", values=[{"id": 7, "prompt": 1}])[0]
        self.assertEqual((answer["id"], "error" in answer), (7, True))


class Order(TestCase):
    def test_answers_keep_the_order_of_the_lines(self):
        values = [{"prompt": STORY, "ignore_eos": True, "max_new_tokens": 200 if i % 9 == 0 else 1,
                   "id": i} for i in range(60)]
        for i in range(0, 60, 5):
            values[i] = {"id": i}
        answers = self.good_lines("batch", "-b", 4, values=values)
        self.assertEqual([answer["id"] for answer in answers], list(range(60)))

    def test_more_lines_than_are_held_at_once(self):
        values = [{"prompt": STORY, "max_new_tokens": 100, "ignore_eos": True}]
        values += [f"bad {i}" for i in range(3000)] + [{"prompt": STORY, "max_new_tokens": 1}]
        answers = self.good_lines("batch", values=values)
        self.assertEqual(len(answers), 3002)
        for i, answer in enumerate(answers[1:-1]):
            self.check_error(answer, f"^line {i + 2}: ")
        self.assertEqual([answers[0]["num_tokens"], answers[-1]["num_tokens"]], [100, 1])

    def test_an_answer_comes_before_the_next_question(self):
        process = support.start("batch", "-n", 3)
        for i in range(3):
            process.stdin.write(support.lines([{"prompt": STORY, "id": i}]))
            ready, _, _ = select.select([process.stdout], [], [], 60)
            self.assertTrue(ready, "no answer while the input is open")
            self.assertEqual(support.strict(process.stdout.readline())["id"], i)
        rest, _ = process.communicate()
        self.assertEqual((rest, process.returncode), (b"", 0))


class BadLines(TestCase):
    def test_each_is_answered_and_the_rest_goes_on(self):
        good = {"prompt": "hi", "max_new_tokens": 1}
        bad = [("{", "not valid JSON"), ("[1]", "expected an object"), ('"hi"', "an object"),
               ("17", "an object"), ("null", "an object"), ('{"prompt": "hi"} x', "not valid JSON"),
               (b'{"prompt": "\xff"}', "not valid JSON"), (b'{"prompt": "a\0b"}', "not valid JSON"),
               ('{"prompt": "\\ud800"}', "not valid JSON"), ("[" * 5000, "not valid JSON"),
               ('{"prompt": "a", "prompt": "b"}', "not valid JSON"), ("{}", "found none"),
               ('{"prompt": "a", "prompt_ids": [1]}', "found several"),
               ({"messages": "hi"}, "messages: expected an array"),
               ({"messages": [], "prompt": "x"}, "found several"),
               ({"messages": [{"role": "user"}]}, "line 1"),
               ({"prompt": 5}, "prompt: expected a string, found 5"),
               ({"prompt": None}, "prompt: expected a string"),
               ({"prompt": ""}, "empty"), ({"prompt_ids": []}, "empty"),
               ({"prompt_ids": 5}, "prompt_ids: expected an array"),
               ({"prompt_ids": [1.0]}, "prompt_ids: .* found 1.0"),
               ({"prompt_ids": [-1]}, "prompt_ids"), ({"prompt_ids": [6400]}, "6400"),
               ({"prompt_ids": [2**31]}, "prompt_ids"), ({"prompt_ids": [[1]]}, "prompt_ids"),
               ({"prompt_ids": [1] * 3000}, "3000"),
               ({**good, "max_tokens": 5}, 'unknown member "max_tokens"'),
               ({**good, "top_k": -1}, "top_k: expected an integer from 0 to 2147483647, found -1"),
               ({**good, "top_k": 1.5}, "top_k"), ({**good, "top_k": "5"}, "top_k"),
               ({**good, "max_new_tokens": 0}, "max_new_tokens"),
               ({**good, "max_new_tokens": 2**40}, "max_new_tokens"),
               ({**good, "max_len": 0}, "max_len"), ({**good, "sampler": "best"}, "sampler"),
               ({**good, "sampler": 1}, "sampler"), ({**good, "temperature": -1}, "temperature"),
               ('{"prompt": "hi", "temperature": 1e999}', "not valid JSON"),
               ('{"prompt": "hi", "temperature": NaN}', "not valid JSON"),
               ({**good, "top_p": 0}, "top_p: expected a number above 0 to 1, found 0"),
               ({**good, "min_p": 2}, "min_p"), ({**good, "repetition_penalty": 0}, "repetition"),
               ({**good, "presence_penalty": 1e6}, "presence_penalty"),
               ({**good, "frequency_penalty": "x"}, "frequency_penalty"),
               ({**good, "logit_bias": {"x": 1}}, "logit_bias"),
               ({**good, "logit_bias": {"1": "x"}}, "logit_bias"),
               ({**good, "logit_bias": [[1]]}, "logit_bias"),
               ({**good, "logit_bias": [[-1, 1]]}, "logit_bias"),
               ({**good, "logit_bias": [[9999, 1]]}, "9999"), ({**good, "logit_bias": 5}, "bias"),
               ({**good, "seed": -1}, "seed"), ({**good, "seed": 1.5}, "seed"),
               ({**good, "stop": ""}, "stop"), ({**good, "stop": 5}, "stop"),
               ({**good, "stop": [""]}, "stop"), ({**good, "stop": ["a\u0000"]}, "stop"),
               ({**good, "stop": "a", "stop_strings": ["b"]}, "stop and stop_strings"),
               ({**good, "stop_strings": ["s"] * 65}, "more than 64"),
               ({**good, "stop_ids": [-1]}, "stop_ids"), ({**good, "stop_ids": 5}, "stop_ids"),
               ({**good, "stop_ids": [1] * 65}, "stop_ids: more than 64"),
               ({**good, "sync": 0}, "sync"), ({**good, "sync": "often"}, "sync"),
               ({**good, "sync_tokens": -1}, "sync_tokens"),
               ({**good, "stream_mode": "x"}, "stream_mode"),
               ({**good, "logprobs": 1}, "logprobs: expected true or false, found 1"),
               ({**good, "top_logprobs": 65}, "top_logprobs"),
               ({**good, "parse_special": "no"}, "parse_special"),
               ({**good, "\x01\"quoted\"\u20ac" * 40: 1}, "unknown member")]
        values = [value for line, _ in bad for value in (line, good)]
        answers = self.good_lines("batch", values=values)
        self.assertEqual(len(answers), len(values))
        for i, (line, pattern) in enumerate(bad):
            with self.subTest(line=str(line)[:60]):
                status = "CACHE_FULL" if pattern == "3000" else "ARGUMENT"  # it is too long
                self.check_error(answers[2 * i], f"(?s)^line {2 * i + 1}: .*{pattern}",
                                 f"MYELIN_ERROR_{status}")
                self.assertEqual(answers[2 * i + 1]["num_tokens"], 1)

    def test_a_prompt_that_is_too_long_for_max_len(self):
        answer = self.good_lines("batch", values=[{"prompt": STORY, "max_len": 2}])[0]
        self.assertIn("error", answer)
        self.assertIn(answer["error"]["status"],
                      ("MYELIN_ERROR_ARGUMENT", "MYELIN_ERROR_CACHE_FULL"))

    def test_blank_lines_and_line_ends(self):
        stdin = b'\n  \t\r\n{"prompt": "a", "max_new_tokens": 1}\r\n\n{"prompt": 1}\n\n' \
                b'{"prompt": "a", "max_new_tokens": 1}'
        answers = [support.strict(line) for line in self.good("batch", stdin=stdin).splitlines()]
        self.assertEqual(len(answers), 3)
        self.check_error(answers[1], "^line 5: ")
        self.assertEqual(self.good("batch", stdin=b""), b"")
        self.assertEqual(self.good("batch", stdin=b"\n\n"), b"")

    def test_a_line_longer_than_is_read(self):
        stdin = b"x" * ((64 << 20) + 1) + b"\n" + support.lines([{"prompt": "a"}]) + \
            b'"' + b"y" * (65 << 20)
        answers = [support.strict(line)
                   for line in self.good("batch", "-n", 1, stdin=stdin).splitlines()]
        self.check_error(answers[0], "^line 1: .*67108864")
        self.assertEqual(answers[1]["num_tokens"], 1)
        self.check_error(answers[2], "^line 3: .*67108864")

    def test_text_that_has_no_tokenizer(self):
        answer = self.good_lines("batch", "-m", support.DATA / "models" / "tied-bf16",
                                 values=[{"prompt": "hi"}])[0]
        self.assertIn("tokenizer", answer["error"]["message"])


class Endings(TestCase):
    def test_file(self):
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "in.jsonl")
            with open(name, "wb") as file:
                file.write(support.lines([{"prompt": "a", "max_new_tokens": 1}]))
            self.assertEqual(self.good_json("batch", name)["num_tokens"], 1)
            self.assertIn("No such file", self.bad(1, "batch", name + "x"))
            self.assertIn("directory", self.bad(1, "batch", folder))
        self.bad(2, "batch", "a", "b")
        self.bad(2, "batch", "--batch-size", 0)
        self.bad(2, "batch", "-b", 1025)

    def test_interrupt(self):
        process = support.start("batch")
        process.stdin.write(support.lines([{"prompt": "a", "max_new_tokens": 1}] +
                                          [{"prompt": STORY, "ignore_eos": True,
                                            "max_new_tokens": 1900}] * 8))
        self.assertIn(b"num_tokens", process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, messages = process.communicate(timeout=60)
        self.assertEqual((process.returncode, messages), (130, b""))
        self.assertTrue(rest == b"" or rest.endswith(b"\n"))

    def test_a_reader_that_leaves(self):
        process = support.start("batch", "-n", 1)
        process.stdin.write(support.lines([{"prompt": "a"}]))
        self.assertTrue(process.stdout.readline())
        process.stdout.close()
        process.stdin.write(support.lines([{"prompt": "a"}] * 3))
        self.assertEqual(process.wait(timeout=60), 1)
        self.assertEqual(process.stderr.read(), b"")
        process.stdin.close()
        process.stderr.close()


if __name__ == "__main__":
    unittest.main()
