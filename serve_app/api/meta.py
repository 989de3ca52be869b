"""What the server says about itself."""

from typing import Literal

from pydantic import BaseModel

from serve_app.groups import State


class Group(BaseModel):
    """One tensor-parallel group: a whole copy of the model, on so many ranks.

    `failed` is one that has lost a rank, or whose step hangs; `silent` one that does not answer,
    of which no more is known. `asleep`: there is none, and the next request starts one. `loading`
    is one that is being started; `phase` says how far it is.
    """

    healthy: bool
    state: State
    replica: str | None
    ranks: int | None
    phase: str | None


class Health(BaseModel):
    """`ok` while some group can serve."""

    status: Literal["ok", "unavailable"]
    groups: list[Group]


class Version(BaseModel):
    """Of this software, and the name of the model."""

    version: str
    model: str


class ErrorObject(BaseModel):
    """What went wrong; `code` tells errors of one status apart, `param` names the field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorObject
