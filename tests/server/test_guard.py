# SPDX-License-Identifier: Apache-2.0
"""What stands before the routes: keys, Host and Origin, CORS."""
import json
import pathlib
import signal
import subprocess
import tempfile
import unittest

from hostile import ECHO, TestCase, ask, eventually, request

KEYS = "# who may ask\nfirst-key\n\n  second-key  \n# third-key\n"


class WithKeys(TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.file = pathlib.Path(directory.name) / "keys"
        self.file.write_text(KEYS)

    def status(self, server, key=None, path="/echo", method="POST", scheme="Bearer"):
        headers = () if key is None else (f"Authorization: {scheme} {key}",)
        return ask(server, path, method=method, headers=headers, body=b"x", host="localhost")[0]


class Keys(WithKeys):
    def test_who_may_ask(self):
        server = self.serve(key_file=self.file)
        for key in ("first-key", "second-key"):
            self.assertEqual(self.status(server, key), 200)
            self.assertEqual(self.status(server, key, scheme="bearer"), 200)
        for key in ("third-key", "# who may ask", "first-ke", "first-key2", "irst-key", "", "x" * 255,
                    "x" * 256, "x" * 5000, "first-key second-key", "FIRST-KEY"):
            self.assertEqual(self.status(server, key), 401, key)
        self.assertEqual(self.status(server, "first-key", scheme="Basic"), 401)
        self.assertEqual(self.status(server), 401)

    def test_shape_of_the_error(self):
        server = self.serve(key_file=self.file)
        for headers, code in (((), None), (("Authorization: Bearer nope",), "invalid_api_key")):
            status, headers, body = ask(server, "/v1/models", headers=headers, host="localhost")
            self.assertEqual((status, headers["www-authenticate"]), (401, "Bearer"))
            self.assertEqual(headers["content-type"], "application/json")
            error = json.loads(body)["error"]
            self.assertEqual(sorted(error), ["code", "message", "param", "type"])
            self.assertEqual((error["code"], error["type"]), (code, "invalid_request_error"))
            self.assertNotIn("nope", error["message"])

    def test_open_paths(self):
        server = self.serve(key_file=self.file)
        for path in ("/", "/health", "/favicon.ico", "/page/style.css"):
            for method in ("GET", "HEAD"):
                status = ask(server, path, method=method, host="localhost")[0]
                self.assertIn(status, (200, 404))
            self.assertEqual(self.status(server, path=path), 401)
        for path in ("/metrics", "/v1/models", "/%2fhealth", "/health/", "/Health", "//", "/page",
                     "/stats"):
            self.assertEqual(ask(server, path, host="localhost")[0], 401, path)
        server = self.serve(key_file=self.file, open_metrics=1)
        self.assertEqual(ask(server, "/metrics", host="localhost")[0], 404)
        self.assertEqual(ask(server, "/stats", host="localhost")[0], 401)

    def test_a_body_is_not_read_without_a_key(self):
        server = self.serve(key_file=self.file)
        with server.connect() as client:
            client.sendall(request("/echo", method="POST", host="localhost",
                                   headers=("Content-Length: 30000000",)))
            self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 401 "))

    def test_the_log_names_the_line_not_the_key(self):
        server = self.serve(key_file=self.file)
        self.status(server, "second-key")
        self.status(server)
        _, log = server.stop()
        self.assertEqual([line["label"] for line in log], ["key:4", None])

    def test_files_that_are_none(self):
        for content in ("", "# only a comment\n", "a key\n", "x" * 256 + "\n", "k\xe4y\n", "k\0\n"):
            self.file.write_text(content)
            done = subprocess.run([ECHO, f"key_file={self.file}"], capture_output=True, text=True,
                                  check=False)
            self.assertEqual((done.returncode, done.stdout), (1, ""), content)
            self.assertTrue(done.stderr.startswith(f"{self.file}: "))
        done = subprocess.run([ECHO, "key_file=/nowhere/keys"], capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.stderr, "/nowhere/keys: cannot be opened: No such file or directory\n")

    def test_keys_are_read_anew(self):
        server = self.serve(key_file=self.file)
        self.file.write_text("third-key\r\n")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: self.status(server, "third-key") == 200, "the new key counts")
        self.assertEqual(self.status(server, "first-key"), 401)
        self.file.write_text("no key at all\n")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "a key is printable" in pathlib.Path(
            f"/proc/{server.process.pid}/fd/2").read_text(), "it says so")
        self.assertEqual(self.status(server, "third-key"), 200)


