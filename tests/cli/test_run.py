# SPDX-License-Identifier: Apache-2.0
"""myelin run: results, streaming, interrupts, prompts."""
import os
import signal
import subprocess
import unittest

import support
from support import TestCase

STORY = "Once upon a time"


class Results(TestCase):
    def test_answers_as_the_reference(self):
        right = 0
        for item in support.evaluation()[:30:3]:
            if item["min_gap"] <= support.SMALLEST_GAP or not item["complete"]:
                continue
            out = self.good("run", "-n", 64, item["prompt"]).decode()
            self.assertEqual(out.rstrip("\n"), item["output"].rstrip("\n"))
            right += 1
        self.assertGreater(right, 5)

    def test_text_ends_in_one_newline(self):
        out = self.good("run", "-n", 20, STORY)
        self.assertRegex(out, rb"[^\n]\n$")

    def test_json_form(self):
        out = self.good("run", "--json", "-n", 7, STORY)
        self.assertEqual(out.count(b"\n"), 1)
        answer = support.strict(out)
        self.assertEqual(sorted(answer), ["finish_reason", "num_tokens", "text", "timing",
                                          "token_ids", "token_summary"])
        self.assertEqual(answer["num_tokens"], 7)
        self.assertEqual(len(answer["token_ids"]), 7)
        self.assertEqual(answer["finish_reason"], "length")
        prompt = self.good_json("tokenize", STORY)
        self.assertEqual(answer["token_summary"],
                         {"input": len(prompt), "cached": 0, "output": 7})
        self.assertEqual(sorted(answer["timing"]), ["per_token_ms", "prefill_ms", "total_ms"])
        for value in answer["timing"].values():
            self.assertIsInstance(value, float)
            self.assertGreater(value, 0)
        text = self.good("run", "-n", 7, STORY).decode()
        self.assertEqual(answer["text"] + "\n", text)

    def test_logprobs(self):
        answer = self.good_json("run", "--json", "-n", 4, "--top-logprobs", 3, STORY)
        self.assertEqual(len(answer["logprobs"]), 4)
        self.assertEqual([len(top) for top in answer["top_logprobs"]], [3] * 4)
        for token, logprob, top in zip(answer["token_ids"], answer["logprobs"],
                                       answer["top_logprobs"]):
            self.assertEqual(top[0], {"id": token, "logprob": logprob})
            self.assertLessEqual(logprob, 0)
        only = self.good_json("run", "--json", "-n", 4, "--logprobs", STORY)
        self.assertEqual(only["logprobs"], answer["logprobs"])
        self.assertNotIn("top_logprobs", only)

    def test_stop_token_is_in_the_ids_and_not_in_the_text(self):
        item = support.evaluation()[0]
        answer = self.good_json("run", "--json", item["prompt"])
        self.assertEqual(answer["finish_reason"], "stop")
        self.assertEqual(answer["token_ids"], item["output_ids"])
        self.assertEqual(answer["text"], item["output"])

    def test_timing_is_said_on_standard_error(self):
        done = support.myelin("run", "-v", "-n", 5, STORY)
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr.decode(),
                         r"^myelin run: \d+ tokens read in .* 5 written, .* tokens/s, .*\n$")


