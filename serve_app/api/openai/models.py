"""The answers of `GET /v1/models`: the names by which the one model can be called."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel


class Model(BaseModel):
    """`max_model_len` bounds a prompt and its reply, in tokens; `root` is the model's own name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: str
    max_model_len: int


class ModelList(BaseModel):
    """All models that a caller may use."""

    object: Literal["list"] = "list"
    data: list[Model]


def model_list(names: Sequence[str], root: str, created: int, max_model_len: int) -> ModelList:
    """One entry for each of `names`. `created` is in seconds since 1970."""
    models = [
        Model(id=name, created=created, owned_by="moss", root=root, max_model_len=max_model_len)
        for name in names
    ]
    return ModelList(data=models)