class Loopback(TestCase):
    def test_host(self):
        server = self.serve(host_name=("chat.example", "other"))
        for host in ("localhost", "LocalHost:1", "127.0.0.1", f"127.0.0.1:{server.port}",
                     "127.1.2.3", "[::1]", "[::1]:80", "chat.example", "Chat.Example:443", "other"):
            self.assertEqual(ask(server, host=host)[0], 200, host)
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example",
                     "xlocalhost", "chat.example.org", "example", "128.0.0.1", "[::2]", "0.0.0.0",
                     "127.evil.example"):
            self.assertEqual(ask(server, host=host)[0], 421, host)
        self.assertEqual(ask(server, host=None, version="1.0")[0], 200)
        self.assertEqual(ask(server, "http://evil.example/", host="evil.example")[0], 421)

    def test_origin(self):
        server = self.serve(guard=1)
        for origin in ("http://localhost:80", "HTTP://LOCALHOST:80"):
            self.assertEqual(ask(server, host="localhost:80", headers=(f"Origin: {origin}",))[0],
                             200)
        for origin in ("http://evil.example", "null", "http://localhost", "localhost:80", "",
                       "http://localhost:80.evil.example", "http://127.0.0.1:80"):
            status, headers, _ = ask(server, host="localhost:80", headers=(f"Origin: {origin}",))
            self.assertEqual(status, 403, origin)
            self.assertNotIn("access-control-allow-origin", headers)

    def test_elsewhere_names_are_not_known(self):
        server = self.serve(everywhere=1)
        status, headers, _ = ask(server, host="any.example", headers=("Origin: http://x",))
        self.assertEqual(status, 200)
        self.assertNotIn("access-control-allow-origin", headers)


class Cors(WithKeys):
    preflight = ("Access-Control-Request-Method: POST",
                 "Access-Control-Request-Headers: authorization, content-type")

    def test_off_by_default(self):
        server = self.serve(everywhere=1)
        status, headers, _ = ask(server, method="OPTIONS",
                                 headers=("Origin: http://x", *self.preflight))
        self.assertEqual(status, 403)
        self.assertFalse([name for name in headers if name.startswith("access-control")])

    def test_allowed_origins(self):
        server = self.serve(origin=("https://a.example", "null"), key_file=self.file)
        for origin, allowed in (("https://a.example", True), ("null", True),
                                ("https://b.example", False), ("http://a.example", False)):
            sent = (f"Origin: {origin}",)
            status, headers, _ = ask(server, "/v1/models", method="OPTIONS", host="localhost",
                                     headers=sent + self.preflight)
            self.assertEqual(status, 204 if allowed else 403)
            if allowed:
                self.assertIn("POST", headers["access-control-allow-methods"])
                self.assertIn("Authorization", headers["access-control-allow-headers"])
            status, headers, _ = ask(server, "/echo", method="POST", host="localhost",
                                     headers=sent + ("Authorization: Bearer first-key",))
            self.assertEqual(status, 200 if allowed else 403)
            self.assertEqual(headers.get("access-control-allow-origin"),
                             origin if allowed else None)
            self.assertEqual(headers.get("vary"), "Origin" if allowed else None)
        # A page must be able to read why it was refused.
        status, headers, _ = ask(server, "/echo", method="POST", host="localhost",
                                 headers=("Origin: https://a.example",))
        self.assertEqual((status, headers["access-control-allow-origin"]),
                         (401, "https://a.example"))

    def test_all_origins(self):
        server = self.serve(origin="*")
        _, headers, _ = ask(server, host="localhost", headers=("Origin: https://any.example",))
        self.assertEqual(headers["access-control-allow-origin"], "https://any.example")


if __name__ == "__main__":
    unittest.main()
