"""The protocol of a step that runs on all ranks. Imports no torch."""

from typing import Protocol

from moss_tp.sampling.row import SampledToken


class Step(Protocol):
    """A step that an executor has taken on."""

    def result(self) -> list[SampledToken]:
        """Waits for the step (or runs it now): a token for each row that its batch samples, then
        one for each that it scores, which is the prompt's own with its logprobs.

        Raises EngineDeadError when a rank is gone or hung; the executor cannot be used after that.
        Raises StepMemoryError if the step did not fit into the device's memory. Then nothing of it
        counts, nor of a step that was submitted after it, whose result still has to be waited for.
        """
        ...
