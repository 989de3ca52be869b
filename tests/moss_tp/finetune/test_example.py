"""The loss mask, token by token, on a handwritten chat."""

from moss_tp.dialogue import Encoder
from moss_tp.finetune.conversation import parse_conversation
from moss_tp.finetune.example import Example, MaskOptions, build_example
from tests.support.published_chat import published_chat

_ENDS = {"<eoh>": 1, "<eot>": 2, "<eoc>": 3, "<eor>": 4, "<eom>": 5}


class CharEncoder:
    """One token per character. End tokens are ids 1 to 5, which no character of the chat has."""

    def encode(self, text: str) -> list[int]:
        return [ord(char) for char in text]

    def special_id(self, token: str) -> int:
        return _ENDS[token]


PUBLISHED = MaskOptions()


def example(options: MaskOptions = PUBLISHED, max_seq_len: int = 2048) -> Example:
    encoder: Encoder = CharEncoder()
    built = build_example(encoder, parse_conversation(published_chat()), max_seq_len, options)
    assert built is not None
    return built


def spelled(built: Example, *, with_loss: bool) -> str:
    """The example's text, with a dot for each token whose loss is not `with_loss`."""
    names = {token_id: end for end, token_id in _ENDS.items()}
    pairs = zip(built.ids, built.has_loss, strict=True)
    return "".join((names.get(i) or chr(i)) if loss is with_loss else "." for i, loss in pairs)


TEXT = (
    "Be kind.\n"
    "<|Human|>: I am Ann. 2+3?<eoh>\n"
    "<|Inner Thoughts|>: A sum.<eot>\n"
    '<|Commands|>: Calculate("2+3")<eoc>\n'
    "<|Results|>:\nCalculate(\"2+3\") => '5'\n<eor>\n"
    "<|MOSS|>: It is 5.<eom>\n"
    "<|Human|>: My name?<eoh>\n"
    "<|Inner Thoughts|>: Ann.<eot>\n"
    "<|Commands|>: None<eoc>\n"
    "<|Results|>:\nNone\n<eor>\n"
    "<|MOSS|>: You are Ann.<eom>\n"
)


def dots(text: str) -> str:
    return "." * len(text)


def test_published_mask_is_off_on_meta_instruction_and_results_bodies_only() -> None:
    built = example()
    expected = TEXT.replace("Be kind.\n", dots("Be kind.\n"))
    for body in ("\nCalculate(\"2+3\") => '5'\n", "\nNone\n"):
        expected = expected.replace(f"<|Results|>:{body}", f"<|Results|>:{dots(body)}")
    assert spelled(built, with_loss=True) == expected


def test_end_tokens_are_single_ids() -> None:
    built = example()
    assert [i for i in built.ids if i in _ENDS.values()] == [1, 2, 3, 4, 5] * 2
    assert len(built.ids) == len(TEXT) - 10 * (len("<eoh>") - 1)


def test_mask_human_is_off_on_user_segments_too() -> None:
    masked = spelled(example(MaskOptions(mask_human=True)), with_loss=True)
    assert "Human" not in masked and "Ann. 2+3?" not in masked and "<eoh>" not in masked
    assert masked.count("<|MOSS|>:") == 2


def test_served_history_empties_old_results_and_masks_replies_that_used_them() -> None:
    built = example(MaskOptions(served_history=True))
    shown = "".join(chr(i) if i > 5 else "" for i in built.ids)
    assert "=> '5'" not in shown
    assert 'Calculate("2+3")' in spelled(built, with_loss=True)
    assert "It is 5." in spelled(built, with_loss=False)
    assert "You are Ann." in spelled(built, with_loss=True)


def test_served_history_keeps_the_loss_on_old_replies_without_tools() -> None:
    chat = published_chat()
    chat["chat"]["turn_1"], chat["chat"]["turn_2"] = chat["chat"]["turn_2"], chat["chat"]["turn_1"]
    built = build_example(
        CharEncoder(), parse_conversation(chat), 2048, MaskOptions(served_history=True)
    )
    assert built is not None
    kept = spelled(built, with_loss=True)
    assert "You are Ann." in kept and "It is 5." in kept


def test_only_whole_turns_within_the_limit_are_kept() -> None:
    whole = example()
    cut = example(max_seq_len=len(whole.ids) - 1)
    assert whole.ids[: len(cut.ids)] == cut.ids
    assert cut.ids[-2:] == [_ENDS["<eom>"], ord("\n")]
    assert build_example(CharEncoder(), parse_conversation(published_chat()), 20) is None
