"""The untrained demo model: its tokenizer, its dimensions and its random weights.

The tokenizer is a byte-level BPE that never merges across digits, Chinese characters or
punctuation, so that a text gets the same ids wherever it occurs and can be copied id by id. Role
markers and whole capability lines are single tokens, so the meta instruction takes ten ids.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from moss_tp.dialogue import END_TOKENS
from moss_tp.finetune.untrained import ModelShape, write_untrained
from serve_app.demo.conversations.demo_turn import META_INSTRUCTION
from serve_app.demo.conversations.lexicon import COMMON_HANZI
from serve_app.prompt.meta_instruction import FILE_NAME

VOCAB_SIZE = 4096
NANO_SHAPE = ModelShape(
    num_layers=5,
    hidden_size=256,
    num_heads=4,
    intermediate_size=768,
    rotary_dim=16,
    max_position_embeddings=1024,
)
SPECIAL_TOKENS = ("<|endoftext|>", *END_TOKENS.values())
_PIECES = (
    r"- [A-Z][A-Za-z -]*: (?:enabled|disabled)\.(?: API: \w+\(\w+\))?\n",  # a capability line
    r"<\|[A-Za-z ]+\|>:",  # a role marker
    r"<sup><\||\|></sup>|<\||\|>|\(\"|\"\)| =>",
    r"\d",
    r"[\u3400-\u9fff]",
    r" ?[\p{L}&&[^\u3400-\u9fff]]+",
    r"\s",
    r"[^\s\p{L}\d]",
)


def write_untrained_nano(
    directory: Path, conversations: Iterable[dict[str, Any]], seed: int
) -> None:
    """Writes a model directory: a tokenizer trained on `conversations`, and random weights."""
    directory.mkdir(parents=True, exist_ok=True)
    train_tokenizer(_texts(conversations)).save(str(directory / "tokenizer.json"))
    (directory / FILE_NAME).write_text(META_INSTRUCTION, encoding="utf-8")
    write_untrained(directory, NANO_SHAPE, seed)


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A byte-level BPE of VOCAB_SIZE ids, including MOSS's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex("|".join(_PIECES)), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _texts(conversations: Iterable[dict[str, Any]]) -> Iterator[str]:
    for conversation in conversations:
        yield conversation["meta_instruction"]
        for turn in conversation["chat"].values():
            for segment in turn.values():
                for token in END_TOKENS.values():
                    segment = segment.replace(token, "")
                yield segment
    yield COMMON_HANZI * 4
