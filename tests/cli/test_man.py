# SPDX-License-Identifier: Apache-2.0
"""The man pages say what --help says."""
import os
import pathlib
import re
import shutil
import subprocess
import unittest

from support import COMMANDS, TestCase

PAGES = pathlib.Path(os.environ["MYELIN_MAN_PAGES"])


def options_of_help(text):
    found = set()
    for line in text[:text.index("\nExamples:")].splitlines():
        match = re.match(r"  (?:(-\w), |    )(--[a-z-]+)", line)
        if match:
            found.update(option for option in match.groups() if option)
    return found


def options_of_page(text):
    found = set()
    for line in re.findall(r"(?m)^\.It (Fl .*)$", text):
        for name in re.findall(r"Fl (\S+)", line):
            found.add("-" + name)
    return found


class Pages(TestCase):
    def test_there_is_one_for_each_command(self):
        self.assertEqual(sorted(path.name for path in PAGES.iterdir()),
                         sorted(["myelin.1"] + [f"myelin-{command}.1" for command in COMMANDS]))

    def test_options_are_those_of_help(self):
        for command in COMMANDS:
            text = (PAGES / f"myelin-{command}.1").read_text(encoding="utf-8")
            options = options_of_help(self.good(command, "--help").decode())
            self.assertEqual(options_of_page(text), options, command)
            self.assertGreater(len(options), 4)

    def test_overview_names_the_commands(self):
        text = (PAGES / "myelin.1").read_text(encoding="utf-8")
        self.assertEqual(re.findall(r"(?m)^\.It Cm (\w+)$", text), [*COMMANDS, "help"])
        self.assertEqual(options_of_page(text), {"-h", "--help", "-V", "--version"})

    @unittest.skipUnless(shutil.which("mandoc"), "needs mandoc")
    def test_mandoc_finds_nothing_wrong(self):
        done = subprocess.run(["mandoc", "-Tlint", "-W", "warning", *PAGES.iterdir()],
                              capture_output=True, text=True, check=False)
        self.assertEqual((done.stdout, done.returncode), ("", 0))


if __name__ == "__main__":
    unittest.main()
