"""`GET /v1/plugins` and `GET /v1/images/{id}`: what plugins there are, and the pictures they made.

A picture of another owner is answered as one that is not there.
"""

from starlette.responses import JSONResponse, Response

from serve_app.access.permissions import enabled_plugins
from serve_app.api.plugins import PluginList, plugin_list
from serve_app.errors import ImageNotFoundError
from serve_app.http.endpoint import Call, Endpoint
from serve_app.sessions.session import is_uid

# The bytes are a plugin's, so a browser must take them for nothing but a picture.
_HEADERS = {
    "Cache-Control": "private",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


async def list_plugins(call: Call) -> Response:
    names = enabled_plugins(call.principal, call.service.plugins, None)
    return JSONResponse(plugin_list(names).model_dump())


async def get_image(call: Call) -> Response:
    """Text that is no id of ours is never looked up."""
    images, image_id = call.service.images, call.path("id")
    image = None
    if images is not None and is_uid(image_id):
        image = await images.find(image_id, call.principal.owner)
    if image is None:
        raise ImageNotFoundError("there is no such image")
    return Response(image.data, media_type=image.media_type, headers=_HEADERS)


ENDPOINTS = (
    Endpoint("GET", "/v1/plugins", list_plugins, "The plugins", answer=PluginList),
    Endpoint(
        "GET",
        "/v1/images/{id}",
        get_image,
        "A picture that a plugin made",
        errors=(404, 503),
        media_type="image/*",
    ),
)
