# SPDX-License-Identifier: Apache-2.0
"""The chat page as HTTP has it: its files, their headers, and who may have them."""
import pathlib
import re
import tempfile
import unittest

from api import Server, TestCase

POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
          "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8",
         "svg": "image/svg+xml"}
FILES = pathlib.Path(__file__).parents[2] / "app/server/page"


class PageOverHttp(TestCase):
    def test_files_and_headers(self):
        paths = {"/": "text/html; charset=utf-8"}
        for suffix, kind in TYPES.items():
            paths.update({f"/page/{file.name}": kind for file in FILES.glob(f"*.{suffix}")})
        self.assertGreater(len(paths), 10)
        for path, kind in paths.items():
            answer = self.server.get(path)
            file = FILES / (path.removeprefix("/page/") if path != "/" else "index.html")
            self.assertEqual((answer.status, answer.body), (200, file.read_bytes()), path)
            self.assertEqual(answer.headers["content-type"], kind)
            self.assertEqual(answer.headers["content-security-policy"], POLICY)
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
            self.assertEqual(answer.headers["referrer-policy"], "no-referrer")
            head = self.server.request("HEAD", path)
            self.assertEqual((head.status, head.body), (200, b""))
            for name in ("etag", "content-length", "content-type"):
                self.assertEqual(head.headers[name], answer.headers[name])

    def test_unchanged(self):
        tag = self.server.get("/").headers["etag"]
        self.assertNotEqual(tag, self.server.get("/page/app.js").headers["etag"])
        for sent in (tag, f"W/{tag}", f'"other", {tag}', f'"other",W/{tag} , "x"', "*"):
            answer = self.server.request("GET", "/", headers={"If-None-Match": sent})
            self.assertEqual((answer.status, answer.body), (304, b""), sent)
            self.assertEqual(answer.headers["etag"], tag)
            self.assertIn("content-security-policy", answer.headers)
        self.assertRegex(self.server.get("/metrics").body,
                         rb'myelin_http_responses_total\{[^}]*"304"[^}]*\} [1-9]')
        for sent in ('"other"', tag[:-1], tag.strip('"'), "", ",", tag + tag):
            answer = self.server.request("GET", "/", headers={"If-None-Match": sent})
            self.assertEqual(answer.status, 200, sent)

    def test_other_methods_and_paths(self):
        for path in ("/", "/page/app.js"):
            answer = self.server.post(path, {})
            self.assertEqual((answer.status, answer.headers["allow"]), (405, "GET, HEAD"))
        for path in ("/page/", "/page", "/page/app.js/", "/page/nothing.js", "/app.js",
                     "/index.html", "/page/index.html", "/page/embed.cmake", "/page/../page.c"):
            self.assertIn(self.server.get(path).status, (400, 404), path)

    def test_nothing_foreign_is_named(self):
        """No address but the namespace of SVG, and no markup that a policy would refuse."""
        for file in FILES.iterdir():
            text = file.read_text()
            hosts = set(re.findall(r"https?://([\w.-]+\w)", text)) - {"www.w3.org"}
            self.assertEqual(hosts, set(), file)
            if file.suffix == ".html":
                self.assertIsNone(re.search(r"\son\w+=|\sstyle=|<style|javascript:", text))
            if file.suffix == ".js":
                self.assertIsNone(re.search(r"\b(?:inner|outer)HTML\b|insertAdjacentHTML|\beval\b|"
                                            r"document\.write|new Function", text), file)


class Otherwise(unittest.TestCase):
    def test_without_the_page(self):
        server = Server("--no-page")
        self.addCleanup(server.stop)
        for path in ("/", "/page/app.js"):
            self.assertEqual(server.get(path).status, 404)

    def test_with_keys(self):
        with tempfile.TemporaryDirectory() as directory:
            keys = pathlib.Path(directory) / "keys"
            keys.write_text("a-key\n")
            server = Server("--api-key-file", keys)
            self.addCleanup(server.stop)
            for path in ("/", "/page/app.js", "/page/style.css"):
                self.assertEqual(server.get(path).status, 200, path)
                self.assertEqual(server.post(path, {}).status, 401)
            for path in ("/v1/models", "/metrics", "/page"):
                self.assertEqual(server.get(path).status, 401, path)
            self.assertNotEqual(server.get("/page/../v1/models").status, 200)


if __name__ == "__main__":
    unittest.main()
