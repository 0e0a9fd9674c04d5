# SPDX-License-Identifier: Apache-2.0
"""scripts/check-layers on small trees: each wrong arrow is found at its line, right ones pass."""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

CHECKER = Path(__file__).resolve().parents[2] / "scripts" / "check-layers"

SOUND = {
    "include/myelin/status.h": "#include <stdint.h>\n",
    "include/myelin/config.h": "",
    "include/myelin/tensor.h": "",
    "include/myelin/plugin.h": '#include "myelin/tensor.h"\n',
    "include/myelin/myelin.h": '#include "myelin/status.h"\nenum { MYELIN_DEVICE_CUDA = 2 };\n',
    "src/base/error.h": '#include "myelin/status.h"\n',
    "src/base/error.c": '#include "base/error.h"\n#include "error.h"\n',
    "src/checkpoint/config.h": '#include "base/error.h"\n',
    "src/tensor/ops.h": '#include "base/error.h"\n#include "myelin/tensor.h"\n',
    "src/text/tokenizer.h": '#include "base/error.h"\n#include <pcre2.h>\n',
    "src/model/model.h": '#include "checkpoint/config.h"\n#include "tensor/ops.h"\n',
    "src/generate/session.h": '#include "model/model.h"\n#include "myelin/plugin.h"\n',
    "src/engine/engine.c": '#include "myelin/myelin.h"\n#include "text/tokenizer.h"\n'
                           '#include "generate/session.h"\nchar *name = "cuda";\n',
    "native/cpu/kernel.c": '#include <immintrin.h>\n#include "myelin/plugin.h"\n'
                           '#include "base/error.h"\n#ifdef __AVX2__\n#endif\n',
    "app/cli/main.c": '#include "cli.h"\n#include "myelin/myelin.h"\n#include <jansson.h>\n',
    "app/cli/cli.h": "",
    "examples/hello.c": "#include <myelin/myelin.h>\n",
    "examples/plugin/plugin.c": "#include <myelin/plugin.h>\n#include <myelin/status.h>\n"
                                "#include <math.h>\n",
}


def check(changes):
    """Runs the checker on the sound tree with some files changed: status and violations."""
    with tempfile.TemporaryDirectory() as root:
        for name, text in {**SOUND, **changes}.items():
            path = Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        done = subprocess.run([sys.executable, CHECKER, root], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
        return done.returncode, done.stdout.splitlines()


class CheckLayers(unittest.TestCase):
    def assert_refused(self, name, text, line, part):
        self.assert_each_refused([(name, text, line, part)])

    def assert_each_refused(self, cases):
        """Files (name, text, line, part) of one tree: just these violations, `part` in each."""
        status, found = check({name: text for name, text, _, _ in cases})
        self.assertEqual(status, 1, found)
        self.assertEqual(len(found), len(cases), found)
        for name, _, line, part in cases:
            violation = [text for text in found if text.startswith(f"{name}:{line}: ")]
            self.assertEqual(len(violation), 1, (name, found))
            self.assertIn(part, violation[0])

    def test_sound_tree_passes(self):
        self.assertEqual(check({}), (0, []))

    def test_arrows_that_point_the_wrong_way(self):
        wrong = [
            ("src/base/x.c", "tensor/ops.h"),
            ("src/base/x.c", "myelin/myelin.h"),
            ("src/checkpoint/x.c", "tensor/ops.h"),
            ("src/tensor/x.c", "checkpoint/config.h"),
            ("src/text/x.c", "tensor/ops.h"),
            ("src/model/x.c", "text/tokenizer.h"),
            ("src/model/x.c", "generate/session.h"),
            ("src/generate/x.c", "checkpoint/config.h"),
            ("src/generate/x.c", "myelin/myelin.h"),
            ("include/myelin/x.h", "base/error.h"),
            ("native/cpu/x.c", "tensor/ops.h"),
            ("native/cpu/x.c", "myelin/myelin.h"),
            ("app/cli/x.c", "base/error.h"),
            ("app/cli/x.c", "myelin/plugin.h"),
            ("examples/x.c", "myelin/tensor.h"),
            ("examples/x.c", "myelin/plugin.h"),
            ("examples/plugin/x.c", "myelin/myelin.h"),
            ("examples/plugin/x.c", "base/error.h"),
            ("examples/plugin/x.c", "tensor/ops.h"),
        ]
        cases = []
        for number, (name, header) in enumerate(wrong):
            stem, suffix = name.rsplit(".", 1)
            quoted = f'#include <stdio.h>\n#include "{header}"\n'
            angled = f"\n\n# include <{header}>\n"
            cases += [(f"{stem}{number}a.{suffix}", quoted, 2, header),
                      (f"{stem}{number}b.{suffix}", angled, 3, header)]
        self.assert_each_refused(cases)

    def test_a_way_round_by_relative_path(self):
        self.assert_refused("src/base/x.c", '#include "../tensor/ops.h"\n', 1, "src/tensor/ops.h")

    def test_header_that_is_not_there(self):
        self.assert_refused("src/base/x.c", '#include "base/gone.h"\n', 1, "base/gone.h")

    def test_file_outside_every_room(self):
        self.assert_refused("src/extra/x.c", "", 1, "no room")

    def test_processors_named_outside_native(self):
        codes = ("#include <immintrin.h>", "#include <arm_neon.h>", "#ifdef __AVX512F__",
                 "#if defined(__x86_64__)", "#if __aarch64__", "__m256 x;",
                 "x = _mm256_add_ps(x, x);", '__attribute__((target("avx2"))) void f(void);',
                 "#include <cuda_runtime.h>", "cudaMalloc(&p, 1);",
                 'if (__builtin_cpu_supports("avx")) {}')
        self.assert_each_refused(
            [(f"{room}/x{i}.c", f"\n{code}\n", 2, "processor")
             for i, code in enumerate(codes) for room in ("src/tensor", "app/cli")])

    def test_comments_may_name_anything(self):
        text = '/*\n * __AVX2__\n#include "tensor/ops.h"\n */\n// _mm256_add_ps\n'
        self.assertEqual(check({"src/base/x.c": text}), (0, []))

    def test_lines_after_a_comment_keep_their_numbers(self):
        text = '/* a\n b */\nchar *s = "/*";\n__m128 x;\n'
        self.assert_refused("src/base/x.c", text, 4, "__m128")

    def test_empty_tree_is_not_a_pass(self):
        with tempfile.TemporaryDirectory() as root:
            done = subprocess.run([sys.executable, CHECKER, root], capture_output=True)
            self.assertEqual(done.returncode, 1)


if __name__ == "__main__":
    unittest.main()
