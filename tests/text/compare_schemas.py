#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks texts drawn under random schemas with the jsonschema package.

compare_schemas.py DRIVER TOKENIZER_DIRECTORY [--count N] [--seed S]

Each schema is made of the keywords docs/CONSTRAINTS.md lists; each text that the driver draws under
it must be JSON that jsonschema accepts, formats included. Needs jsonschema.
"""
import argparse
import json
import random
import subprocess
import sys

import jsonschema

WORDS = ["a", "ab", "name", "the age", 'quo"te', "back\\slash", "é", "日本", "line\nend", "x/y~z"]
PATTERNS = [
    "^[a-z]+$", "^\\d{3}-\\d{4}$", "b", "^(foo|bar)*$", "^a?b+c{2,4}$", "[^x]", "^\\w+@\\w+\\.(com|org)$",
    "^[A-Z][a-z]{0,5}( [A-Z][a-z]{0,5})?$", "^.{3}$", "\\.$", "^(?:0|[1-9]\\d*)$", "^ *[a-z]\\t?$",
    "^[^\"]*\"[^\"]*\"$", "a.c", "^[à-ü]{2}$", "^$", "x|^y$",
]
FORMATS = ["date", "time", "date-time", "uuid", "email", "ipv4", "uri"]
REFUSALS = ["nothing satisfies", "too large", "at most 15 digits", "listed arrays and objects"]
VALUES = [None, True, False, 0, 1, -7, 2.5, "", "a", "é\"\\\n", [], [1, "x"], {}, {"k": [None]}]


class Maker:
    def __init__(self, random_source):
        self.random = random_source

    def number(self, integer):
        schema = {"type": "integer" if integer else "number"}
        low = self.bound(integer)
        high = low + self.random.choice([0, 1, 5, 100, 12345])
        if self.random.random() < 0.5:
            schema[self.random.choice(["minimum", "minimum", "exclusiveMinimum"])] = low
        if self.random.random() < 0.5:
            schema[self.random.choice(["maximum", "maximum", "exclusiveMaximum"])] = high
        return schema

    def bound(self, integer):
        r = self.random
        n = r.choice([0, 1, -1, 9, 10, 99, 100, 101, -100, -99, r.randint(-5000, 5000)])
        if integer and r.random() < 0.8:
            return n
        return n + r.choice([0, 0.5, 0.25, 0.1, 0.001, -0.3])

    def string(self):
        r = self.random
        schema = {"type": "string"}
        kind = r.random()
        if kind < 0.3:
            schema["pattern"] = r.choice(PATTERNS)
            if r.random() < 0.3:
                schema["maxLength"] = r.randint(0, 12)
            if r.random() < 0.2:
                schema["minLength"] = r.randint(0, 3)
        elif kind < 0.5:
            schema["format"] = r.choice(FORMATS)
        else:
            if r.random() < 0.4:
                schema["minLength"] = r.randint(0, 5)
            if r.random() < 0.5:
                schema["maxLength"] = schema.get("minLength", 0) + r.randint(0, 20)
        return schema

    def array(self, depth):
        r = self.random
        schema = {"type": "array"}
        if r.random() < 0.8:
            schema["items"] = self.schema(depth - 1)
        if r.random() < 0.3:
            schema["prefixItems"] = [self.schema(depth - 1) for _ in range(r.randint(1, 3))]
        if r.random() < 0.4:
            schema["minItems"] = r.randint(0, 4)
        if r.random() < 0.4:
            schema["maxItems"] = schema.get("minItems", 0) + r.randint(0, 4)
        return schema

    def object(self, depth):
        r = self.random
        names = r.sample(WORDS, r.randint(0, 5))
        schema = {"type": "object", "properties": {n: self.schema(depth - 1) for n in names}}
        schema["required"] = [n for n in names if r.random() < 0.5]
        if r.random() < 0.2:
            schema["required"].append("more")
        kind = r.random()
        if kind < 0.4:
            schema["additionalProperties"] = False
        elif kind < 0.6:
            schema["additionalProperties"] = self.schema(depth - 1)
        elif kind < 0.7:
            schema["additionalProperties"] = True
        return schema

    def leaf(self):
        r = self.random
        kind = r.randrange(8)
        if kind == 0:
            return {"type": r.choice(["null", "boolean", "string", "integer", "number"])}
        if kind == 1:
            return {"enum": r.sample(VALUES, r.randint(1, 4))}
        if kind == 2:
            return {"const": r.choice(VALUES)}
        if kind in (3, 4):
            return self.number(kind == 3)
        if kind == 5:
            return {"type": r.sample(["null", "integer", "string", "boolean"], 2)}
        return self.string()

    def schema(self, depth):
        r = self.random
        if depth <= 0:
            return self.leaf()
        kind = r.randrange(12)
        if kind < 3:
            return self.leaf()
        if kind < 5:
            return self.array(depth)
        if kind < 8:
            return self.object(depth)
        if kind == 8:
            return {"anyOf": [self.schema(depth - 1) for _ in range(r.randint(1, 3))]}
        if kind == 9:
            return {"allOf": [self.object(depth), self.object(1)]}
        if kind == 10:
            return {"oneOf": [{"type": "null"}, self.object(depth)]}
        return {"$ref": "#/$defs/" + r.choice(["leaf", "tree"]), "title": "a reference"}

    def document(self):
        schema = dict(self.schema(3))
        schema["$defs"] = {
            "leaf": self.leaf(),
            "tree": {
                "type": "object",
                "properties": {"value": self.leaf(),
                               "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
                "required": self.random.choice([["value"], ["children"], []]),
            },
        }
        return schema


def check(schema, result, counts):
    if isinstance(result, dict):
        counts["refused"] += 1
        if not any(reason in result["refused"] for reason in REFUSALS):
            return f"refused: {result['refused']}"
        return None
    validator = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    for text in result:
        if text is None:
            counts["unended"] += 1
            continue
        counts["texts"] += 1
        try:
            value = json.loads(text)
        except ValueError as error:
            return f"no JSON ({error}): {text}"
        problem = next(iter(validator.iter_errors(value)), None)
        if problem:
            return f"invalid ({problem.message[:200]}): {text}"
    return None


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("driver")
    parser.add_argument("directory")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    driver = subprocess.Popen([arguments.driver, arguments.directory], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True, encoding="utf-8")
    counts = {"texts": 0, "unended": 0, "refused": 0}
    failed = 0
    for i in range(arguments.seed, arguments.seed + arguments.count):
        schema = Maker(random.Random(i)).document()
        driver.stdin.write(json.dumps({"schema": schema, "seed": i, "count": 5}) + "\n")
        driver.stdin.flush()
        line = driver.stdout.readline()
        if not line:
            sys.exit(f"schema {i}: the driver died on {json.dumps(schema)}")
        problem = check(schema, json.loads(line), counts)
        if problem:
            failed += 1
            print(f"schema {i}: {json.dumps(schema, ensure_ascii=False)}\n  {problem}")
            if failed == 10:
                break
    print(f"{counts['texts']} texts valid or shown above, {counts['unended']} without end, "
          f"{counts['refused']} schemas refused")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
