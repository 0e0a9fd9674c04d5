# SPDX-License-Identifier: Apache-2.0
"""Clients that mean harm, or are broken. After each the server is as it was before."""
import errno
import resource
import signal
import socket
import time
import unittest

from hostile import (SANITIZED, WAIT, TestCase, ask, eventually, read_all, read_answer, request,
                     reset)

# (what is sent, status); test_http_parse.c has many more: these go over a socket.
MALFORMED = (
    (request(method="POST", headers=("Content-Length: 4", "Transfer-Encoding: chunked")), 400),
    (request(method="POST", headers=("Content-Length: 4", "Content-Length: 4")), 400),
    (request(method="POST", headers=("Content-Length: 4", "Content-Length: 5")), 400),
    (request(method="POST", headers=("Content-Length: +4",)), 400),
    (request(method="POST", headers=("Content-Length: 4x",)), 400),
    (request(method="POST", headers=("Content-Length: 18446744073709551620",)), 413),
    (request(method="POST", headers=("Content-Length: 1073741824",)), 413),
    (request(method="POST", headers=("Transfer-Encoding: gzip, chunked",)), 501),
    (request(method="POST", headers=("Transfer-Encoding: chunked, chunked",)), 400),
    (request(method="POST", headers=("Transfer-Encoding: chunked",)) + b"zz\r\n", 400),
    (request(method="POST", headers=("Transfer-Encoding: chunked",)) + b"ffffffffffffffffff\r\n",
     400),
    (request(method="POST", headers=("Transfer-Encoding: chunked",)) + b"1;" + b"x" * 300, 400),
    (request(method="POST", headers=("Expect: a miracle", "Content-Length: 4")), 417),
    (request(headers=(" folded",)), 400),
    (request(headers=("X : y",)), 400),
    (request(headers=("X: \0",)), 400),
    (request(headers=("X: \x01",)), 400),
    (request(headers=("X: a\rb",)), 400),
    (request().replace(b"\r\n", b"\n"), 400),
    (request(host=None), 400),
    (request(headers=("Host: a",)), 400),
    (request("/%zz"), 400),
    (request("/%00"), 400),
    (request("http://b/"), 400),
    (request("*"), 400),
    (request("a:80", method="CONNECT"), 501),
    (request("/" + "a" * 9000), 414),
    (request(headers=("X: " + "a" * 40000,)), 431),
    (request(headers=("X: y",) * 120), 431),
    (request(version="2.0"), 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"G\xc3T / HTTP/1.1\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
    (b"GET /\r\n", 400),
)


class Malformed(TestCase):
    def test_each_is_refused(self):
        server = self.serve()
        for sent, status in MALFORMED:
            with self.subTest(sent=sent[:80]), server.connect() as client:
                client.sendall(sent + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = read_all(client)
                self.assertTrue(answer.startswith(b"HTTP/1.1 %d " % status), answer[:200])
                self.assertIn(b"\r\nConnection: close\r\n", answer)
                self.assertIn(b'{"error":{"message":"', answer)
                self.assertEqual(answer.count(b"HTTP/1.1"), 1, answer)
        self.check_well(server)
        _, log = server.stop()
        self.assertNotIn("/smuggled", [line["path"] for line in log])

    def test_a_gigabyte_is_not_read(self):
        server = self.serve()
        before = server.resident()
        with server.connect() as client:
            client.sendall(request("/echo", method="POST", headers=("Content-Length: 1073741824",)))
            with self.assertRaises(OSError):  # the server closes long before it has come
                for _ in range(1024):
                    client.sendall(b"x" * 1_048_576)
        self.check_well(server)
        if not SANITIZED:
            self.assertLess(server.resident() - before, 8 << 20)

    def test_a_chunked_body_has_the_same_limit(self):
        server = self.serve(max_body=100_000)
        with server.connect() as client:
            client.sendall(request("/echo", method="POST",
                                   headers=("Transfer-Encoding: chunked",)))
            client.sendall((b"2710\r\n" + b"x" * 10_000 + b"\r\n") * 11)
            self.assertTrue(read_all(client).startswith(b"HTTP/1.1 413 "))
        self.check_well(server)

    def test_announced_is_not_allocated(self):
        server = self.serve()
        before = server.resident()
        clients = [server.connect() for _ in range(50)]
        for client in clients:
            client.sendall(request("/echo", method="POST", headers=("Content-Length: 33000000",)))
        eventually(lambda: server.stats()["connections"] == 51, "all are read")
        if not SANITIZED:
            self.assertLess(server.resident() - before, 8 << 20)
        for client in clients:
            client.close()
        self.check_well(server)

    def test_all_bodies_together(self):
        server = self.serve(max_body=400_000, max_bodies=1_000_000)
        body = b"x" * 390_000
        held = [server.connect() for _ in range(2)]
        for client in held:
            client.sendall(request("/hold", method="POST", body=body))
        eventually(lambda: server.stats()["connections"] == 3, "both are there")
        time.sleep(0.1)
        with server.connect() as client:
            client.sendall(request("/echo", method="POST", body=body))
            self.assertTrue(read_all(client).startswith(b"HTTP/1.1 503 "))
        for client in held:
            client.close()
        eventually(lambda: server.stats()["gone"] == 2, "both are gone")
        self.assertEqual(ask(server, "/echo", method="POST", body=body)[2], body)

    def test_nothing_is_kept(self):
        """The same misdeeds again and again take no more memory."""
        server = self.serve()

        def misbehave():
            for sent, _ in MALFORMED:
                with server.connect() as client:
                    client.sendall(sent)
                    read_all(client)
            for sent in (request("/hold"), request("/stream?100000"), request("/big?1000000"),
                         request("/echo", method="POST", body=b"x" * 100_000)[:-1]):
                for close in (reset, socket.socket.close):
                    client = server.connect()
                    client.sendall(sent)
                    close(client)
            self.check_well(server)
        for _ in range(5):
            misbehave()
        before = server.resident()
        for _ in range(20):
            misbehave()
        if not SANITIZED:
            self.assertLess(server.resident() - before, 1 << 20)


class Slow(TestCase):
    def drip(self, server, sent, seconds):
        """One byte each 50 ms: the answer, and how long it took."""
        begun = time.monotonic()
        with server.connect() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in sent:
                try:
                    client.sendall(bytes([byte]))
                except OSError:
                    break
                time.sleep(0.05)
                if time.monotonic() - begun > seconds:
                    break
            return read_all(client), time.monotonic() - begun

    def test_dripped_head(self):
        server = self.serve(head_seconds=0.5)
        answer, took = self.drip(server, request(headers=("X: " + "y" * 1000,)), 2)
        self.assertTrue(answer.startswith(b"HTTP/1.1 408 "), answer)
        self.assertGreater(took, 0.4)
        self.check_well(server)

    def test_dripped_body(self):
        server = self.serve(body_seconds=0.5)
        for headers in (("Content-Length: 1000",), ("Transfer-Encoding: chunked",)):
            with server.connect() as client:
                client.sendall(request("/echo", method="POST", headers=headers))
                for _ in range(10):
                    client.sendall(b"1" if "Content" in headers[0] else b"1\r\n.\r\n")
                    time.sleep(0.02)
                self.assertTrue(read_all(client).startswith(b"HTTP/1.1 408 "))
        self.check_well(server)

    def test_idle(self):
        """Closed without a word, before a request and after one."""
        server = self.serve(idle_seconds=0.3)
        with server.connect() as client:
            self.assertEqual(read_all(client), b"")
        with server.connect() as client, client.makefile("rb") as file:
            client.sendall(request())
            self.assertEqual(read_answer(file)[0], 200)
            self.assertEqual(file.read(), b"")
        self.check_well(server)

    def test_a_pending_answer_is_not_idle(self):
        server = self.serve(idle_seconds=0.2, head_seconds=0.2, body_seconds=0.2, stall_seconds=0.2)
        with server.connect() as client, client.makefile("rb") as file:
            client.sendall(request("/hold"))
            time.sleep(0.8)
            ask(server, "/release")
            self.assertEqual(read_answer(file)[2], b"released\n")

    def test_reader_that_stops(self):
        """Its stream is cut off at max_unread, and memory stays bounded."""
        server = self.serve(max_unread=1_000_000)
        before = server.resident()
        client = server.connect(receive_buffer=4096)
        client.sendall(request("/flood"))
        eventually(lambda: server.stats()["gone"] == 1, "it is cut off")
        if not SANITIZED:
            self.assertLess(server.resident() - before, 16 << 20)
        client.close()
        self.check_well(server)

    def test_reader_that_stalls(self):
        """An answer that is whole already: the deadline counts."""
        server = self.serve(stall_seconds=0.5)
        client = server.connect(receive_buffer=4096)
        client.sendall(request("/big?30000000"))
        self.check_well(server)
        client.close()

    def test_reader_that_drips(self):
        """Some bytes now and then are no progress."""
        server = self.serve(stall_seconds=0.5)
        client = server.connect(receive_buffer=2048)
        client.sendall(request("/big?30000000"))
        end = time.monotonic() + WAIT
        try:
            while client.recv(10) and time.monotonic() < end:
                time.sleep(0.02)
        except ConnectionResetError:
            pass
        self.assertLess(time.monotonic(), end)
        client.close()
        self.check_well(server)


class Gone(TestCase):
    """Clients that leave: noticed at once, whatever they were waiting for."""

    def leave(self, sent, close, until=b""):
        server = self.serve()
        client = server.connect()
        client.sendall(sent)
        if until:
            self.assertIn(until, client.recv(4096))
        else:
            eventually(lambda: server.stats()["connections"] == 2, "it is there")
            time.sleep(0.05)
        close(client)
        eventually(lambda: server.stats()["gone"] == 1, "noticed")
        self.check_well(server)

    def test_while_waiting(self):
        for close in (socket.socket.close, reset):
            self.leave(request("/hold"), close)

    def test_while_waiting_with_more_requests_sent(self):
        for close in (socket.socket.close, reset):
            self.leave(request("/hold") + request() * 3, close)

    def test_http_1_0_while_waiting(self):
        self.leave(request("/hold", version="1.0"), reset)

    def test_while_streaming(self):
        for close in (socket.socket.close, reset):
            self.leave(request("/stream?1000000"), close, until=b"HTTP/1.1 200")

    def test_in_the_middle_of_a_request(self):
        server = self.serve()
        sent = request("/echo", method="POST", body=b"abc")
        for cut in range(1, len(sent)):
            client = server.connect()
            client.sendall(sent[:cut])
            (reset if cut % 2 else socket.socket.close)(client)
        self.check_well(server)

    def test_before_reading_the_answer(self):
        server = self.serve()
        for _ in range(50):
            client = server.connect()
            client.sendall(request("/big?1000000"))
            reset(client)
        self.check_well(server)


class Many(TestCase):
    def connect_all(self, server, count):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < count + 100:
            self.skipTest("too few descriptors allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 100), hard))
        return [server.connect() for _ in range(count)]

    def test_thousands_of_connections(self):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        count = 2000 if SANITIZED else 9990  # of the 10,000 that it holds unless told otherwise
        if hard != resource.RLIM_INFINITY:
            count = max(1000, min(count, hard - 200))
        server = self.serve(descriptors=count + 100)
        descriptors = server.descriptors()
        self.check_well(server)
        before = server.resident()
        clients = self.connect_all(server, count)
        eventually(lambda: server.stats()["connections"] == count + 1, "all are accepted")
        each = (server.resident() - before) / count
        print(f"{count} idle connections take {each:.0f} bytes each")
        if not SANITIZED:
            self.assertLess(each, 2048)
        spent = server.processor_seconds()
        time.sleep(0.5)
        self.assertLess(server.processor_seconds() - spent, 0.2)
        for client in clients[::50]:
            client.sendall(request())
            self.assertIn(b"hello", client.recv(4096))
        for client in clients:
            client.close()
        eventually(lambda: server.descriptors() == descriptors, "all are gone")
        if not SANITIZED:
            self.assertLess(server.resident() - before, 8 << 20)

    def test_out_of_descriptors(self):
        """It does not spin, and goes on when there are some again."""
        server = self.serve(descriptors=40)
        held = [server.connect() for _ in range(60)]  # the system accepts them all
        for client in held:
            client.sendall(request("/hold"))
        eventually(lambda: server.descriptors() == 40, "none is left")
        spent = server.processor_seconds()
        time.sleep(1)
        self.assertLess(server.processor_seconds() - spent, 0.3)
        for client in held[:50]:
            client.close()
        self.assertEqual(ask(server)[2], b"hello\n")
        for client in held:
            client.close()
        self.check_well(server)

    def test_out_of_descriptors_by_idle_ones(self):
        server = self.serve(descriptors=40, idle_seconds=300)
        for _ in range(60):
            server.connect()
        self.assertEqual(ask(server)[2], b"hello\n")

    def test_the_longest_idle_make_room(self):
        server = self.serve(max_connections=10, idle_seconds=300)
        idle = [server.connect() for _ in range(9)]
        busy = server.connect()
        busy.sendall(request("/hold"))
        time.sleep(1.2)
        new = [server.connect() for _ in range(5)]
        for client in new:
            client.sendall(request())
            self.assertIn(b"hello", client.recv(4096))
        self.assertEqual([client.recv(1) for client in idle[:4]], [b""] * 4)
        self.assertEqual(ask(server, "/release")[0], 200)
        self.assertIn(b"released", busy.recv(4096))
        for client in idle + new + [busy]:
            client.close()
        self.check_well(server)

    def test_busy_ones_are_not_driven_out(self):
        server = self.serve(max_connections=5)
        held = [server.connect() for _ in range(5)]
        for client in held:
            client.sendall(request("/hold"))
        time.sleep(0.2)
        waiting = server.connect()
        waiting.sendall(request())
        waiting.settimeout(0.5)
        with self.assertRaises(TimeoutError):
            waiting.recv(4096)
        waiting.settimeout(WAIT)
        held[0].close()
        self.assertIn(b"hello", waiting.recv(4096))


class Stopping(TestCase):
    def test_a_stream_is_finished(self):
        server = self.serve(grace=WAIT)
        idle, new = server.connect(), server.connect()
        idle.sendall(request())
        idle.recv(4096)
        with server.connect() as client, client.makefile("rb") as file:
            client.sendall(request("/stream?30"))
            self.assertEqual(file.readline(), b"HTTP/1.1 200 OK\r\n")
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(idle.recv(1), b"")
            self.assertEqual(new.recv(1), b"")
            with self.assertRaises(OSError) as caught:
                server.connect()
            self.assertEqual(caught.exception.errno, errno.ECONNREFUSED)
            text = file.read()
        self.assertEqual(text.count(b"123456789\n"), 30)
        self.assertTrue(text.endswith(b"0\r\n\r\n"))
        out, _ = server.process.communicate(timeout=WAIT)
        self.assertEqual((out, server.process.returncode), ("ended 0 gone 0 left 0\n", 0))

    def test_a_request_under_way_is_answered(self):
        server = self.serve(grace=WAIT)
        with server.connect() as client:
            sent = request("/echo", method="POST", body=b"abc")
            client.sendall(sent[:-1])
            eventually(lambda: server.stats()["connections"] == 2, "it is there")
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            client.sendall(sent[-1:])
            answer = read_all(client)
        self.assertTrue(answer.endswith(b"abc"))
        self.assertIn(b"Connection: close", answer)
        self.assertEqual(server.process.wait(WAIT), 0)

    def cut_off(self, server, signals):
        client = server.connect()
        client.sendall(request("/stream?1000000"))
        self.assertIn(b"200 OK", client.recv(4096))
        for _ in range(signals):
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        out, _ = server.process.communicate(timeout=WAIT)
        self.assertEqual((out, server.process.returncode), ("ended 8 gone 1 left 0\n", 0))
        self.assertNotIn(b"0\r\n\r\n", read_all(client)[-5:])
        client.close()

    def test_after_its_time_it_is_cut_off(self):
        self.cut_off(self.serve(grace=0.3), 1)

    def test_a_second_signal_cuts_off(self):
        self.cut_off(self.serve(grace=1000), 2)


if __name__ == "__main__":
    unittest.main()
