# SPDX-License-Identifier: Apache-2.0
"""bench/gpu_peers: what it says where something is missing, and its table and JSON of what bench says.

PyTorch is one of our own here, which has a GPU or has none; what its ways measure takes a real one.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "bench/gpu_peers"
SKIPPED = 77
ABSENT = 'raise ImportError("there is no torch here")\n'
WITHOUT_GPU = '''
class cuda:
    is_available = staticmethod(lambda: False)
'''
WITH_GPU = '''
__version__ = "0"
uint8 = None
class Tensor:
    def copy_(self, other): pass
zeros = empty_like = lambda *a, **k: Tensor()
class cuda:
    is_available = staticmethod(lambda: True)
    get_device_name = staticmethod(lambda: "a card")
    synchronize = empty_cache = staticmethod(lambda: None)
'''
BENCH = '''#!/bin/sh
echo "$@" >> "$0.calls"
echo '{"runs": [{"decode_tokens_per_second": 90}, {"decode_tokens_per_second": 100},
                {"decode_tokens_per_second": 130}]}'
'''


class Peers(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        (self.directory / "bin").mkdir()

    def run_with(self, torch, *arguments, bench=BENCH):
        (self.directory / "torch.py").write_text(torch)
        program = self.directory / "bin/myelin"
        program.write_text(bench)
        program.chmod(0o755)
        command = [sys.executable, "-B", PROGRAM, "--build", self.directory, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.directory)}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60,
                              check=False)

    def test_what_is_missing(self):
        for torch, message in ((ABSENT, "needs PyTorch with CUDA: there is no torch here"),
                               (WITHOUT_GPU, "needs an NVIDIA GPU: PyTorch sees none")):
            done = self.run_with(torch)
            self.assertEqual((done.returncode, done.stdout), (SKIPPED, ""))
            self.assertEqual(done.stderr, f"bench/gpu_peers: {message}\n")

    def test_wrong_usage(self):
        for arguments in (["qwen3-9b"], ["--ways", "gemv,none"], ["--tokens", "1"]):
            done = self.run_with(WITH_GPU, *arguments)
            self.assertEqual(done.returncode, 2)
            self.assertIn("expected", done.stderr)

    def test_json(self):
        done = self.run_with(WITH_GPU, "--ways", "myelin", "--json", "--tokens", "7", "qwen3-1.7b")
        self.assertEqual(done.returncode, 0, done.stderr)
        answer = json.loads(done.stdout)
        self.assertEqual(answer["card"]["name"], "a card")
        (row,) = answer["rows"]
        self.assertEqual((row["shape"], row["way"], row["myelin_ratio"]),
                         ("qwen3-1.7b", "myelin", 1))
        self.assertAlmostEqual(row["tokens_per_second"], 100)
        calls = (self.directory / "bin/myelin.calls").read_text()
        self.assertIn("--synthetic qwen3-1.7b -p 128 -n 7 -r 3", calls)

    def test_table(self):
        done = self.run_with(WITH_GPU, "--ways", "myelin")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertTrue(lines[0].startswith("a card, copies"))
        self.assertEqual([line.split() for line in lines[2:]],
                         [[shape, "myelin", "100.0", "90.0", "130.0", "1.00", "x"]
                          for shape in ("qwen3-0.6b", "qwen3-8b")])

    def test_bench_that_fails(self):
        done = self.run_with(WITH_GPU, "--ways", "myelin", bench="#!/bin/sh\necho no >&2; exit 1\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn("-n 256 -r 3: no", done.stderr)


if __name__ == "__main__":
    unittest.main()
