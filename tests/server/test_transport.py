# SPDX-License-Identifier: Apache-2.0
"""What every client may expect of the transport."""
import os
import socket
import subprocess
import time
import unittest

from hostile import ECHO, TestCase, ask, eventually, read_all, read_answer, request


class Answers(TestCase):
    def test_bodies(self):
        server = self.serve()
        status, headers, body = ask(server)
        self.assertEqual((status, body), (200, b"hello\n"))
        self.assertEqual(headers["content-type"], "text/plain")
        self.assertRegex(headers["date"], r"^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$")
        self.assertNotIn("connection", headers)
        data = os.urandom(3_000_000)
        self.assertEqual(ask(server, "/echo", method="POST", body=data)[2], data)
        self.assertEqual(ask(server, "/nowhere")[0], 404)
        self.assertEqual(len(ask(server, "/big?20000000")[2]), 20_000_000)

    def test_requests_are_seen_as_sent(self):
        server = self.serve()
        status, headers, body = ask(server, "/request?a=%41", headers=("X-Y:  z \t",))
        self.assertEqual(status, 200)
        self.assertIn(b'"path":"/request","query":"a=%41"', body)
        self.assertIn(b'"x-y":"z"', body)
        self.assertEqual(headers["x-added"], "one  X-Injected: two")
        self.assertNotIn("x-injected", headers)

    def test_head(self):
        server = self.serve()
        with server.connect() as client, client.makefile("rb") as file:
            for path, length in (("/", "6"), ("/big?1000", "1000")):
                client.sendall(request(path, method="HEAD"))
                status, headers, _ = read_answer(file, head=True)
                self.assertEqual((status, headers["content-length"]), (200, length))
            client.sendall(request("/stream?2", method="HEAD") + request())
            self.assertEqual(read_answer(file, head=True)[1]["transfer-encoding"], "chunked")
            self.assertEqual(read_answer(file)[2], b"hello\n")

    def test_options_of_everything(self):
        server = self.serve()
        self.assertEqual(ask(server, "*", method="OPTIONS")[0], 204)

    def test_streams(self):
        server = self.serve()
        status, headers, body = ask(server, "/stream?20")
        self.assertEqual((status, headers["transfer-encoding"]), (200, "chunked"))
        self.assertEqual(body, b"123456789\n" * 20)

    def test_pipelining(self):
        server = self.serve()
        with server.connect() as client, client.makefile("rb") as file:
            client.sendall(b"".join([request("/stream?5"), request(),
                                     request("/echo", method="POST", body=b"abc"),
                                     request("/nowhere")] * 3))
            for _ in range(3):
                self.assertEqual(read_answer(file)[2], b"123456789\n" * 5)
                self.assertEqual(read_answer(file)[2], b"hello\n")
                self.assertEqual(read_answer(file)[2], b"abc")
                self.assertEqual(read_answer(file)[0], 404)
        self.check_well(server)

    def test_thousands_of_requests_at_once(self):
        """As many as the sockets hold; then the client must read."""
        server = self.serve()
        with server.connect() as client, client.makefile("rb") as file:
            sent = request() * 2000
            client.sendall(sent)
            for _ in range(2000):
                self.assertEqual(read_answer(file)[2], b"hello\n")
        self.check_well(server)

    def test_byte_by_byte(self):
        server = self.serve()
        with server.connect() as client, client.makefile("rb") as file:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in request("/echo", method="POST", body=b"abc"):
                client.sendall(bytes([byte]))
            self.assertEqual(read_answer(file)[2], b"abc")

    def test_chunked_requests(self):
        server = self.serve()
        with server.connect() as client, client.makefile("rb") as file:
            for _ in range(2):
                client.sendall(request("/echo", method="POST",
                                       headers=("Transfer-Encoding: chunked",)))
                for _ in range(100):
                    client.sendall(b"3e8\r\n" + b"y" * 1000 + b"\r\n")
                client.sendall(b"0\r\nTrailer: x\r\n\r\n")
                self.assertEqual(read_answer(file)[2], b"y" * 100_000)

    def test_continue(self):
        server = self.serve()
        with server.connect() as client, client.makefile("rb") as file:
            head = request("/echo", method="POST", headers=("Content-Length: 3",
                                                            "Expect: 100-continue"))
            client.sendall(head)
            self.assertEqual(file.readline(), b"HTTP/1.1 100 Continue\r\n")
            self.assertEqual(file.readline(), b"\r\n")
            client.sendall(b"abc")
            self.assertEqual(read_answer(file)[2], b"abc")
        refused = request("/echo", method="POST", headers=(
            "Content-Length: 3", "Expect: 100-continue", "X-Refuse: 1"))
        with server.connect() as client:
            client.sendall(refused)
            answer = read_all(client)
        self.assertTrue(answer.startswith(b"HTTP/1.1 401 "), answer)
        self.assertIn(b"\r\nConnection: close\r\n", answer)

    def test_refused_by_its_head(self):
        """A body is not read; without one the connection lives on."""
        server = self.serve()
        with server.connect() as client, client.makefile("rb") as file:
            client.sendall(request(headers=("X-Refuse: 1",)) + request())
            self.assertEqual(read_answer(file)[0], 401)
            self.assertEqual(read_answer(file)[0], 200)
            client.sendall(request("/echo", method="POST", headers=(
                "X-Refuse: 1", "Content-Length: 30000000")))
            status, headers, _ = read_answer(file)
            self.assertEqual((status, headers["connection"]), (401, "close"))

    def test_posts_come_in_full(self):
        server = self.serve()
        self.assertEqual(ask(server, "/posted?20000")[2], b"all\n")


