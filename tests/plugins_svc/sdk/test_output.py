"""Outputs: their one form of failure, and the check of what another process sent."""

from typing import Any

import pytest

from plugins_svc.sdk.output import Item, PluginOutput, check_output
from plugins_svc.sdk.picture import MAX_PICTURE_BYTES, Picture, StoredPicture
from tests.support.fakes.pictures import PICTURE, PNG


def test_no_result_holds_nothing() -> None:
    assert PluginOutput.no_result() == PluginOutput(False, (), ())


def test_map_text_changes_every_string() -> None:
    output = PluginOutput(True, ("a", "b"), (Item("c", "d", "e"),))
    assert output.map_text(str.upper) == PluginOutput(True, ("A", "B"), (Item("C", "D", "E"),))
    assert PluginOutput.no_result().map_text(str.upper) == PluginOutput.no_result()
    assert PICTURE.map_text(str.upper) == PICTURE


@pytest.mark.parametrize(
    "output",
    [
        PluginOutput(True, ("1",)),
        PluginOutput(True, items=(Item("", "", "x\U0001f600"),)),
        PICTURE,
        PluginOutput(True, images=(Picture("image/jpeg", b"\xff\xd8\xff\xe0"),)),
        PluginOutput(True, images=(Picture("image/webp", b"RIFF0000WEBPVP8 "),) * 4),
        PluginOutput(True, images=(Picture("image/png", PNG[1].ljust(MAX_PICTURE_BYTES)),)),
    ],
)
def test_a_well_formed_output_passes(output: PluginOutput) -> None:
    assert check_output(output) is output


OUTPUT: Any = PluginOutput  # builds outputs with fields of the wrong type
ITEM: Any = Item


@pytest.mark.parametrize(
    "answer",
    [
        None,
        7,
        "125",
        OUTPUT("yes", ("1",)),
        OUTPUT(True, None),
        OUTPUT(True, (5,)),
        OUTPUT(True, "125"),
        OUTPUT(True, (), None),
        OUTPUT(True, (), ("x",)),
        OUTPUT(True, (), (ITEM("t", None, "s"),)),
        OUTPUT(True, ("half a pair \ud83d",)),
        OUTPUT(True, (), (ITEM("t", "", "\udfff"),)),
        OUTPUT(True, images=list(PICTURE.images)),
        OUTPUT(True, images=(PNG[1],)),
        OUTPUT(True, images=(Picture(*PNG),) * 5),
        OUTPUT(True, images=(StoredPicture("0" * 32, "image/png"),)),
        OUTPUT(True, images=(Picture("image/png", PNG[1].ljust(MAX_PICTURE_BYTES + 1)),)),
        OUTPUT(True, images=(Picture("image/jpeg", PNG[1]),)),
        OUTPUT(True, images=(Picture("image/svg+xml", b"<svg/>"),)),
        OUTPUT(True, images=(Picture("text/html", PNG[1]),)),
        OUTPUT(True, images=(Picture("image/webp", b"RIFF0000WAVEfmt "),)),
        OUTPUT(True, images=(Picture("image/png", b""),)),
    ],
)
def test_anything_else_is_a_type_error(answer: object) -> None:
    with pytest.raises(TypeError):
        check_output(answer)
