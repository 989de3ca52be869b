"""A tokenizer must have the special tokens of its model's dialogue, and no others."""

import json
from pathlib import Path

import pytest

from moss_tp.errors import CheckpointError
from moss_tp.tokenizer import Tokenizer
from serve_app.prompt.builder import PromptBuilder
from serve_app.prompt.choose import build_prompts
from serve_app.prompt.plain import PlainPromptBuilder
from tests.support.tiny_moss import make_checkpoint


def test_each_dialogue_has_its_builder(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    tokenizer = Tokenizer.from_dir(model)
    assert isinstance(build_prompts(tokenizer, model, "plugin"), PromptBuilder)
    assert isinstance(build_prompts(tokenizer, model, "plain"), PlainPromptBuilder)


def test_a_plain_model_needs_no_token_for_commands(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    file = model / "tokenizer.json"
    fields = json.loads(file.read_text("utf-8"))
    for token in fields["added_tokens"]:
        if token["content"] == "<eoc>":
            token["content"] = "<other>"
    fields["model"]["vocab"] = {
        ("<other>" if text == "<eoc>" else text): number
        for text, number in fields["model"]["vocab"].items()
    }
    file.write_text(json.dumps(fields), "utf-8")
    tokenizer = Tokenizer.from_dir(model)
    assert isinstance(build_prompts(tokenizer, model, "plain"), PlainPromptBuilder)
    with pytest.raises(CheckpointError, match="<eoc>"):
        build_prompts(tokenizer, model, "plugin")
