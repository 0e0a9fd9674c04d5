#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Three replicas behind HAProxy, each in a network namespace of its own: one is killed, one drained,
one cut off, while clients ask. No request that can be sent again is lost, every answer is the one a
single server gives, and a conversation finds its beginning in a cache.

usage: test_scale_out.py MYELIN MODEL CONFIG      (needs root, ip netns and haproxy; else skipped)
"""
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SKIPPED = 77
NETWORK = "10.231.7"
REPLICAS = 3
CLIENTS = 6
PHASE_SECONDS = 4
NOTICED_SECONDS = 2  # two checks half a second apart, with time to spare


def namespace(index):
    return f"mln-{os.environ['MLN_TEST_PID']}-{index}"


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def inside(name, *command):
    return ["ip", "netns", "exec", name, *command]


def make_network():
    """Namespace 0 has the bridge, the balancer and the clients; 1 to REPLICAS a replica each."""
    for i in range(REPLICAS + 1):
        ip("netns", "add", namespace(i))
    hub = namespace(0)
    ip("-n", hub, "link", "set", "lo", "up")
    ip("-n", hub, "link", "add", "bridge", "type", "bridge")
    ip("-n", hub, "addr", "add", f"{NETWORK}.100/24", "dev", "bridge")
    ip("-n", hub, "link", "set", "bridge", "up")
    for i in range(1, REPLICAS + 1):
        ip("-n", hub, "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0",
           "netns", namespace(i))
        ip("-n", hub, "link", "set", f"port{i}", "master", "bridge")
        ip("-n", hub, "link", "set", f"port{i}", "up")
        ip("-n", namespace(i), "addr", "add", f"{NETWORK}.{i}/24", "dev", "eth0")
        ip("-n", namespace(i), "link", "set", "eth0", "up")
        ip("-n", namespace(i), "link", "set", "lo", "up")


def remove_network():
    for i in range(REPLICAS + 1):
        subprocess.run(["ip", "netns", "del", namespace(i)], capture_output=True, check=False)


class Processes:
    """The replicas and the balancer; all are gone at the end."""

    def __init__(self, myelin, model, config, directory):
        self.myelin, self.model = myelin, model
        self.directory = Path(directory)
        self.replicas = {}
        text = Path(config).read_text(encoding="utf-8").replace("192.0.2.", f"{NETWORK}.")
        text = re.sub(r"(?m)^    bind .*$", f"    bind {NETWORK}.100:8000", text)
        (self.directory / "haproxy.cfg").write_text(text, encoding="utf-8")
        self.balancer = None

    def start_all(self):
        for i in range(1, REPLICAS + 1):
            self.start(i)
        for i in range(1, REPLICAS + 1):
            self.await_health(f"{NETWORK}.{i}", 8080)
        with open(self.directory / "haproxy.log", "wb") as log:
            self.balancer = subprocess.Popen(
                ["haproxy", "-db", "-f", str(self.directory / "haproxy.cfg")], stderr=log,
                stdout=log)
        self.await_health(f"{NETWORK}.100", 8000)

    def start(self, i):
        with open(self.directory / f"replica{i}.log", "ab") as log:
            self.replicas[i] = subprocess.Popen(
                inside(namespace(i), self.myelin, "serve", "-m", self.model, "--threads", "1",
                       "--host", f"{NETWORK}.{i}", "--port", "8080"), stderr=log, stdout=log)

    def await_replica(self, i):
        """It is healthy, and the balancer has noticed."""
        self.await_health(f"{NETWORK}.{i}", 8080)
        time.sleep(NOTICED_SECONDS)

    def await_health(self, host, port):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                connection = http.client.HTTPConnection(host, port, timeout=2)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"nobody healthy at {host}:{port} after 30 s")

    def stop(self):
        for process in [*self.replicas.values(), self.balancer]:
            if process and process.poll() is None:
                process.kill()
                process.wait()


def ask(host, port, body):
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body),
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    assert response.status == 200, f"{response.status}: {text[:300]!r}"
    return json.loads(text)


def question(i):
    return {"messages": [{"role": "system", "content": f"You are assistant number {i}."},
                         {"role": "user", "content": f"Tell me a story about {i} buns."}],
            "max_tokens": 48, "temperature": 0}


def answer_of(reply):
    message = reply["choices"][0]["message"]
    return message.get("content"), message.get("reasoning_content"), reply["usage"][
        "completion_tokens"]


def load(expected, seconds, disturb):
    """Clients ask for so long; disturb() is called once they are under way."""
    end = time.monotonic() + seconds
    failures, counts = [], [0] * CLIENTS

    def client(number):
        i = number
        while time.monotonic() < end and not failures:
            i = (i + CLIENTS) % len(expected)
            try:
                found = answer_of(ask(f"{NETWORK}.100", 8000, question(i)))
                assert found == expected[i], f"question {i}: {found} instead of {expected[i]}"
            except (AssertionError, OSError, http.client.HTTPException, ValueError) as failure:
                failures.append(f"{type(failure).__name__}: {failure}")
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    disturb()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert min(counts) > 0
    return sum(counts)


def test_affinity():
    """Second turns find the first in their replica's cache, but where that one was busy."""
    found = 0
    for i in range(8):
        body = question(100 + i)
        body["messages"][0]["content"] += " Be kind and patient, and answer in whole sentences." * 4
        reply = ask(f"{NETWORK}.100", 8000, body)
        body["messages"] += [{"role": "assistant", "content": answer_of(reply)[0] or "Yes."},
                             {"role": "user", "content": "And then?"}]
        time.sleep(0.1)
        usage = ask(f"{NETWORK}.100", 8000, body)["usage"]
        found += usage["prompt_tokens_details"]["cached_tokens"] > 60
    assert found >= 6, f"{found} of 8 conversations found their beginning"


