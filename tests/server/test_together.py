# SPDX-License-Identifier: Apache-2.0
"""Many clients at once: each gets what it would get alone, and those that leave cost nothing."""
import random
import re
import socket
import threading
import time
import unittest

from api import (TIMEOUT, Joined, Server, TestCase, chunks, conversation, sure_lines, together, whole)

PATH = "/v1/chat/completions"
PATIENCE = 6000  # times a twentieth of a second
LONG = {"messages": [{"role": "user", "content": "Tell me a story."}], "temperature": 0,
        "ignore_eos": True, "stream": True}


def first_bytes(client):
    """Reads until a first delta has come."""
    data = b""
    while b'"content"' not in data:
        more = client.recv(65536)
        assert more, data
        data += more


class Together(TestCase):
    OPTIONS = ("--max-sequences", 4)

    def until(self, name, value):
        for _ in range(PATIENCE):
            if self.server.metric(name) == value:
                return
            time.sleep(0.05)
        self.fail(f"{name} is {self.server.metric(name)}, not {value}")

    def ask(self, body):
        answer = self.server.post(PATH, body)
        if body.get("stream"):
            return Joined(chunks(answer), body.get("n", 1)).texts
        self.assertEqual(answer.status, 200, answer.body)
        return [whole(choice) for choice in answer.json["choices"]]

    def test_each_gets_what_it_gets_alone(self):
        bodies = []
        for i, line in enumerate(sure_lines(every=26)):
            bodies.append(conversation(line))
            bodies.append(conversation(line, temperature=1, seed=i, n=2, max_tokens=20))
        alone = [self.ask(body) for body in bodies]
        chance = random.Random(8)
        jobs = [(i, {**body, "stream": chance.random() < 0.5,
                     "cache_prompt": chance.random() < 0.5, "priority": chance.randrange(-2, 3)})
                for i, body in enumerate(bodies)]
        chance.shuffle(jobs)
        for (i, _), texts in zip(jobs, together(lambda job: self.ask(job[1]), jobs, 12),
                                 strict=True):
            self.assertEqual(texts, alone[i])

    def test_those_that_leave(self):
        before = self.server.metric("myelin_requests_cancelled_total")
        clients = [self.server.send(PATH, LONG) for _ in range(6)]  # two of them wait
        for client in clients[:4]:
            first_bytes(client)
        self.until("vllm:num_requests_running", 4)  # a stream may begin before its request does
        self.until("vllm:num_requests_waiting", 2)
        for client in clients:
            client.close()
        self.until("vllm:num_requests_running", 0)
        self.until("vllm:num_requests_waiting", 0)
        self.assertEqual(self.server.metric("myelin_requests_cancelled_total"), before + 6)
        self.assertEqual(self.server.metric("myelin_kv_pages_used"), 0)
        whole_one = self.server.send(PATH, {**LONG, "stream": False})
        self.until("vllm:num_requests_running", 1)
        whole_one.close()
        self.until("vllm:num_requests_running", 0)

    def test_one_that_does_not_read(self):
        opened = socket.socket()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.settimeout(TIMEOUT)
        opened.connect(("127.0.0.1", self.server.port))
        left = r'code="499"\} (\d+)'
        before = re.findall(left, self.server.get("/metrics").body.decode())
        # more than 4 MiB are there to be read before the first token is
        self.server.send("/v1/completions", {"prompt": ["word " * 1000] * 64, "n": 16,
                                             "echo": True, "stream": True}, opened)
        for _ in range(PATIENCE):
            if re.findall(left, self.server.get("/metrics").body.decode()) != before:
                break
            time.sleep(0.05)
        self.until("vllm:num_requests_running", 0)
        self.until("vllm:num_requests_waiting", 0)
        self.assertNotEqual(re.findall(left, self.server.get("/metrics").body.decode()), before)
        opened.close()

    def test_figures(self):
        self.chat("48 + 0", max_tokens=5)
        text = self.server.get("/metrics").body.decode()
        for line in text.splitlines():
            self.assertRegex(line, r'^(# (HELP|TYPE) [a-z_:0-9]+ .+|'
                                   r'[a-z_:0-9]+\{model_name="[^"]*"(,[a-z_]+="[^"]*")*\} '
                                   r'[0-9.e+-]+)$')
        for name in ("vllm:num_requests_running", "vllm:num_requests_waiting",
                     "vllm:cache_config_info", "vllm:kv_cache_usage_perc",
                     "vllm:gpu_cache_usage_perc",
                     "vllm:prefix_cache_queries", "vllm:prefix_cache_hits",
                     "vllm:prompt_tokens_total", "vllm:generation_tokens_total",
                     "vllm:time_to_first_token_seconds_count",
                     "vllm:time_per_output_token_seconds_sum", "myelin_kv_pages"):
            self.server.metric(name)
        names = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
        self.assertEqual(len(names), len(set(names)))
        before = {name: self.server.metric(name) for name in (
            "vllm:time_to_first_token_seconds_count", "vllm:generation_tokens_total",
            "vllm:time_per_output_token_seconds_count")}
        usage = self.chat("48 + 0", max_tokens=7)["usage"]
        after = {name: self.server.metric(name) for name in before}
        self.assertEqual([after[name] - before[name] for name in before],
                         [1, usage["completion_tokens"], usage["completion_tokens"] - 1])
        buckets = [float(value) for value in re.findall(
            r'^vllm:time_to_first_token_seconds_bucket\S+ (\S+)$', text, re.MULTILINE)]
        self.assertEqual(buckets, sorted(buckets))
        self.assertEqual(self.server.post(PATH, b"[1]").status, 400)
        self.assertRegex(self.server.get("/metrics").body.decode(),
                         r'myelin_http_responses_total\{model_name="demo",code="400"\} [1-9]')


class Small(unittest.TestCase):
    def test_a_queue_that_is_full(self):
        server = Server("--max-sequences", 1, "--max-queue", 1)
        try:
            clients = [server.send(PATH, LONG)]
            first_bytes(clients[0])
            clients.append(server.send(PATH, LONG))
            for _ in range(PATIENCE):
                if server.metric("vllm:num_requests_waiting") == 1:
                    break
                threading.Event().wait(0.05)
            answer = server.post(PATH, {**LONG, "max_tokens": 1})
            self.assertEqual(answer.status, 429, answer.body)
            self.assertEqual(answer.headers["retry-after"], "1")
            self.assertEqual(answer.json["error"]["code"], "queue_full")
            self.assertEqual(server.get("/health").status, 200)
            for client in clients:
                client.close()
        finally:
            self.assertEqual(server.stop(), 0, server.said)


class Routes(TestCase):
    def test_what_there_is(self):
        models = self.server.get("/v1/models").json
        self.assertEqual(models["object"], "list")
        self.assertEqual(models["data"][0]["id"], "demo")
        self.assertEqual(models["data"][0]["max_model_len"], 2048)
        self.assertEqual(self.server.get("/v1/models/demo").json, models["data"][0])
        self.assertEqual(self.server.get("/v1/models/other").status, 404)
        self.assertEqual(self.server.get("/nowhere").status, 404)
        self.assertRegex(self.server.get("/version").json["version"], r"^\d+\.\d+\.\d+$")
        wrong = self.server.get(PATH)
        self.assertEqual((wrong.status, wrong.headers["allow"]), (405, "POST"))
        wrong = self.server.post("/health", {})
        self.assertEqual((wrong.status, wrong.headers["allow"]), (405, "GET"))
        head = self.server.request("HEAD", "/health")
        self.assertEqual((head.status, head.body), (200, b""))


if __name__ == "__main__":
    unittest.main()
