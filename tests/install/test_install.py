# SPDX-License-Identifier: Apache-2.0
"""Installs Myelin under a temporary prefix and uses it as a stranger would, through pkg-config."""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

PROGRAM = """
#include <myelin/myelin.h>
#include <stdio.h>
int main(void) {
    myelin_model *model;
    myelin_error error;
    if (myelin_model_open(&model, "/nowhere", NULL, &error) != MYELIN_ERROR_NOT_FOUND)
        return 1;
    puts(myelin_version());
    return 0;
}
"""
SOURCES = Path(__file__).resolve().parents[2]
HEADERS = ["config.h", "myelin.h", "plugin.h", "status.h", "tensor.h"]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wundef", "-Werror"]

options = None


def run(*command, **extra):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, **extra)
    if done.returncode != 0:
        raise AssertionError(f"{command} exited with {done.returncode}:\n{done.stdout}")
    return done.stdout


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.root = Path(cls.temporary.name)
        first = cls.root / "first"
        run(options.cmake, "--install", options.build, "--prefix", first)
        cls.prefix = cls.root / "moved"  # the tree must work wherever it is put
        first.rename(cls.prefix)
        cls.lib = cls.prefix / options.libdir
        cls.program = cls.root / "program.c"
        cls.program.write_text(PROGRAM)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def pkg_config(self, lib, *words):
        environment = {**os.environ, "PKG_CONFIG_PATH": str(lib / "pkgconfig")}
        return run("pkg-config", *words, "myelin", env=environment).split()

    def build(self, name, lib, *words, source=None):
        binary = self.root / name
        flags = self.pkg_config(lib, "--cflags", "--libs", *words)
        run(options.cc, "-std=c17", *WARNINGS, source or self.program, "-o", binary, *flags)
        return binary

    def assert_runs(self, binary, **environment):
        output = run(binary, env={**os.environ, **environment})
        self.assertEqual(output, options.version + "\n")

    def test_shared(self):
        binary = self.build("shared", self.lib)
        self.assertIn("libmyelin.so.0", run("readelf", "-d", binary))
        self.assert_runs(binary, LD_LIBRARY_PATH=str(self.lib))

    def test_static(self):
        lib = self.root / "static" / options.libdir
        shutil.copytree(self.prefix, self.root / "static")
        for shared in lib.glob("libmyelin.so*"):  # a linker that finds both takes the shared one
            shared.unlink()
        binary = self.build("static_program", lib, "--static")
        self.assertNotIn("libmyelin", run("readelf", "-d", binary))
        self.assert_runs(binary)

    def test_the_example_tells_the_story_of_the_command(self):
        story = self.build("story", self.lib, source=SOURCES / "examples/story.c")
        demo = self.prefix / "share/myelin/models/demo"
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self.lib)}
        told = run(story, demo, "Once upon a time", env=environment)
        command = run(self.prefix / "bin/myelin", "run", "Once upon a time",
                      env={k: v for k, v in os.environ.items() if k != "MYELIN_MODEL"})
        self.assertGreater(len(command), 80)
        text, summary = told.rstrip("\n").rsplit("\n", 1)
        self.assertEqual(text, command.rstrip("\n"))
        self.assertRegex(summary, r"^\[\d+ tokens, stop\]$")
        absent = subprocess.run([story, self.root / "absent"], capture_output=True, text=True,
                                check=False, env=environment)
        self.assertEqual((absent.returncode, absent.stdout), (3, ""))

    def test_pkg_config(self):
        self.assertEqual(self.pkg_config(self.lib, "--modversion"), [options.version])
        # Who links the shared library need not have its dependencies' development files.
        self.assertNotIn("-lpcre2-8", self.pkg_config(self.lib, "--libs"))
        self.assertIn("-lpcre2-8", self.pkg_config(self.lib, "--libs", "--static"))

    def test_only_our_names_are_exported(self):
        symbols = run("nm", "-D", "--defined-only", self.lib / "libmyelin.so").split("\n")
        names = {line.split()[-1] for line in symbols if line}
        self.assertIn("myelin_version", names)
        self.assertEqual({name for name in names if not name.startswith("myelin_")}, set())

    def test_every_declared_function_is_exported(self):
        symbols = run("nm", "-D", "--defined-only", self.lib / "libmyelin.so").split()
        declared = set()
        for name in HEADERS:
            text = (self.prefix / "include/myelin" / name).read_text()
            text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
            declared.update(re.findall(r"MYELIN_API[^;(]*?(myelin_\w+)\s*\(", text))
        self.assertGreater(len(declared), 10)
        self.assertEqual(declared - set(symbols), set())

    def test_each_header_stands_alone(self):
        include = self.prefix / "include"
        self.assertEqual(sorted(p.name for p in (include / "myelin").iterdir()), HEADERS)
        compilers = [[options.cc, "-x", "c", "-std=c99"]]
        if shutil.which("g++"):
            compilers.append(["g++", "-x", "c++", "-std=c++17"])
        for header in HEADERS:
            for compiler in compilers:
                with self.subTest(header=header, compiler=compiler):
                    source = self.root / "header.txt"
                    source.write_text(f"#include <myelin/{header}>\n" * 2)
                    run(*compiler, *WARNINGS, "-fsyntax-only", f"-I{include}", source)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("build", "libdir", "cmake", "cc", "version"):
        parser.add_argument(f"--{option}", required=True)
    options, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest])
