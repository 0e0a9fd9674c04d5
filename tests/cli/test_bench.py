# SPDX-License-Identifier: Apache-2.0
"""myelin bench: what it measures is there and hangs together. How much it is, no test can say."""
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
import unittest

import support
from support import TestCase

QUICK = ("--runs", "3", "-p", "20", "-n", "6")


def processor_flags():
    with open("/proc/cpuinfo", encoding="ascii") as file:
        return file.read().split()


def has_tiles():
    """As choose.c does: Linux is asked for the tiles, of which it may refuse a process some."""
    return "amx_bf16" in processor_flags() and ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0


class Bench(TestCase):
    def check(self, answer, runs):
        for name in ("prefill_tokens_per_second", "decode_tokens_per_second"):
            values = [run[name] for run in answer["runs"]]
            self.assertEqual(len(values), runs)
            self.assertGreater(min(values), 0)
            self.assertAlmostEqual(answer[name], statistics.median(values),
                                   delta=1e-6 * answer[name])
        rate = answer["machine"]["read_bytes_per_second"]
        self.assertGreater(rate, 1e8)
        self.assertGreater(answer["load_seconds"], 0)
        self.assertGreater(answer["peak_bytes"], answer["weight_bytes"])

    def test_json_form(self):
        answer = self.good_json("bench", "--json", *QUICK)
        self.check(answer, 3)
        limit = answer["machine"]["read_bytes_per_second"] / answer["weight_bytes"]
        self.assertAlmostEqual(answer["decode_share_of_read_limit"] * limit,
                               answer["decode_tokens_per_second"],
                               delta=1e-5 * answer["decode_tokens_per_second"])
        self.assertGreater(answer["peak_products_per_second"], 1e7)
        self.assertGreater(answer["prefill_share_of_peak"], 0)

    def test_says_how_weights_are_held(self):
        plain, packed = (self.good_json("bench", "--json", *QUICK, "--pack", how)
                         for how in ("none", "lossless"))
        self.assertEqual((plain["pack"], packed["pack"]), ("none", "lossless"))
        self.assertAlmostEqual(plain["held_bytes"] / plain["weight_bytes"], 1, delta=0.05)
        self.assertLess(packed["held_bytes"], 0.8 * packed["weight_bytes"])
        self.assertEqual(self.good_json("bench", "--json", *QUICK)["pack"], "none")  # a small model
        self.assertIn(b"packed without loss", self.good("bench", *QUICK, "--pack", "lossless"))

    def test_says_what_activations_are(self):
        plain, single, asked = (
            self.good_json("bench", "--json", *QUICK, *how)
            for how in ((), ("--activations", "f32"), ("--activations", "bf16")))
        self.assertEqual(plain["activations"], "bf16x2" if has_tiles() else "f32")
        self.assertEqual(single["activations"], "f32")
        if "avx512_bf16" not in processor_flags():
            self.assertEqual(asked["activations"], "f32")  # the wish is ignored
            self.skipTest("the processor has no AVX512_BF16")
        self.assertEqual(asked["activations"], "bf16")
        self.assertIn(b"rounded to bf16", self.good("bench", *QUICK, "--activations", "bf16"))
        f16 = self.good_json("bench", "--json", *QUICK, "--activations", "bf16", "--dtype", "f16")
        self.assertEqual(f16["activations"], "f32")  # not of other weights

    def test_says_that_activations_are_bytes(self):
        wish = ("--activations", "int8")
        dense = self.good_json("bench", "--json", *QUICK, *wish)
        self.assertEqual(dense["activations"], "bf16x2" if has_tiles() else "f32")
        with tempfile.TemporaryDirectory() as directory:
            model = ("-m", f"{directory}/made")
            self.good("quantize", support.DEMO, model[1])
            plain, asked = (self.good_json("bench", "--json", *QUICK, *model, *how)
                            for how in ((), wish))
            self.assertEqual(plain["activations"], "f32")
            if not {"avx512_vnni", "asimddp"}.intersection(processor_flags()):
                self.assertEqual(asked["activations"], "f32")
                self.skipTest("the processor has no dot products of bytes")
            self.assertEqual(asked["activations"], "int8")
            self.assertIn(b"rounded to bytes", self.good("bench", *QUICK, *model, *wish))

    def test_without_huge_pages(self):
        thp_disable = 41
        code = ("import ctypes, os, sys\n"
                f"if ctypes.CDLL(None).prctl({thp_disable}, 1, 0, 0, 0) != 0: sys.exit(77)\n"
                "os.execv(sys.argv[1], sys.argv[1:])")
        done = subprocess.run([sys.executable, "-c", code, support.BINARY, "bench", "--json", *QUICK],
                              capture_output=True, check=False)
        if done.returncode == 77:
            self.skipTest("the system does not let a process do without huge pages")
        self.assertEqual(done.returncode, 0, done.stderr)
        answer = json.loads(done.stdout)
        self.check(answer, 3)
        self.assertEqual(answer["huge_page_bytes"], 0)

    def test_depth_and_batch(self):
        self.check(self.good_json("bench", "--json", *QUICK, "--depth", "70"), 3)
        self.check(self.good_json("bench", "--json", *QUICK, "--batch", "3", "--sampled"), 3)
        self.check(self.good_json("bench", "--json", "-r", "1", "-p", "9", "-n", "3", "--batch",
                                  "150"), 1)

    def test_draws(self):
        draws = ("--sampled", "--top-k", "0", "--top-p", "0.5")
        self.check(self.good_json("bench", "--json", *QUICK, *draws), 3)

    def test_ladder(self):
        answer = self.good_json("bench", "--json", "--ladder", *QUICK)
        self.assertEqual(answer["ladder"][0]["rung"], "composed")
        for rung in answer["ladder"]:
            self.assertEqual(len(rung["runs"]), 3)
        self.assertTrue(answer["ladder"][0]["same_tokens"])

    def test_table(self):
        lines = self.good("bench", *QUICK).decode().splitlines()
        self.assertEqual(len(lines), 6)
        self.assertIn("GB/s", lines[1])
        self.assertIn("GFLOP/s", lines[3])
        self.assertRegex(lines[5], r"t/s +[0-9]+% +[0-9.]+ t/s +[0-9]+%$")

    def test_no_peak(self):
        composed = self.good_json("bench", "--json", "--fusion", "composed", *QUICK)
        self.assertNotIn("peak_products_per_second", composed)

    def test_wrong_usage(self):
        for arguments, message in (
                (("--bits", "4"), "--bits needs --synthetic"),
                (("--top-k", "0"), "--top-k and --top-p need --sampled"),
                (("--top-p", "1"), "--top-k and --top-p need --sampled"),
                (("--ladder", "--fusion", "layer"), "exclude each other"),
                (("--synthetic", "qwen3-0.6b", "-m", "x"), "exclude each other"),
                (("x",), "expected no argument"),
                (("--runs", "0"), "--runs")):
            done = support.myelin("bench", *arguments)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertIn(message, done.stderr.decode())
        done = support.myelin("bench", "--synthetic", "qwen4-1b")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("expected qwen3-0.6b", done.stderr.decode())


if __name__ == "__main__":
    unittest.main()
