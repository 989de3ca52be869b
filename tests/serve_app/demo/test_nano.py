"""The demo model: its tokenizer, its training ids against the server's, and the bundled weights."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from moss_tp.config import ModelConfig
from moss_tp.dialogue import MARKERS
from moss_tp.errors import ConfigError
from moss_tp.finetune.conversation import parse_conversation
from moss_tp.finetune.example import MaskOptions, build_example
from moss_tp.model import MossForCausalLM
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.sampling_params import SamplingParams
from moss_tp.tokenizer import Tokenizer
from moss_tp.weights.load import load_weights
from plugins_svc.registry import PLUGIN_NAMES, capability_lines
from serve_app.cli.demo import data as demo_data
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.demo.conversations.demo_turn import META_INSTRUCTION, published
from serve_app.demo.conversations.draft import Draft
from serve_app.demo.conversations.draw import Draw
from serve_app.demo.conversations.generator import conversations
from serve_app.demo.exam import Question, arithmetic_questions, memory_questions
from serve_app.demo.examiner import Examiner
from serve_app.prompt.builder import PromptBuilder, Thinking
from serve_app.prompt.exchange import Exchange
from serve_app.prompt.meta_instruction import load_meta_instruction

MAX_BYTES = 12_000_000


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_dir(BUNDLED_MODEL)


def test_digits_and_chinese_characters_are_never_merged(tokenizer: Tokenizer) -> None:
    """They get the same ids in every context; a rare character takes two tokens."""
    for text in ("1234567890", "小明住在北京", "12*34"):
        pieces = [tokenizer.encode(character) for character in text]
        assert tokenizer.encode(text) == [token_id for piece in pieces for token_id in piece]
    for text in ("1234567890", "我叫什么", "12*34"):
        assert len(tokenizer.encode(text)) == len(text)


def test_decoding_inverts_encoding(tokenizer: Tokenizer) -> None:
    for text in (
        "naïve café 🙂\r\n\tend",
        "龘靐齉 x_0 = -3.5e-7",
        "<|MOSS|>: <eom> <|1|>: 'a'",
        "ﷺ",
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_markers_and_capability_lines_are_single_tokens(tokenizer: Tokenizer) -> None:
    for marker in MARKERS.values():
        assert len(tokenizer.encode(marker)) == 1
    for enabled in ((), PLUGIN_NAMES):
        assert len(tokenizer.encode(capability_lines(enabled))) == 7


def test_training_ids_equal_the_servers_ids(tokenizer: Tokenizer) -> None:
    prompts = PromptBuilder(tokenizer, load_meta_instruction(BUNDLED_MODEL))
    assert load_meta_instruction(BUNDLED_MODEL) == META_INSTRUCTION
    for number in range(30):
        chat = Draft(Draw(number))
        chat.add_any({"calculator": 3, "tell": 1, "topic": 1, "web_search": 1}, 3)
        conversation = parse_conversation(published(number, chat.turns, chat.enabled))
        trained = build_example(tokenizer, conversation, 2048, MaskOptions(served_history=True))
        assert trained is not None
        assert trained.ids == _served_ids(tokenizer, prompts, chat)


def _served_ids(tokenizer: Tokenizer, prompts: PromptBuilder, chat: Draft) -> list[int]:
    """The last turn as the server builds it: both prompts, and what the model should write."""
    bodies = [
        {role.role: role.body.removeprefix(" ") for role in turn.segments().values()}
        for turn in chat.turns
    ]
    *past, last = [
        Exchange(b["human"], b["thoughts"], b["commands"], b["results"], b["moss"]) for b in bodies
    ]
    first = prompts.build(past, last.user, chat.enabled, 4096)
    encode, special = tokenizer.encode, tokenizer.special_id
    thoughts = [*encode(f" {last.thoughts}"), special("<eot>"), *encode("\n")]
    commands = [*encode("<|Commands|>:"), *encode(f" {last.commands}"), special("<eoc>")]
    thinking = prompts.read_thinking([*thoughts, *commands])
    assert thinking == Thinking(last.thoughts, last.commands, thinking.token_ids)
    results = chat.turns[-1].segments()["Tool Responses"].body
    reply = [*encode(f" {last.reply}"), tokenizer.eos_id, *encode("\n")]
    return [*prompts.reply_prompt(first.token_ids, thinking, results), *reply]


def test_the_bundled_model_is_small_and_loads() -> None:
    assert (BUNDLED_MODEL / "model.safetensors").stat().st_size <= MAX_BYTES
    config = ModelConfig.from_dir(BUNDLED_MODEL)
    for tp_size in (1, 2, 4):
        config.check_tp(tp_size)
    model = MossForCausalLM(config, TPGroup.single(torch.device("cpu")), torch.float32)
    load_weights(model, BUNDLED_MODEL)
    assert 4e6 < sum(weight.numel() for weight in model.parameters()) < 6e6


@pytest.fixture(scope="module")
def examiner() -> Examiner:
    return Examiner(str(BUNDLED_MODEL), SamplingParams(temperature=0, max_tokens=256))


def test_the_bundled_model_scores_as_when_it_was_committed(examiner: Examiner) -> None:
    """Then: 99.6 % of sums and 96.5 % of facts over six exams; `moss demo-eval` has minimums."""
    sums, facts = arithmetic_questions(40, seed=11), memory_questions(40, seed=11)
    marks = [mark.is_right for mark in examiner.ask([*sums, *facts])]
    assert sum(marks[:40]) >= 39
    assert sum(marks[40:]) >= 36


def test_the_bundled_model_introduces_itself_and_declines_what_is_off(examiner: Examiner) -> None:
    chats = [
        (("你是谁？",), "MOSS nano"),
        (("Who are you?",), "MOSS nano"),
        (("我叫小明", "你好", "我叫什么名字？"), "小明"),
        (("计算 12*34",), "408"),
        (("解方程 2x+3=7",), "没有启用"),
        (("请重复：龙飞凤舞 42",), "龙飞凤舞 42"),
        (("Draw a cat",), "not enabled"),
        (("搜索长城",), "没有启用"),
    ]
    marks = examiner.ask([Question(users, expected, "fact") for users, expected in chats])
    assert [mark.exchanges[-1].reply for mark in marks if not mark.is_right] == []


def test_the_bundled_model_copies_topics_into_its_commands() -> None:
    enabled = frozenset(PLUGIN_NAMES)
    asking = Examiner(str(BUNDLED_MODEL), SamplingParams(temperature=0), enabled)
    commands = {
        "搜索长城": 'Search("长城")',
        "谁是居里夫人？": 'Search("居里夫人")',
        "What is photosynthesis?": 'Search("photosynthesis")',
        "Please search for machine learning.": 'Search("machine learning")',
        "请画北京的夜景。": 'Text2Image("北京的夜景")',
        "Draw a red dog": 'Text2Image("a red dog")',
    }
    marks = asking.ask([Question((user,), call, "command") for user, call in commands.items()])
    assert {mark.question.users[0]: mark.exchanges[0].commands for mark in marks} == commands


def test_the_bundled_model_solves_equations_if_the_solver_is_on() -> None:
    enabled = frozenset({"calculator", "equation_solver"})
    solving = Examiner(str(BUNDLED_MODEL), SamplingParams(temperature=0), enabled)
    chats = [("解方程 2x+3=9", "3"), ("请解方程 7x+14=0", "-2"), ("Solve 3x+1=10", "3")]
    marks = solving.ask([Question((user,), root, "number") for user, root in chats])
    assert [mark.exchanges[-1].reply for mark in marks if not mark.is_right] == []


def test_demo_data_writes_what_finetune_needs(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path), "--num", "300", "--num-val", "5", "--tokenizer-num", "300"]
    result = CliRunner().invoke(demo_data.command, arguments)
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(list(conversations(300, seed=0)))
    ModelConfig.from_dir(tmp_path / "model").check_tp(2)
    assert Tokenizer.from_dir(tmp_path / "model").special_id("<eom>") == 5


@pytest.mark.parametrize("name", ["train.jsonl", "val.jsonl", "model/config.json"])
def test_demo_data_overwrites_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    arguments = ["--out", str(tmp_path), "--num", "9", "--num-val", "1", "--tokenizer-num", "9"]
    result = CliRunner().invoke(demo_data.command, arguments)
    assert isinstance(result.exception, ConfigError)
    assert f"{name.split('/')[0]} is there already" in str(result.exception)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]
