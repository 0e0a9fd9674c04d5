# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a request is a 400 that names the member, and the server goes on."""
import unittest

from api import TestCase, WEATHER

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
EMBEDDINGS, RESPONSES = "/v1/embeddings", "/v1/responses"
HELLO = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
BIG = [2**31, 2**63 - 1, -1, -2**63]
NO_INTEGER = ["1", 1.5, True, [], {}]
NO_NUMBER = ["1", True, [], {}]
NO_STRING = [1, True, [], {}]
NO_BOOL = [1, 0, "true", [], {}]
NO_OBJECT = [1, "x", True, []]

# member: values that are refused with the member's name as "param"
SAMPLING = {
    "temperature": [*NO_NUMBER, -1, 101], "top_p": [*NO_NUMBER, 0, -0.5, 1.5],
    "top_k": [*NO_INTEGER, -2, 2**31], "min_p": [*NO_NUMBER, -1, 2],
    "seed": NO_INTEGER, "presence_penalty": [*NO_NUMBER, 1e9],
    "frequency_penalty": [*NO_NUMBER, -1e9], "repetition_penalty": [*NO_NUMBER, 0, -1],
    "max_tokens": [*NO_INTEGER, 0, *BIG[:1], -1], "max_completion_tokens": [0, 2**31, "x"],
    "n": [*NO_INTEGER, 0, 17, *BIG], "priority": [*NO_INTEGER, 101, -101],
    "stream": NO_BOOL, "stream_options": NO_OBJECT, "cache_prompt": NO_BOOL,
    "stop": [1, True, {}, "", [1], [""], ["x"] * 17, "a\0b"], "user": NO_STRING,
    "ignore_eos": NO_BOOL,
    "logit_bias": [1, [], {"x": 1}, {"-1": 1}, {"6400": 1}, {"1": "x"}, {"1": 5000}, {"1 ": 1},
                   {"99999999999999999999": 1}],
    "model": NO_STRING,
}
CHATS = {
    **SAMPLING,
    "messages": [None, 1, "x", {}, []], "logprobs": NO_BOOL, "top_logprobs": [5, "x", -1, 21],
    "tools": [1, "x", {}, [WEATHER] * 129], "tool_choice": [1, "x", [], "required"],
    "parallel_tool_calls": NO_BOOL, "response_format": NO_OBJECT,
    "chat_template_kwargs": NO_OBJECT, "enable_thinking": NO_BOOL,
    "reasoning_effort": [1, "huge", {}], "thinking_budget": [*NO_INTEGER, -2, 2**31],
}
TEXTS = {
    **SAMPLING,
    "prompt": [None, 1, True, {}, [], ["x"] * 129], "logprobs": [True, -1, 21, "x"],
    "echo": NO_BOOL, "suffix": ["x"],
}
VECTORS = {
    "input": [None, 1, True, {}, []], "encoding_format": [1, "binary"],
    "dimensions": [*NO_INTEGER, 0, -1, 257, 2**31], "user": NO_STRING, "model": NO_STRING,
}
ANSWERS = {
    "input": [None, 1, {}, []], "instructions": NO_STRING, "max_output_tokens": [0, "x", 2**31],
    "previous_response_id": ["resp_1"], "conversation": ["c"], "background": [True, 1],
    "text": NO_OBJECT, "reasoning": NO_OBJECT, "tools": [1, {}], "tool_choice": [1, "required"],
}
# the rest of a body, what is refused where
NESTED = [
    (CHAT, {"messages": [1]}, "messages[0]"),
    (CHAT, {"messages": [{}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": 1}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": [1]}]}, "messages[0].content[0]"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
     "messages[0].content[0].text"),
    (CHAT, {"messages": [{"role": "user", "content": "x"},
                         {"role": "user", "content": [{"type": "text", "text": "x"}, {
                             "type": "image_url", "image_url": {"url": "data:"}}]}]},
     "messages[1].content[1]"),
    (CHAT, {"messages": [{"role": "assistant", "tool_calls": 1}]}, "messages[0].tool_calls"),
    (CHAT, {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
     "messages[0].tool_calls[0].function"),
    (CHAT, {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
     "messages[0].tool_calls[0].function.name"),
    (CHAT, {"messages": [{"role": "assistant", "tool_calls": [
        {"function": {"name": "f", "arguments": 1}}]}]},
     "messages[0].tool_calls[0].function.arguments"),
    (CHAT, {"messages": [{"role": "assistant", "reasoning_content": 1}]},
     "messages[0].reasoning_content"),
    (CHAT, {"tools": [{}]}, "tools[0].type"),
    (CHAT, {"tools": [{"type": "function"}]}, "tools[0].function"),
    (CHAT, {"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": 1}}]},
     "tools[0].function.parameters"),
    (CHAT, {"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice.function.name"),
    (CHAT, {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "g"}}},
     "tool_choice"),
    (CHAT, {"response_format": {"type": "xml"}}, "response_format.type"),
    (CHAT, {"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}},
     "response_format.json_schema.schema"),
    (CHAT, {"tools": [WEATHER], "response_format": {"type": "json_object"}}, "response_format"),
    (CHAT, {"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    (CHAT, {"chat_template_kwargs": {"enable_thinking": 1}},
     "chat_template_kwargs.enable_thinking"),
    (COMPLETIONS, {"prompt": [1, "x"]}, "prompt[1]"),
    (COMPLETIONS, {"prompt": ["x", 1]}, "prompt[1]"),
    (COMPLETIONS, {"prompt": [[1], [6400]]}, "prompt[1][0]"),
    (COMPLETIONS, {"prompt": [-1]}, "prompt[0]"),
    (COMPLETIONS, {"prompt": "x", "echo": True, "logprobs": 1}, "echo"),
    (EMBEDDINGS, {"input": [1, 6400]}, "input[1]"),
    (EMBEDDINGS, {"input": ["x", 1]}, "input[1]"),
    (EMBEDDINGS, {"input": ["x", ""]}, "input[1]"),
    (RESPONSES, {"input": [{"type": "computer_call"}]}, "input[0].type"),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
     "input[0].content[0]"),
    (RESPONSES, {"input": "x", "reasoning": {"effort": "huge"}}, "reasoning.effort"),
    (RESPONSES, {"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
    (RESPONSES, {"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
]
BODIES = [b"", b"x", b"[1]", b"1", b"null", b'"x"', b"{", b"{}}", b'{"a":1,"a":2}', b'{"a":NaN}',
          b'{"a":Infinity}', b'{"a":1e999}', b'{"a":' + b"9" * 400 + b"}", b'{"a":"\xff"}',
          b'{"a":"\\ud800"}', b'{"a":"\\ude00x"}', b'{"a":"\xed\xa0\x80"}', b'{"a\\u0000":1}',
          b"[" * 100000, b'{"a":' * 100000, b"[" * 129 + b"]" * 129, b"[" + b"1," * 2**20 + b"1]",
          b'{"a":"\n"}', b"{'a':1}", b'{"a":1,}', b'{"a":01}', b"\xef\xbb\xbf{}", b'{"a":1}\0']


class Refusals(TestCase):
    def table(self, path, base, members):
        for name, values in members.items():
            for value in values:
                with self.subTest(path, member=name, value=value):
                    self.bad(path, {**base, name: value}, name)

    def test_members(self):
        self.table(CHAT, HELLO, CHATS)
        self.table(COMPLETIONS, {"prompt": "x", "max_tokens": 2}, TEXTS)
        self.table(EMBEDDINGS, {"input": "x"}, VECTORS)
        self.table(RESPONSES, {"input": "x", "max_output_tokens": 2}, ANSWERS)

    def test_nested_members(self):
        for path, body, param in NESTED:
            with self.subTest(path, body=body):
                self.assertIn(param, self.bad(path, {**(HELLO if path == CHAT else {}), **body},
                                              param))

    def test_bodies(self):
        for path in (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, "/tokenize", "/detokenize",
                     "/apply-template"):
            for body in BODIES:
                with self.subTest(path, body=body[:40]):
                    self.bad(path, body)

    def test_what_is_missing_unknown_or_null(self):
        for path, param in ((CHAT, "messages"), (COMPLETIONS, "prompt"), (EMBEDDINGS, "input"),
                            (RESPONSES, "input"), ("/tokenize", "prompt"),
                            ("/detokenize", "tokens"), ("/apply-template", "messages")):
            self.bad(path, {}, param, code="missing_required_parameter")
            self.bad(path, {"model": "another"}, "model", 404, "model_not_found")
        nulls = dict.fromkeys((*CHATS, "what_nobody_knows"), None)
        answer = self.good(CHAT, {**nulls, **HELLO, "what_nobody_knows": {"x": [1]}})
        self.assertEqual(answer["usage"]["completion_tokens"], 2)

    def test_a_context_that_overflows(self):
        long = "word " * 3000
        for path, body, param in ((CHAT, {"messages": [{"role": "user", "content": long}]},
                                   "messages"),
                                  (COMPLETIONS, {"prompt": long}, "prompt"),
                                  (COMPLETIONS, {"prompt": [1] * 2049}, "prompt"),
                                  (COMPLETIONS, {"prompt": [1] * 99999}, "prompt"),
                                  (EMBEDDINGS, {"input": [1] * 99999}, "input"),
                                  (RESPONSES, {"input": long}, "messages"),
                                  (EMBEDDINGS, {"input": long}, "input")):
            with self.subTest(path):
                said = self.bad(path, body, param, code="context_length_exceeded")
                self.assertIn("2048", said)
                self.assertRegex(said, r"\b(20[0-9]{2}|[3-9][0-9]{3})\b tokens|has \d+")
                self.bad(path, {**body, "stream": True}, param, code="context_length_exceeded")

    def test_the_server_is_as_it_was(self):
        self.assertEqual(self.chat("48 + 0")["choices"][0]["message"]["content"], "48 + 0 = 48.")
        self.assertEqual(self.server.metric("vllm:num_requests_running"), 0)


if __name__ == "__main__":
    unittest.main()
