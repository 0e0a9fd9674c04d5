# SPDX-License-Identifier: Apache-2.0
"""myelin inspect, compared with the files themselves."""
import json
import os
import shutil
import struct
import tempfile
import unittest

import support
from support import TestCase

MEMBERS = ["config", "directory", "max_len", "num_parameters", "plugin", "session_bytes",
           "tensors", "threads", "weight_bytes"]


def headers(folder):
    """Tensor name -> what the safetensors files of a directory say about it."""
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".safetensors"):
            continue
        with open(folder / name, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for tensor, info in header.items():
            begin, end = info["data_offsets"]
            tensors[tensor] = {"name": tensor, "dtype": info["dtype"].lower(),
                               "shape": info["shape"], "file": name,
                               "offset": 8 + length + begin, "bytes": end - begin}
    return tensors


class Inspect(TestCase):
    def test_json_form(self):
        folders = [support.DEMO] + sorted((support.DATA / "models").iterdir())
        self.assertGreater(len(folders), 4)
        for folder in folders:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if "quantization" in config:
                continue
            answer = self.good_json("inspect", "--json", "-m", folder)
            self.assertEqual(sorted(answer), MEMBERS)
            for name in ("hidden_size", "num_hidden_layers", "vocab_size", "head_dim",
                         "num_key_value_heads", "intermediate_size", "tie_word_embeddings"):
                self.assertEqual(answer["config"][name], config[name], name)
            tensors = {tensor["name"]: tensor for tensor in answer["tensors"]}
            self.assertEqual(len(tensors), len(answer["tensors"]))
            there = headers(folder)
            self.assertEqual(tensors, {name: there[name] for name in tensors})
            self.assertEqual(answer["weight_bytes"],
                             sum(tensor["bytes"] for tensor in tensors.values()))
            self.assertEqual(answer["max_len"], 2048)
            self.assertGreater(answer["session_bytes"], 0)
            self.assertGreater(answer["threads"], 0)

    def test_yarn_and_plain_positions(self):
        yarn = self.good_json("inspect", "--json", support.DATA / "models" / "yarn-bf16")
        self.assertEqual(yarn["config"]["rope_scaling"]["rope_type"], "yarn")
        demo = self.good_json("inspect", "--json")
        self.assertIsNone(demo["config"]["rope_scaling"])
        self.assertEqual(demo["config"]["rope_theta"], 1e6)
        self.assertEqual(demo["config"]["rms_norm_eps"], 1e-6)
        self.assertEqual(demo["num_parameters"], 7540736)

    def test_session_grows_with_its_room(self):
        sizes = [self.good_json("inspect", "--json", "--max-len", n)["session_bytes"]
                 for n in (1, 1000, 2000, 100000)]
        self.assertEqual(sizes, sorted(set(sizes)))
        # Keys and values of 6 layers, 4 heads of 64, are at least 2 bytes each.
        self.assertGreaterEqual(sizes[3], 100000 * 6 * 2 * 4 * 64 * 2)
        self.bad(2, "inspect", "--max-len", 0)
        self.bad(2, "inspect", "--max-len", 16777217)

    def test_session_follows_the_type_of_its_cache(self):
        sizes = {kind: self.good_json("inspect", "--json", "--max-len", 100000, "--cache-type",
                                      kind)["session_bytes"]
                 for kind in ("auto", "f32", "f16", "int8")}
        numbers = 100000 * 6 * 2 * 4 * 64
        self.assertEqual(sizes["auto"], sizes["f16"])
        self.assertAlmostEqual(sizes["f32"] - sizes["f16"], 2 * numbers, delta=numbers / 100)
        # Codes of a byte, and a scale for every 64 of them.
        self.assertAlmostEqual(sizes["f16"] - sizes["int8"], numbers - numbers / 16,
                               delta=numbers / 100)
        wide = self.good_json("inspect", "--json", "--max-len", 100000, "--dtype", "f32")
        self.assertEqual(wide["session_bytes"], sizes["f32"])

    def test_a_cast_changes_the_weights_size(self):
        stored, wide = (self.good_json("inspect", "--json", "--dtype", dtype)["weight_bytes"]
                        for dtype in ("auto", "f32"))
        self.assertEqual(wide, 2 * stored)

    def test_table(self):
        text = self.good("inspect").decode()
        self.assertIn("7.54 million parameters", text)
        self.assertIn("tokens", text)
        rows = text.split("\n\n")[1].splitlines()
        self.assertEqual(len(rows), 1 + len(self.good_json("inspect", "--json")["tensors"]))
        columns = [row.index("model.safetensors") for row in rows[1:]]
        self.assertEqual(len(set(columns)), 1, "the columns are not aligned")

    def test_reads_no_weights(self):
        # A file that says it holds many gigabytes, and on disk holds none of them.
        with tempfile.TemporaryDirectory() as folder:
            config = json.loads((support.DEMO / "config.json").read_text(encoding="utf-8"))
            config["vocab_size"] = 16000000
            with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
                json.dump(config, file)
            source = support.DEMO / "model.safetensors"
            with open(source, "rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            header["model.embed_tokens.weight"]["shape"][0] = 16000000
            position = 0
            for info in header.values():
                size = 2
                for dimension in info["shape"]:
                    size *= dimension
                info["data_offsets"] = [position, position + size]
                position += size
            text = json.dumps(header).encode()
            with open(os.path.join(folder, "model.safetensors"), "wb") as file:
                file.write(struct.pack("<Q", len(text)) + text)
                try:
                    file.truncate(8 + len(text) + position)
                except OSError:
                    self.skipTest("no sparse files here")
            answer = self.good_json("inspect", "--json", folder, timeout=20)
            self.assertGreater(answer["weight_bytes"], 7 << 30)
            self.assertIn("GiB", self.good("inspect", folder).decode())

    def test_bad_models(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertIn("config.json", self.bad(3, "inspect", folder))
            shutil.copy(support.DEMO / "config.json", folder)
            self.assertIn("safetensors", self.bad(3, "inspect", folder))
            with open(os.path.join(folder, "model.safetensors"), "wb") as file:
                file.write(b"\xff" * 100)
            self.assertIn("safetensors", self.bad(3, "inspect", folder))
        self.bad(2, "inspect", support.DEMO, support.DEMO)
        self.bad(2, "inspect", "-m", support.DEMO, support.DEMO)


if __name__ == "__main__":
    unittest.main()
