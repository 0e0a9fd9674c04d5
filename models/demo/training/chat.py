"""Qwen3's chat format: the template of the model directory, rendered with Jinja.

The environment is the one that ``transformers`` builds for
``apply_chat_template``; ``differences_from_transformers`` checks that the output
is the same, character for character.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from example import Example, Message

FORMAT = Path(__file__).with_name("qwen3_format.json")
TEMPLATE = Path(__file__).resolve().parents[1] / "chat_template.jinja"
END_OF_TEXT = "<|endoftext|>"
IM_END = "<|im_end|>"

# (text, is it learned?)
Segments = list[tuple[str, bool]]


def load_format() -> dict[str, Any]:
    """Qwen3's added tokens and tokenizer settings."""
    return json.loads(FORMAT.read_text(encoding="utf-8"))


def template_text() -> str:
    """The chat template, as it stands beside the tokenizer files."""
    return TEMPLATE.read_text(encoding="utf-8")


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


_environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
_environment.filters["tojson"] = _tojson
_environment.globals["raise_exception"] = _raise_exception
_template = _environment.from_string(template_text())


def render(messages: list[Message], tools: list[dict[str, Any]] | None = None, add_generation_prompt: bool = False, enable_thinking: bool = True) -> str:
    """The conversation as text."""
    return _template.render(messages=messages, tools=tools, add_generation_prompt=add_generation_prompt, enable_thinking=enable_thinking)


def prompt_text(example: Example) -> str:
    """What the model sees before it has to write the last assistant turn."""
    return render(example.messages[:-1], example.tools, add_generation_prompt=True, enable_thinking=example.thinking)


def segments(example: Example) -> Segments:
    """The document cut into prompt and learned parts.

    A conversation is learned only where the model would really write: in
    assistant turns that start with a think block.  Earlier turns, which the
    template shows without one, are context.
    """
    if not example.messages:
        return [(example.text + END_OF_TEXT, True)]
    prompt = prompt_text(example)
    full = render(example.messages, example.tools)
    if not full.startswith(prompt):
        raise ValueError(f"the prompt is not a prefix of the conversation: {full!r}")
    answer = full[len(prompt):].removesuffix("\n")
    if not answer.endswith(IM_END):
        raise ValueError(f"the conversation does not end with an assistant turn: {answer!r}")
    return [(prompt, False), (answer, True)]


def differences_from_transformers(tokenizer: Any, examples: list[Example]) -> list[str]:
    """What ``tokenizer.apply_chat_template`` renders in another way than this module (should be nothing)."""
    differing: list[str] = []
    for example in examples:
        if not example.messages:
            continue
        pairs = (
            (tokenizer.apply_chat_template(example.messages[:-1], tools=example.tools, tokenize=False, add_generation_prompt=True, enable_thinking=example.thinking), prompt_text(example)),
            (tokenizer.apply_chat_template(example.messages, tools=example.tools, tokenize=False), render(example.messages, example.tools)),
        )
        differing += [theirs for theirs, ours in pairs if theirs != ours]
    return differing
