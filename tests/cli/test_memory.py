# SPDX-License-Identifier: Apache-2.0
"""Loading holds no weight twice: the process never takes much more than the weights."""
import json
import os
import sys
import tempfile
import unittest
from pathlib import Path

import support

HIDDEN, INTERMEDIATE, LAYERS, HEADS, HEAD_DIM, VOCAB = 1024, 3072, 6, 8, 128, 32000
SLACK = 64 << 20


def shapes():
    width = HEADS * HEAD_DIM
    yield "model.embed_tokens.weight", [VOCAB, HIDDEN]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", [HIDDEN]
        for name in "qkv":
            yield prefix + f"self_attn.{name}_proj.weight", [width, HIDDEN]
        yield prefix + "self_attn.o_proj.weight", [HIDDEN, width]
        for name in "qk":
            yield prefix + f"self_attn.{name}_norm.weight", [HEAD_DIM]
        yield prefix + "post_attention_layernorm.weight", [HIDDEN]
        for name in ("gate", "up"):
            yield prefix + f"mlp.{name}_proj.weight", [INTERMEDIATE, HIDDEN]
        yield prefix + "mlp.down_proj.weight", [HIDDEN, INTERMEDIATE]
    yield "model.norm.weight", [HIDDEN]


def write_checkpoint(directory):
    """A bf16 model of zeros in a file of holes, which costs no disk. Returns its weights' bytes."""
    header, end = {}, 0
    for name, shape in shapes():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with open(directory / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    (directory / "config.json").write_text(json.dumps({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS, "head_dim": HEAD_DIM,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": VOCAB,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": True}))
    return end


class Memory(unittest.TestCase):
    def measure(self, *command, stdin=b""):
        """What a command answers, and the bytes its process had at its largest."""
        process = support.start(*command)
        process.stdin.write(stdin)
        process.stdin.close()
        answer = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        for stream in (process.stdout, process.stderr):
            stream.close()
        self.assertEqual(process.returncode, 0)
        return answer, usage.ru_maxrss * 1024

    def peak(self, directory, *options):
        request = support.lines([{"prompt_ids": [1, 2, 3], "max_new_tokens": 2}])
        answer, peak = self.measure("batch", "-q", "-m", directory, *options, stdin=request)
        self.assertEqual(answer["num_tokens"], 2)
        return peak

    def test_peak(self):
        with tempfile.TemporaryDirectory() as name:
            weights = write_checkpoint(Path(name))
            self.assertGreater(weights, 200 << 20)
            as_stored = self.peak(name, "--pack", "none")  # else that follows from a trial
            packed = self.peak(name, "--pack", "lossless")
            widened = self.peak(name, "--dtype", "f32")
        print(f"weights {weights >> 20} MiB: peak {as_stored >> 20} MiB, packed "
              f"{packed >> 20} MiB; cast to f32: weights {weights >> 19} MiB, peak "
              f"{widened >> 20} MiB", file=sys.stderr)
        self.assertGreater(as_stored, weights)
        self.assertLess(as_stored, 1.05 * weights + SLACK)
        self.assertLess(packed, 0.8 * weights + SLACK)
        self.assertLess(widened, 1.05 * 2 * weights + SLACK)

    def test_looking_does_not_load(self):
        with tempfile.TemporaryDirectory() as name:
            write_checkpoint(Path(name))
            report, peak = self.measure("inspect", "--json", "-m", name)
        self.assertGreater(report["weight_bytes"], 200 << 20)
        self.assertLess(peak, 32 << 20)


if __name__ == "__main__":
    if os.environ.get("MYELIN_SANITIZED"):
        print("a sanitizer's shadow memory is not the program's: skipped")
        sys.exit(77)
    unittest.main()
