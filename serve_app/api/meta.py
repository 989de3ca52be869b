"""What the server says about itself."""

from typing import Literal

from pydantic import BaseModel


class Group(BaseModel):
    """One tensor-parallel group: a whole copy of the model."""

    healthy: bool


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
