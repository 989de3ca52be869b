"""Chooses the prompt builder for a model: the one place that maps a dialogue to a class."""

from pathlib import Path
from typing import Literal

from serve_app.prompt.builder import PromptBuilder, TextCodec
from serve_app.prompt.meta_instruction import load_meta_instruction
from serve_app.prompt.plain import PlainPromptBuilder

# "plugin": Inner Thoughts, Commands and Results before each reply; "plain": the reply only.
Dialogue = Literal["plugin", "plain"]


def build_prompts(
    tokenizer: TextCodec, model_dir: Path, dialogue: Dialogue
) -> PromptBuilder | PlainPromptBuilder:
    """The builder for `dialogue`, with the meta instruction of `model_dir`.

    Raises CheckpointError if the tokenizer lacks the special tokens that the dialogue needs.
    """
    meta_instruction = load_meta_instruction(model_dir)
    if dialogue == "plain":
        return PlainPromptBuilder(tokenizer, meta_instruction)
    return PromptBuilder(tokenizer, meta_instruction)
