"""The bodies of `POST /v1/login`, with which the page trades a key for a cookie."""

from pydantic import BaseModel, ConfigDict, Field


class LoginRequest(BaseModel):
    """The JSON body; a server without keys ignores the key.

    Without a key a good cookie is renewed.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    key: str | None = Field(None, max_length=1024)


class LoginAnswer(BaseModel):
    """Whose chats the cookie leads to."""

    owner: str