def drained(process):
    process.send_signal(signal.SIGTERM)


def run(myelin, model, config):
    with tempfile.TemporaryDirectory() as directory:
        processes = Processes(myelin, model, config, directory)
        try:
            processes.start_all()
            expected = [answer_of(ask(f"{NETWORK}.1", 8080, question(i))) for i in range(24)]
            test_affinity()
            done = load(expected, PHASE_SECONDS, processes.replicas[1].kill)
            print(f"one of {REPLICAS} killed: {done} requests, none lost")
            processes.replicas[1].wait()
            processes.start(1)
            processes.await_replica(1)
            done = load(expected, PHASE_SECONDS, lambda: drained(processes.replicas[2]))
            assert processes.replicas[2].wait(timeout=30) == 0
            print(f"one drained: {done} requests, none lost")
            processes.start(2)
            processes.await_replica(2)
            done = load(expected, 3 * PHASE_SECONDS,
                        lambda: ip("-n", namespace(0), "link", "set", "port3", "down"))
            print(f"one cut off: {done} requests, none lost")
        except Exception:
            for log in sorted(Path(directory).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
            raise
        finally:
            processes.stop()


def skip(reason):
    print(f"skipped: {reason}")
    return SKIPPED


def main():
    if "MLN_TEST_PID" in os.environ:
        run(*sys.argv[1:4])
        return 0
    if os.geteuid() != 0:
        return skip("network namespaces need root")
    for program in ("ip", "haproxy"):
        if not shutil.which(program):
            return skip(f"{program} is not installed")
    os.environ["MLN_TEST_PID"] = str(os.getpid())
    try:
        try:
            make_network()
        except subprocess.CalledProcessError as failure:
            return skip(f"no network namespaces here: {failure.stderr.strip()}")
        command = inside(namespace(0), sys.executable, __file__, *sys.argv[1:4])
        return subprocess.run(command, check=False).returncode
    finally:
        remove_network()


if __name__ == "__main__":
    sys.exit(main())
