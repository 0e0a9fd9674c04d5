# SPDX-License-Identifier: Apache-2.0
"""Where a model is looked for, and what a bad one gets."""
import os
import pathlib
import shutil
import tempfile
import unittest

import support
from support import TestCase, environment

NAME = "Some-Org/Tiny_Model-0.1b"
REVISION = "0123456789abcdef0123456789abcdef01234567"


class Folder(TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def hub(self, *parts, refs=REVISION + "\n"):
        """A cache with one model; gives the cache's directory."""
        cache = self.folder.joinpath(*parts)
        repository = cache / "models--Some-Org--Tiny_Model-0.1b"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(refs, encoding="utf-8")
        (repository / "snapshots").mkdir()
        (repository / "snapshots" / REVISION).symlink_to(support.DEMO)
        return cache

    def directory_of(self, *arguments, **variables):
        return self.good_json("inspect", "--json", *arguments,
                              env=environment(**variables))["directory"]


class Lookup(Folder):
    def test_the_demo_is_the_default(self):
        self.assertEqual(self.directory_of(), str(support.DEMO))
        self.assertEqual(self.directory_of(MYELIN_MODEL=""), str(support.DEMO))

    def test_the_environment_and_the_option(self):
        tiny = str(support.DATA / "models" / "tied-bf16")
        self.assertEqual(self.directory_of(MYELIN_MODEL=tiny), tiny)
        self.assertEqual(self.directory_of("-m", support.DEMO, MYELIN_MODEL=tiny),
                         str(support.DEMO))
        self.assertEqual(self.directory_of(f"--model={tiny}"), tiny)

    def test_an_installed_program_has_its_own(self):
        share = self.folder / "share" / "myelin" / "models"
        share.mkdir(parents=True)
        (self.folder / "bin").mkdir()
        shutil.copytree(support.DEMO, share / "demo", ignore=shutil.ignore_patterns("training"))
        program = self.folder / "bin" / "myelin"
        shutil.copy2(support.BINARY, program)
        original = support.BINARY
        support.BINARY = str(program)
        try:
            self.assertEqual(os.path.realpath(self.directory_of()),
                             os.path.realpath(share / "demo"))
        finally:
            support.BINARY = original

    def test_the_cache_in_every_place(self):
        places = (("a",), {"HF_HUB_CACHE": "a"}), (("b", "hub"), {"HF_HOME": "b"}), \
            (("c", "huggingface", "hub"), {"XDG_CACHE_HOME": "c"}), \
            (("d", ".cache", "huggingface", "hub"), {"HOME": "d"})
        for parts, variables in places:
            cache = self.hub(*parts)
            found = self.directory_of("-m", NAME, **{name: str(self.folder / value)
                                                     for name, value in variables.items()})
            self.assertEqual(found, str(cache / "models--Some-Org--Tiny_Model-0.1b" / "snapshots" /
                                        REVISION))

    def test_the_first_place_counts(self):
        self.hub("a")
        variables = {"HF_HUB_CACHE": str(self.folder / "a"), "HF_HOME": "/nonexistent",
                     "XDG_CACHE_HOME": "/nonexistent"}
        self.assertIn("snapshots", self.directory_of("-m", NAME, **variables))
        self.assertIn("snapshots", self.directory_of(MYELIN_MODEL=NAME, **variables))

    def test_a_directory_goes_before_the_cache(self):
        local = self.folder / "Some-Org"
        local.mkdir()
        (local / "Tiny_Model-0.1b").symlink_to(support.DEMO)
        cache = str(self.hub("a"))
        before = os.getcwd()
        os.chdir(self.folder)
        try:
            self.assertEqual(self.directory_of("-m", NAME, HF_HUB_CACHE=cache), NAME)
        finally:
            os.chdir(before)


class NotFound(Folder):
    def test_message_says_where_it_was_looked_for(self):
        for command in support.COMMANDS:
            which = ("No/Such", "made") if command == "quantize" else ("-m", "No/Such")
            message = self.bad(3, command, *which, env=environment(HF_HOME="/nowhere"))
            self.assertIn("/nowhere/hub/models--No--Such", message)
            self.assertIn("No/Such", message)

    def test_paths(self):
        for model in ("/nonexistent/model", "./nothing", "nothing", "../x/y", "a/b/c", ""):
            self.assertIn("No such file", self.bad(3, "inspect", "-m", model))
        self.assertIn("expected a directory",
                      self.bad(3, "inspect", "-m", support.DEMO / "config.json"))

    def test_names_do_not_leave_the_cache(self):
        env = environment(HF_HOME=str(self.folder))
        for model in ("../..", "a/..", "../a", ".a/b", "a/.b", "x" * 300 + "/y"):
            message = self.bad(3, "inspect", "-m", str(model), env=env) \
                if not os.path.isdir(model) else ""
            self.assertNotIn("models--", message)

    def test_no_place_for_a_cache(self):
        env = environment()
        env.pop("HOME", None)
        self.assertIn("HF_HOME", self.bad(3, "inspect", "-m", "A/b", env=env))

    def test_a_damaged_cache(self):
        for i, refs in enumerate(("", "\n", "../../../etc", "deadbeef", "a" * 200, "a/b", ".")):
            cache = self.hub(str(i), refs=refs)
            message = self.bad(3, "inspect", "-m", NAME, env=environment(HF_HUB_CACHE=str(cache)))
            self.assertIn("refs/main", message)


class BadModels(Folder):
    def copy(self, *names):
        model = self.folder / "model"
        shutil.rmtree(model, ignore_errors=True)
        model.mkdir()
        for name in names:
            shutil.copy(support.DEMO / name, model)
        return model

    def test_missing_files(self):
        self.assertIn("config.json", self.bad(3, "run", "-m", self.copy(), "hi"))
        self.assertIn("safetensors", self.bad(3, "run", "-m", self.copy("config.json"), "hi"))

    def test_damaged_files(self):
        names = ("config.json", "model.safetensors", "tokenizer.json")
        for name in names:
            model = self.copy(*names)
            with open(model / name, "r+b") as file:
                file.truncate(os.path.getsize(model / name) - 2)
            for command in ("run", "batch", "score"):
                message = self.bad(3, command, "-m", model,
                                   stdin=b'{"prompt": "hi"}\n')
                self.assertIn(name, message)

    def test_another_architecture(self):
        model = self.copy("model.safetensors")
        (model / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
        self.assertIn("config.json", self.bad(3, "inspect", "-m", model))


if __name__ == "__main__":
    unittest.main()
