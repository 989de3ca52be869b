"""A picture of one pixel, and the answer of a plugin that has made it."""

import base64

from plugins_svc.sdk.output import PluginOutput
from plugins_svc.sdk.picture import Picture

PNG = (
    "image/png",
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5E"
        "rkJggg=="
    ),
)
PICTURE = PluginOutput(True, images=(Picture(*PNG),))
