# SPDX-License-Identifier: Apache-2.0
"""Clients of echo_server that do as they please, over real sockets."""
import json
import os
import pathlib
import resource
import socket
import struct
import subprocess
import tempfile
import time
import unittest

ECHO = os.environ["MYELIN_ECHO_SERVER"]
SANITIZED = "MYELIN_SANITIZED" in os.environ
WAIT = 30  # seconds for what comes at once on a machine with nothing else to do


def eventually(condition, what, seconds=WAIT):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


class Server:
    """An echo_server; descriptors: the most it may open."""

    def __init__(self, descriptors=None, **options):
        def limit():
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
        self.log = tempfile.TemporaryFile("w+")  # a pipe nobody reads would stop the server
        words = [f"{name}={value}" for name, values in options.items()
                 for value in (values if isinstance(values, tuple) else (values,))]
        self.process = subprocess.Popen([ECHO, *words], stdout=subprocess.PIPE,
                                        stderr=self.log, text=True, preexec_fn=limit)
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("no port")
        self.port = int(line)
        self.clients = []
        self.first_descriptors = self.descriptors()

    def connect(self, receive_buffer=None):
        client = socket.socket()
        self.clients.append(client)
        client.settimeout(WAIT)
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(("127.0.0.1", self.port))
        return client

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident(self):
        """Bytes."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGESIZE")

    def processor_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stats(self):
        return json.loads(ask(self, "/stats")[2])

    def stop(self):
        """Ends it; its last words and its log, read as JSON."""
        if self.process.poll() is None:
            self.process.terminate()
        out, _ = self.process.communicate(timeout=WAIT)
        self.log.seek(0)
        return out, [json.loads(line) for line in self.log]


def request(path="/", method="GET", headers=(), body=b"", version="1.1", host="a"):
    lines = [f"{method} {path} HTTP/{version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines.extend(headers)
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def read_all(client):
    """Bytes up to the end, whatever kind of end."""
    data = b""
    try:
        while piece := client.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def read_answer(file, head=False):
    """(status, headers, body) of one answer, interim ones left out; None at the end."""
    while True:
        line = file.readline()
        if not line:
            return None
        version, status, _ = line.decode().split(" ", 2)
        assert version == "HTTP/1.1", line
        headers = {}
        while (line := file.readline()) not in (b"\r\n", b""):
            name, value = line.decode().rstrip("\r\n").split(": ", 1)
            assert name.lower() not in headers, name
            headers[name.lower()] = value
        if int(status) >= 200:
            break
    if head or int(status) in (204, 304):
        body = b""
    elif headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(file.readline(), 16):
            body += file.read(size)
            assert file.read(2) == b"\r\n"
        assert file.readline() == b"\r\n"
    elif "content-length" in headers:
        body = file.read(int(headers["content-length"]))
        assert len(body) == int(headers["content-length"])
    else:
        body = file.read()
    return int(status), headers, body


def ask(server, path="/", **options):
    with server.connect() as client, client.makefile("rb") as file:
        client.sendall(request(path, **options))
        return read_answer(file, head=options.get("method") == "HEAD")


def reset(client):
    """Closes with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class TestCase(unittest.TestCase):
    def serve(self, **options):
        server = Server(**options)

        def end():
            for _ in range(2):  # the second one cuts off
                if server.process.poll() is None:
                    server.process.terminate()
                    time.sleep(0.02)
            try:
                server.process.wait(WAIT)
            finally:
                server.process.kill()
            server.log.seek(0)
            self.assertEqual(server.process.returncode, 0, server.log.read()[-4000:])
            server.log.close()
            server.process.stdout.close()
            for client in server.clients:
                client.close()
        self.addCleanup(end)
        return server

    def check_well(self, server):
        """It answers, and nothing of earlier clients is left."""
        self.assertEqual(ask(server)[::2], (200, b"hello\n"))
        eventually(lambda: server.stats()["connections"] == 1, "connections are closed")
        eventually(lambda: server.descriptors() == server.first_descriptors,
                   "descriptors are closed")
