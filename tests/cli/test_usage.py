# SPDX-License-Identifier: Apache-2.0
"""Help, version, and what wrong usage gets."""
import re
import subprocess
import unittest

import support
from support import COMMANDS, TestCase

LATER = ("pull",)


class Help(TestCase):
    def test_overview(self):
        text = self.good("--help").decode()
        for command in COMMANDS:
            self.assertRegex(text, rf"(?m)^  {command} ")
        for command in LATER:
            self.assertNotIn(command, text)
        self.assertEqual(self.good("help"), self.good("-h"))
        self.assertEqual(self.good("help", "help").decode(), text)

    def test_no_command(self):
        done = support.myelin()
        self.assertEqual((done.returncode, done.stdout), (2, b""))
        self.assertEqual(done.stderr, self.good("--help"))

    def test_each_command(self):
        for command in COMMANDS:
            text = self.good(command, "--help").decode()
            self.assertTrue(text.startswith(f"Usage: myelin {command} "))
            self.assertIn("Examples:\n  ", text)
            self.assertLessEqual(max(map(len, text.splitlines())), 80)
            self.assertEqual(self.good("help", command).decode(), text)
            self.assertEqual(self.good(command, "-h").decode(), text)
            if command != "serve":
                self.assertEqual(self.good(command, "--json", "--help").decode(), text)

    def test_examples_name_real_options(self):
        for command in COMMANDS:
            text = self.good(command, "--help").decode()
            examples = text[text.index("Examples:"):]
            options = text[:text.index("Examples:")]
            for option in re.findall(r"(?<![\w-])--[a-z-]+", examples):
                self.assertIn(option, options)

    def test_version(self):
        self.assertRegex(self.good("--version").decode(), r"^myelin \d+\.\d+\.\d+\n$")
        self.assertEqual(self.good("-V"), self.good("--version"))

    def test_help_to_nowhere(self):
        done = subprocess.run(["sh", "-c", '"$0" run --help >&-', support.BINARY],
                              stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"standard output", done.stderr)


class Wrong(TestCase):
    def test_unknown_commands(self):
        for word, meant in (("rnu", "run"), ("bnch", "bench"), ("batsh", "batch"), ("tokenise", "tokenize"),
                            ("insp", "inspect"), ("detokenise", "detokenize"), ("scor", "score")):
            message = self.bad(2, word)
            self.assertIn(f'unknown command "{word}" (did you mean {meant}?)', message)
            self.assertIn("try 'myelin --help'", message)
        for word in LATER + ("frobnicate", "", "-x", "--verbose", "x" * 500, "Run me"):
            message = self.bad(2, word)
            self.assertIn("unknown command", message)
        self.assertNotIn("mean", self.bad(2, "frobnicate"))
        self.assertIn("unknown command", self.bad(2, "help", "pull"))
        self.bad(2, "help", "run", "batch")

    def test_unknown_options(self):
        for command in COMMANDS:
            message = self.bad(2, command, "--frobnicate")
            self.assertIn("unknown option --frobnicate", message)
            self.assertIn(f"try 'myelin {command} --help'", message)
            self.bad(2, command, "-Z")
            self.bad(2, command, "--modle", "x")
        self.assertIn("did you mean --top-k?", self.bad(2, "run", "--top_k", 5, "hello"))
        self.assertIn("did you mean --threads?", self.bad(2, "run", "--thread=5", "hello"))
        self.assertIn("unknown option --tools", self.bad(2, "run", "--tools", "hello"))

    def test_arguments_of_options(self):
        for option in ("-m", "--model", "--device", "--threads"):
            self.assertIn("needs an argument", self.bad(2, "run", "hello", option))
        self.assertIn("takes no argument", self.bad(2, "run", "--json=1", "hello"))
        self.assertIn("takes no argument", self.bad(2, "run", "-qv", "hello"))
        self.assertIn("--threads", self.bad(2, "run", "--threads=", "hello"))

    def test_too_many_words(self):
        for command, words in (("run", 2), ("batch", 2), ("score", 2), ("tokenize", 2),
                               ("detokenize", 2), ("inspect", 2)):
            self.assertIn("expected one", self.bad(2, command, *["x"] * words))


if __name__ == "__main__":
    unittest.main()
