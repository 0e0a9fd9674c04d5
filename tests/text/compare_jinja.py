#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares template_driver with the jinja2 package, set up as transformers sets it up.

compare_jinja.py DRIVER [--random N] [--seed S] [--template FILE]... [--write FILE]

Renders templates of every construct and generated ones, and conversations through --template files
(chat_template.jinja or tokenizer_config.json). Both sides must give the same text, or both fail.
--write stores the outcomes of the fixed small cases (templates_small.jsonl). Needs jinja2.
"""
import argparse
import collections
import copy
import datetime
import json
import random
import subprocess
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jinja_cases import CASES, CHAT_TEMPLATES, PIECES, VARIABLES


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_render")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.datetime.now().strftime(f)
    return env


def reference(env, template, variables):
    try:
        text = env.from_string(template).render(**copy.deepcopy(variables))
        text.encode()
        return {"text": text}
    except Exception as error:  # what jinja2 and Python raise is of many kinds
        return {"error": f"{type(error).__name__}: {error}"}


class Driver:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def render(self, template, variables):
        request = json.dumps({"template": template, "variables": variables})
        self.process.stdin.write(request.encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the driver died at {template!r}")
        return json.loads(line)


def random_template(rng, depth=0):
    """Statements and expressions from PIECES, with random white space control."""
    out = []
    for _ in range(rng.randint(1, 4)):
        mark = lambda: rng.choice(["", "", "", "-", "+"])
        end = lambda: rng.choice(["", "", "", "-"])
        space = rng.choice(["", " ", "\n", "\n  ", "  \n", "x", "y\n", " \t", "\n\n"])
        out.append(space)
        kind = rng.randint(0, 9 if depth < 3 else 3)
        tag = lambda body: "{%" + mark() + " " + body + " " + rng.choice([end(), mark()]) + "%}"
        inner = lambda: random_template(rng, depth + 1)
        if kind <= 2:
            out.append("{{" + end() + " " + random_expression(rng) + " " + end() + "}}")
        elif kind == 3:
            out.append("{#" + mark() + " note " + mark() + "#}")
        elif kind == 4:
            other = tag("else") + inner() if rng.random() < 0.5 else ""
            middle = tag("elif " + random_expression(rng)) + inner() if rng.random() < 0.3 else ""
            out.append(tag("if " + random_expression(rng)) + inner() + middle + other +
                       tag("endif"))
        elif kind == 5:
            test = " if " + random_expression(rng) if rng.random() < 0.3 else ""
            other = tag("else") + inner() if rng.random() < 0.3 else ""
            out.append(tag("for " + rng.choice(["i", "x", "a, b"]) + " in " +
                           rng.choice(PIECES["iterables"]) + test) +
                       inner() + rng.choice(["", "{{ loop.index }}", "{{ loop.last }}",
                                             "{{ loop.length }}", tag("break"),
                                             "{{ loop.nextitem }}", tag("set x = i")]) +
                       other + tag("endfor"))
        elif kind == 6:
            out.append(tag("set " + rng.choice(["x", "i", "ns.v", "n"]) + " = " +
                           random_expression(rng)))
        elif kind == 7:
            name = rng.choice(["m", "f"])
            out.append(tag(f"macro {name}(a, x=3)") + inner() + tag("endmacro") + "{{ " + name +
                       "(" + rng.choice(["1", "s, 2", "x=1", "", "1, x=s"]) + ") }}")
        elif kind == 8:
            out.append(tag("set x") + inner() + tag("endset") + "[{{ x }}]")
        else:
            out.append("{%" + mark() + " raw " + end() + "%}" + "\n {{ raw }} " + "{%" + mark() +
                       " endraw " + mark() + "%}")
    return "".join(out)


def random_expression(rng, depth=0):
    if depth > 2 or rng.random() < 0.3:
        return rng.choice(PIECES["atoms"])
    inner = lambda: random_expression(rng, depth + 1)
    kind = rng.randint(0, 9)
    if kind <= 1:
        return inner() + " " + rng.choice(PIECES["binary"]) + " " + inner()
    if kind == 2:
        return "(" + inner() + ")" + rng.choice(PIECES["postfix"])
    if kind <= 4:
        return rng.choice(PIECES["atoms"]) + rng.choice(PIECES["postfix"])
    if kind <= 6:
        return inner() + " | " + rng.choice(PIECES["filters"])
    if kind == 7:
        return "(" + inner() + " is " + rng.choice(["", "not "]) + rng.choice(PIECES["tests"]) + ")"
    if kind == 8:
        return "(" + inner() + " if " + inner() + rng.choice(["", " else " + inner()]) + ")"
    return rng.choice(["not ", "-", ""]) + "(" + inner() + ")"


TEXTS = ["Hello", "", "  spaced\n", "Zażółć 🎉", "<think>\nhm\n</think>\n\nanswer", "a\r\nb",
         "<tool_response>\nx\n</tool_response>", "quote \" ' \\ </tool_call>", "line\u2028sep"]


def random_conversation(rng):
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": rng.choice(TEXTS)})
    for _ in range(rng.randint(0, 6)):
        role = rng.choice(["user", "assistant", "assistant", "tool"])
        message = {"role": role, "content": rng.choice(TEXTS)}
        if rng.random() < 0.1:
            message["content"] = rng.choice([None, [{"type": "text", "text": "part"},
                                                    {"type": "image"}]])
        if role == "assistant" and rng.random() < 0.3:
            message["reasoning_content"] = rng.choice(TEXTS)
        if role == "assistant" and rng.random() < 0.4:
            arguments = rng.choice(["{}", '{"a": 1}', {}, {"a": 1.5, "b": [1, None, "ü"]},
                                    {"x": {"y": True}}])
            call = {"name": rng.choice(["get", "söt"]), "arguments": arguments}
            message["tool_calls"] = [rng.choice([call, {"type": "function", "function": call,
                                                        "id": "c1"}])] * rng.randint(1, 2)
        messages.append(message)
    tools = [{"type": "function", "function": {
        "name": "get", "description": rng.choice(TEXTS),
        "parameters": {"type": "object", "required": ["a"], "properties": {
            "a": {"type": "number", "description": "A <b> & 'c'", "enum": [1, 2.5, None]},
            "b": {"type": ["string", "null"], "items": {"type": "string"}}}}}}]
    variables = {"messages": messages, "tools": rng.choice([None, [], tools, tools * 2]),
                 "add_generation_prompt": rng.random() < 0.6, "bos_token": "<s>",
                 "eos_token": "</s>"}
    if rng.random() < 0.6:
        variables["enable_thinking"] = rng.random() < 0.5
    return variables


def load_template(path):
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    return json.loads(text)["chat_template"] if path.endswith(".json") else text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver")
    parser.add_argument("--random", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--template", action="append", default=[])
    parser.add_argument("--write")
    parser.add_argument("--show", type=int, default=20)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    env, driver = environment(), Driver(options.driver)
    counts = collections.Counter()

    def compare(kind, template, variables):
        expected, found = reference(env, template, variables), driver.render(template, variables)
        same = expected.get("text") == found.get("text") and ("error" in expected) == (
            "error" in found)
        counts[kind, "same" if same else "DIFFERENT", "text" if "text" in expected else
               "error"] += 1
        if not same and counts["shown"] < options.show:
            counts["shown"] += 1
            print(f"{kind}: {template!r}\n  expected {expected}\n  found    {found}")
        return expected, same

    written = []
    for template in CASES:
        expected, same = compare("small", template, VARIABLES)
        if same:
            written.append({"template": template, **(expected if "text" in expected else
                                                     {"error": True})})
    for template in [load_template(p) for p in options.template] + CHAT_TEMPLATES:
        for _ in range(300):
            compare("chat", template, random_conversation(rng))
    for _ in range(options.random):
        compare("random", random_template(rng), VARIABLES)
    for _ in range(options.random):
        compare("expression", "{{ " + random_expression(rng) + " }}", VARIABLES)
    if options.write:
        with open(options.write, "w", encoding="utf-8") as file:
            file.write(json.dumps({"variables": VARIABLES}, ensure_ascii=False) + "\n")
            for case in written:
                file.write(json.dumps(case, ensure_ascii=False) + "\n")
    for key in sorted(k for k in counts if k != "shown"):
        print(*key, counts[key])
    return 1 if any("DIFFERENT" in key for key in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
