"""Puts the pictures of a plugin's output away, so that nothing but references goes on from there.

A picture that cannot be kept is a failure of the call: its plugin is not asked again.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from plugins_svc.sdk.output import PluginOutput
from plugins_svc.sdk.picture import Picture, StoredPicture


class PictureStore(Protocol):
    """Keeps pictures for their owners. What it raises is its own."""

    async def put(self, owner: str, uid: str, media_type: str, data: bytes, deadline: float) -> str:
        """The id of a picture that is kept from now on, with the chat `uid` if there is one.

        `deadline` is in `time.monotonic` seconds.
        """
        ...


class NoPictureStore:
    """The PictureStore of a reply whose pictures nobody could look at."""

    async def put(self, owner: str, uid: str, media_type: str, data: bytes, deadline: float) -> str:
        raise LookupError("there is no store for pictures")


@dataclass(frozen=True)
class Album:
    """Where one reply's pictures go."""

    store: PictureStore
    owner: str
    uid: str

    async def keep(self, output: PluginOutput, deadline: float) -> PluginOutput:
        """`output`, with what stands for its pictures in their place."""
        kept = [
            StoredPicture(
                await self.store.put(
                    self.owner, self.uid, picture.media_type, picture.data, deadline
                ),
                picture.media_type,
            )
            for picture in output.images
            if isinstance(picture, Picture)
        ]
        return replace(output, images=tuple(kept))
