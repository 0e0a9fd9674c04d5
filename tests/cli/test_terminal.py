# SPDX-License-Identifier: Apache-2.0
"""On a terminal: nothing but the text when loading is quick."""
import os
import pty
import signal
import unittest

import support
from support import TestCase, environment


def on_terminal(*arguments, only_errors=False, act=None):
    """Everything written to the terminal, and the exit code."""
    sink_read, sink = os.pipe()
    process, terminal = pty.fork()
    if process == 0:
        if only_errors:
            os.dup2(sink, 1)
        os.execve(support.BINARY, [support.BINARY, *arguments], environment(TERM="xterm"))
    os.close(sink)
    seen = b""
    try:
        while chunk := os.read(terminal, 1 << 16):
            seen += chunk
            if act:
                act(process, terminal)
                act = None
    except OSError:  # how Linux tells that the other side is gone
        pass
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    os.close(sink_read)
    return seen, os.waitstatus_to_exitcode(status)


class Terminal(TestCase):
    def test_same_text_as_on_a_pipe(self):
        seen, code = on_terminal("run", "-n", "15", "Once upon a time")
        self.assertEqual(code, 0)
        self.assertEqual(seen.replace(b"\r\n", b"\n"),
                         self.good("run", "-n", "15", "Once upon a time"))

    def test_no_bar_for_what_is_quick(self):
        seen, code = on_terminal("run", "-n", "2", "hello", only_errors=True)
        self.assertEqual((seen, code), (b"", 0))

    def test_ctrl_c(self):
        seen, code = on_terminal("run", "-n", "1500", "--ignore-eos", "Once upon a time",
                                 act=lambda process, terminal: os.write(terminal, b"\x03"))
        self.assertEqual(code, 130)
        self.assertTrue(seen.endswith(b"\n"))

    def test_asks_for_a_prompt(self):
        seen, code = on_terminal("run", "-n", "2",
                                 act=lambda process, terminal: os.write(terminal, b"hello\n\x04"))
        self.assertEqual(code, 0)
        self.assertIn(b"Ctrl-D", seen)

    def test_ctrl_c_at_the_prompt(self):
        _, code = on_terminal("run", act=lambda process, _: os.kill(process, signal.SIGINT))
        self.assertEqual(code, 130)


if __name__ == "__main__":
    unittest.main()
