# SPDX-License-Identifier: Apache-2.0
"""Plug-ins with one fault each are refused with a message saying which; a sound one runs."""
import os
import pathlib
import tempfile
import unittest

import support
from support import TestCase

PLUGINS = pathlib.Path(os.environ["MYELIN_PLUGINS"])
CALLBACKS = ("probe", "load", "free_model", "sequence_bytes", "create_sequence", "free_sequence",
             "sequence_length", "truncate_sequence", "context_bytes", "create_context",
             "free_context", "forward")
PAGES = ("page_bytes", "create_pool", "free_pool", "create_paged_sequence", "set_pages",
         "copy_page")
# What is wrong -> what is said. These are noticed before the weights are loaded:
TABLES = {
    "symbol": "no symbol myelin_plugin_v1",
    "null": r"myelin_plugin_v1\(\) returned NULL",
    "magic": "wrong magic: expected 0x4d594c4e, found 0x12345678",
    "version": "wrong ABI version: expected 1, found 2",
    "size": "wrong struct_size: expected at least [0-9]+, found",
    "name": "missing name",
    "duplicate": 'duplicate name: "composed"',
    "fusion": "max_fusion: expected 1 to 7, found 8",
    "probe": "sevens: no such processor",
    "status": r"sevens: probe\(\) returned 77, which is no status",
    "unterminated": "sevens: xxxx",
}
# and these later.
CALLS = {
    "load": "sevens: weights too heavy",
    "load_null": r"sevens: load\(\) succeeded but made nothing",
    "sequence": "no room for a sequence",
    "sequence_null": r"create_sequence\(\) succeeded but made nothing",
    "context": "no scratch memory left",
    "forward": "sevens: the device went away",
}


def plugin(name):
    return PLUGINS / f"{name}.so"


class Broken(TestCase):
    def refused(self, *arguments):
        done = support.myelin(*arguments)
        self.assertIn(done.returncode, (1, 3), done.stderr)
        self.assertEqual(done.stdout.strip(), b"")
        return done.stderr.decode()

    def test_tables(self):
        for name, message in TABLES.items():
            for command in (["run", "Hello"], ["inspect"]):
                self.assertRegex(self.refused(*command, "--plugin", plugin(name)), message)

    def test_missing_callbacks(self):
        for name in CALLBACKS:
            said = self.refused("inspect", "--plugin", plugin("without_" + name))
            self.assertIn(f"missing callback: {name} is NULL", said)

    def test_some_of_pages(self):
        for name in PAGES:
            said = self.refused("inspect", "--plugin", plugin("without_" + name))
            self.assertIn(f"missing callback: {name} is NULL, though others for pages are there",
                          said)
        self.good("inspect", "--plugin", plugin("pages"))  # all of them
        self.good("inspect", "--plugin", plugin("sevens"))  # none

    def test_step_tokens_out_of_range(self):
        for step in (-1, 1, 15, 65537):
            said = self.refused("inspect", "--plugin", plugin(f"step_{step}"))
            self.assertIn(f"step_tokens: expected 0 or 16 to 65536, found {step}", said)
        for step in (16, 65536):
            self.good("inspect", "--plugin", plugin(f"step_{step}"))

    def test_step_tokens(self):
        """Its contexts are for as many as it asks for, and prompts come in such pieces."""
        for step, length in ((16, 50), (300, 700)):
            asks = plugin(f"step_{step}")
            ids = [1] * length
            self.good("bench", "-p", length, "-n", 2, "-r", 1, "--plugin", asks)
            answer, = self.good_lines("batch", "--plugin", asks,
                                      values=[{"prompt_ids": ids, "max_new_tokens": 2}])
            self.assertNotIn("error", answer)

    def test_failing_calls(self):
        for name, message in CALLS.items():
            self.assertRegex(self.refused("run", "Hello", "--plugin", plugin(name)), message)

    def test_failing_forward_of_other_commands(self):
        said = self.refused("bench", "-p", 4, "-n", 2, "-r", 1, "--plugin", plugin("forward"))
        self.assertIn(CALLS["forward"], said)
        done = support.myelin("batch", "--plugin", plugin("forward"),
                              stdin=support.lines([{"prompt_ids": [1, 2]}]))
        self.assertEqual(done.returncode, 1)
        self.assertIn(CALLS["forward"], done.stderr.decode())
        self.check_error(support.strict(done.stdout), CALLS["forward"], "MYELIN_ERROR_DEVICE")
        answer, = self.good_lines("score", "--plugin", plugin("forward"), values=[{"ids": [1, 2]}])
        self.check_error(answer, CALLS["forward"], "MYELIN_ERROR_DEVICE")

    def test_failing_decode_greedy(self):
        for name, status, message in (
                ("greedy", 1, "sevens: no more tokens"),
                ("greedy_id", 1, "sevens: decode_greedy gave token id 6400: expected 0 to 6399")):
            done = support.myelin("run", "Hello", "--plugin", plugin(name))
            self.assertIn(message, done.stderr.decode())
            self.assertEqual(done.returncode, status)
            self.assertEqual(done.stdout.strip(), b"(")  # forward() made the first token

    def test_failing_decode_sample(self):
        done = support.myelin("run", "Hello", "--temperature", 1, "--top-k", 1, "--plugin",
                              plugin("sample_id"))
        self.assertIn("sevens: decode_sample gave token id 6400: expected 0 to 6399",
                      done.stderr.decode())
        self.assertEqual((done.returncode, done.stdout.strip()), (1, b"("))

    def test_a_table_from_before_decode_sample(self):
        """What lies behind its end is not called."""
        told = self.good("run", "Hello", "-n", 3, "--temperature", 1, "--top-k", 1, "--plugin",
                         plugin("older"))
        self.assertEqual(told, self.good("run", "Hello", "-n", 3, "--plugin", plugin("sevens")))

    def test_files_that_are_none(self):
        self.assertIn("no such plug-in", self.refused("inspect", "--plugin", "/nowhere/p.so"))
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            file.write(b"\x7fELF")
            file.flush()
            self.assertIn("cannot be opened", self.refused("inspect", "--plugin", file.name))

    def test_too_high_a_rung(self):
        said = self.refused("inspect", "--plugin", plugin("sevens"), "--fusion", "chunk")
        self.assertIn("plug-in sevens goes up to rung 1", said)

    def test_sound(self):
        sound = plugin("sevens")
        self.assertEqual(self.good_json("inspect", "--json", "--plugin", sound)["plugin"],
                         "sevens")
        told = self.good("run", "Hello", "-n", 3, "--plugin", sound)
        seven = self.good_json("detokenize", "[7, 7, 7]")
        self.assertEqual(told.decode().strip(), seven.strip())

    def test_asked_once(self):
        self.good("run", "Hello", "-n", 3, "--plugin", plugin("twice"))

    def test_bench_names_it(self):
        told = self.good_json("bench", "--json", "-p", 4, "-n", 2, "-r", 1, "--plugin",
                              plugin("sevens"))
        self.assertEqual(told["plugin"], "sevens")
        self.assertIn(b"sevens", self.good("bench", "-p", 4, "-n", 2, "-r", 1, "--plugin",
                                           plugin("sevens")))

    def test_cuda_that_is_not_there(self):
        said = self.refused("inspect", "--device", "cuda")
        self.assertIn("libmyelin_qwen3_cuda.so is neither in", said)


if __name__ == "__main__":
    unittest.main()
