# SPDX-License-Identifier: Apache-2.0
"""The routes as OpenAI's own client sees them. Skipped (77) where it is not installed;
`scripts/setup --all` puts it into build/venv."""
import json
import os
import pathlib
import sys
import unittest

try:
    import openai
except ImportError:
    own = pathlib.Path(__file__).resolve().parents[2] / "build" / "venv" / "bin" / "python3"
    if own.exists() and pathlib.Path(sys.prefix) != own.parents[1]:
        os.execv(own, [str(own), "-B", *sys.argv])
    print("the package openai is not installed: skipped")
    sys.exit(77)

from api import TestCase, WEATHER, conversation, sure_lines, together

PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
          "required": ["name", "age"], "additionalProperties": False}
HELLO = [{"role": "user", "content": "Say hello to Rose."}]


class Client(TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = openai.OpenAI(base_url=f"http://127.0.0.1:{cls.server.port}/v1",
                                   api_key="none", max_retries=0, timeout=120)

    def ask(self, messages, **more):
        return self.client.chat.completions.create(
            **{"model": "demo", "messages": messages, "temperature": 0, **more})

    def test_models(self):
        self.assertEqual([m.id for m in self.client.models.list()], ["demo"])
        self.assertEqual(self.client.models.retrieve("demo").id, "demo")
        with self.assertRaises(openai.NotFoundError) as caught:
            self.ask(HELLO, model="another")
        self.assertEqual((caught.exception.code, caught.exception.param),
                         ("model_not_found", "model"))

    def test_chat(self):
        answer = self.ask(HELLO, extra_body={"enable_thinking": False})
        self.assertEqual(answer.choices[0].message.content, "Hello, Rose! It is nice to meet you.")
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.usage.total_tokens,
                         answer.usage.prompt_tokens + answer.usage.completion_tokens)
        thought = self.ask([{"role": "user", "content": "Describe Syria."}])
        self.assertEqual(thought.choices[0].message.reasoning_content,
                         "I will tell what I know about Syria.")
        self.assertGreater(thought.usage.completion_tokens_details.reasoning_tokens, 0)
        self.assertEqual(self.ask(HELLO, reasoning_effort="none").usage
                         .completion_tokens_details.reasoning_tokens, 0)

    def test_streams(self):
        whole = self.ask(HELLO, logprobs=True, top_logprobs=2)
        text, thought, tokens, last = "", "", [], None
        for chunk in self.ask(HELLO, stream=True, stream_options={"include_usage": True},
                              logprobs=True, top_logprobs=2):
            last = chunk
            for choice in chunk.choices:
                text += choice.delta.content or ""
                thought += getattr(choice.delta, "reasoning_content", None) or ""
                tokens += choice.logprobs.content if choice.logprobs else []
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(thought, getattr(whole.choices[0].message, "reasoning_content", ""))
        self.assertEqual(tokens, whole.choices[0].logprobs.content)
        self.assertEqual(last.usage.completion_tokens, whole.usage.completion_tokens)
        with self.client.chat.completions.stream(model="demo", messages=HELLO,
                                                 temperature=0) as stream:
            final = stream.get_final_completion()
        self.assertEqual(final.choices[0].message.content, text)

    def test_streamed_is_whole(self):
        def both(line):
            body = conversation(line)
            more = {"extra_body": {"enable_thinking": body.pop("enable_thinking")}}
            whole = self.client.chat.completions.create(**body, **more)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in
                           self.client.chat.completions.create(**body, **more, stream=True))
            return whole.choices[0].message.content or "", text
        for whole, text in together(both, sure_lines(every=30)):
            self.assertEqual(whole, text)

    def test_parameters(self):
        story = [{"role": "user", "content": "Tell me a story."}]
        def told(**more):
            answer = self.ask(story, reasoning_effort="none", **{"max_tokens": 20, **more})
            return [choice.message.content for choice in answer.choices]
        self.assertEqual(told(temperature=1, seed=4), told(temperature=1, seed=4))
        self.assertEqual(len(set(told(temperature=1.5, seed=4, n=4))), 4)
        self.assertNotEqual(told(frequency_penalty=2, presence_penalty=1, max_tokens=60),
                            told(max_tokens=60))
        self.assertNotIn(" ", told(stop=[" "])[0])
        self.assertEqual(len(told(max_completion_tokens=1)), 1)
        self.assertEqual(told(top_p=0.1, temperature=0.5, seed=1, user="somebody"),
                         told(top_p=0.1, temperature=0.5, seed=1))
        self.assertEqual(told(extra_body={"top_k": 1}, temperature=2), told())
        ids = self.good("/tokenize", {"prompt": "Once"})["tokens"]
        self.assertFalse(told(logit_bias={str(ids[0]): -100})[0].startswith("Once"))

    def test_tools(self):
        question = [{"role": "user", "content": "Is it warm in Hong Kong?"}]
        answer = self.ask(question, tools=[WEATHER], reasoning_effort="none")
        call = answer.choices[0].message.tool_calls[0]
        self.assertEqual(answer.choices[0].finish_reason, "tool_calls")
        self.assertEqual(json.loads(call.function.arguments), {"city": "Hong Kong"})
        told = self.ask([*question, answer.choices[0].message,
                         {"role": "tool", "tool_call_id": call.id, "content": "windy, 37 degrees"}],
                        tools=[WEATHER], reasoning_effort="none")
        self.assertIn("37 degrees", told.choices[0].message.content)
        with self.client.chat.completions.stream(
                model="demo", messages=question, tools=[WEATHER], temperature=0,
                reasoning_effort="none") as stream:
            final = stream.get_final_completion()
        self.assertEqual(final.choices[0].message.tool_calls[0].function.name, "get_weather")
        self.assertEqual(final.choices[0].message.tool_calls[0].function.arguments,
                         call.function.arguments)

    def test_required_calls(self):
        for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
            answer = self.ask([{"role": "user", "content": "Tell me a joke."}], tools=[WEATHER],
                              tool_choice=choice, parallel_tool_calls=False, temperature=1,
                              seed=3, reasoning_effort="none")
            calls = answer.choices[0].message.tool_calls
            self.assertEqual([c.function.name for c in calls], ["get_weather"])
            self.assertIsInstance(json.loads(calls[0].function.arguments)["city"], str)

    def test_forms_of_an_answer(self):
        form = {"type": "json_schema",
                "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
        for effort in ("none", "low"):
            answer = self.ask([{"role": "user", "content": "Hugo is 53 years old."}],
                              response_format=form, reasoning_effort=effort, max_tokens=400)
            if answer.choices[0].finish_reason == "stop":
                person = json.loads(answer.choices[0].message.content)
                self.assertEqual(list(person), ["name", "age"])
                self.assertIsInstance(person["age"], int)
        anything = self.ask(HELLO, response_format={"type": "json_object"}, max_tokens=400,
                            reasoning_effort="none")
        if anything.choices[0].finish_reason == "stop":
            self.assertIsInstance(json.loads(anything.choices[0].message.content), dict)

    def test_completions(self):
        create = self.client.completions.create
        whole = create(model="demo", prompt="Once upon a time", temperature=0, max_tokens=9,
                       logprobs=2)
        self.assertEqual("".join(whole.choices[0].logprobs.tokens), whole.choices[0].text)
        text = "".join(chunk.choices[0].text for chunk in create(
            model="demo", prompt="Once upon a time", temperature=0, max_tokens=9, stream=True))
        self.assertEqual(text, whole.choices[0].text)

    def test_embeddings(self):
        texts = ["A dog barks.", "The sun is warm."]
        plain = self.client.embeddings.create(model="demo", input=texts, encoding_format="float")
        coded = self.client.embeddings.create(model="demo", input=texts)
        for one, other in zip(plain.data, coded.data, strict=True):
            self.assertEqual(len(one.embedding), 256)
            for a, b in zip(one.embedding, other.embedding, strict=True):
                self.assertAlmostEqual(a, b, places=6)
        short = self.client.embeddings.create(model="demo", input=texts[0], dimensions=32)
        self.assertEqual(len(short.data[0].embedding), 32)

    def test_responses(self):
        create = self.client.responses.create
        whole = create(model="demo", input="Describe Syria.", temperature=0)
        self.assertEqual(whole.output_text, "Syria is in Asia. The capital is Damascus.")
        text, last = "", None
        for event in create(model="demo", input="Describe Syria.", temperature=0, stream=True):
            last = event
            if event.type == "response.output_text.delta":
                text += event.delta
        self.assertEqual((text, last.type), (whole.output_text, "response.completed"))
        self.assertEqual(last.response.usage.total_tokens, whole.usage.total_tokens)
        called = create(model="demo", input="Is it warm in Hong Kong?", temperature=0,
                        reasoning={"effort": "none"},
                        tools=[{"type": "function", **WEATHER["function"], "strict": False}])
        self.assertEqual(called.output[-1].name, "get_weather")
        second = create(model="demo", temperature=0, instructions="Give very short answers.",
                        input=[{"role": "user", "content": "tell me the opposite of winter"},
                               *whole.output, {"role": "user", "content": "And of hot?"}])
        self.assertEqual(second.status, "completed")

    def test_mistakes(self):
        for wrong in ({"temperature": -1}, {"n": 2**31}, {"messages": []}, {"stop": 3}):
            with self.assertRaises(openai.BadRequestError) as caught:
                self.ask(**{"messages": HELLO, **wrong})
            self.assertEqual(caught.exception.param, next(iter(wrong)))
        with self.assertRaises(openai.BadRequestError) as caught:
            self.ask([{"role": "user", "content": "word " * 3000}])
        self.assertEqual(caught.exception.code, "context_length_exceeded")


if __name__ == "__main__":
    unittest.main()
