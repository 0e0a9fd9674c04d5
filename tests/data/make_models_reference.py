#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes models_from_files.jsonl: what transformers computes from tests/data/models/*.

    python3 make_models_reference.py > models_from_files.jsonl

Needs torch and transformers (made with torch 2.11.0, transformers 5.17.0); the tests do not. Each
checkpoint is opened from its files with from_pretrained(dtype=float32). The prompts are those of
models.jsonl and one of 1,500 tokens for each model.

models.jsonl has the same fields, but the results of its three half-precision models cannot be had
from the files: there the whole model, rotary frequencies included, was cast to half precision before
it was widened again (`--check` prints how far off that is). A model opened from files has them in
float32.
"""

import json
import random
import sys
from pathlib import Path

import torch
from transformers import Qwen3ForCausalLM

HERE = Path(__file__).resolve().parent
STEPS = 64


def forward(model, ids, cache=None):
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True)


def reference(model, name, ids, stop):
    output = forward(model, ids)
    logprobs = output.logits[0].log_softmax(-1)
    top = logprobs[-1].topk(20)
    greedy, gaps = [], []
    logits = output.logits[0, -1]
    while len(greedy) < STEPS:
        best = logits.topk(2)
        gaps.append(float(best.values[0] - best.values[1]))
        greedy.append(int(best.indices[0]))
        if greedy[-1] == stop:
            break
        output = forward(model, greedy[-1:], output.past_key_values)
        logits = output.logits[0, -1]
    return {
        "model": name,
        "prompt_ids": ids,
        "greedy_ids": greedy,
        "min_gap": min(gaps),
        "top_ids": top.indices.tolist(),
        "top_logprobs": [round(x, 6) for x in top.values.tolist()],
        "prompt_logprobs": [round(float(logprobs[i, t]), 6) for i, t in enumerate(ids[1:])],
    }


def largest_difference(line, cast):
    pairs = zip(line["prompt_logprobs"] + line["top_logprobs"],
                cast["prompt_logprobs"] + cast["top_logprobs"])
    return max(abs(a - b) for a, b in pairs)


def main():
    given = [json.loads(line) for line in (HERE / "models.jsonl").open()]
    torch.set_num_threads(2)
    for name in dict.fromkeys(line["model"] for line in given):
        model = Qwen3ForCausalLM.from_pretrained(HERE / "models" / name, dtype=torch.float32).eval()
        rows = [line for line in given if line["model"] == name]
        draw = random.Random(name)
        prompts = [row["prompt_ids"] for row in rows]
        prompts.append([draw.randrange(2, model.config.vocab_size) for _ in range(1500)])
        lines = [reference(model, name, ids, model.config.eos_token_id) for ids in prompts]
        if "--check" in sys.argv[1:]:
            print(name, "%.2g" % max(map(largest_difference, lines, rows)))
        else:
            for line in lines:
                print(json.dumps(line))


if __name__ == "__main__":
    main()
