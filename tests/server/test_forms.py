# SPDX-License-Identifier: Apache-2.0
"""Answers that must have a form: JSON schemas and calls of tools."""
import json
import unittest

from api import TestCase, WEATHER, Joined, chunks, together, whole

PATH = "/v1/chat/completions"
PERSON = {"type": "object", "additionalProperties": False, "required": ["name", "age", "tags"],
          "properties": {"name": {"type": "string", "maxLength": 12},
                         "age": {"type": "integer", "minimum": 0, "maximum": 130},
                         "tags": {"type": "array", "maxItems": 2,
                                  "items": {"enum": ["old", "young"]}}}}
SEND = {"type": "function", "function": {
    "name": "send", "parameters": {"type": "object", "required": ["to", "urgent"],
                                   "additionalProperties": False,
                                   "properties": {"to": {"type": "string", "maxLength": 20},
                                                  "urgent": {"type": "boolean"}}}}}


def form(schema):
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}


class Forms(TestCase):
    def ask(self, stream=False, **body):
        body = {"messages": [{"role": "user", "content": "Hugo is 53 years old."}],
                "max_tokens": 300, "enable_thinking": False, **body}
        answer = self.server.post(PATH, {**body, "stream": stream})
        self.assertEqual(answer.status, 200, answer.body)
        return Joined(chunks(answer)).texts[0] if stream else whole(answer.json["choices"][0])

    def check_person(self, text):
        person = json.loads(text)
        self.assertEqual(sorted(person), ["age", "name", "tags"])
        self.assertTrue(isinstance(person["name"], str) and len(person["name"]) <= 12)
        self.assertTrue(type(person["age"]) is int and 0 <= person["age"] <= 130)
        self.assertTrue(len(person["tags"]) <= 2 and set(person["tags"]) <= {"old", "young"})

    def test_schemas(self):
        def one(seed):
            body = {"response_format": form(PERSON), "temperature": 1.3 if seed else 0,
                    "seed": seed, "enable_thinking": seed % 2 == 1}
            return self.ask(**body), self.ask(stream=True, **body)
        ended = 0
        for plain, streamed in together(one, range(8)):
            self.assertEqual(plain, streamed)
            if plain["finish_reason"] == "stop":
                ended += 1
                self.check_person(plain["content"])
        self.assertGreater(ended, 4)

    def test_any_object(self):
        answer = self.ask(response_format={"type": "json_object"}, temperature=0)
        if answer["finish_reason"] == "stop":
            self.assertIsInstance(json.loads(answer["content"]), dict)
        self.assertEqual(answer["content"].lstrip()[0], "{")
        text = self.ask(response_format={"type": "text"}, temperature=0)
        self.assertEqual(text, self.ask(temperature=0))
        flat = self.good("/v1/responses", {
            "input": "Hugo is 53 years old.", "temperature": 0, "reasoning": {"effort": "none"},
            "text": {"format": {"type": "json_schema", "name": "it", "schema": PERSON}}})
        self.check_person(flat["output"][-1]["content"][0]["text"])
        plain = self.good("/v1/completions", {"prompt": "Hugo is 53", "temperature": 0,
                                              "max_tokens": 200, "response_format": form(PERSON)})
        self.check_person(plain["choices"][0]["text"])

    def test_calls(self):
        jobs = [(choice, parallel, seed)
                for choice in ("required", {"type": "function", "function": {"name": "send"}})
                for parallel in (False, True) for seed in (0, 1)]

        def one(job):
            choice, parallel, seed = job
            body = {"tools": [WEATHER, SEND], "tool_choice": choice, "seed": seed,
                    "parallel_tool_calls": parallel, "temperature": 1.2 * seed}
            return self.ask(**body), self.ask(stream=True, **body)
        for (choice, parallel, _), (plain, streamed) in zip(jobs, together(one, jobs),
                                                            strict=True):
            with self.subTest(choice=choice, parallel=parallel):
                self.assertEqual(plain, streamed)
                if plain["finish_reason"] == "length":
                    continue
                self.assertEqual(plain["finish_reason"], "tool_calls")
                self.assertTrue(plain["calls"] and (parallel or len(plain["calls"]) == 1))
                for name, arguments in plain["calls"]:
                    given = json.loads(arguments)
                    if choice != "required" or name == "send":
                        self.assertEqual(name, "send")
                        self.assertIsInstance(given["to"], str)
                        self.assertIsInstance(given["urgent"], bool)
                    else:
                        self.assertIsInstance(given["city"], str)

    def test_one_call_at_most(self):
        both = {"messages": [{"role": "user", "content": "Price of TVTB and ERK?"}],
                "tools": [{"type": "function", "function": {
                    "name": "get_stock_price", "description": "Returns the share price of a "
                    "company", "parameters": {"type": "object", "required": ["symbol"],
                                              "properties": {"symbol": {"type": "string"}}}}}],
                "temperature": 0}
        self.assertEqual(len(self.ask(**both)["calls"]), 2)
        self.assertEqual(len(self.ask(**both, parallel_tool_calls=False)["calls"]), 1)
        free = self.ask(tools=[WEATHER], parallel_tool_calls=False, temperature=0,
                        messages=[{"role": "user", "content": "Tell me a joke."}])
        self.assertEqual((free["calls"], free["finish_reason"]), ([], "stop"))

    def test_refusals(self):
        hello = {"messages": [{"role": "user", "content": "Hi"}]}
        for schema, word in (({"type": "object", "patternProperties": {"x": {}}},
                              "patternProperties"),
                             ({"type": "wrong"}, "type"), ({"$ref": "#/nowhere"}, r"\$ref"),
                             ({"enum": []}, "nothing")):
            said = self.bad(PATH, {**hello, "response_format": form(schema)}, "response_format",
                            code="invalid_schema")
            self.assertRegex(said, word)
        tool = {"type": "function", "function": {
            "name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "no"}}}}}
        self.bad(PATH, {**hello, "tools": [tool], "tool_choice": "required"}, "tools")
        deep = {"type": "integer"}
        for _ in range(100):
            deep = {"type": "array", "items": deep}
        text = json.dumps({**hello, "response_format": form("HERE")})
        bomb = '{"type":"array","items":' * 3000 + "{}" + "}" * 3000
        self.bad(PATH, text.replace('"HERE"', bomb).encode(), None, code="json_too_deep")
        answer = self.server.post(PATH, {**hello, "response_format": form(deep), "max_tokens": 2})
        self.assertIn(answer.status, (200, 400))


if __name__ == "__main__":
    unittest.main()
