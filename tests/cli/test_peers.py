# SPDX-License-Identifier: Apache-2.0
"""bench/peers with stand-ins for the programs it measures, which answer with figures given here."""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import unittest

import support

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "bench/peers"
WEIGHTS, CACHE = 1000, 2 * 2 * 2 * 4 * 8  # bytes; the latter of a position
READ = {"read_bytes_per_second": 40000.0, "read_bytes_per_second_one_thread": 30000.0}
CONFIG = {"num_hidden_layers": 2, "num_key_value_heads": 4, "head_dim": 8}
# Called by any of the names: notes how, then does what comes next in the list of answers for
# NAME or NAME:SETTING; the last of a list is for all that follow.
STAND_IN = r'''#!@PYTHON@ -S
import json, os, pathlib, sys, time
here = pathlib.Path(__file__).absolute().parent
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
setting = arguments[arguments.index("-fa") + 1] if "-fa" in arguments else ""
key = name + (":" + setting if setting else "")
log = here / "log"
past = log.read_text().splitlines() if log.exists() else []
count = sum(json.loads(line)["key"] == key for line in past)
siblings = 0
for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
        siblings += stat.read_text().rpartition(")")[2].split()[1] == str(os.getppid())
    except OSError:
        pass
with open(log, "a") as file:
    file.write(json.dumps({"key": key, "arguments": arguments, "siblings": siblings,
                           "threads": os.environ.get("OMP_NUM_THREADS")}) + "\n")
answers = json.loads((here / "answers").read_text()).get(key) or [7.0]
answer = answers[min(count, len(answers) - 1)]
if isinstance(answer, dict):
    time.sleep(answer.get("sleep", 0))
if isinstance(answer, dict) and "value" in answer:
    answer = answer["value"]
if isinstance(answer, dict):
    print(answer.get("out", ""))
    print(answer.get("message", ""), file=sys.stderr)
    sys.exit(answer.get("status", 0))
if name == "myelin" and arguments[0] == "run":
    print(json.dumps({"num_tokens": 1}))
elif name == "myelin":
    run = {"prefill_tokens_per_second": answer, "decode_tokens_per_second": answer}
    print(json.dumps({**run, "runs": [{k: 1.0 for k in run}, run], "weight_bytes": @WEIGHTS@,
                      "prefill_share_of_peak": 0.5, "peak_bytes": @WEIGHTS@ + (64 << 20),
                      "machine": {"processor": "Abacus", **@READ@}}))
elif name == "llama-bench":
    print("noise", file=sys.stderr)
    print(json.dumps([{"avg_ts": answer}], indent=1))
elif name == "llama-batched-bench":
    print("\nmain: 4 sequences {}\n0.01 I " + json.dumps({"pp": 16, "speed_tg": answer}) + "\n")
elif name == "mlx":
    print("noise\n" + json.dumps({"prefill": answer, "decode": answer}))
'''


