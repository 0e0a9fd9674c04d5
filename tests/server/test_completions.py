# SPDX-License-Identifier: Apache-2.0
"""POST /v1/completions, /v1/embeddings and what turns texts into tokens and back."""
import base64
import math
import struct
import unittest

from api import TestCase, chunks, evaluation

PATH = "/v1/completions"
STORY = "Once upon a time"


class Completions(TestCase):
    def complete(self, prompt=STORY, **more):
        return self.good(PATH, {"prompt": prompt, "temperature": 0, "max_tokens": 12, **more})

    def stream(self, **body):
        found = chunks(self.server.post(PATH, {"temperature": 0, **body, "stream": True}))
        texts, reasons, logprobs = {}, {}, {}
        for chunk in found:
            self.assertEqual((chunk["object"], chunk["id"]), ("text_completion", found[0]["id"]))
            for choice in chunk["choices"]:
                i = choice["index"]
                self.assertNotIn(i, reasons)
                texts[i] = texts.get(i, "") + choice["text"]
                for name, values in (choice["logprobs"] or {}).items():
                    logprobs.setdefault(name, []).extend(values)
                if choice["finish_reason"]:
                    self.assertEqual(choice["text"], "")
                    reasons[i] = choice["finish_reason"]
        return texts, reasons, logprobs

    def test_plain_texts(self):
        for line in evaluation():
            if line["category"] != "plain completion":
                continue
            answer = self.complete(line["prompt"], max_tokens=len(line["output_ids"]))
            choice = answer["choices"][0]
            self.assertEqual(choice["text"], line["output"][:len(choice["text"])])
            self.assertTrue(answer["id"].startswith("cmpl-"))
            self.assertEqual(answer["usage"]["prompt_tokens"], len(line["prompt_ids"]))
            by_ids = self.complete(line["prompt_ids"], max_tokens=len(line["output_ids"]))
            self.assertEqual(by_ids["choices"], answer["choices"])

    def test_many_prompts(self):
        ids = self.good("/tokenize", {"prompt": "One day"})["tokens"]
        whole = self.complete([STORY, "One day"], n=2, seed=3, temperature=1)
        self.assertEqual([c["index"] for c in whole["choices"]], [0, 1, 2, 3])
        texts = [c["text"] for c in whole["choices"]]
        self.assertEqual(texts[2:], [self.complete(ids, seed=3 + i, temperature=1)["choices"][0]
                                     ["text"] for i in range(2)])
        self.assertEqual(texts[2:], [c["text"] for c in self.complete(
            [ids], n=2, seed=3, temperature=1)["choices"]])
        streamed, _, _ = self.stream(prompt=[STORY, "One day"], n=2, seed=3, temperature=1,
                                     max_tokens=12)
        self.assertEqual([streamed[i] for i in range(4)], texts)
        alone = [self.complete(p)["usage"]["prompt_tokens"] for p in (STORY, "One day")]
        self.assertEqual(whole["usage"]["prompt_tokens"], sum(alone))
        self.assertEqual(whole["usage"]["completion_tokens"], 48)

    def test_streams(self):
        whole = self.complete(logprobs=3)["choices"][0]
        texts, reasons, logprobs = self.stream(prompt=STORY, max_tokens=12, logprobs=3)
        self.assertEqual((texts[0], reasons[0]), (whole["text"], "length"))
        self.assertEqual(logprobs, whole["logprobs"])

    def test_logprobs(self):
        whole = self.complete(logprobs=3)["choices"][0]
        found = whole["logprobs"]
        self.assertEqual("".join(found["tokens"]), whole["text"])
        for i, (token, offset) in enumerate(zip(found["tokens"], found["text_offset"],
                                                strict=True)):
            self.assertEqual(whole["text"][offset:offset + len(token)], token)
            self.assertEqual(len(found["top_logprobs"][i]), 3)
            self.assertEqual(found["top_logprobs"][i][token], found["token_logprobs"][i])
        only = self.complete(logprobs=0)["choices"][0]["logprobs"]
        self.assertEqual(only["token_logprobs"], found["token_logprobs"])

    def test_echo(self):
        plain = self.complete()["choices"][0]["text"]
        ids = self.good("/tokenize", {"prompt": STORY})["tokens"]
        for prompt in (STORY, ids):
            self.assertEqual(self.complete(prompt, echo=True)["choices"][0]["text"],
                             STORY + plain)
            self.assertEqual(self.stream(prompt=prompt, echo=True, max_tokens=12)[0][0],
                             STORY + plain)

    def test_ignoring_the_end(self):
        long = self.complete("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
                             max_tokens=150, ignore_eos=True)
        self.assertEqual(long["usage"]["completion_tokens"], 150)
        self.assertEqual(long["choices"][0]["finish_reason"], "length")

    def test_tokens_and_back(self):
        for text in ("", "Hello, world", "Zoë 日本 🙂", "a\0b", "<|im_end|>"):
            answer = self.good("/tokenize", {"prompt": text})
            self.assertEqual(answer["count"], len(answer["tokens"]))
            self.assertEqual(answer["max_model_len"], 2048)
            self.assertEqual(self.good("/tokenize", {"content": text}), answer)
            back = self.good("/detokenize", {"tokens": answer["tokens"]})
            self.assertEqual((back["prompt"], back["content"]), (text, text))
        special = {"prompt": "<|im_end|>"}
        self.assertEqual(self.good("/tokenize", special)["tokens"], [6258])
        self.assertGreater(self.good("/tokenize", {**special, "parse_special": False})["count"], 1)
        skipped = {"tokens": [6258], "skip_special_tokens": True}
        self.assertEqual(self.good("/detokenize", skipped)["prompt"], "")

    def test_templates(self):
        for line in evaluation()[::20]:
            if line["messages"]:
                body = {"messages": line["messages"], "enable_thinking": line["enable_thinking"],
                        "tools": line["tools"]}
                self.assertEqual(self.good("/apply-template", body)["prompt"], line["prompt"])