class Streaming(TestCase):
    def test_every_way_gives_the_same_text(self):
        whole = self.good("run", "-n", 60, "--ignore-eos", STORY)
        for mode in ("token", "stable"):
            for sync in ("token", "end", "chunk", "1", "7"):
                out = self.good("run", "-n", 60, "--ignore-eos", "--stream", mode, "--sync", sync,
                                STORY)
                self.assertEqual(out, whole, f"{mode} {sync}")

    def test_pieces_come_before_the_end(self):
        process = support.start("run", "-n", 300, "--ignore-eos", STORY)
        first = os.read(process.stdout.fileno(), 1 << 16)
        pieces = 1
        self.assertLess(len(first), 100)
        while os.read(process.stdout.fileno(), 1 << 16):
            pieces += 1
        process.communicate()
        self.assertGreater(pieces, 20)
        self.assertEqual(process.returncode, 0)

    def test_sync_end_gives_one_piece(self):
        process = support.start("run", "-n", 30, "--ignore-eos", "--sync", "end", STORY)
        os.read(process.stdout.fileno(), 1 << 16)
        rest = process.stdout.read()
        process.communicate()
        self.assertLessEqual(len(rest), 1)  # the newline at the end

    def test_a_reader_that_leaves_stops_it_quietly(self):
        process = support.start("run", "-n", 1500, "--ignore-eos", STORY)
        self.assertTrue(os.read(process.stdout.fileno(), 1))
        process.stdout.close()
        self.assertEqual(process.stderr.read(), b"")
        self.assertEqual(process.wait(timeout=60), 1)
        process.stdin.close()
        process.stderr.close()

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs /dev/full")
    def test_a_full_disk_is_said(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([support.BINARY, "run", "-n", "3", STORY], stdout=full,
                                  stderr=subprocess.PIPE, env=support.environment(), check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"cannot write to standard output", done.stderr)

    def test_no_standard_output_at_all(self):
        done = subprocess.run(["sh", "-c", 'exec "$0" run -n 3 hello >&-', support.BINARY],
                              stderr=subprocess.PIPE, env=support.environment(), check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"cannot write to standard output", done.stderr)


class Interrupts(TestCase):
    def test_interrupt_ends_the_text(self):
        process = support.start("run", "-n", 1500, "--ignore-eos", STORY)
        first = os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        rest, messages = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertTrue((first + rest).endswith(b"\n"))
        self.assertEqual(messages, b"")

    def test_interrupt_while_waiting_for_the_prompt(self):
        process = support.start("run")
        self.wait_until_it_reads(process)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=60), 130)
        process.communicate()

    def wait_until_it_reads(self, process):
        """Until it blocks on standard input: then what we write has been taken."""
        import fcntl
        import time
        process.stdin.write(b"x")
        for _ in range(3000):
            left = fcntl.ioctl(process.stdin.fileno(), 0x541B, b"\0\0\0\0")  # FIONREAD
            if left == b"\0\0\0\0":
                return
            time.sleep(0.01)
        self.fail("it does not read its standard input")


class Prompts(TestCase):
    def test_standard_input_is_the_prompt(self):
        expected = self.good("run", "-n", 12, STORY)
        self.assertEqual(self.good("run", "-n", 12, stdin=STORY), expected)
        self.assertEqual(self.good("run", "-n", 12, "-", stdin=STORY), expected)

    def test_newlines_of_the_prompt_count(self):
        item = support.evaluation()[0]
        self.assertTrue(item["prompt"].endswith("\n"))
        out = self.good("run", stdin=item["prompt"]).decode()
        self.assertEqual(out.rstrip("\n"), item["output"])

    def test_a_prompt_may_look_like_an_option(self):
        self.good("run", "-n", 2, "--", "--json")

    def test_nul_is_a_character(self):
        answer = self.good_json("run", "--json", "-n", 2, stdin=b"a\0b")
        ids = self.good_lines("tokenize", values=['"a\\u0000b"'])[0]
        self.assertEqual(answer["token_summary"]["input"], len(ids))
        self.assertGreater(len(ids), 2)

    def test_invalid_utf8(self):
        for text in (b"a\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"end \xe2\x82"):
            self.assertIn("UTF-8", self.bad(2, "run", stdin=text))
        self.bad(2, "run", b"\xff".decode(errors="surrogateescape"))

    def test_empty(self):
        self.assertIn("empty", self.bad(2, "run", ""))
        self.assertIn("empty", self.bad(2, "run", stdin=b""))

    def test_longer_than_the_cache(self):
        message = self.bad(2, "run", "--max-len", 3, "one two three four five six")
        self.assertIn("(max_len) holds 3", message)
        self.bad(2, "run", stdin=b"word " * 5000)

    def test_a_prompt_that_fills_the_cache_gives_one_token(self):
        ids = self.good_json("tokenize", STORY)
        answer = self.good_json("run", "--json", "--max-len", len(ids), STORY)
        self.assertEqual((answer["num_tokens"], answer["finish_reason"]), (1, "length"))

    def test_two_prompts(self):
        self.assertIn("quote", self.bad(2, "run", "one", "two"))

    def test_a_model_without_a_tokenizer(self):
        message = self.bad(3, "run", "-m", support.DATA / "models" / "tied-bf16", "hello")
        self.assertIn("tokenizer.json", message)

    def test_special_tokens_can_be_read_as_text(self):
        counts = [self.good_json("run", "--json", "-n", 1, *option, "<|im_end|>")
                  ["token_summary"]["input"] for option in ([], ["--no-special"])]
        self.assertEqual(counts[0], 1)
        self.assertGreater(counts[1], 1)


if __name__ == "__main__":
    unittest.main()
