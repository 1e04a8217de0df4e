"""Secrets in text become placeholders, once and for all, and come back from them."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, strategies as st

from agentloop._core.secrets import MOST_SECRETS, NAMELESS, HeldText, Redactor, Secrets, labels_in
from agentloop.errors import ArgumentsError
from agentloop.messages import Image, Reasoning, Text, ToolCall, ToolResult, UserMessage

KEY = "AKIAIOSFODNN7EXAMPLE"
PRIVATE_KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIB abc\ndef\n-----END RSA PRIVATE KEY-----"


def redactor(**named: str) -> Redactor:
    return Redactor(Secrets(named))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"use {KEY}.", "use [secret:1:aws-key]."),
        ("password = 'correct horse'", "password = '[secret:1:password]'"),
        ('{"db_password": "a\\"b c"}', '{"db_password": "[secret:1:db-password]"}'),
        ("postgres://bob:hunter2@db/x", "postgres://[secret:1:password]@db/x"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer [secret:1:token]"),
        ("Cookie: a=b; c=d\nHost: x", "Cookie: [secret:1:cookie]\nHost: x"),
        (f"{PRIVATE_KEY}\nbye", "[secret:1:private-key]\nbye"),
        ("https://h.example/?key=abc123&a=b", "https://h.example/?key=[secret:1:key]&a=b"),
        ("API_TOKEN=abc12345", "API_TOKEN=[secret:1:api-token]"),
    ],
)
def test_a_secret_is_replaced_by_a_placeholder_that_names_its_kind(text: str, clean: str) -> None:
    redacting = redactor()
    assert redacting.text(text) == clean
    assert redacting.put_back(clean) == text


@pytest.mark.parametrize(
    "text",
    [
        "password = getpass()",
        "token = next(tokens)",
        "the password is required",
        "password: required",
        "token=$TOKEN",
        "max_tokens = 4096",
        "self.key = key1",
        "a = b; c: int = 3",
        "",
        "x" * 1000,
    ],
)
def test_code_and_prose_stay_as_they_are(text: str) -> None:
    redacting = redactor()
    assert redacting.text(text) is text


def test_the_same_secret_has_the_same_placeholder_wherever_it_occurs() -> None:
    redacting = redactor()
    assert redacting.text("password = 'correct horse'") == "password = '[secret:1:password]'"
    assert redacting.text("it is correct horse, he said") == "it is [secret:1:password], he said"


def test_a_short_word_that_a_name_makes_a_secret_is_none_elsewhere() -> None:
    redacting = redactor()
    assert redacting.text("password = 'open'") == "password = '[secret:1:password]'"
    assert redacting.text("the open door") == "the open door"


def test_a_value_that_the_user_has_named_has_its_name_as_placeholder() -> None:
    redacting = redactor(deploy="s3cr3t")
    assert redacting.text("a s3cr3t b") == "a [secret:deploy] b"
    assert redacting.put_back("a [secret:deploy] b") == "a s3cr3t b"


def test_a_placeholder_whose_value_is_unknown_is_not_put_back() -> None:
    with pytest.raises(ArgumentsError, match=r"\[secret:1:aws-key\] is not known"):
        redactor().put_back("use [secret:1:aws-key]")


def test_labels_of_an_earlier_process_are_not_given_again() -> None:
    redacting = redactor()
    redacting.secrets.skip(labels_in("[secret:7:aws-key] and [secret:deploy]"))
    assert redacting.text(KEY) == "[secret:8:aws-key]"


def test_the_table_is_bounded_and_secrets_beyond_it_are_withheld() -> None:
    redacting = redactor()
    clean = redacting.text(" ".join(f"AKIA{number:016d}" for number in range(MOST_SECRETS + 5)))
    assert "AKIA" not in clean
    assert len(redacting.secrets.values) == MOST_SECRETS
    assert clean.count(NAMELESS) == 5


def test_structured_arguments_are_redacted_at_any_depth_and_put_back() -> None:
    redacting = redactor()
    arguments = json.dumps({"to": [{"password": "hunter2"}, {"note": f"x\n{KEY}"}], "pem": PRIVATE_KEY, "n": 3})
    clean = redacting.json(arguments)
    assert labels_in(clean) == ["1:password", "2:aws-key", "3:private-key"]
    assert json.loads(redacting.put_back_json(clean)) == json.loads(arguments)


def test_arguments_that_are_no_json_are_redacted_as_text() -> None:
    assert redactor().json(f'{{"key": "{KEY}') == '{"key": "[secret:1:aws-key]'


def test_pictures_stay_as_they_are_and_the_text_beside_them_does_not() -> None:
    picture = Image(data=KEY.encode())
    result = ToolResult("c", "look", (Text(f"see {KEY}"), picture, Image(url=f"https://h.example/{KEY}")))
    clean = redactor().value(result)
    assert clean.parts[0] == Text("see [secret:1:aws-key]")
    assert clean.parts[1] is picture
    assert clean.parts[2] == result.parts[2]


def test_reasoning_that_changes_loses_its_signature() -> None:
    assert redactor().value(Reasoning(KEY, "signed")) == Reasoning("[secret:1:aws-key]", None)
    whole = Reasoning("nothing", "signed")
    assert redactor().value(whole) is whole


def test_ids_and_names_stay_as_they_are() -> None:
    call = ToolCall(KEY, KEY, "{}")
    assert redactor().value(call) is call


def test_text_without_a_secret_is_passed_on_as_the_same_object() -> None:
    message = UserMessage((Text("hello " * 100),))
    assert redactor().value(message) is message


@given(st.lists(st.sampled_from([KEY, "password: hunter2x ", "é", " ", "\n", "[secret:1:x]", "://a:b@c ", "=", "'"])))
def test_redaction_is_idempotent(pieces: list[str]) -> None:
    redacting = redactor()
    once = redacting.text("".join(pieces))
    assert redacting.text(once) == once
    assert KEY not in once


TEXTS = [f"hello {KEY}!", "password: 'correct horse'", PRIVATE_KEY, "Cookie: a=b1; c=d2\n", "\n", " ", "ok", "é", "x: "]


@given(st.lists(st.sampled_from(TEXTS)), st.data(), st.booleans())
def test_no_secret_leaves_in_pieces_however_the_text_is_cut(
    texts: list[str], data: st.DataObject, by_line: bool
) -> None:
    redacting = redactor()
    text, held, shown = " ".join(texts), HeldText(redacting, by_line=by_line), ""
    while text:
        size = data.draw(st.integers(1, min(len(text), 40)))
        shown += held.feed(text[:size])
        text = text[size:]
    shown += held.flush()
    for secret in (KEY, "correct", "horse", "MIIB", "a=b1", "d2"):
        assert secret not in shown, shown


@given(st.text(max_size=200), st.data())
def test_text_without_a_secret_comes_out_as_it_went_in(text: str, data: st.DataObject) -> None:
    redacting = redactor()
    held, shown, rest = HeldText(redacting), "", text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        shown += held.feed(rest[:size])
        rest = rest[size:]
    shown += held.flush()
    assert redacting.put_back(shown) == text if labels_in(shown) == [*redacting.secrets.values] else True
    if not redacting.secrets.values:
        assert shown == text


HOSTILE: dict[str, str] = {
    "slashes": "//" * 100_000,
    "urls": "://a:" * 40_000,
    "equals": "token=" * 40_000,
    "pairs": "a=" * 100_000,
    "quotes": 'password="x' * 20_000,
    "escapes": 'password="' + "\\a" * 100_000,
    "keys": "-----BEGIN RSA PRIVATE KEY-----\n" * 6000,
    "headers": "authorization: " * 15_000,
    "cookies": "cookie: " * 25_000,
    "spaces": "token" + " " * 200_000,
    "dots": "token." * 40_000 + "=",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_time_grows_with_the_length_of_a_hostile_text(name: str) -> None:
    def seconds(text: str) -> float:
        began = time.process_time()
        redactor().text(text)
        return time.process_time() - began

    text = HOSTILE[name]
    # A search whose time grew as the square would take a hundred times as long.
    assert seconds(text) < 50 * max(seconds(text[: len(text) // 10]), 0.02)
