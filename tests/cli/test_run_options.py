# SPDX-License-Identifier: Apache-2.0
"""Generation options: what they do, and that a wrong one is refused by its name."""
import json
import os
import tempfile
import unittest

import support
from support import TestCase

STORY = "Once upon a time"

OUT_OF_RANGE = {
    "--max-new-tokens": ["0", "-1", "16777217", "99999999999999999999", "1.5", "x", "", " 5", "5 "],
    "-n": ["0", "0x10"],
    "--max-len": ["0", "-5", "16777217", "ten"],
    "--sampler": ["", "Greedy", "random"],
    "--temperature": ["-0.1", "1001", "nan", "inf", "1e999", "0x1", "", "1,5", "1.0.0"],
    "-t": ["-1"],
    "--top-k": ["-1", "2147483648", "1.0"],
    "--top-p": ["0", "-1", "1.01", "nan"],
    "--min-p": ["-0.1", "1.1"],
    "--repetition-penalty": ["0", "-1", "1001"],
    "--presence-penalty": ["-1001", "1001", "no"],
    "--frequency-penalty": ["-1001", "1001", "inf"],
    "--logit-bias": ["5", "=1", "x=1", "-1=1", "5=", "5=x", "5=inf", "5=nan", "5=1e39",
                     "2147483648=1", "1" * 100 + "=1"],
    "--seed": ["-1", "18446744073709551616", "1.5", "+1"],
    "--stop": [""],
    "--stop-id": ["-1", "2147483648", "x"],
    "--sync": ["0", "-1", "sometimes", "", "16777217"],
    "--stream": ["fast"],
    "--top-logprobs": ["-1", "65"],
    "--device": ["gpu"],
    "--dtype": ["int8", "F32"],
    "--tensor-parallel": ["0", "65"],
    "--threads": ["0", "-1", "1025", "0x"],
    "--fusion": ["all"],
    "--pack": ["zip"],
    "--activations": ["f16", "BF16", "int4", ""],
}


class Refusals(TestCase):
    def test_every_option_out_of_range(self):
        for option, arguments in OUT_OF_RANGE.items():
            for argument in arguments:
                message = self.bad(2, "run", "--json", option, argument, STORY)
                self.assertIn("expected ", message, (option, argument))
                self.assertIn("found", message, (option, argument))
                if option.startswith("--"):
                    self.assertIn(option + ":", message)

    def test_message_names_range_and_value(self):
        message = self.bad(2, "run", "--threads", "0x", STORY)
        self.assertEqual(message, "myelin run: --threads: expected an integer from 1 to 1024, "
                                  "found \"0x\"; try 'myelin run --help'\n")

    def test_ids_the_model_does_not_have(self):
        self.bad(2, "run", "--logit-bias", "6400=1", STORY)

    def test_too_many(self):
        options = [word for i in range(65) for word in ("--stop", f"s{i}")]
        self.assertIn("more than 64", self.bad(2, "run", *options, STORY))
        options = [word for i in range(65) for word in ("--stop-id", i)]
        self.assertIn("more than 64", self.bad(2, "run", *options, STORY))

    def test_logprobs_need_json(self):
        self.assertIn("--json", self.bad(2, "run", "--logprobs", STORY))
        self.assertIn("--json", self.bad(2, "run", "--top-logprobs", 2, STORY))

    def test_ends_of_ranges_are_accepted(self):
        for option, argument in (("--temperature", "1000"), ("--top-p", "1"), ("--min-p", "1"),
                                 ("--top-k", "2147483647"), ("--seed", "18446744073709551615"),
                                 ("--repetition-penalty", "1000"), ("--logit-bias", "5=-1e30"),
                                 ("--sync", "16777216"), ("--max-new-tokens", "16777216"),
                                 ("--threads", "1"), ("--presence-penalty", "-1000")):
            self.good("run", option, argument, "--max-len", 8, STORY)


