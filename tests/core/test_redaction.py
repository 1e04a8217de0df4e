"""Secrets in URLs and in the arguments of programs are recognized; ordinary words stay."""

from __future__ import annotations

import pytest

from agentloop._core.redaction import (
    names_a_secret,
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
