# SPDX-License-Identifier: Apache-2.0
"""A plug-in whose device goes away while requests run: they end with an error, health says so, and
the server still answers and stops as it should."""
import os
import pathlib
import unittest

from api import Server, events, strict

PLUGINS = pathlib.Path(os.environ["MYELIN_PLUGINS"])
LONG = {"model": "demo", "prompt": "Hello", "max_tokens": 200}


class Faults(unittest.TestCase):
    def test_device_that_goes_away(self):
        server = Server("--plugin", PLUGINS / "dies.so")
        try:
            self.assertEqual(server.get("/health").status, 200)
            streamed = server.post("/v1/completions", dict(LONG, stream=True))
            self.assertEqual(streamed.status, 200)
            told = [data for _, data in events(streamed.body)]
            self.assertIn("the device went away", told[-1])
            self.assertEqual(strict(told[-1])["error"]["code"], "device")
            self.assertGreater(len(told), 3)
            for _ in range(3):  # at once, and not hanging
                whole = server.post("/v1/completions", LONG)
                self.assertEqual(whole.status, 503)
                self.assertEqual(whole.json["error"]["code"], "device")
                self.assertIn("the device went away", whole.json["error"]["message"])
                self.assertIn("retry-after", whole.headers)
            health = server.get("/health")
            self.assertEqual(health.status, 503)
            self.assertEqual(health.json["error"]["code"], "device")
            self.assertEqual(server.get("/version").status, 200)
            self.assertEqual(server.metric("myelin_requests_failed_total"), 4)
        finally:
            self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
