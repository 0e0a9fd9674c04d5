#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares `myelin score` with transformers on random checkpoints.

    python3 compare_transformers.py MYELIN [--seed N] [--count N]

Needs torch and transformers (used with torch 2.11.0, transformers 5.17.0); no test runs it. Each
checkpoint has a random shape, rotary embedding, spelling of config.json, dtype and number of shards;
transformers opens it from its files in float32. Prints a line each and exits with 1 when a
log-probability is off by more than 2e-3, or 5e-4 on average.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

LARGEST, MEAN = 2e-3, 5e-4


def random_rope(draw):
    rope = {"rope_type": "default"}
    if draw.random() < 0.5:
        rope = {"rope_type": "yarn", "factor": draw.choice([1.5, 2.0, 4.0, 8]),
                "original_max_position_embeddings": draw.choice([32, 64, 128])}
        if draw.random() < 0.4:
            rope.update(beta_fast=draw.choice([16, 20.5, 32]), beta_slow=draw.choice([1, 2]))
        if draw.random() < 0.3:
            rope["attention_factor"] = draw.choice([1.0, 1.3])
        if draw.random() < 0.3:
            rope.update(mscale=draw.choice([1.0, 0.707]), mscale_all_dim=draw.choice([1.0, 0.5]))
        if draw.random() < 0.2:
            rope["truncate"] = False
    rope["rope_theta"] = draw.choice([123.5, 10000.0, 1000000.0, 5000000.0])
    return rope


def random_config(draw):
    kv_heads = draw.choice([1, 2, 3])
    return Qwen3Config(
        vocab_size=draw.choice([17, 131, 512, 1000]), hidden_size=draw.choice([7, 33, 60, 96, 130]),
        intermediate_size=draw.choice([5, 37, 64, 200]), num_hidden_layers=draw.choice([1, 2, 3]),
        num_attention_heads=kv_heads * draw.choice([1, 2, 3, 5]), num_key_value_heads=kv_heads,
        head_dim=draw.choice([2, 6, 10, 16, 32, 64, 128]), rope_parameters=random_rope(draw),
        max_position_embeddings=draw.choice([64, 256, 4096, 40960]), eos_token_id=0,
        tie_word_embeddings=draw.random() < 0.5, rms_norm_eps=draw.choice([1e-6, 1e-5]))


def write_checkpoint(draw, directory):
    config = random_config(draw)
    model = Qwen3ForCausalLM(config)
    spread = draw.choice([0.05, 0.2, 0.6])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * spread + (parameter.dim() == 1))
    model.to(draw.choice([torch.float32, torch.float16, torch.bfloat16]))
    model.save_pretrained(directory, max_shard_size=draw.choice(["20KB", "200KB", "5GB"]))
    if draw.random() < 0.5:
        write_published_spelling(draw, directory / "config.json")
    return config


def write_published_spelling(draw, path):
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["torch_dtype"] = config.pop("dtype")
    if rope["rope_type"] == "default":
        rope = None
    elif draw.random() < 0.5:
        rope["type"] = rope.pop("rope_type")
    config["rope_scaling"] = rope
    path.write_text(json.dumps(config))


def expected(model, ids, top):
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [float(logprobs[i, t]) for i, t in enumerate(ids[1:])] + logprobs[-1].topk(top)[0].tolist()


def differences(draw, myelin, directory, config):
    model = Qwen3ForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    lengths = [1, draw.randrange(2, 20), draw.randrange(20, 200), draw.choice([300, 700, 1500])]
    prompts = [[draw.randrange(config.vocab_size) for _ in range(n)] for n in lengths]
    lines = "".join(json.dumps({"ids": ids, "top": 5}) + "\n" for ids in prompts)
    answers = subprocess.run([myelin, "score", "-q", "-m", directory], input=lines, text=True,
                             check=True, capture_output=True).stdout.splitlines()
    found = []
    for ids, line in zip(prompts, answers, strict=True):
        answer = json.loads(line)
        values = answer["logprobs"] + answer["top_logprobs"]
        found += [abs(a - b) for a, b in zip(values, expected(model, ids, 5), strict=True)]
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("myelin")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=40)
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(options.seed)
    draw = random.Random(options.seed)
    worst = worst_mean = 0
    for number in range(options.count):
        with tempfile.TemporaryDirectory() as name:
            config = write_checkpoint(draw, Path(name))
            found = differences(draw, options.myelin, Path(name), config)
        mean = sum(found) / len(found)
        print(f"{number}: {len(found)} values, largest {max(found):.2g}, mean {mean:.2g}")
        worst, worst_mean = max(worst, max(found)), max(worst_mean, mean)
    print(f"{options.count} checkpoints: largest {worst:.2g}, largest mean {worst_mean:.2g}")
    return worst > LARGEST or worst_mean > MEAN


if __name__ == "__main__":
    sys.exit(main())
