# SPDX-License-Identifier: Apache-2.0
"""POST /v1/responses: items, whole and as a stream of events."""
import unittest

from api import TestCase, WEATHER, events, strict

PATH = "/v1/responses"
FLAT = {"type": "function", **WEATHER["function"], "strict": True}


def stripped(items):
    """Items without the names that chance gives them."""
    return [{k: v for k, v in item.items() if k not in ("id", "call_id")} for item in items]


class Responses(TestCase):
    def answer(self, text, **more):
        return self.good(PATH, {"input": text, "temperature": 0, **more})

    def stream(self, text, **more):
        answer = self.server.post(PATH, {"input": text, "temperature": 0, "stream": True, **more})
        self.assertEqual(answer.status, 200, answer.body)
        found = []
        for name, data in events(answer.body):
            event = strict(data)
            self.assertEqual(event["type"], name)
            self.assertEqual(event["sequence_number"], len(found))
            found.append(event)
        return found

    def check_stream(self, text, **more):
        """The events say what the whole answer says; returns that."""
        whole, found = self.answer(text, **more), self.stream(text, **more)
        self.assertEqual([e["type"] for e in found[:2]],
                         ["response.created", "response.in_progress"])
        last = found[-1]
        self.assertEqual(last["type"], "response." + whole["status"])
        self.assertEqual(stripped(last["response"]["output"]), stripped(whole["output"]))
        for name in ("input_tokens", "output_tokens", "total_tokens"):
            self.assertEqual(last["response"]["usage"][name], whole["usage"][name])
        items, texts = [], {}
        for event in found[2:-1]:
            kind = event["type"].removeprefix("response.")
            if kind == "output_item.added":
                self.assertEqual(event["output_index"], len(items))
            elif kind.endswith(".delta"):
                place = (event["output_index"], kind.rpartition(".")[0])
                texts[place] = texts.get(place, "") + event["delta"]
            elif kind in ("output_text.done", "reasoning_text.done"):
                place = (event["output_index"], kind.rpartition(".")[0])
                self.assertEqual(event["text"], texts[place])
            elif kind == "function_call_arguments.done":
                place = (event["output_index"], "function_call_arguments")
                self.assertEqual(event["arguments"], texts[place])
            elif kind == "output_item.done":
                items.append(event["item"])
        self.assertEqual(items, last["response"]["output"])
        return whole

    def test_a_text(self):
        whole = self.check_stream("Describe Syria.")
        self.assertTrue(whole["id"].startswith("resp_"))
        self.assertEqual((whole["object"], whole["status"]), ("response", "completed"))
        reasoning, message = whole["output"]
        self.assertEqual((reasoning["type"], message["type"]), ("reasoning", "message"))
        self.assertEqual(reasoning["content"][0]["text"], "I will tell what I know about Syria.")
        self.assertEqual(message["content"][0]["text"],
                         "Syria is in Asia. The capital is Damascus.")
        usage = whole["usage"]
        self.assertEqual(usage["total_tokens"], usage["input_tokens"] + usage["output_tokens"])
        self.assertGreater(usage["output_tokens_details"]["reasoning_tokens"], 0)

    def test_a_text_that_is_cut(self):
        whole = self.check_stream("Tell me a story.", max_output_tokens=12,
                                  reasoning={"effort": "none"})
        self.assertEqual(whole["status"], "incomplete")
        self.assertEqual(whole["incomplete_details"], {"reason": "max_output_tokens"})
        self.assertEqual(whole["usage"]["output_tokens"], 12)
        self.assertEqual(whole["output"][0]["status"], "incomplete")

    def test_calls(self):
        question = "Is it warm in Hong Kong?"
        more = {"tools": [FLAT], "reasoning": {"effort": "none"}}
        whole = self.check_stream(question, **more)
        call = whole["output"][-1]
        self.assertEqual((call["type"], call["name"], call["arguments"]),
                         ("function_call", "get_weather", '{"city": "Hong Kong"}'))
        told = self.answer([{"role": "user", "content": question}, *whole["output"],
                            {"type": "function_call_output", "call_id": call["call_id"],
                             "output": "windy, 37 degrees"}], **more)
        self.assertIn("37 degrees", told["output"][-1]["content"][0]["text"])

    def test_conversations_are_those_of_chat(self):
        instructions = "Give very short answers."
        first = self.answer("tell me the opposite of winter", instructions=instructions)
        self.assertEqual(first["instructions"], instructions)
        told = [{"role": "user", "content": [{"type": "input_text",
                                              "text": "tell me the opposite of winter"}]},
                *first["output"], {"type": "message", "role": "user", "content": "And of hot?"}]
        second = self.answer(told, instructions=instructions)
        message = {m["type"]: m for m in first["output"]}
        chat = self.chat([
            {"role": "system", "content": instructions},
            {"role": "user", "content": "tell me the opposite of winter"},
            {"role": "assistant", "content": message["message"]["content"][0]["text"],
             "reasoning_content": message["reasoning"]["content"][0]["text"]},
            {"role": "user", "content": "And of hot?"}])
        self.assertEqual(second["usage"]["input_tokens"], chat["usage"]["prompt_tokens"])
        self.assertEqual(second["output"][-1]["content"][0]["text"],
                         chat["choices"][0]["message"]["content"])


if __name__ == "__main__":
    unittest.main()
