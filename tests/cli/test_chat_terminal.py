# SPDX-License-Identifier: Apache-2.0
"""myelin chat on a terminal of its own: keys typed through tmux, the screen read back."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import support

PATIENCE = 60 if "MYELIN_SANITIZED" not in os.environ else 240  # seconds


@unittest.skipUnless(shutil.which("tmux"), "needs tmux")
class Terminal(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.socket = os.path.join(self.folder.name, "tmux")
        self.start()

    def tmux(self, *arguments, check=True):
        return subprocess.run(["tmux", "-f", "/dev/null", "-S", self.socket, *arguments],
                              capture_output=True, text=True, check=check,
                              env=support.environment(TERM="xterm-256color", LC_ALL="C.UTF-8")).stdout

    def start(self):
        command = (f"env HOME={self.folder.name} XDG_STATE_HOME= TERM=xterm-256color "
                   f"'{support.BINARY}' chat --sampler greedy -q; echo left with $?; cat")
        self.addCleanup(subprocess.run, ["tmux", "-S", self.socket, "kill-server"], check=False,
                        stderr=subprocess.DEVNULL)
        self.tmux("new-session", "-d", "-x", "90", "-y", "50", "-s", "chat", "sh", "-c", command)
        self.wait_for(r"^> *$")

    def keys(self, *keys):
        self.tmux("send-keys", "-t", "chat", *keys)

    def say(self, text):
        self.tmux("send-keys", "-t", "chat", "-l", text)
        self.keys("Enter")

    def screen(self):
        return self.tmux("capture-pane", "-p", "-t", "chat").rstrip("\n")

    def wait_for(self, pattern, count=1):
        """The screen once it shows the pattern so many times."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            screen = self.screen()
            if len(re.findall(pattern, screen, re.M)) >= count:
                return screen
            if "left with" in screen and "left with" not in pattern:
                break
            time.sleep(0.05)
        self.fail(f"waited for {pattern!r} in:\n{self.screen()}")

    def test_a_conversation(self):
        self.say("What is 17 plus 25?")
        screen = self.wait_for(r"^17 \+ 25 = 42\.\n> *$")
        self.assertRegex(screen, r"(?m)^> What is 17 plus 25\?\n.*7 \+ 5 = 12")  # reasoning first
        coloured = self.tmux("capture-pane", "-p", "-e", "-t", "chat")
        self.assertRegex(coloured, r"\x1b\[2m.*7 \+ 5")  # and dimmed

        self.keys("C-p")  # the line before, from the history
        self.wait_for(r"^> What is 17 plus 25\?$", 2)

    def test_editing(self):
        self.tmux("send-keys", "-t", "chat", "-l", "What is the capitl of Francex")
        self.wait_for("Francex$")
        self.keys("BSpace", "BSpace", "e", "?")  # Franc, then e?
        for _ in range(len(" of France?") + 1):
            self.keys("Left")
        self.keys("a")
        self.wait_for(r"^> What is the capital of France\?$")
        self.keys("Enter")
        self.wait_for(r"^The capital of France is Paris\.\n> *$")

    def test_several_lines(self):
        self.say('"""')
        self.wait_for(r"^\. *$")
        self.say("What is the capital")
        self.say("of Italy?")
        self.say('"""')
        self.wait_for(r"^The capital of Italy is Rome\.\n> *$")

    def test_ctrl_c_throws_a_line_away(self):
        self.tmux("send-keys", "-t", "chat", "-l", "nonsense")
        self.wait_for("^> nonsense$")
        self.keys("C-c")
        self.wait_for(r"^> nonsense\n> *$")
        self.say("What is 12 plus 30?")
        self.wait_for(r"^12 \+ 30 = 42\.\n> *$")

    def test_ctrl_c_stops_an_answer(self):
        self.say("/set ignore-eos true")
        self.say("Tell me a story.")
        self.wait_for(r"^> Tell me a story\.\n\S")
        self.keys("C-c")
        self.wait_for(r"^myelin chat: stopped\n> *$")
        self.say("/set ignore-eos false")
        self.say("/clear")
        self.say("What is the capital of France?")
        self.wait_for(r"^The capital of France is Paris\.\n> *$")

    def test_ctrl_d_leaves(self):
        self.keys("C-d")
        self.assertIn("left with 0", self.wait_for("^left with"))

    def test_history_is_kept_and_private(self):
        self.say("Hi there")
        self.wait_for(r"^> *$")
        self.keys("C-d")
        self.assertIn("left with 0", self.wait_for("^left with"))
        path = os.path.join(self.folder.name, ".local/state/myelin/history")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.socket += "-again"  # a server that is ending may still have the first
        self.start()
        self.keys("C-p")
        self.wait_for("^> Hi there$")


if __name__ == "__main__":
    if not shutil.which("tmux"):
        print("skipped: needs tmux")
        sys.exit(77)
    unittest.main()
