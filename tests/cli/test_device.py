# SPDX-License-Identifier: Apache-2.0
"""--device: what is said where there is no GPU, and that auto then goes on with the CPU."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import support
from support import TestCase

PLUGIN = pathlib.Path(os.environ["MYELIN_CUDA_PLUGIN"])


def has_gpu():
    return pathlib.Path("/dev/nvidiactl").exists()


class Device(TestCase):
    def setUp(self):
        """The program and the plug-in beside it, as they are when installed together."""
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.program = pathlib.Path(self.directory.name) / "myelin"
        shutil.copy(support.BINARY, self.program)
        shutil.copy(PLUGIN, self.directory.name)

    def run_with(self, *options):
        command = [self.program, "run", "-q", "-m", support.DEMO, "--max-new-tokens", "5", *options,
                   "Once upon a time"]
        return subprocess.run(command, capture_output=True, env=support.environment(), timeout=120,
                              check=False)

    def test_the_plugin_beside_the_program_is_found_and_says_what_is_missing(self):
        done = self.run_with("--device", "cuda")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"qwen3_cuda: no NVIDIA device", done.stderr)

    def test_by_path(self):
        done = self.run_with("--plugin", str(PLUGIN))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"no NVIDIA device", done.stderr)

    def test_several_devices(self):
        done = self.run_with("--tensor-parallel", "2")  # which no CPU takes the place of
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"qwen3_cuda: no NVIDIA device", done.stderr)
        done = self.run_with("--tensor-parallel", "3")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"num_key_value_heads is 4: expected what 3 devices divide", done.stderr)

    def test_auto_goes_on_with_the_cpu(self):
        auto, cpu = self.run_with(), self.run_with("--device", "cpu")
        self.assertEqual((auto.returncode, auto.stderr), (0, b""))
        self.assertEqual(auto.stdout, cpu.stdout)

    def test_without_the_plugin(self):
        (pathlib.Path(self.directory.name) / PLUGIN.name).unlink()
        done = self.run_with("--device", "cuda")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(PLUGIN.name.encode() + b" is neither in", done.stderr)


if __name__ == "__main__":
    if not PLUGIN.exists() or has_gpu():
        sys.exit(77)  # not built, or there is a GPU: bench/gpu tests what happens then
    unittest.main()
