"""The JSON of chats as a resource: what clients read of sessions and turns, and what they change.

Times are in seconds since 1970, as in OpenAI's API. It reads and stores nothing.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moss_tp.sampling_params import SamplingParams
from serve_app.api.session_list import SessionList
from serve_app.errors import TurnNotFoundError
from serve_app.prompt.exchange import shown_thoughts
from serve_app.sessions.session import Feedback, Session, StoredCall, Turn

MAX_TITLE = 200  # characters
MAX_COMMENT = 4000
_MAX_PLUGINS = 100

Title = Annotated[str, Field(max_length=MAX_TITLE)]
Plugins = Annotated[list[str], Field(max_length=_MAX_PLUGINS)]


class SamplingDefaults(BaseModel):
    """Sampling parameters for the turns of a session that name none of their own.

    Null is as good as absent: what no one names is the server's.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    length_penalty: float | None = Field(None, gt=0, le=10)
    regulation_start: int | None = Field(None, ge=0, le=2**31 - 1)
    max_tokens: int | None = Field(None, ge=1, le=2**31 - 1)

    @property
    def named(self) -> dict[str, Any]:
        """Those that are given. Raises InvalidRequestError if they cannot be used together."""
        named = self.model_dump(exclude_none=True)
        SamplingParams(**named)
        return named


class NewSession(BaseModel):
    """The body of `POST /v1/sessions`. Without `plugins` turns may use all that the caller may."""

    model_config = ConfigDict(strict=True, frozen=True)

    title: Title = ""
    plugins: Plugins | None = None
    defaults: SamplingDefaults | None = None


class SessionPatch(BaseModel):
    """The body of `PATCH /v1/sessions/{uid}`: fields that are absent stay as they are.

    `plugins` null means all. `defaults` replace the earlier ones, null: by none. `active_turn` is
    the last turn of the active path, which the next turn continues.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    title: Title | None = None
    plugins: Plugins | None = None
    defaults: SamplingDefaults | None = None
    active_turn: str | None = Field(None, min_length=1, max_length=64)

    @property
    def new_defaults(self) -> dict[str, Any] | None:
        """None if they stay as they are. Raises as `SamplingDefaults.named`."""
        if self.defaults is not None:
            return self.defaults.named
        return {} if "defaults" in self.model_fields_set else None


class FeedbackBody(BaseModel):
    """What a reader thinks of a turn. Neither of both takes it back."""

    model_config = ConfigDict(
        strict=True, frozen=True, json_schema_extra={"examples": [{"liked": True}]}
    )

    liked: bool | None = None
    comment: str = Field("", max_length=MAX_COMMENT)


class SessionQuery(BaseModel):
    """The query of `GET /v1/sessions/{uid}`: whether to give the whole tree, too."""

    all: bool = False


class CallAnswer(BaseModel):
    """A plugin call that has ended; `output` is text, a search's items, or images."""

    id: str
    name: str
    argument: str
    state: Literal["done", "failed"]
    output: Any = None
    ms: int | None = None


class TurnAnswer(BaseModel):
    """A stored turn; `parent` is null for a first one.

    It took `duration_ms`; 0 if that was not stored. `make_up` says what it was made of, where one
    turn is asked for. `html` are the blocks of its reply, where a session is asked for with
    `render=html`.
    """

    id: str
    object: Literal["session.turn"] = "session.turn"
    parent: str | None
    created_at: int
    user: str
    thoughts: str
    plugin_calls: list[CallAnswer]
    reply: str
    finish_reason: str
    dropped_turns: int
    seed: int
    usage: dict[str, Any]
    duration_ms: int
    feedback: FeedbackBody | None
    make_up: dict[str, Any] | None = None
    html: list[str] | None = None


class SessionAnswer(BaseModel):
    """A chat: `turns` are its active path, `tree` is every turn in stored order, where asked.

    `running_turn` is not among them yet: its events are at `…/turns/{id}/events`.
    """

    id: str
    object: Literal["session"] = "session"
    title: str
    plugins: list[str] | None
    defaults: dict[str, Any]
    created_at: int
    active_turn: str | None
    running_turn: str | None = None
    turns: list[TurnAnswer]
    tree: list[TurnAnswer] | None = None


class SessionDeleted(BaseModel):
    """The chat is gone."""

    id: str
    object: Literal["session.deleted"] = "session.deleted"
    deleted: Literal[True] = True


Answer = SessionAnswer | TurnAnswer | SessionList | SessionDeleted


def session_answer(
    session: Session, *, with_tree: bool = False, running_turn: str | None = None
) -> SessionAnswer:
    """`session` as its owner reads it, with the id of the turn that runs on it."""
    return SessionAnswer(
        id=session.uid,
        title=session.title,
        plugins=None if session.plugins is None else list(session.plugins),
        defaults=dict(session.defaults),
        created_at=session.created_ms // 1000,
        active_turn=session.turns[-1].id if session.turns else None,
        running_turn=running_turn,
        turns=[turn_answer(session, turn) for turn in session.turns],
        tree=[turn_answer(session, turn) for turn in session.tree] if with_tree else None,
    )


def find_turn(session: Session, turn_id: str) -> Turn:
    """Raises TurnNotFoundError."""
    for turn in session.tree:
        if turn.id == turn_id:
            return turn
    raise TurnNotFoundError("the session has no such turn")


def turn_answer(session: Session, turn: Turn, *, with_make_up: bool = False) -> TurnAnswer:
    """A turn of `session` as its owner reads it."""
    feedback = session.feedback.get(turn.id)
    return TurnAnswer(
        id=turn.id,
        parent=turn.parent or None,
        created_at=turn.created_ms // 1000,
        user=turn.user,
        thoughts=shown_thoughts(turn.thoughts),
        plugin_calls=[_call(call) for call in turn.calls],
        reply=turn.reply,
        finish_reason=turn.finish_reason,
        dropped_turns=turn.dropped_turns,
        seed=turn.seed,
        usage=_usage(turn.usage),
        duration_ms=turn.duration_ms,
        feedback=None if feedback is None else _feedback_body(feedback),
        make_up=dict(turn.make_up) if with_make_up else None,
    )


def _call(call: StoredCall) -> CallAnswer:
    return CallAnswer(
        id=call.id,
        name=call.name,
        argument=call.argument,
        state=call.state,
        output=call.output,
        ms=call.ms,
    )


def _feedback_body(feedback: Feedback) -> FeedbackBody:
    return FeedbackBody(liked=feedback.liked, comment=feedback.comment)


def _usage(usage: Mapping[str, int]) -> dict[str, Any]:
    """As OpenAI's API counts tokens."""
    prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usage.get("cached_tokens", 0)},
        "completion_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens", 0)},
    }
