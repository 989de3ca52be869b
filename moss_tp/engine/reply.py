"""The text of one reply: sampled tokens in, text out. Finds the stop string that ends it."""

from collections.abc import Sequence
from typing import NamedTuple

from moss_tp.engine.detokenizer import ByteDecoder, Detokenizer
from moss_tp.engine.scheduling.sequence import FinishReason
from moss_tp.engine.stop_strings import StopStrings
from moss_tp.sampling.row import SampledToken
from moss_tp.sampling_params import SamplingParams


class Piece(NamedTuple):
    """The tokens up to the end of the reply, the text that became final with them, and the reason
    if the reply ends here."""

    tokens: tuple[SampledToken, ...]
    text: str
    finish_reason: FinishReason | None


class Reply:
    """The state of one reply, with the stop strings and `min_tokens` of `params`."""

    def __init__(self, params: SamplingParams, tokenizer: ByteDecoder) -> None:
        self._min_tokens = params.min_tokens
        self._num_tokens = 0
        self._detokenizer = Detokenizer(tokenizer)
        self._has_stops = bool(params.stop)
        self._stops = StopStrings(params.stop)

    def add(self, tokens: Sequence[SampledToken], finish_reason: FinishReason | None) -> Piece:
        """The next piece. `finish_reason` is set if the last token ends the reply; a stop id is
        not shown. Tokens after a stop string are dropped.
        """
        if not self._has_stops:
            shown_tokens = tokens[:-1] if finish_reason == "stop" else tokens
            ids = [token.token_id for token in shown_tokens]
            text = self._detokenizer.push(ids, finish_reason is not None)
            return Piece(tuple(tokens), text, finish_reason)
        texts: list[str] = []
        for index, token in enumerate(tokens, 1):
            is_last = finish_reason is not None and index == len(tokens)
            shown = () if is_last and finish_reason == "stop" else (token.token_id,)
            self._num_tokens += 1
            text, is_stopped = self._stops.push(
                self._detokenizer.push(shown, is_last), self._num_tokens > self._min_tokens
            )
            texts.append(text)
            if is_stopped:
                return Piece(tuple(tokens[:index]), "".join(texts), "stop")
        if finish_reason is not None:
            texts.append(self._stops.rest())
        return Piece(tuple(tokens), "".join(texts), finish_reason)
