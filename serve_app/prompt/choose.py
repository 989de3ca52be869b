"""Which prompt builder a model needs: the one place where a dialogue becomes a class."""

from pathlib import Path

from serve_app.prompt.builder import PromptBuilder, TextCodec
from serve_app.prompt.meta_instruction import load_meta_instruction
from serve_app.prompt.plain import PlainPromptBuilder
from serve_app.settings import Dialogue


def build_prompts(
    tokenizer: TextCodec, model_dir: Path, dialogue: Dialogue
) -> PromptBuilder | PlainPromptBuilder:
    """Raises CheckpointError for a tokenizer without the tokens that the dialogue needs."""
    meta_instruction = load_meta_instruction(model_dir)
    if dialogue == "plain":
        return PlainPromptBuilder(tokenizer, meta_instruction)
    return PromptBuilder(tokenizer, meta_instruction)
