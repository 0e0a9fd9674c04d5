#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares 'myelin quantize' with mlx.core.quantize, and its checkpoints in mlx-lm with our own runs.

    python3 compare_quantize.py MYELIN [MODEL]

Needs mlx[cpu] and mlx-lm; no test runs it. For each width and group size: every code, scale and bias
must be equal to the last bit, and mlx-lm must open the checkpoint and, computing in float32,
generate the greedy tokens 'myelin batch' does (near ties apart). Exits with 1 when something differs.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm import load
from mlx_lm.generate import generate_step

FORMS = [(bits, group) for bits in (4, 8) for group in (32, 64, 128)]
PROMPTS = ["Once upon a time", "The capital of France is", "2 + 2 =", "A dog and a cat"]
TOKENS, NEAR_TIE = 24, 1e-3


def different_tensors(dense, made, bits, group):
    count = wrong = 0
    for name, weight in dense.items():
        module = name.removesuffix(".weight")
        if module + ".scales" not in made:
            count, wrong = count + 1, wrong + (not mx.array_equal(made[name], weight).item())
            continue
        for part, value in zip(("weight", "scales", "biases"),
                               mx.quantize(weight, group_size=group, bits=bits), strict=True):
            count += 1
            wrong += not mx.array_equal(made[f"{module}.{part}"], value).item()
    return count, wrong


def widen(array):
    return array.astype(mx.float32) if array.dtype in (mx.bfloat16, mx.float16) else array


def different_texts(myelin, directory):
    model, tokenizer = load(directory)
    model.update(tree_map(widen, model.parameters()))
    lines = "".join(json.dumps({"prompt": prompt, "max_new_tokens": TOKENS, "ignore_eos": True}) + "\n"
                    for prompt in PROMPTS)
    done = subprocess.run([myelin, "batch", "-q", "-m", directory], input=lines, text=True,
                          capture_output=True, check=True)
    wrong = 0
    for prompt, line in zip(PROMPTS, done.stdout.splitlines(), strict=True):
        ours = json.loads(line)["token_ids"]
        steps = generate_step(mx.array(tokenizer.encode(prompt)), model, max_tokens=TOKENS)
        for (token, logprobs), own in zip(steps, ours):
            if token == own:
                continue
            best = mx.sort(logprobs)[-2:].tolist()
            wrong += best[1] - best[0] > NEAR_TIE
            break
    return wrong


def main():
    myelin = sys.argv[1]
    source = sys.argv[2] if len(sys.argv) > 2 else str(Path(__file__).parents[2] / "models" / "demo")
    dense, failed = {}, False
    for file in Path(source).glob("*.safetensors"):
        dense.update(mx.load(str(file)))
    for bits, group in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            made = str(Path(folder) / "made")
            subprocess.run([myelin, "quantize", "-q", "-b", str(bits), "-g", str(group), source, made],
                           check=True, stdout=subprocess.DEVNULL)
            tensors = mx.load(made + "/model.safetensors")
            count, wrong = different_tensors(dense, tensors, bits, group)
            texts = different_texts(myelin, made)
        print(f"{bits} bits, groups of {group}: {wrong} of {count} tensors differ, "
              f"{texts} of {len(PROMPTS)} texts")
        failed = failed or wrong > 0 or texts > 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
