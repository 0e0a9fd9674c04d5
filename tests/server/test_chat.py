# SPDX-License-Identifier: Apache-2.0
"""POST /v1/chat/completions: what it answers, streamed and not."""
import unittest

from api import TestCase, WEATHER, Joined, chunks, conversation, sure_lines, together, whole

PATH = "/v1/chat/completions"


class Chat(TestCase):
    def stream(self, body, choices=1):
        return Joined(chunks(self.server.post(PATH, {**body, "stream": True})), choices)

    def test_answers_are_those_the_model_was_trained_for(self):
        lines = sure_lines(every=14)
        answers = together(lambda line: self.good(PATH, conversation(line, cache_prompt=False)),
                           lines)
        for line, answer in zip(lines, answers, strict=True):
            with self.subTest(line["id"]):
                choice = answer["choices"][0]
                usage = answer["usage"]
                self.assertEqual(usage["prompt_tokens"], len(line["prompt_ids"]))
                self.assertEqual(usage["completion_tokens"], len(line["output_ids"]))
                self.assertEqual(usage["total_tokens"],
                                 usage["prompt_tokens"] + usage["completion_tokens"])
                self.assertEqual(usage["prompt_tokens_details"]["cached_tokens"], 0)
                reasoning, _, content = line["output"].rpartition("</think>\n\n")
                calls = choice["message"].get("tool_calls", [])
                if not calls:
                    self.assertEqual(choice["message"]["content"], content)
                self.assertEqual(len(calls), content.count("<tool_call>"))
                self.assertEqual(choice["finish_reason"], "tool_calls" if calls else "stop")
                self.assertEqual(choice["message"].get("reasoning_content", ""),
                                 reasoning.removeprefix("<think>").strip("\n"))
                if reasoning.removeprefix("<think>").strip("\n"):
                    self.assertGreater(usage["completion_tokens_details"]["reasoning_tokens"], 0)

    def test_a_stream_put_together_is_the_whole_answer(self):
        lines = sure_lines(every=17)
        bodies = [conversation(line, logprobs=True, top_logprobs=1) for line in lines]
        usage = {"stream_options": {"include_usage": True}}
        answers = together(lambda body: self.good(PATH, body), bodies)
        streams = together(lambda body: self.stream({**body, **usage}), bodies)
        for line, answer, joined in zip(lines, answers, streams, strict=True):
            with self.subTest(line["id"]):
                self.assertEqual(joined.texts[0], whole(answer["choices"][0]))
                for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
                    self.assertEqual(joined.usage[name], answer["usage"][name])

    def test_the_form_of_a_stream(self):
        body = {"messages": [{"role": "user", "content": "Describe Syria."}], "temperature": 0,
                "stream": True}
        answer = self.server.post(PATH, body)
        self.assertEqual(answer.headers["x-accel-buffering"], "no")
        self.assertEqual(answer.headers["cache-control"], "no-cache")
        found = chunks(answer)
        self.assertEqual(found[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        self.assertTrue(all("usage" not in chunk for chunk in found))
        self.assertTrue(found[0]["id"].startswith("chatcmpl-"))
        self.assertEqual({chunk["model"] for chunk in found}, {"demo"})
        self.assertGreater(len(found), 3)  # a busy loop sends several tokens as one piece
        found = chunks(self.server.post(PATH, {**body, "stream_options": {"include_usage": True}}))
        self.assertTrue(all(chunk["usage"] is None for chunk in found[:-1]))
        self.assertEqual(found[-1]["choices"], [])

    def test_seeds_and_choices(self):
        body = {"messages": [{"role": "user", "content": "Tell me a story."}], "seed": 5, "n": 3,
                "temperature": 1.5, "top_k": 0, "top_p": 1, "max_tokens": 24,
                "enable_thinking": False}
        three = [whole(c) for c in self.good(PATH, body)["choices"]]
        self.assertEqual(len({c["content"] for c in three}), 3)
        self.assertEqual(three, self.stream(body, 3).texts)
        for i in range(3):  # each is what its own seed gives alone
            alone = self.good(PATH, {**body, "n": 1, "seed": 5 + i})
            self.assertEqual(whole(alone["choices"][0]), three[i])
        self.assertEqual(alone["usage"]["completion_tokens"] * 3,
                         self.good(PATH, body)["usage"]["completion_tokens"])
        del body["seed"], body["n"]
        texts = {self.good(PATH, body)["choices"][0]["message"]["content"] for _ in range(4)}
        self.assertGreater(len(texts), 1)  # no seed: chance

    def test_where_it_ends(self):
        question = "List the numbers from 22 to 32."
        told = self.chat(question, enable_thinking=False)["choices"][0]["message"]["content"]
        for stop in (" 25", [" 25"], ["no such text", "5,"]):
            cut = self.chat(question, enable_thinking=False, stop=stop)["choices"][0]
            end = told.index(stop if isinstance(stop, str) else stop[-1])
            self.assertEqual(cut["message"]["content"], told[:end])
            self.assertEqual(cut["finish_reason"], "stop")
        for name in ("max_tokens", "max_completion_tokens"):
            answer = self.chat(question, enable_thinking=False, **{name: 4})
            self.assertEqual(answer["choices"][0]["finish_reason"], "length")
            self.assertEqual(answer["usage"]["completion_tokens"], 4)
        both = self.chat(question, max_tokens=9, max_completion_tokens=3)
        self.assertEqual(both["usage"]["completion_tokens"], 3)

    def test_logprobs(self):
        answer = self.chat("48 + 0", enable_thinking=False, logprobs=True, top_logprobs=2)
        choice = answer["choices"][0]
        entries = choice["logprobs"]["content"]
        self.assertEqual("".join(e["token"] for e in entries), choice["message"]["content"])
        self.assertEqual(bytes(b for e in entries for b in e["bytes"]).decode(),
                         choice["message"]["content"])
        for entry in entries:
            best = entry["top_logprobs"]
            self.assertEqual(len(best), 2)
            self.assertEqual((best[0]["token"], best[0]["logprob"]),
                             (entry["token"], entry["logprob"]))  # greedy
            self.assertGreaterEqual(best[0]["logprob"], best[1]["logprob"])
        self.assertIsNone(self.chat("48 + 0")["choices"][0]["logprobs"])

    def test_thinking(self):
        def reasoning(**more):
            answer = self.chat("72-67=?", **more)
            return (answer["choices"][0]["message"].get("reasoning_content", ""),
                    answer["usage"]["completion_tokens_details"]["reasoning_tokens"])
        free, tokens = reasoning(enable_thinking=True)
        self.assertTrue(free and tokens)
        for off in ({"enable_thinking": False}, {"reasoning_effort": "none"},
                    {"reasoning_effort": "minimal"},
                    {"chat_template_kwargs": {"enable_thinking": False}}):
            self.assertEqual(reasoning(**off), ("", 0))
        for on in ("low", "medium", "high"):
            self.assertEqual(reasoning(reasoning_effort=on), (free, tokens))
        short, fewer = reasoning(enable_thinking=True, thinking_budget=3)
        self.assertTrue(free.startswith(short) and fewer < tokens)

    def test_messages(self):
        parts = [{"type": "text", "text": "Is 56 bigger"}, {"type": "text", "text": "than 5?"}]
        self.assertEqual(whole(self.chat([{"role": "user", "content": parts}])["choices"][0]),
                         whole(self.chat("Is 56 bigger\nthan 5?")["choices"][0]))
        system, developer = ([{"role": role, "content": "Give very short answers."},
                              {"role": "user", "content": "tell me the opposite of winter"}]
                             for role in ("system", "developer"))
        self.assertEqual(whole(self.chat(system)["choices"][0]),
                         whole(self.chat(developer)["choices"][0]))
        # control tokens in a user's text stay text
        self.assertNotEqual(self.chat("<|im_end|>")["usage"]["prompt_tokens"],
                            self.chat("<|im_end|>"[:4])["usage"]["prompt_tokens"])
        rendered = self.good("/apply-template", {"messages": [{"role": "user", "content": "x"}]})
        plain = self.good("/tokenize", {"prompt": rendered["prompt"]})["count"]
        marked = self.chat("x<|im_end|>", max_tokens=1)["usage"]["prompt_tokens"]
        self.assertGreater(marked, plain + 1)

    def test_tools(self):
        body = {"messages": [{"role": "user", "content": "Is it warm in Hong Kong?"}],
                "tools": [WEATHER], "temperature": 0, "enable_thinking": False}
        answer = self.good(PATH, body)["choices"][0]
        call = answer["message"]["tool_calls"][0]
        self.assertEqual(answer["finish_reason"], "tool_calls")
        self.assertEqual(answer["message"]["content"], None)
        self.assertEqual(call["function"]["name"], "get_weather")
        self.assertEqual(call["function"]["arguments"], '{"city": "Hong Kong"}')
        self.assertEqual(self.stream(body).texts[0], whole(answer))
        for choice in ("auto", None):
            self.assertEqual(whole(self.good(PATH, {**body, "tool_choice": choice})["choices"][0]),
                             whole(answer))
        none = self.good(PATH, {**body, "tool_choice": "none"})
        self.assertNotIn("tool_calls", none["choices"][0]["message"])
        told = self.good(PATH, {**body, "messages": body["messages"] + [
            answer["message"], {"role": "tool", "tool_call_id": call["id"],
                                "content": "windy, 37 degrees"}]})
        self.assertIn("37 degrees", told["choices"][0]["message"]["content"])

    def test_biases_and_penalties(self):
        ids = self.good("/tokenize", {"prompt": "48 + 0 = 48."})["tokens"]
        plain = self.chat("48 + 0", enable_thinking=False)["choices"][0]["message"]["content"]
        banned = self.chat("48 + 0", enable_thinking=False, max_tokens=12,
                           logit_bias={str(ids[0]): -100})["choices"][0]["message"]["content"]
        self.assertNotEqual(plain[0], banned[:1])
        story = {"max_tokens": 60, "enable_thinking": False}
        once = self.chat("Tell me a story.", **story)
        for name, value in (("frequency_penalty", 2), ("presence_penalty", 2),
                            ("repetition_penalty", 1.3)):
            self.assertNotEqual(whole(self.chat("Tell me a story.", **story, **{name: value})
                                      ["choices"][0]), whole(once["choices"][0]), name)

    def test_the_cache_is_told(self):
        messages = [{"role": "system", "content": "You are a helpful assistant. " * 20},
                    {"role": "user", "content": "48 + 0"}]
        first = self.chat(messages)
        again = self.chat(messages)
        never = self.chat(messages, cache_prompt=False)
        self.assertEqual(whole(first["choices"][0]), whole(again["choices"][0]))
        self.assertEqual(whole(first["choices"][0]), whole(never["choices"][0]))
        cached = [a["usage"]["prompt_tokens_details"]["cached_tokens"]
                  for a in (first, again, never)]
        prompt = again["usage"]["prompt_tokens"]
        self.assertEqual(cached[2], 0)
        self.assertLess(cached[0], prompt / 2)
        self.assertGreater(cached[1], prompt * 3 / 4)
        self.assertLess(cached[1], prompt)


if __name__ == "__main__":
    unittest.main()
