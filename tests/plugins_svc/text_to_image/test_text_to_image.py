"""Text-to-image: it cannot run, and its Results form is MOSS's."""

import pytest

from moss_tp.dialogue import neutralise_output
from plugins_svc.protocol.calls import Call
from plugins_svc.protocol.results import format_results
from plugins_svc.sdk.errors import UnknownPluginError
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.sdk.picture import StoredPicture
from plugins_svc.text_to_image.spec import TEXT_TO_IMAGE

DONE = (Call("Text2Image", "a fox"), PluginOutput(True, ("image id",)))
DRAWN = (
    Call("Text2Image", "a fox"),
    PluginOutput(True, images=(StoredPicture("0" * 32, "image/png"),)),
)
FAILED = (Call("Text2Image", "a fox"), PluginOutput.no_result())
SUM = (Call("Calculate", "1"), PluginOutput(True, ("1",)))


def test_it_has_no_back_end_and_says_so() -> None:
    reason = "no back end for plugin 'text_to_image'"
    assert TEXT_TO_IMAGE.why_unavailable({}) == reason
    with pytest.raises(UnknownPluginError, match=reason):
        TEXT_TO_IMAGE.start({})


@pytest.mark.parametrize(
    ("outcomes", "body"),
    [
        ([DONE], " Image generated successfully."),
        ([DONE, DONE], " Image generated successfully."),
        ([DRAWN, DRAWN], " Image generated successfully."),
        ([DRAWN, SUM], "\nCalculate(\"1\") => '1'\nImage generated successfully.\n"),
        ([FAILED], '\nText2Image("a fox") =>\nNo result.\n'),
        (
            [DONE, FAILED],
            '\nImage generated successfully.\nText2Image("a fox") =>\nNo result.\n',
        ),
        ([DONE, SUM], "\nCalculate(\"1\") => '1'\nImage generated successfully.\n"),
    ],
)
def test_results(outcomes: list[tuple[Call, PluginOutput]], body: str) -> None:
    assert format_results(outcomes, neutralise_output) == body
