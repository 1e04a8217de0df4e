"""Decide what a picture or a file really is, and whether a wire accepts it.

A tool or a server may call a file by a type that it is not, and a provider refuses the whole request for it: in this
request and, since the file stays in the transcript, in each later one. The bytes count, and not the declared type.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from ipaddress import ip_address
from urllib.parse import unquote_to_bytes, urlsplit

from attrs import frozen

from agentloop.messages import File, Image, Text, UserPart

__all__ = ["BLIND", "DOCUMENTS", "IMAGES", "SOUNDS", "MediaRules", "decoded_text", "fit_part"]

IMAGES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
"""The types of pictures that all providers read."""
SOUNDS = frozenset({"audio/mpeg", "audio/wav"})
"""The types of sound that the chat completions format has a field for."""

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

_ALIASES = {
    "application/x-pdf": "application/pdf",
    "audio/mp3": "audio/mpeg",
    "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav",
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
}
_TEXTS = frozenset(
    {
        "application/javascript",
        "application/json",
        "application/toml",
        "application/x-yaml",
        "application/xml",
        "application/yaml",
        "image/svg+xml",
    }
)
"""Types beside ``text/*`` whose files are texts."""


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
    declared, data = (part.media_type, part.data or b"") if part.url is None else _data_url(part.url)
    if not data:
        return Text(f"({name}: empty)")
    declared = _plain(declared)
    media_type = _type_of(data, declared)
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
    if isinstance(part, Image) or _plain(part.media_type) in IMAGES:
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


def decoded_text(media_type: str, data: bytes) -> str | None:
    """The text of a text file; ``None`` if the file is none."""
    if not media_type.startswith("text/") and media_type not in _TEXTS:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _plain(media_type: str) -> str:
    """``media_type`` without parameters, in the spelling of RFC 6838."""
    plain = media_type.partition(";")[0].strip().lower()
    return _ALIASES.get(plain, plain)


_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf2", "audio/mpeg"),
    (b"%PDF", "application/pdf"),
)
_SIGNED = IMAGES | SOUNDS | {"application/pdf"}
"""Types whose files say by their first bytes what they are."""
_UNKNOWN = "application/octet-stream"


def _type_of(data: bytes, declared: str) -> str:
    """The type of ``data``, by its first bytes if they say, else as it was declared."""
    for signature, media_type in _SIGNATURES:
        if data.startswith(signature):
            return media_type
    if data.startswith(b"RIFF"):
        return {b"WAVE": "audio/wav", b"WEBP": "image/webp"}.get(data[8:12], _UNKNOWN)
    # PDF readers accept some bytes before the signature.
    if declared == "application/pdf" and b"%PDF" in data[:1024]:
        return declared
    if declared not in _SIGNED:
        return declared or _UNKNOWN
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:4096].lower():
        return "image/svg+xml"
    # An error page, say, that a tool has saved as a picture.
    return "text/plain" if decoded_text("text/plain", data) is not None and b"\0" not in data else _UNKNOWN


def _data_url(url: str) -> tuple[str, bytes]:
    """The type and the bytes in a URL that contains its data (RFC 2397); no bytes if it contains none."""
    head, _, content = url[5:].partition(",")
    media_type, is_base64 = head.rpartition(";")[0::2] if head.endswith(";base64") else (head, "")
    raw = unquote_to_bytes(content)
    if not is_base64:
        return media_type or "text/plain", raw
    try:
        return media_type or "text/plain", b64decode(raw)
    except binascii.Error:
        return media_type, b""
