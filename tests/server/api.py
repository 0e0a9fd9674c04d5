# SPDX-License-Identifier: Apache-2.0
"""A server over the demo model, and a client that knows no more than HTTP and JSON."""
import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "cli"))
from support import BINARY, DEMO, SMALLEST_GAP, environment, evaluation, strict  # noqa: E402,F401

TIMEOUT = 120
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Returns the current weather",
    "parameters": {"type": "object", "required": ["city"],
                   "properties": {"city": {"type": "string", "description": "The name"}}}}}


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self):
        return strict(self.body)


class Server:
    def __init__(self, *options):
        command = [BINARY, "serve", "--port", "0", "-m", str(DEMO), *map(str, options)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment(),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.said = []
        self.port = None
        for line in self.process.stderr:
            self.said.append(line.decode())
            found = re.search(r"listening on http://[^ ]*?:(\d+)", self.said[-1])
            if found:
                self.port = int(found[1])
                break
        if self.port is None:
            raise AssertionError(f"the server did not start: {self.said}")
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self._wait_until_ready()

    def _read(self):
        for line in self.process.stderr:
            self.said.append(line.decode(errors="replace"))

    def _wait_until_ready(self):
        for _ in range(600):
            if self.get("/health").status == 200:
                return
            threading.Event().wait(0.05)
        raise AssertionError("the server did not become ready")

    def stop(self):
        """Ends it and gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self.reader.join(10)
        self.process.stderr.close()
        return code

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, body):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        return self.request("POST", path, body, {"Content-Type": "application/json"})

    def send(self, path, body, opened=None):
        """A request on a socket of its own, whose answer nobody has read yet."""
        text = json.dumps(body).encode()
        opened = opened or socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
        opened.sendall(b"POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json"
                       b"\r\nContent-Length: %d\r\n\r\n%s"
                       % (path.encode(), self.port, len(text), text))
        return opened

    def metric(self, name):
        for line in self.get("/metrics").body.decode().splitlines():
            if line.startswith(name + "{") or line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {name}")


def events(body):
    """A stream's events: (event or None, data) and comments left out."""
    found = []
    text = body.decode()
    assert text.endswith("\n\n"), text[-100:]
    for block in text[:-2].split("\n\n"):
        name, data = None, []
        for line in block.split("\n"):
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data.append(line[6:])
            else:
                assert line.startswith(":"), line
        if data:
            found.append((name, "\n".join(data)))
    return found


def chunks(answer):
    """The chunks of a stream that must have ended well."""
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.headers
    found = events(answer.body)
    assert found[-1] == (None, "[DONE]"), found[-1]
    return [strict(data) for _, data in found[:-1]]


class Joined:
    """A chat stream put together again, checked on the way."""

    def __init__(self, stream, choices=1):
        self.id = stream[0]["id"]
        self.texts = [{"content": "", "reasoning_content": "", "calls": [], "logprobs": [],
                       "finish_reason": None, "role": None} for _ in range(choices)]
        self.usage = None
        for chunk in stream:
            assert chunk["id"] == self.id and chunk["object"] == "chat.completion.chunk"
            if not chunk["choices"]:
                assert self.usage is None
                self.usage = chunk["usage"]
                continue
            assert self.usage is None, "the usage comes last"
            for choice in chunk["choices"]:
                self._take(self.texts[choice["index"]], choice)

    @staticmethod
    def _take(text, choice):
        delta = choice["delta"]
        assert text["finish_reason"] is None, "nothing follows the finish chunk"
        if text["role"] is None:
            assert delta.get("role") == "assistant", "the first delta has the role"
            text["role"] = "assistant"
        else:
            assert "role" not in delta
        for name in ("content", "reasoning_content"):
            text[name] += delta.get(name) or ""
        for call in delta.get("tool_calls", []):
            assert call["index"] == len(text["calls"]) and call["id"].startswith("call_")
            text["calls"].append((call["function"]["name"], call["function"]["arguments"]))
        if choice["logprobs"]:
            text["logprobs"] += choice["logprobs"]["content"]
        if choice["finish_reason"]:
            assert not delta
            text["finish_reason"] = choice["finish_reason"]


def whole(choice):
    """What Joined makes of a stream, of an answer that was not streamed."""
    message = choice["message"]
    return {"content": message["content"] or "", "role": message["role"],
            "reasoning_content": message.get("reasoning_content", ""),
            "calls": [(c["function"]["name"], c["function"]["arguments"])
                      for c in message.get("tool_calls", [])],
            "logprobs": choice["logprobs"]["content"] if choice["logprobs"] else [],
            "finish_reason": choice["finish_reason"]}


def conversation(line, **more):
    """A line of the demo's evaluation as the body of a request."""
    body = {"model": "demo", "messages": openai_messages(line["messages"]), "temperature": 0,
            "enable_thinking": line["enable_thinking"], **more}
    if line["tools"]:
        body["tools"] = line["tools"]
    return body


def openai_messages(messages):
    """As OpenAI's clients write them: arguments are a string, calls have ids."""
    made = []
    for message in messages:
        message = dict(message)
        if "tool_calls" in message:
            message["tool_calls"] = [
                {**call, "id": f"call_{i}", "function": {
                    "name": call["function"]["name"],
                    "arguments": json.dumps(call["function"]["arguments"])}}
                for i, call in enumerate(message["tool_calls"])]
            message["content"] = message["content"] or None
        if message["role"] == "tool":
            message["tool_call_id"] = "call_0"
        made.append(message)
    return made


def together(function, arguments, clients=8):
    """The function of each argument, several at once, in order."""
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        return list(pool.map(function, arguments))


def sure_lines(every=1):
    """Conversations whose greedy answer no rounding changes."""
    return [line for line in evaluation()
            if line["messages"] and line["complete"] and line["min_gap"] > SMALLEST_GAP][::every]


class TestCase(unittest.TestCase):
    maxDiff = 4000
    OPTIONS = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.OPTIONS)

    @classmethod
    def tearDownClass(cls):
        code = cls.server.stop()
        assert code == 0, f"the server ended with {code}: {cls.server.said}"

    def good(self, path, body):
        answer = self.server.post(path, body)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.headers["content-type"], "application/json")
        return answer.json

    def chat(self, messages="Say hello to Rose.", **more):
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return self.good("/v1/chat/completions", {"messages": messages, "temperature": 0, **more})

    def bad(self, path, body, param=None, status=400, code=None):
        answer = self.server.post(path, body)
        self.assertEqual(answer.status, status, answer.body)
        error = answer.json["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertEqual(error["param"], param, error)
        if code:
            self.assertEqual(error["code"], code)
        if status == 400:
            self.assertEqual(error["type"], "invalid_request_error")
        return error["message"]