class Embeddings(TestCase):
    def embed(self, texts, **more):
        answer = self.good("/v1/embeddings", {"input": texts, **more})
        self.assertEqual([d["index"] for d in answer["data"]], list(range(len(answer["data"]))))
        return [d["embedding"] for d in answer["data"]], answer["usage"]

    def near(self, one, other):
        self.assertEqual(len(one), len(other))
        for a, b in zip(one, other, strict=True):
            self.assertAlmostEqual(a, b, places=6)

    def test_forms(self):
        texts = ["A dog barks.", "The sun is warm and round."]
        (dog, sun), usage = self.embed(texts)
        self.assertEqual(len(dog), 256)
        self.assertAlmostEqual(math.hypot(*dog), 1, places=5)
        self.near(self.embed(texts[0])[0][0], dog)
        counts = [self.good("/tokenize", {"prompt": t})["count"] + 1 for t in texts]
        self.assertEqual(usage, {"prompt_tokens": sum(counts), "total_tokens": sum(counts)})
        coded, _ = self.embed(texts, encoding_format="base64")
        for text, plain in zip(coded, (dog, sun), strict=True):
            self.near(struct.unpack("<256f", base64.b64decode(text, validate=True)), plain)
        end = self.good("/tokenize", {"prompt": "<|endoftext|>"})["tokens"]
        ids = [self.good("/tokenize", {"prompt": t})["tokens"] + end for t in texts]
        self.near(self.embed(ids)[0][1], sun)
        self.near(self.embed(ids[0])[0][0], dog)

    def test_dimensions(self):
        whole = self.embed("A dog barks.")[0][0]
        short = self.embed("A dog barks.", dimensions=64)[0][0]
        self.assertEqual(len(short), 64)
        length = math.hypot(*whole[:64])
        self.near(short, [x / length for x in whole[:64]])


if __name__ == "__main__":
    unittest.main()
