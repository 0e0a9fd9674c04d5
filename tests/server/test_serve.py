# SPDX-License-Identifier: Apache-2.0
"""The command: how it starts, what signals do to it, how it ends."""
import http.client
import json
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "cli"))
from support import BINARY, DEMO, environment, myelin  # noqa: E402

WAIT = 60


class Serve:
    def __init__(self, *options, model=DEMO, **arguments):
        command = [BINARY, "serve", "--port", "0", "-m", str(model), *map(str, options)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment(),
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        **arguments)
        self.said, self.ready = [], threading.Event()
        self.listening = threading.Event()
        self.port = None
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stderr:
            self.said.append(line.decode())
            found = re.fullmatch(r"myelin serve: listening on http://127\.0\.0\.1:(\d+)\n",
                                 self.said[-1])
            if found:
                self.port = int(found[1])
                self.listening.set()
            if self.said[-1] == "myelin serve: ready\n":
                self.ready.set()

    def end(self):
        """The exit code."""
        code = self.process.wait(WAIT)
        self.reader.join(WAIT)
        return code

    def get(self, path, **headers):
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        client.request("GET", path, headers=headers)
        answer = client.getresponse()
        body = answer.read()
        client.close()
        return answer.status, body

    def stream(self, tokens):
        """A completion that is written now: its answer, not read yet."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        client.request("POST", "/v1/completions", json.dumps(
            {"model": "demo", "prompt": "Once upon a time", "stream": True, "max_tokens": tokens,
             "ignore_eos": True}), {"Content-Type": "application/json"})
        answer = client.getresponse()
        answer.client = client
        return answer


class TestCase(unittest.TestCase):
    def serve(self, *options, ready=True, **arguments):
        server = Serve(*options, **arguments)

        def end():
            server.process.kill()
            server.end()
            server.process.stdout.close()
            server.process.stderr.close()
        self.addCleanup(end)
        self.assertTrue(server.listening.wait(WAIT), server.said)
        if ready:
            self.assertTrue(server.ready.wait(WAIT), server.said)
        return server


class Life(TestCase):
    def test_health(self):
        server = self.serve()
        self.assertEqual(server.get("/health")[0], 200)
        self.assertEqual(json.loads(server.get("/v1/models")[1])["data"][0]["id"], "demo")
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.end(), 0)
        self.assertEqual([line for line in server.said if "warning" in line], [])

    def test_names(self):
        server = self.serve("--name", "one", "--name", "two/three")
        self.assertEqual(json.loads(server.get("/v1/models")[1])["data"][0]["id"], "one")

    def test_an_interrupt_is_130(self):
        server = self.serve()
        server.process.send_signal(signal.SIGINT)
        self.assertEqual(server.end(), 130)

    def test_while_loading(self):
        server = self.serve(ready=False)
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.end(), 0)

    def test_a_stream_is_finished(self):
        server = self.serve()
        answer = server.stream(100)
        first = answer.fp.readline()
        server.process.send_signal(signal.SIGTERM)
        text = first + answer.fp.read()
        self.assertIn(b"data: [DONE]", text)
        self.assertEqual(server.end(), 0)
        answer.client.close()

    def test_what_takes_too_long_is_cut_off(self):
        server = self.serve("--drain-seconds", 0)
        answer = server.stream(1500)
        answer.fp.readline()
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.end(), 1)
        self.assertIn("myelin serve: requests cut off: 1\n", server.said)
        answer.client.close()

    def test_a_second_signal_cuts_off(self):
        server = self.serve("--drain-delay", 1000)
        answer = server.stream(1500)
        answer.fp.readline()
        server.process.send_signal(signal.SIGTERM)
        while not any("ending" in line for line in server.said):
            time.sleep(0.01)
        self.assertEqual(server.get("/health")[0], 503)
        server.process.send_signal(signal.SIGTERM)
        self.assertIn(server.end(), (0, 1))  # the stream may have ended by itself
        answer.client.close()

    def test_it_does_not_listen_longer_than_the_delay(self):
        server = self.serve("--drain-delay", 0.3)
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.end(), 0)

    def test_descriptors_are_raised(self):
        def limit():
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        server = self.serve(preexec_fn=limit)
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
        self.assertEqual(server.get("/health")[0], 200)
        for client in clients:
            client.close()


class Files(TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)

    def test_access_log(self):
        log = self.directory / "log"
        server = self.serve("--access-log", log)
        server.get("/health")
        log.rename(self.directory / "old")
        server.get("/health")
        server.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + WAIT
        while not log.exists() and time.monotonic() < end:
            time.sleep(0.01)
        server.get("/nothing")
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.end(), 0)
        old = (self.directory / "old").read_text().splitlines()
        self.assertEqual([json.loads(line)["path"] for line in old], ["/health"] * 2)
        self.assertEqual([json.loads(line)["path"] for line in log.read_text().splitlines()],
                         ["/nothing"])

    def test_log_on_standard_output(self):
        server = self.serve("--access-log", "-")
        server.get("/health")
        self.assertEqual(json.loads(server.process.stdout.readline())["status"], 200)

    def test_keys(self):
        keys = self.directory / "keys"
        keys.write_text("sesame\n")
        server = self.serve("--api-key-file", keys)
        self.assertEqual(server.get("/v1/models")[0], 401)
        self.assertEqual(server.get("/v1/models", Authorization="Bearer sesame")[0], 200)
        self.assertEqual(server.get("/health")[0], 200)
        self.assertEqual(server.get("/health", Host="evil.example")[0], 421)


class Failures(TestCase):
    def fails(self, code, pattern, *options):
        done = myelin("serve", "--port", "0", *options)
        self.assertEqual((done.returncode, done.stdout), (code, b""))
        self.assertRegex(done.stderr.decode(), pattern)

    def test_usage(self):
        self.fails(2, "expected options only", "-m", DEMO, "word")
        for option, value in (("--kv-memory", "4X"), ("--kv-memory", "0"), ("--kv-memory", "-1"),
                              ("--kv-memory", "99999999T"), ("--kv-memory", "4GG"),
                              ("--max-body", "5G"), ("--port", "65536"), ("--idle-timeout", "0"),
                              ("--cors-origin", "chat.example"), ("--name", ""),
                              ("--cors-origin", "https://a/b"), ("--drain-seconds", "-1")):
            self.fails(2, option, option, value, "-m", DEMO)

    def test_no_such_model(self):
        self.fails(3, "/nowhere: No such file", "-m", "/nowhere")

    def test_a_bad_model(self):
        with tempfile.TemporaryDirectory() as directory:
            pathlib.Path(directory, "config.json").write_text("{}")
            self.fails(3, "config.json", "-m", directory)

    def test_port_is_taken(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            done = myelin("serve", "-m", DEMO, "--port", taken.getsockname()[1])
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr.decode(), "cannot listen on 127.0.0.1 port .*in use")

    def test_files(self):
        self.fails(1, "cannot open the access log", "-m", DEMO, "--access-log", "/nowhere/log")
        self.fails(1, "/nowhere/keys: cannot be opened", "-m", DEMO, "--api-key-file",
                   "/nowhere/keys")


if __name__ == "__main__":
    unittest.main()
