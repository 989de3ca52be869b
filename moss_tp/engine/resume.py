"""Takes half a reply back: a new request continues as the one would have that was cut off.

    output_ids:   o o o o o          told already: replayed through the same states, in silence
                            n n n    new: positions, counts, text and stop strings go on from there

So a reader who has the text of the first tokens gets the rest of it, also where the last of them
ends within a character, or within what may become a stop string.
"""

from collections.abc import Sequence as Ids

from moss_tp.engine.reply import Reply
from moss_tp.engine.scheduling.sequence import Sequence
from moss_tp.errors import InvalidRequestError
from moss_tp.sampling.row import SampledToken


def resume(seq: Sequence, reply: Reply, output_ids: Ids[int], max_model_len: int) -> None:
    """Brings a new sequence and its reply to where they were after `output_ids`.

    `seq.finish_reason` is set if these end the reply, or there is none: nothing is left to tell
    then. Where logprobs of the prompt are, it is `seq.end_reason` instead.

    Raises InvalidRequestError if there are more tokens after those that end the reply.
    """
    for token_id in output_ids:
        if seq.finish_reason is not None:
            raise InvalidRequestError("output_ids has tokens after the end of the reply")
        seq.append(SampledToken(token_id), max_model_len)
    seq.take_new()
    num_tokens, _, seq.finish_reason = reply.add(output_ids, seq.finish_reason)
    if num_tokens < len(output_ids):
        raise InvalidRequestError("output_ids has tokens after a stop string")
    if seq.params.max_tokens == 0:
        seq.finish_reason = "length"
    if seq.num_unscored:
        seq.end_reason, seq.finish_reason = seq.finish_reason, None
    seq.num_told_tokens = len(output_ids)
