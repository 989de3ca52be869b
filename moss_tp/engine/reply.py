"""The text of one reply: token ids in, text out. Finds the stop string that ends it."""

from collections.abc import Sequence

from moss_tp.engine.detokenizer import ByteDecoder, Detokenizer
from moss_tp.engine.scheduling.sequence import FinishReason
from moss_tp.engine.stop_strings import StopStrings
from moss_tp.sampling_params import SamplingParams

# The number of tokens up to the end of the reply, the text that became final with them, and the
# reason if the reply ends here. A named tuple would take as long as all else in `Reply.add`.
Piece = tuple[int, str, FinishReason | None]


class Reply:
    """The state of one reply, with the stop strings and `min_tokens` of `params`."""

    def __init__(self, params: SamplingParams, tokenizer: ByteDecoder) -> None:
        self._min_tokens = params.min_tokens
        self._num_tokens = 0
        self._detokenizer = Detokenizer(tokenizer)
        self._has_stops = bool(params.stop)
        self._stops = StopStrings(params.stop)

    def add(self, ids: Sequence[int], finish_reason: FinishReason | None) -> Piece:
        """The next piece. `finish_reason` is set if the last id ends the reply; a stop id is
        not shown. Tokens after a stop string are dropped.
        """
        if not self._has_stops:
            shown = ids[:-1] if finish_reason == "stop" else ids
            text = self._detokenizer.push(shown, finish_reason is not None)
            return len(ids), text, finish_reason
        return self._add_up_to_stop(ids, finish_reason)

    def _add_up_to_stop(self, ids: Sequence[int], finish_reason: FinishReason | None) -> Piece:
        texts: list[str] = []
        for index, token_id in enumerate(ids, 1):
            is_last = finish_reason is not None and index == len(ids)
            shown = () if is_last and finish_reason == "stop" else (token_id,)
            self._num_tokens += 1
            text, is_stopped = self._stops.push(
                self._detokenizer.push(shown, is_last), self._num_tokens > self._min_tokens
            )
            texts.append(text)
            if is_stopped:
                return index, "".join(texts), "stop"
        if finish_reason is not None:
            texts.append(self._stops.rest())
        return len(ids), "".join(texts), finish_reason