class Effects(TestCase):
    def ids(self, *options, count=12):
        return self.good_json("run", "--json", "-n", count, *options, STORY)["token_ids"]

    def test_greedy_in_every_spelling(self):
        greedy = self.ids()
        for options in (["--sampler", "greedy"], ["--temperature", "0"], ["-t0", "--top-k", "5"],
                        ["--sampler", "sampled", "--top-k", "1"], ["--top-k=1", "--seed", "9"],
                        ["--min-p", "1"], ["--sampler", "sampled", "--temperature", "0"]):
            self.assertEqual(self.ids(*options), greedy, options)

    def test_the_seed_decides(self):
        texts = [tuple(self.ids("-t", "1.5", "--top-k", 0, "--top-p", 1, "--seed", seed))
                 for seed in (1, 1, 2, 3, 18446744073709551615)]
        self.assertEqual(texts[0], texts[1])
        self.assertGreater(len(set(texts)), 2)

    def test_sampling_begins_with_what_the_model_asks_for(self):
        # generation_config.json of the demo: temperature 0.6, top_k 20, top_p 0.95.
        for seed in range(4):
            asked = self.ids("--sampler", "sampled", "--seed", seed)
            spelt = self.ids("-t", "0.6", "--top-k", 20, "--top-p", "0.95", "--seed", seed)
            self.assertEqual(asked, spelt)

    def test_threads_do_not_matter(self):
        self.assertEqual(self.ids("--threads", 1), self.ids("--threads", 3))

    def test_logit_bias(self):
        first = self.ids(count=1)[0]
        self.assertNotEqual(self.ids("--logit-bias", f"{first}=-inf", count=1)[0], first)
        self.assertEqual(self.ids("--logit-bias", "77=1000", count=3), [77, 77, 77])

    def test_stop_ids_and_eos(self):
        ids = self.ids()
        stopped = self.ids("--stop-id", ids[5], "--stop-id", 6399)
        self.assertEqual(stopped, ids[:ids.index(ids[5]) + 1])
        prompt = support.evaluation()[0]["prompt"]
        for options, more in (([], False), (["--ignore-eos"], True), (["--stop-id", 6399], True)):
            answer = self.good_json("run", "--json", "-n", 40, *options, prompt)
            self.assertEqual(answer["num_tokens"] == 40, more, options)

    def test_stop_strings(self):
        whole = self.good("run", "-n", 60, STORY).decode()
        word = whole.split()[6]
        answer = self.good_json("run", "--json", "-n", 60, "--stop", "not there", "--stop", word,
                                STORY)
        self.assertEqual(answer["text"], whole[:whole.index(word)])
        self.assertEqual(answer["finish_reason"], "stop")
        streamed = self.good("run", "-n", 60, "--stop", word, STORY).decode()
        self.assertEqual(streamed, answer["text"] + "\n")

    def test_penalties(self):
        plain = self.ids(count=40)
        for option, value in (("--repetition-penalty", 5), ("--presence-penalty", 20),
                              ("--frequency-penalty", 20)):
            changed = self.ids("--ignore-eos", option, value, count=40)
            self.assertNotEqual(changed, plain, option)
            self.assertGreater(len(set(changed)), 38, option)

    def test_max_len_ends_a_text(self):
        count = len(self.good_json("tokenize", STORY))
        answer = self.good_json("run", "--json", "--max-len", count + 3, STORY)
        self.assertEqual((answer["num_tokens"], answer["finish_reason"]), (4, "length"))

    def test_dtype_and_fusion(self):
        self.assertEqual(self.ids("--dtype", "f32"), self.ids())
        self.assertEqual(self.ids("--dtype", "bf16"), self.ids())
        self.assertEqual(self.ids("--fusion", "composed"), self.ids("--device", "cpu"))

    def test_json_schema(self):
        schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 7, "maximum": 9},
                                                   "s": {"enum": ["x", "y"]}}, "required": ["n", "s"]}
        text = json.dumps(schema)
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "schema.json")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            for argument in (text, path):
                answer = self.good_json("run", "--json", "--json-schema", argument, STORY)
                self.assertEqual(answer["finish_reason"], "stop")
                value = json.loads(answer["text"])
                self.assertEqual(list(value), ["n", "s"])
                self.assertIn(value["n"], range(7, 10))
                self.assertIn(value["s"], "xy")

    def test_json_schema_refusals(self):
        message = self.bad(2, "run", "--json-schema", '{"items": {"not": {}}}', STORY)
        self.assertIn('"not" at #/items/not: not supported', message)
        self.assertIn("cannot read", self.bad(2, "run", "--json-schema", "/no/such/file", STORY))
        self.assertIn("invalid JSON", self.bad(2, "run", "--json-schema", "{", STORY))

    def test_drafts_change_no_text(self):
        conversations = support.evaluation()[:24:3]
        for i, case in enumerate(conversations):
            text = case["messages"][-1]["content"] if "messages" in case else case["prompt"]
            options = ["--chat"] + (["--sampler", "sampled", "--seed", i] if i % 2 else [])
            plain, drafted = [self.good_json("run", "--json", "-n", 60, *options, *more, "--", text)
                              for more in ([], ["--speculate"])]
            for name in ("token_ids", "text", "finish_reason"):
                self.assertEqual(drafted[name], plain[name], text)

    def test_the_last_one_counts(self):
        self.assertEqual(len(self.ids("-n", 2, "--max-new-tokens=3", "-n4")), 4)


if __name__ == "__main__":
    unittest.main()
