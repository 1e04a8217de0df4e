"""Decide what a picture or a file really is, and whether a wire accepts it.

A tool or a server may call a file by a type that it is not, and a provider refuses the whole request for it: in this
request and, since the file stays in the transcript, in each later one. The bytes count, and not the declared type.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from attrs import frozen

from agentloop._core.media_types import IMAGES, SOUNDS, bytes_of, decoded_text, plain_type, type_of
from agentloop.messages import File, Image, Text, UserPart

__all__ = ["BLIND", "DOCUMENTS", "IMAGES", "SOUNDS", "MediaRules", "decoded_text", "fit_part"]

DOCUMENTS = frozenset(
    {
        "application/msword",
        "application/pdf",
        "application/rtf",
        "application/vnd.ms-excel",
        "application/vnd.ms-powerpoint",
        "application/vnd.oasis.opendocument.text",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    }
)
"""The types of documents that OpenAI's Responses API reads."""


@frozen(kw_only=True)
class MediaRules:
    """The pictures and files that a wire accepts, and the model behind it can read."""

    images: frozenset[str] = IMAGES
    """Types of pictures."""
    sounds: frozenset[str] = frozenset()
    """Types of sound."""
    files: frozenset[str] | None = frozenset()
    """Types of other files; ``None`` for all."""
    has_file_urls: bool = True
    """Whether a file, and not only a picture, may be an address."""
    schemes: frozenset[str] | None = frozenset({"http", "https"})
    """Schemes of addresses from which the server fetches; ``None`` for all."""
    max_image_bytes: int | None = None
    """Upper bound of a picture's bytes; ``None`` for no bound."""


BLIND = MediaRules(images=frozenset(), has_file_urls=False)
"""For a model that reads only text."""


def fit_part(part: UserPart, rules: MediaRules) -> UserPart:
    """``part`` by its real type, or a note in its place if the wire does not accept it.

    A picture that is called a file becomes a picture, and the other way round. A text file stays a file.
    """
    if isinstance(part, Text):
        return part
    name = (part.name[:250] or "file") if isinstance(part, File) else "image"
    if part.url is not None and part.url[:5].lower() != "data:":
        return part if _is_url_accepted(part, rules) else Text(f"({name}: {part.url[:500]}, which you cannot read)")
    declared, data = bytes_of(part)
    if not data:
        return Text(f"({name}: empty)")
    media_type = type_of(data, declared)
    if media_type in rules.images and len(data) <= (rules.max_image_bytes or len(data)):
        return Image(data, media_type=media_type)
    text = decoded_text(media_type, data)
    if text is not None:
        return File(data, media_type=media_type, name=name) if text.strip() else Text(f"({name}: empty)")
    if media_type in rules.sounds or _is_file_accepted(media_type, rules):
        return File(data, media_type=media_type, name=name)
    return Text(f"({name}: {declared or media_type}, {len(data)} bytes, which you cannot read)")


def _is_url_accepted(part: Image | File, rules: MediaRules) -> bool:
    if rules.schemes is not None and not _is_public(part.url or "", rules.schemes):
        return False
    if isinstance(part, Image) or plain_type(part.media_type) in IMAGES:
        return bool(rules.images)
    return rules.has_file_urls


_UNREADABLE = (".avif", ".bmp", ".heic", ".ico", ".psd", ".svg", ".svgz", ".tif", ".tiff")
"""How the paths of pictures end that providers do not read."""


def _is_public(url: str, schemes: frozenset[str]) -> bool:
    """Whether a server elsewhere may fetch a picture or a file from ``url``."""
    if any(character.isspace() or character < " " for character in url):
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme not in schemes or not host or parts.path.lower().endswith(_UNREADABLE):
        return False
    try:
        return ip_address(host).is_global
    except ValueError:
        return host != "localhost" and not host.endswith((".localhost", ".local", ".internal"))


def _is_file_accepted(media_type: str, rules: MediaRules) -> bool:
    # A picture or sound is not accepted as another file: servers look at the type.
    return (rules.files is None and media_type not in SOUNDS | IMAGES) or media_type in (rules.files or ())