class Peers(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.here = pathlib.Path(directory.name)
        text = STAND_IN
        for name, value in (("PYTHON", sys.executable), ("WEIGHTS", WEIGHTS), ("READ", READ)):
            text = text.replace(f"@{name}@", str(value))
        for name in ("myelin", "llama-bench", "llama-batched-bench", "mlx"):
            (self.here / name).write_text(text)
            (self.here / name).chmod(0o755)
        (self.here / "model").mkdir()
        (self.here / "model/config.json").write_text(json.dumps(CONFIG))
        (self.here / "file.gguf").write_text("")

    def run_peers(self, *arguments, answers=None):
        (self.here / "answers").write_text(json.dumps(answers or {}))
        return subprocess.run([sys.executable, "-B", PROGRAM, *map(str, arguments)],
                              capture_output=True, text=True, timeout=120, check=False)

    def measure(self, rows, *more, answers=None, code=0, gguf=("bf16", "4bit", "8bit")):
        arguments = ["--myelin", self.here / "myelin", "--llama-bench", self.here / "llama-bench",
                     "--rows", rows, "--json", *more]
        for weights in ("bf16", "4bit", "8bit"):
            arguments += ["--model", f"{weights}={self.here}/model"]
        for weights in gguf:
            arguments += ["--gguf", f"{weights}={self.here}/file.gguf"]
        done = self.run_peers(*arguments, answers=answers)
        self.assertEqual((done.returncode, done.stderr), (code, ""), done.stdout)
        return json.loads(done.stdout)

    def log(self):
        return [json.loads(line) for line in (self.here / "log").read_text().splitlines()]

    def keys(self):
        return [entry["key"] for entry in self.log()]

    def test_turns(self):
        self.measure("decode-bf16", "--rounds", 3)
        first = ["myelin", "llama-bench:on", "llama-bench:off"]
        self.assertEqual(self.keys(), first + first[::-1] + first)

    def test_medians_of_ratios(self):
        answers = {"myelin": [10.0, 20.0, 30.0], "llama-bench:on": [5.0, 20.0, 10.0],
                   "llama-bench:off": [4.0, 9.0, 100.0]}
        result = self.measure("decode-bf16", "--rounds", 3, answers=answers)
        row, = result["rows"]
        self.assertEqual(row["ours"]["values"], [10, 20, 30])
        peer, = row["peers"]
        # 10 is the better median of the settings; a setting's one good round does not count.
        self.assertEqual((peer["setting"], peer["theirs"]["median"]), ("on", 10))
        self.assertEqual(peer["ratio"]["values"], [2, 1, 3])
        self.assertEqual(peer["ratio"]["median"], 2)
        self.assertEqual(peer["tried"], {"on": 10, "off": 9})
        limit = READ["read_bytes_per_second"] / (WEIGHTS + CACHE * (1 + 16))
        self.assertAlmostEqual(row["share"]["median"], 20 / limit)
        self.assertEqual(result["read_bytes_per_second"]["median"], 40000)
        self.assertEqual(result["processor"], "Abacus")
        self.assertEqual(result["skipped"], [])

    def test_one_thread_and_packed(self):
        result = self.measure("decode-bf16-1,decode-bf16-packed-1", "--rounds", 1)
        # The peer's figure is the same for both rows and is measured once.
        self.assertEqual(self.keys(), ["myelin", "llama-bench:on", "llama-bench:off", "myelin"])
        ours = [entry["arguments"] for entry in self.log() if entry["key"] == "myelin"]
        self.assertEqual(ours[0][-2:], ["--pack", "none"])
        self.assertEqual(ours[1][-2:], ["--pack", "lossless"])
        for row in result["rows"]:
            self.assertEqual(row["peers"][0]["ratio"]["median"], 1)
            limit = READ["read_bytes_per_second_one_thread"] / (WEIGHTS + CACHE * (1 + 16))
            self.assertAlmostEqual(row["share"]["median"], 7 / limit)
        for entry in self.log():
            option = "--threads" if entry["key"] == "myelin" else "-t"
            self.assertEqual(entry["arguments"][entry["arguments"].index(option) + 1], "1")

    def test_prompts(self):
        result = self.measure("prefill-8bit", "--rounds", 1, "--prompt", 96,
                              answers={"myelin": [12.0], "llama-bench:off": [8.0]})
        row, = result["rows"]
        self.assertEqual(row["share"]["median"], 0.5)
        self.assertEqual(row["peers"][0]["ratio"]["median"], 1.5)
        self.assertEqual(row["wanted"], {"ratio": 2.2})
        theirs = self.log()[1]["arguments"]
        self.assertEqual(theirs[theirs.index("-p"):][:4], ["-p", "96", "-n", "0"])

    def test_activations_are_of_ours(self):
        result = self.measure("prefill-bf16,prefill-bf16-rounded", "--rounds", 1)
        # The peer has no choice, and is measured once.
        self.assertEqual(self.keys(), ["myelin", "llama-bench:on", "llama-bench:off", "myelin"])
        plain, rounded = [e["arguments"] for e in self.log() if e["key"] == "myelin"]
        self.assertNotIn("--activations", plain)
        self.assertEqual(rounded[-2:], ["--activations", "bf16"])
        self.assertEqual([row["peers"][0]["ratio"]["median"] for row in result["rows"]], [1, 1])
        result = self.measure("prefill-8bit-rounded,eight-4bit-rounded", "--rounds", 1)
        for arguments in [e["arguments"] for e in self.log() if e["key"] == "myelin"][2:]:
            self.assertEqual(arguments[-2:], ["--activations", "int8"])
        self.assertEqual([row["wanted"] for row in result["rows"]], [{"ratio": 2.2}, {"ratio": 2}])

    def test_several_sequences(self):
        result = self.measure("two-4bit,eight-4bit", "--rounds", 1,
                              answers={"myelin": [10.0, 19.0, 60.0],
                                       "llama-batched-bench:off": [9.5, 20.0]})
        two, eight = result["rows"]
        self.assertEqual(two["own_ratio"]["median"], 1.9)
        self.assertEqual(two["peers"][0]["ratio"]["median"], 2)
        self.assertEqual(eight["peers"][0]["ratio"]["median"], 3)
        self.assertIsNone(eight["share"])
        last = self.log()[-1]["arguments"]
        self.assertEqual(last[last.index("-npl") + 1], "8")

    def test_long_context_gives_memory_too(self):
        result = self.measure("deep-bf16,memory-bf16", "--rounds", 1, "--depth", 100)
        self.assertEqual(len(self.keys()), 3)
        deep, memory = result["rows"]
        limit = READ["read_bytes_per_second"] / (WEIGHTS + CACHE * (100 + 1 + 8))
        self.assertAlmostEqual(deep["share"]["median"], 7 / limit)
        self.assertEqual(memory["ours"]["median"], WEIGHTS + (64 << 20))
        self.assertEqual(memory["beyond_bytes"]["median"], (64 << 20) - CACHE * (100 + 1 + 16))
        theirs = memory["peers"][0]["theirs"]["median"]
        self.assertGreater(theirs, 1 << 20)
        self.assertAlmostEqual(memory["peers"][0]["ratio"]["median"],
                               theirs / memory["ours"]["median"])

    def test_start_is_better_when_less(self):
        slow = {"value": 1.0, "sleep": 0.7}
        result = self.measure("start-bf16", "--rounds", 1,
                              answers={"llama-bench:on": [slow],
                                       "llama-bench:off": [{**slow, "sleep": 1.4}]})
        row, = result["rows"]
        peer, = row["peers"]
        self.assertEqual(peer["setting"], "on")
        self.assertGreaterEqual(peer["theirs"]["median"], 0.7)
        self.assertAlmostEqual(peer["ratio"]["median"],
                               peer["theirs"]["median"] / row["ours"]["median"])
        self.assertIn("--no-warmup", self.log()[1]["arguments"])

    def test_busy_neighbour(self):
        result = self.measure("busy-4bit", "--rounds", 1, answers={"myelin": [10.0, 8.0]})
        self.assertAlmostEqual(result["rows"][0]["own_ratio"]["median"], 0.8)
        # Alone for the measure of one thread; beside the one that spins for the rest.
        self.assertEqual([entry["siblings"] for entry in self.log()], [1, 2, 2, 2])

    def test_mlx(self):
        result = self.measure("decode-4bit,eight-4bit", "--rounds", 1, "--threads", 3,
                              "--mlx-python", self.here / "mlx", answers={"mlx": [2.0]})
        self.assertEqual([peer["peer"] for peer in result["rows"][0]["peers"]],
                         ["llama.cpp", "mlx-lm"])
        self.assertEqual(result["rows"][0]["peers"][1]["ratio"]["median"], 3.5)
        ran, = [entry for entry in self.log() if entry["key"] == "mlx"]
        self.assertEqual(ran["arguments"][0], "-c")
        self.assertIn("generate_step", ran["arguments"][1])
        self.assertEqual(ran["threads"], "3")
        skipped, = result["skipped"]
        self.assertEqual((skipped["row"], skipped["who"]), ("eight-4bit", "mlx-lm"))

    def test_builds_of_different_names(self):
        result = self.measure("decode-8bit", "--rounds", 1, "--llama-bench",
                              f"second={self.here}/llama-bench",
                              answers={"llama-bench:on": [5.0, 2.0]})
        self.assertEqual([(peer["peer"], peer["setting"]) for peer in result["rows"][0]["peers"]],
                         [("llama.cpp", "off"), ("second", "off")])

    def test_one_setting(self):
        result = self.measure("decode-8bit", "--rounds", 2, "--flash-attention", "off")
        self.assertEqual(result["rows"][0]["peers"][0]["tried"], {"off": 7})
        self.assertEqual(self.keys().count("llama-bench:off"), 2)
        self.assertEqual(len(self.keys()), 4)

    def test_failures(self):
        for answer, why in (
                ({"status": 3, "message": "first\nno such model\n"},
                 "llama-bench ended with status 3: no such model"),
                ({"status": 1, "message": "x.c:1: error: no x\n   | ~~^\n"}, "1: error: no x"),
                ({"out": "| model | t/s |"}, "expected JSON, found '| model"),
                ({"out": "[]"}, "expected one result with avg_ts"),
                ({"out": '[{"avg_ts": 0.0}]'}, "expected a number above 0, found 0.0"),
                ({"out": '[{"avg_ts": "fast"}]'}, "found 'fast'"),
                ({"sleep": 60}, "took more than 6 s")):
            with self.subTest(why=why):
                (self.here / "log").unlink(missing_ok=True)
                result = self.measure("decode-bf16", "--rounds", 2, "--timeout", 6, code=1,
                                      answers={"llama-bench:off": [answer]})
                skipped, = result["skipped"]
                self.assertEqual((skipped["row"], skipped["who"]), ("decode-bf16", "llama.cpp off"))
                self.assertIn(why, skipped["why"])
                # The other setting is measured all the same; what failed is not tried again.
                self.assertEqual(result["rows"][0]["peers"][0]["setting"], "on")
                self.assertEqual(self.keys().count("llama-bench:off"), 1)
                self.assertEqual(self.keys().count("llama-bench:on"), 2)

    def test_failure_of_ours(self):
        result = self.measure("decode-bf16", "--rounds", 1, code=1,
                              answers={"myelin": [{"out": "{}"}]})
        self.assertEqual(result["rows"], [])
        self.assertIn("unexpected answer", result["skipped"][0]["why"])

    def test_failed_in_a_later_round(self):
        result = self.measure("decode-bf16", "--rounds", 2, code=1,
                              answers={"llama-bench:on": [14.0, {"status": 1}]})
        self.assertEqual(result["rows"][0]["peers"][0]["ratio"]["values"], [0.5])
        self.assertEqual(len(result["skipped"]), 1)

    def test_missing(self):
        (self.here / "llama-batched-bench").unlink()
        result = self.measure("decode-4bit,decode-bf16,eight-bf16", "--rounds", 1, gguf=("bf16",))
        self.assertEqual([(each["row"], each["why"]) for each in result["skipped"]],
                         [("decode-4bit", "no --gguf 4bit=FILE"),
                          ("eight-bf16", "no llama-batched-bench beside llama-bench")])
        self.assertEqual([len(row["peers"]) for row in result["rows"]], [1, 0, 0])

    def test_no_time(self):
        result = self.measure("decode-4bit,decode-8bit", "--rounds", 1000, "--seconds", 0.5,
                              answers={"myelin": [{"value": 3.0, "sleep": 1}]})
        # What has begun is finished, and nothing follows.
        self.assertEqual(self.keys(), ["myelin"])
        row, = result["rows"]
        self.assertEqual((row["row"], row["ours"]["values"]), ("decode-4bit", [3]))
        self.assertEqual(row["peers"], [])
        skipped, = result["skipped"]
        self.assertEqual((skipped["row"], skipped["why"]), ("decode-8bit", "no time was left"))

    def test_synthetic(self):
        done = self.run_peers("--myelin", self.here / "myelin", "--synthetic", "qwen3-4b",
                              "--rows", "decode-8bit,start-bf16", "--rounds", 1, "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        result = json.loads(done.stdout)
        self.assertEqual(self.log()[0]["arguments"][-4:],
                         ["--synthetic", "qwen3-4b", "--bits", "8"])
        limit = 40000 / (WEIGHTS + 2 * 2 * 36 * 1024 * (1 + 24))
        self.assertAlmostEqual(result["rows"][0]["share"]["median"], 7 / limit)
        self.assertEqual(result["skipped"][0]["row"], "start-bf16")

    def test_table(self):
        done = self.run_peers(
            "--myelin", self.here / "myelin", "--llama-bench", self.here / "llama-bench",
            "--model", f"bf16={self.here}/model", "--gguf", f"bf16={self.here}/file.gguf",
            "--rows", "decode-bf16,decode-4bit", "--rounds", 2, answers={"myelin": [14.0]})
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        lines = done.stdout.splitlines()
        self.assertIn("Abacus", lines[0])
        self.assertIn("| decode bf16, 2 threads | llama.cpp, fa on | 7.0 | 14.0 "
                      "| 2.00 (2.00–2.00) |", done.stdout)
        self.assertEqual(lines[-1], "skipped: decode-4bit (myelin): no --model 4bit=DIR")

    def test_list(self):
        done = self.run_peers("--list")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(len(done.stdout.splitlines()), 24)
        self.assertIn("decode-bf16 ", done.stdout)

    def test_wrong_usage(self):
        for arguments, message in (
                ((), "expected --model TYPE=DIR or --synthetic SHAPE"),
                (("--model", "fp8=/"), "expected bf16=, 4bit= or 8bit="),
                (("--model", "bf16=/nowhere/at/all"), "there is no /nowhere/at/all"),
                (("--synthetic", "x", "--rows", "decode-bf16,tea"), "there is no tea"),
                (("--synthetic", "x", "--rounds", "0"), "must be at least 1"),
                (("--synthetic", "x", "--llama-bench", "a", "--llama-bench", "b"),
                 "a name of its own")):
            done = self.run_peers(*arguments)
            self.assertEqual((done.returncode, done.stdout), (2, ""), arguments)
            self.assertIn(message, done.stderr)

    def test_ours_as_it_is(self):
        """The options and answers of the real one, with the demo model for a checkpoint."""
        done = self.run_peers(
            "--myelin", support.BINARY, "--model", f"bf16={support.DEMO}", "--llama-bench",
            self.here / "llama-bench", "--gguf", f"bf16={self.here}/file.gguf", "--rows",
            "decode-bf16,start-bf16", "--rounds", 1, "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        decode, start = json.loads(done.stdout)["rows"]
        self.assertGreater(decode["share"]["median"], 0)
        self.assertAlmostEqual(decode["peers"][0]["ratio"]["median"],
                               statistics.median(decode["ours"]["values"]) / 7)
        self.assertGreater(start["ours"]["median"], 0)


if __name__ == "__main__":
    unittest.main()
