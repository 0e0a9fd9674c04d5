# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, told what to do over its DevTools protocol."""
import base64
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request

CHROMIUM = shutil.which("chromium")
TIMEOUT = 30
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
           "--disable-background-networking", "--disable-component-update", "--disable-sync",
           "--disable-extensions", "--disable-default-apps", "--no-first-run", "--no-pings",
           "--proxy-server=127.0.0.1:9", "--proxy-bypass-list=127.0.0.1",
           "--remote-debugging-port=0", "--window-size=1200,800", "about:blank")
KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, "")}


class WebSocket:
    """As much of RFC 6455 as a client of one well-behaved server needs."""

    def __init__(self, url):
        host, port, path = re.fullmatch(r"ws://([^:/]+):(\d+)(/.*)", url).groups()
        self.socket = socket.create_connection((host, int(port)), TIMEOUT)
        self.input = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
                            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                            "Sec-WebSocket-Version: 13\r\n\r\n".encode())
        status = self.input.readline()
        assert b" 101 " in status, status
        while self.input.readline() != b"\r\n":
            pass

    def send(self, text):
        data = text.encode()
        size = len(data)
        length = (bytes([0x80 | size]) if size < 126 else
                  bytes([0xfe]) + size.to_bytes(2, "big") if size < 1 << 16 else
                  bytes([0xff]) + size.to_bytes(8, "big"))
        self.socket.sendall(b"\x81" + length + bytes(4) + data)  # a mask of zeros

    def receive(self):
        """The next message: texts only, for that is all DevTools sends."""
        whole = b""
        while True:
            first, second = self.input.read(2)
            size = second & 0x7f
            if size >= 126:
                size = int.from_bytes(self.input.read(2 if size == 126 else 8), "big")
            data = self.input.read(size)
            if first & 0x0f in (0, 1):
                whole += data
                if first & 0x80:
                    return whole.decode()

    def close(self):
        self.input.close()
        self.socket.close()


class Browser:
    """One page of it."""

    def __init__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [CHROMIUM, f"--user-data-dir={self.profile.name}", *OPTIONS], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        port = None
        while port is None:
            line = self.process.stderr.readline().decode(errors="replace")
            if line == "":
                raise AssertionError("Chromium did not start")
            found = re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line)
            port = found and found[1]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/json/list", timeout=TIMEOUT) as answer:
            pages = json.load(answer)
        url = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        self.channel = WebSocket(url)
        self.number = 0
        self.events = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.bringToFront")  # only a page in focus may use the clipboard

    def close(self):
        self.channel.close()
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()
        self.profile.cleanup()

    def call(self, method, **parameters):
        self.number += 1
        self.channel.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.channel.receive())
            if message.get("id") == self.number:
                assert "error" not in message, (method, message)
                return message["result"]
            self.events.append(message)

    def take_events(self, *methods):
        self.js("0")  # what came before this is read by now
        return [event["params"] for event in self.events if event.get("method") in methods]

    def js(self, expression):
        """The value of an expression in the page, awaited."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True,
                           returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    def until(self, expression):
        """Waits until an expression is true, and gives its value."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            value = self.js(expression)
            if value:
                return value
            time.sleep(0.02)
        raise AssertionError(f"not true within {TIMEOUT} s: {expression}; the page: "
                             f"{self.js('document.body.innerText')}")

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.until(f"location.href.startsWith({json.dumps(url)}) && "
                   "document.readyState === 'complete'")

    def click(self, selector):
        self.js(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, text):
        self.call("Input.insertText", text=text)

    def key(self, name, shift=False):
        code, text = KEYS[name]
        common = {"key": name, "code": name, "windowsVirtualKeyCode": code,
                  "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": name}])
