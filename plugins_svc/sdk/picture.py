"""Pictures that a plugin makes: a file of a known kind, or what a server keeps in its place.

A file is what its first bytes say, whatever its maker calls it.
"""

from dataclasses import dataclass

MAX_PICTURES = 4  # of one call
MAX_PICTURE_BYTES = 4 * 1024 * 1024

# How files of a kind begin, as parts of them by their offsets.
_SIGNATURES = {
    "image/png": ((0, b"\x89PNG\r\n\x1a\n"),),
    "image/jpeg": ((0, b"\xff\xd8\xff"),),
    "image/webp": ((0, b"RIFF"), (8, b"WEBP")),
}


@dataclass(frozen=True)
class Picture:
    """`data` is the whole file; `media_type` is image/png, image/jpeg or image/webp."""

    media_type: str
    data: bytes


@dataclass(frozen=True)
class StoredPicture:
    """Stands for a picture whose file a server keeps under `id`. Plugins never answer with one."""

    id: str
    media_type: str


def is_picture(value: object) -> bool:
    """Whether `value` is a well-formed Picture: of its size, and of the kind that it says."""
    return (
        isinstance(value, Picture)
        and isinstance(value.data, bytes)
        and len(value.data) <= MAX_PICTURE_BYTES
        and isinstance(value.media_type, str)
        and value.media_type in _SIGNATURES
        and all(
            value.data.startswith(part, offset) for offset, part in _SIGNATURES[value.media_type]
        )
    )
