#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares greedy tokens with mlx-lm on checkpoints that mlx-lm quantised itself.

    python3 compare_mlx.py MYELIN [--prompts N] [--tokens N]

Needs mlx[cpu] and mlx-lm (used with 0.32.4 and 0.32.2); no test runs it. Quantises models/demo in
several widths and group sizes, lets both generate, and exits with 1 when mlx-lm's choice differs
from ours although its two best logits are more than 1e-3 apart. mlx-lm computes in float32 here: in
bfloat16, its default, it rounds too coarsely to say which of two close tokens is right.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm import convert, load
from mlx_lm.generate import generate_step

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
FORMS = [(4, 64), (4, 32), (4, 128), (8, 32), (8, 64)]
NEAR_TIE = 1e-3


def widen(array):
    return array.astype(mx.float32) if array.dtype in (mx.bfloat16, mx.float16) else array


def greedy(model, ids, tokens):
    """(token, distance of its logit from the second best) for each step."""
    steps = []
    for (token, logprobs), _ in zip(generate_step(mx.array(ids), model, max_tokens=tokens),
                                    range(tokens)):
        best = mx.sort(logprobs.astype(mx.float32))
        steps.append((int(token), float(best[-1] - best[-2])))
    return steps


def ours(myelin, directory, prompts, tokens):
    lines = "".join(json.dumps({"prompt_ids": ids, "max_new_tokens": tokens, "sampler": "greedy",
                                "stop_ids": []}) + "\n" for ids in prompts)
    done = subprocess.run([myelin, "batch", "-m", directory], input=lines, text=True, check=True,
                          capture_output=True)
    return [json.loads(line)["token_ids"] for line in done.stdout.splitlines()]


def agree(found, steps):
    """Equal up to the first near tie."""
    for token, (expected, gap) in zip(found, steps, strict=True):
        if token != expected:
            return gap <= NEAR_TIE
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("myelin")
    parser.add_argument("--prompts", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=20)
    options = parser.parse_args()
    mx.set_default_device(mx.cpu)
    rows = [json.loads(line) for line in (DEMO / "eval.jsonl").open()]
    prompts = [row["prompt_ids"] for row in rows[::len(rows) // options.prompts]][:options.prompts]
    failed = False
    for bits, group_size in FORMS:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name) / "quantised"
            convert(str(DEMO), mlx_path=str(directory), quantize=True, q_bits=bits,
                    q_group_size=group_size)
            found = ours(options.myelin, directory, prompts, options.tokens)
            model, _ = load(str(directory))
        model.update(tree_map(widen, model.parameters()))
        exact = [greedy(model, ids, options.tokens) for ids in prompts]
        same = sum(agree(*pair) for pair in zip(found, exact, strict=True))
        print(f"{bits} bits, groups of {group_size}: {same} of {len(prompts)} prompts equal",
              flush=True)
        failed = failed or same < len(prompts)
    return failed


if __name__ == "__main__":
    sys.exit(main())
