"""Secrets in URLs and in the arguments of programs are recognized; ordinary words stay."""

from __future__ import annotations

import time

import pytest

from agentloop._core.redaction import (
    REDACTED,
    names_a_secret,
    redacted,
    redacted_arguments,
    redacted_url,
    secrets_of_arguments,
    secrets_of_fields,
    secrets_of_url,
)


@pytest.mark.parametrize(
    "name",
    [
        *("token", "access_token", "apiKey", "APIKey", "Your API key:", "password2", "confirm_password"),
        *("password_confirmation", "Password for ada", "Token (from the settings page)", "client-secret", "privateKey"),
    ],
)
def test_the_noun_of_a_name_says_that_it_is_a_secret(name: str) -> None:
    assert names_a_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("max_tokens", "tokens", "tokenLimit", "password_length", "Name of the secret", "secret_name", "tokenizer"),
        *("Length of the summary, in tokens", "issue_key", "key", "keyboard", "author", "compass", "", "passenger"),
    ],
)
def test_a_harmless_name_with_such_a_word_in_it_is_no_secret(name: str) -> None:
    assert not names_a_secret(name)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ada:hunter2@h.example/mcp?api_key=hunter3", "https://<redacted>@h.example/mcp?api_key=<redacted>"),
        ("http://ada:hunter2@[::/v1", "http://<redacted>@[::/v1"),
        ("https://h.example/s/k3y0123456789abcdef/mcp?hunter2#hunter3", "https://h.example/s/<redacted>/mcp?<redacted>#<redacted>"),
        ("https://h.example/mcp;token=hunter2/x", "https://h.example/mcp;token=<redacted>/x"),
        ("https://h.example:8080/mcp", "https://h.example:8080/mcp"),
        ("h.example/mcp?a=&b=hunter2", "h.example/mcp?a=&b=<redacted>"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert redacted_url(url) == shown


def test_what_a_url_hides_is_hidden_in_other_texts_unless_it_is_an_ordinary_word() -> None:
    url = "https://ada:hunter%202@h.example/mcp?api_key=hunter3&v=2025&page=main&flag"
    assert secrets_of_url(url) == {"hunter%202", "hunter 2", "hunter3"}
    assert secrets_of_url("https://h0123456789abcdefg@h.example/mcp") == {"h0123456789abcdefg"}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("--token", "hunter2", "x"), ("--token", "<redacted>", "x")),
        (("--api-key=hunter2",), ("--api-key=<redacted>",)),
        (("-e", "GITHUB_TOKEN=hunter2"), ("-e", "GITHUB_TOKEN=<redacted>")),
        (("https://a:hunter2@h/x?k=hunter3",), ("https://<redacted>@h/x?k=<redacted>",)),
        (("--max-tokens", "500", "--root", "/home/ada/a1"), ("--max-tokens", "500", "--root", "/home/ada/a1")),
        (("--token", "--verbose"), ("--token", "--verbose")),
        (("--env=SECRET=hunter2",), ("--env=SECRET=<redacted>",)),
        (("Server=h;Password=hunter2;Port=5",), ("Server=h;Password=<redacted>;Port=5",)),
        (("--primary-key", "id", "--sort-key=name"), ("--primary-key", "id", "--sort-key=name")),
    ],
)
def test_arguments_are_shown_without_their_secrets(arguments: tuple[str, ...], shown: tuple[str, ...]) -> None:
    assert redacted_arguments(arguments) == shown


@pytest.mark.parametrize(
    "argument", ['{"apiKey": "hunter2"}', "Authorization: Bearer hunter2", "url=https://h/?token=hunter2"]
)
def test_a_secret_inside_of_an_argument_is_recognized(argument: str) -> None:
    assert "hunter2" not in "".join(redacted_arguments([argument]))
    assert "hunter2" in secrets_of_arguments([argument])


def test_headers_and_variables_with_the_name_of_a_secret_are_secrets() -> None:
    fields = {"Authorization": "Bearer hunter2", "X-Api-Key": "hunter3", "Accept": "text/html", "NO_KEY": "h"}
    assert secrets_of_fields(fields) == {"Bearer hunter2", "hunter2", "hunter3"}


# -------------------------------------------------------------------------------------- texts

LONG = "Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z"
HEX = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "text",
    [
        *(f"sk_live_{LONG}", f"rk_test_{LONG}", f"whsec_{LONG}", f"pypi-AgEIcHlwaS5vcmc{LONG}", f"dckr_pat_{LONG}"),
        *(f"xapp-1-A012-34-{HEX}", f"dop_v1_{HEX}", f"shpat_{HEX}", f"glsa_{LONG}_01234567", f"ya29.{LONG}"),
        *(f"pplx-{LONG}", f"csk-{LONG}", f"nvapi-{LONG}", f"tvly-{LONG}", f"r8_{LONG}", f"fw_{LONG}", f"ntn_{LONG}"),
        *(f"lin_api_{LONG}", f"dapi{HEX}", f"hvs.{LONG}", f"SG.{LONG}.{LONG}", f"bot123456789:AAF{LONG}"),
        f"https://{HEX}@sentry.io/1",
        "redis://:hunter22@host:6379",
    ],
)
def test_a_key_of_a_common_service_is_taken_out_of_a_text(text: str) -> None:
    clean = redacted(f"the key {text} is wrong")
    assert REDACTED in clean
    assert not any(secret in clean for secret in (LONG, HEX, "hunter22"))


@pytest.mark.parametrize(
    "text",
    [
        *(f"api-key: {HEX}", f"Ocp-Apim-Subscription-Key: {HEX}", f"X-Auth-Token: {HEX}", f"api_key={HEX}"),
        *(f"GET https://h/v1?key={HEX}", f"https://h/x?a=1&access_token={HEX}", f"https://h/c?sv=1&sig={LONG}%3D"),
        *(f"Cookie: a=1; session={LONG}", f"Set-Cookie: sid={LONG}; Path=/", f"MY_API_KEY={HEX}"),
        *("Server=h;Password=hunter22;", "host=h password=hunter22 dbname=d", '{"password": "hunter22"}'),
        *("{'MISTRAL_API_KEY': 'hunter22'}", '{\\"secret\\": \\"hunter22\\"}', "aws_secret_access_key=hunter22/K7MD"),
    ],
)
def test_the_value_of_a_secret_is_taken_out_of_a_text_by_its_name(text: str) -> None:
    clean = redacted(f"it failed with {text}")
    assert REDACTED in clean
    assert not any(secret in clean for secret in (LONG, HEX, "hunter22"))


@pytest.mark.parametrize(
    "text",
    [
        *("Unexpected token: else", "max_tokens=4096 is too many", "api_key=None", "password: required", "key=user:42"),
        *("PWD=/home/ada", "session_id=abc-12345", "https://127.0.0.1:8080/mcp", "ssh://git@github.com/x"),
        *("set OPENAI_API_KEY, or give api_key=", "tokens: {'input': 1200}", f"commit {HEX}01234567", "author=ada1234"),
    ],
)
def test_an_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_a_private_key_that_was_cut_off_is_taken_out() -> None:
    assert redacted("see -----BEGIN OPENSSH PRIVATE KEY-----\nabc") == f"see {REDACTED}"


@pytest.mark.parametrize("piece", ["-----BEGIN PRIVATE KEY-----", "key=", '"a":', "a.b-", "eyJaaaaaaaa.", "://a:"])
def test_the_time_to_redact_grows_with_the_length_alone(piece: str) -> None:
    began = time.perf_counter()
    redacted(piece * (100_000 // len(piece)))
    assert time.perf_counter() - began < 5
