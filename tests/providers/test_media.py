"""Pictures and files go to a provider as what they are; a note stands in the place of one that it does not accept."""

from __future__ import annotations

from base64 import b64encode

import pytest
from attrs import evolve

from agentloop.messages import File, Image, Text, UserPart
from agentloop.providers._media import BLIND, IMAGES, SOUNDS, MediaRules, fit_part

PNG, JPEG, GIF = b"\x89PNG\r\n\x1a\n1", b"\xff\xd8\xff\xe01", b"GIF89a1"
WEBP, WAV, MP3 = b"RIFF1234WEBPVP8 ", b"RIFF1234WAVEfmt ", b"ID3\x041"
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>'
PDF = b"%PDF-1.7 1"

RULES = MediaRules(files=frozenset({"application/pdf"}), sounds=SOUNDS)


@pytest.mark.parametrize(
    ("part", "fitting"),
    [
        (Image(PNG), Image(PNG)),
        (Image(PNG, media_type="image/jpeg"), Image(PNG)),
        (Image(JPEG, media_type="image/jpg"), Image(JPEG, media_type="image/jpeg")),
        (Image(GIF, media_type="IMAGE/PNG; x=y"), Image(GIF, media_type="image/gif")),
        (Image(WEBP, media_type="image/webp"), Image(WEBP, media_type="image/webp")),
        (Image(PNG, media_type="application/octet-stream"), Image(PNG)),
        (File(PNG, media_type="application/octet-stream", name="a"), Image(PNG)),
        (Image(PDF), File(PDF, media_type="application/pdf", name="image")),
        (File(b"\n\n%PDF-1.4", media_type="application/pdf"), File(b"\n\n%PDF-1.4", media_type="application/pdf")),
        (File(MP3, media_type="audio/mp3"), File(MP3, media_type="audio/mpeg")),
        (File(WAV, media_type="audio/x-wav"), File(WAV, media_type="audio/wav")),
        (File(b"hi", media_type="text/plain"), File(b"hi", media_type="text/plain")),
        (Image(SVG, media_type="image/svg+xml"), File(SVG, media_type="image/svg+xml", name="image")),
        (Image(SVG), File(SVG, media_type="image/svg+xml", name="image")),
        (Image(b"<html>404</html>"), File(b"<html>404</html>", media_type="text/plain", name="image")),
        (File(b"no", media_type="application/pdf"), File(b"no", media_type="text/plain")),
        (Image(url=f"data:image/gif;base64,{b64encode(PNG).decode()}"), Image(PNG)),
        (Image(url="data:,hello"), File(b"hello", media_type="text/plain", name="image")),
        (Image(url="https://example.org/a.png"), Image(url="https://example.org/a.png")),
        (File(url="HTTPS://example.org/a"), File(url="HTTPS://example.org/a")),
        (Text("a"), Text("a")),
    ],
    ids=str,
)
def test_a_part_goes_by_its_bytes(part: UserPart, fitting: UserPart) -> None:
    assert fit_part(part, RULES) == fitting


@pytest.mark.parametrize(
    ("part", "note"),
    [
        (Image(b""), "(image: empty)"),
        (File(b"", media_type="application/pdf", name="a.pdf"), "(a.pdf: empty)"),
        (File(b" \n", media_type="text/plain", name="a.txt"), "(a.txt: empty)"),
        (File(b"", name=""), "(file: empty)"),
        (Image(b"BM12", media_type="image/bmp"), "(image: image/bmp, 4 bytes, which you cannot read)"),
        (Image(b"\0\1", media_type="image/png"), "(image: image/png, 2 bytes, which you cannot read)"),
        (File(b"PK\3\4", media_type="a/zip", name="a.zip"), "(a.zip: a/zip, 4 bytes, which you cannot read)"),
        (File(b"\xff", media_type="text/plain", name="a"), "(a: text/plain, 1 bytes, which you cannot read)"),
        (Image(url="data:image/png;base64,!"), "(image: empty)"),
        (Image(url="file:///tmp/a.png"), "(image: file:///tmp/a.png, which you cannot read)"),
        (Image(url="a.png"), "(image: a.png, which you cannot read)"),
        (Image(url="https://"), "(image: https://, which you cannot read)"),
        (Image(url="https://["), "(image: https://[, which you cannot read)"),
        (Image(url="http://localhost:1/a"), "(image: http://localhost:1/a, which you cannot read)"),
        (Image(url="http://10.0.0.1/a"), "(image: http://10.0.0.1/a, which you cannot read)"),
        (Image(url="https://[::1]/a"), "(image: https://[::1]/a, which you cannot read)"),
        (Image(url="https://h/a b"), "(image: https://h/a b, which you cannot read)"),
        (Image(url="https://h/a.SVG?x=1"), "(image: https://h/a.SVG?x=1, which you cannot read)"),
    ],
    ids=str,
)  # fmt: skip
def test_a_note_stands_in_the_place_of_what_the_provider_does_not_accept(part: UserPart, note: str) -> None:
    assert fit_part(part, RULES) == Text(note)


def test_a_picture_that_is_too_large_is_a_note() -> None:
    rules = evolve(RULES, max_image_bytes=len(PNG) - 1)

    assert fit_part(Image(PNG), rules) == Text(f"(image: image/png, {len(PNG)} bytes, which you cannot read)")


def test_a_model_that_reads_only_text_gets_text_files_and_notes() -> None:
    text = File(b"hi", media_type="text/plain")

    assert fit_part(text, BLIND) == text
    for part in (
        Image(PNG),
        Image(url="https://h/a"),
        File(PDF, media_type="application/pdf"),
        File(url="https://h/a"),
    ):
        assert isinstance(fit_part(part, BLIND), Text)


def test_a_server_of_the_users_own_gets_any_file_but_no_other_picture() -> None:
    rules = MediaRules(images=IMAGES, files=None, schemes=None)
    archive = File(b"PK\3\4", media_type="application/zip", name="a.zip")

    assert fit_part(archive, rules) == archive
    assert fit_part(Image(url="file:///tmp/a.png"), rules) == Image(url="file:///tmp/a.png")
    assert isinstance(fit_part(Image(b""), rules), Text)
