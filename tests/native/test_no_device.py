# SPDX-License-Identifier: Apache-2.0
"""Tests that are given the NVIDIA plug-in and find no device are skipped, and say why.

usage: test_no_device.py LIBRARY PROGRAMS, the shared object and the directory of the tests
"""
import os
import pathlib
import subprocess
import sys
import unittest

LIBRARY, PROGRAMS = sys.argv[1], pathlib.Path(sys.argv[2])
HIDDEN = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # where there are devices, no program sees them
SKIPPED = 77
TESTS = (["native_oracle"], ["native_wide"], ["native_pieces"], ["native_greedy"],
         ["native_draws"], ["model_invariance", "built"], ["model_paging", "built"],
         ["model_page_schedules", "built"])


def run(library, program, *arguments):
    command = [PROGRAMS / f"test_{program}", library, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=HIDDEN, timeout=60,
                          check=False)


class NoDevice(unittest.TestCase):
    def test_skipped(self):
        for program, *arguments in TESTS:
            for devices in ("", ":2"):
                with self.subTest(program=program, devices=devices):
                    done = run(LIBRARY + devices, program, *arguments)
                    self.assertEqual(done.returncode, SKIPPED, done.stdout + done.stderr)
                    self.assertIn("skipped: qwen3_cuda: no NVIDIA device", done.stderr)

    def test_faults(self):
        self.assertEqual(run(LIBRARY, "native_device_faults").returncode, SKIPPED)

    def test_a_library_that_is_not_there_is_no_reason_to_skip(self):
        done = run(LIBRARY + ".missing", "native_wide")
        self.assertNotIn(done.returncode, (0, SKIPPED))
        self.assertIn("cannot open shared object file", done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