class Versions(TestCase):
    def test_http_1_0(self):
        server = self.serve()
        with server.connect() as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            head, body = read_all(client).split(b"\r\n\r\n")
            self.assertIn(b"Connection: close", head)
            self.assertEqual(body, b"hello\n")

    def test_its_streams_end_with_the_connection(self):
        server = self.serve()
        with server.connect() as client:
            client.sendall(b"GET /stream?9 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            head, body = read_all(client).split(b"\r\n\r\n")
            self.assertNotIn(b"chunked", head)
            self.assertIn(b"Connection: close", head)
            self.assertEqual(body, b"123456789\n" * 9)

    def test_it_may_ask_to_stay(self):
        server = self.serve()
        with server.connect() as client, client.makefile("rb") as file:
            for _ in range(3):
                client.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                self.assertEqual(read_answer(file)[1]["connection"], "keep-alive")

    def test_close(self):
        server = self.serve()
        with server.connect() as client:
            client.sendall(request(headers=("Connection: close",)) + request())
            answer = read_all(client)
            self.assertEqual(answer.count(b"HTTP/1.1 200"), 1)
            self.assertIn(b"Connection: close\r\n", answer)


class HalfClosed(TestCase):
    """A client that has said all it wanted, and still reads."""

    def test_gets_its_answers(self):
        server = self.serve()
        with server.connect() as client:
            client.sendall(request("/stream?10") + request("/posted?1000") + request())
            client.shutdown(socket.SHUT_WR)
            answer = read_all(client)
        self.assertEqual(answer.count(b"123456789\n"), 10)
        self.assertTrue(answer.endswith(b"hello\n"), answer[-200:])
        self.check_well(server)
        self.assertEqual(server.stats()["gone"], 0)

    def test_also_a_late_one(self):
        for version in ("1.1", "1.0"):
            server = self.serve()
            with server.connect() as client, client.makefile("rb") as file:
                client.sendall(request("/hold", version=version))
                client.shutdown(socket.SHUT_WR)
                time.sleep(0.2)
                self.assertEqual(ask(server, "/release")[0], 200)
                self.assertEqual(read_answer(file)[2], b"released\n")

    def test_half_a_request_is_none(self):
        server = self.serve()
        for sent in (b"GET", request("/echo", method="POST", body=b"abc")[:-1]):
            with server.connect() as client:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                self.assertEqual(read_all(client), b"")
        self.check_well(server)


class Addresses(TestCase):
    def test_localhost(self):
        server = self.serve(host="localhost")
        self.assertEqual(ask(server)[0], 200)

    def test_none_of_ours(self):
        done = subprocess.run([ECHO, "host=192.0.2.1"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "^cannot listen on 192.0.2.1 port 0: ")
        done = subprocess.run([ECHO, "host=no.such.host.invalid"], capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "^cannot find the address of no.such.host.invalid")


class Log(TestCase):
    def test_lines(self):
        server = self.serve()
        ask(server, "/request?secret")
        ask(server, "/a%22b%5c%C3%A4%ff%c2%85")
        ask(server, "/echo", method="POST", headers=("Content-Length: +4",))
        with server.connect() as client:
            client.sendall(b"\x16\x03\x01\r\n")
            read_all(client)
        client = server.connect()
        client.sendall(request("/hold"))
        eventually(lambda: server.stats()["connections"] == 2, "both are there")
        client.close()
        eventually(lambda: server.stats()["gone"] == 1, "it is gone")
        _, log = server.stop()
        lines = [line for line in log if line["path"] != "/stats"]
        self.assertEqual([(line["method"], line["path"], line["status"]) for line in lines],
                         [("GET", "/request", 200), ("GET", '/a"b\\ä\ufffd\x85', 404),
                          ("POST", "/echo", 400), (None, None, 400), ("GET", "/hold", 499)])
        self.assertEqual([line["label"] for line in lines], ["shown"] + [None] * 4)
        self.assertEqual([line["complete"] for line in lines], [True] * 4 + [False])
        for line in lines:
            self.assertEqual(list(line), ["time", "peer", "method", "path", "status", "bytes", "ms",
                                          "complete", "label"])
            self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            self.assertRegex(line["peer"], r"^127\.0\.0\.1:\d+$")
        self.assertEqual(lines[1]["bytes"], len(b"not found\n"))


if __name__ == "__main__":
    unittest.main()
