"""Train the tokenizer and write every small file of the model directory.

    python3 build_tokenizer.py MODEL_DIR

The pipeline, the added tokens and the conversation format are Qwen3's; the
template that writes the format is ours, and the vocabulary and the merges are
learned from the curriculum.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from random import Random
from typing import Any, Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import chat
import curriculum
import settings

SAMPLE_DOCUMENTS = 50_000


def sample_texts(added: list[str]) -> Iterator[str]:
    """Texts of the curriculum without the added tokens, which are never merged with anything."""
    rng = Random(f"{settings.SEED}:tokenizer")
    split = re.compile("|".join(map(re.escape, added)))
    for _ in range(SAMPLE_DOCUMENTS):
        text = "".join(part for part, _ in chat.segments(curriculum.draw(rng)))
        for piece in split.split(text):
            if piece:
                yield piece


def train(layout: dict[str, Any]) -> Tokenizer:
    pattern = layout["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    tokenizer = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    added = [token["content"] for token in layout["added_tokens"]]
    trainer = trainers.BpeTrainer(vocab_size=256 + settings.MERGES, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(sample_texts(added), trainer)
    for token in layout["added_tokens"]:
        entry = AddedToken(token["content"], single_word=token["single_word"], lstrip=token["lstrip"], rstrip=token["rstrip"], normalized=token["normalized"], special=token["special"])
        if token["special"]:
            tokenizer.add_special_tokens([entry])
        else:
            tokenizer.add_tokens([entry])
    return tokenizer


def with_qwen3_pipeline(tokenizer_json: dict[str, Any], layout: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer file in Qwen3's words: equal pipeline sections, equal order of keys."""
    result: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokenizer_json["added_tokens"]}
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        result[part] = layout[part]
    model = dict(layout["model_settings"])
    model["vocab"] = tokenizer_json["model"]["vocab"]
    model["merges"] = tokenizer_json["model"]["merges"]
    result["model"] = model
    return result


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    layout = chat.load_format()
    tokenizer = train(layout)
    written = json.loads(tokenizer.to_str())
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if written[part] != layout[part]:
            print(f"note: {part} was {written[part]}, written as {layout[part]}")
    content = with_qwen3_pipeline(written, layout)
    (directory / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))

    ids = {token["content"]: tokenizer.token_to_id(token["content"]) for token in layout["added_tokens"]}
    first = 256 + len(content["model"]["merges"])
    if list(ids.values()) != list(range(first, first + len(ids))):
        raise SystemExit(f"the added tokens are not in order: {ids}")
    if tokenizer.get_vocab_size() > settings.VOCABULARY:
        raise SystemExit("the vocabulary is larger than the embedding")

    # tokenizer_config.json, with the keys in the order of the original; the template is a file of its own.
    parts = dict(layout["tokenizer_config"])
    parts["added_tokens_decoder"] = {str(ids[token["content"]]): token for token in layout["added_tokens"]}
    parts["model_max_length"] = settings.CONFIG["max_position_embeddings"]
    ordered = {key: parts[key] for key in layout["tokenizer_config_order"]}
    (directory / "tokenizer_config.json").write_text(json.dumps(ordered, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (directory / "chat_template.jinja").write_text(chat.template_text(), encoding="utf-8")

    end_of_text, im_end = ids[chat.END_OF_TEXT], ids[chat.IM_END]
    config = dict(settings.CONFIG, bos_token_id=end_of_text, eos_token_id=im_end)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    generation = dict(settings.GENERATION_CONFIG, bos_token_id=end_of_text, eos_token_id=[im_end, end_of_text], pad_token_id=end_of_text)
    (directory / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")

    for text in ("Once upon a time, there was a fox.", "12 + 34 = 46.", "héllo wörld ☃ 日本", '<|im_start|>user\nHi!<|im_end|>\n{"name": "get_weather"}'):
        encoded = tokenizer.encode(text)
        if tokenizer.decode(encoded.ids, skip_special_tokens=False) != text:
            raise SystemExit(f"not reversible: {text!r}")
        print(encoded.tokens)
    print(f"vocabulary: {tokenizer.get_vocab_size()} tokens, {len(content['model']['merges'])} merges, last merges {content['model']['merges'][-8:]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
