"""Text-to-image as a plugin. It has no back end, so it is always disabled.

Its Results have MOSS's form, because training data and recorded conversations contain them.
"""

from collections.abc import Sequence

from plugins_svc.sdk.arguments import at_most
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.sdk.result_format import NO_RESULT, ResultFormat
from plugins_svc.sdk.spec import PluginSpec

MAX_CHARS = 1000
TIMEOUT_S = 60.0  # a diffusion model takes seconds on a GPU, and may have a queue
IMAGE_DONE = "Image generated successfully."


class ImageFormat(ResultFormat):
    """One sentence for an image, which the model cannot see; its block does not echo the call."""

    def value(self, output: PluginOutput, numbers: range) -> str:
        """The sentence, or `No result.`"""
        has_image = output.ok and (output.images or output.lines)
        return IMAGE_DONE if has_image else NO_RESULT

    def block(self, call: str, output: PluginOutput, numbers: range) -> str:
        """The sentence alone; a failure has the plain form."""
        value = self.value(output, numbers)
        return value if value == IMAGE_DONE else super().block(call, output, numbers)

    def body(self, outputs: Sequence[PluginOutput]) -> str | None:
        """A space and one sentence for all, when every call of the turn made an image."""
        is_done = all(self.value(output, range(0)) == IMAGE_DONE for output in outputs)
        return f" {IMAGE_DONE}" if is_done else None


TEXT_TO_IMAGE = PluginSpec(
    name="text_to_image",
    call_name="Text2Image",
    label="Text-to-image",
    parameter="description",
    check_argument=at_most(MAX_CHARS),
    create=None,
    result_format=ImageFormat(),
    has_effects=True,
    timeout_s=TIMEOUT_S,
)
