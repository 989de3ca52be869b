"""`GET /v1/models`: the names by which a caller may call the model."""

from starlette.responses import JSONResponse, Response

from serve_app.access.permissions import allowed_models, choose_model
from serve_app.api.openai.models import Model, ModelList, model_list
from serve_app.http.endpoint import Call, Endpoint


async def list_models(call: Call) -> Response:
    names = allowed_models(call.principal, call.service.model_names)
    return JSONResponse(_models(call, names).model_dump())


async def get_model(call: Call) -> Response:
    name = choose_model(call.principal, call.service.model_names, call.path("id"))
    (model,) = _models(call, (name,)).data
    return JSONResponse(model.model_dump())


def _models(call: Call, names: tuple[str, ...]) -> ModelList:
    service = call.service
    root = service.root_name or service.model_name
    return model_list(names, root, service.started_s, service.max_model_len)


ENDPOINTS = (
    Endpoint("GET", "/v1/models", list_models, "The models", answer=ModelList),
    Endpoint("GET", "/v1/models/{id:path}", get_model, "A model", answer=Model, errors=(404,)),
)
