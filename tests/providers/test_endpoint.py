"""The URL to which a model's requests go, and the way there."""

from __future__ import annotations

import logging
from base64 import b64encode

import pytest

from agentloop.errors import ModelStatusError, UsageError
from agentloop.providers._endpoint import endpoint, without_credentials
from agentloop.providers._proxies import is_direct
from agentloop.providers.anthropic import Anthropic
from agentloop.providers.openai_chat import OpenAIChat
from agentloop.providers.openai_responses import OpenAIResponses
from tests.providers.chat import ask
from tests.providers.server import answer, answering, serving

CHAT, MESSAGES = "/chat/completions", "/v1/messages"


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("http://h/v1", CHAT, "http://h/v1/chat/completions"),
        ("http://h/v1/", CHAT, "http://h/v1/chat/completions"),
        ("http://h", CHAT, "http://h/chat/completions"),
        (" http://h/v1\n", CHAT, "http://h/v1/chat/completions"),
        ("http://h/d?api-version=2024-10-21", CHAT, "http://h/d/chat/completions?api-version=2024-10-21"),
        ("http://h/d/?a=1&b=x%20y", CHAT, "http://h/d/chat/completions?a=1&b=x%20y"),
        ("http://h?a=1", CHAT, "http://h/chat/completions?a=1"),
        ("http://h/v1?next=http://x/y?z", CHAT, "http://h/v1/chat/completions?next=http://x/y?z"),
        ("http://h/v1#top", CHAT, "http://h/v1/chat/completions"),
        ("http://h/v1/chat/completions", CHAT, "http://h/v1/chat/completions"),
        ("http://h/v1/chat/completions/?a=1", CHAT, "http://h/v1/chat/completions?a=1"),
        ("http://h", MESSAGES, "http://h/v1/messages"),
        ("http://h/v1", MESSAGES, "http://h/v1/messages"),
        ("http://h/v1/messages?beta=true", MESSAGES, "http://h/v1/messages?beta=true"),
        ("http://h/my models", CHAT, "http://h/my%20models/chat/completions"),
        ("http://h/m\u00fcller", CHAT, "http://h/m%C3%BCller/chat/completions"),
        ("http://[::1]:8080/v1", CHAT, "http://[::1]:8080/v1/chat/completions"),
        ("HTTP://h/v1", CHAT, "http://h/v1/chat/completions"),
        ("http://h/a@b", CHAT, "http://h/a@b/chat/completions"),
    ],
)
def test_the_path_stands_before_the_query_and_only_once(base_url: str, path: str, url: str) -> None:
    assert endpoint(base_url, path).url == url
    assert endpoint(base_url, path).headers == {}


@pytest.mark.parametrize(
    ("credentials", "pair"),
    [
        ("ada:secret", "ada:secret"),
        ("ada:se%40cr%2Fet", "ada:se@cr/et"),
        ("ada:a:b", "ada:a:b"),
        ("ada", "ada:"),
        ("ada:", "ada:"),
        (":secret", ":secret"),
        ("ad%C3%A4:\u00fc", "ad\u00e4:\u00fc"),
        ("a@b:secret", "a@b:secret"),
    ],
)
def test_user_and_password_are_basic_authentication(credentials: str, pair: str) -> None:
    found = endpoint(f"https://{credentials}@h:1/v1", CHAT)

    assert found.url == "https://h:1/v1/chat/completions"
    assert found.headers == {"Authorization": "Basic " + b64encode(pair.encode()).decode()}


@pytest.mark.parametrize(
    "url",
    [
        "http://ada:hunter2@[::/v1",
        "http://ada:hunter2@h:port/v1",
        "http://ada:hun/ter2@h/v1",
        "http://ada:hunter2@",
        "ada:hunter2@h/v1",
        "ftp://ada:hunter2@h/v1",
        "http://ada:hun?ter2@h:x/v1",
        "http://ada:hun#ter2@h:x/v1",
        "http://ada:hun@ter2@h:x/v1",
        "http://h\xf6st/v1?key=hunter2",
        "http:/ada:hunter2@h/v1",
        "http://ada:hunter2@h /v1",
        "http://ada:hunter2@h\\x/v1",
        "http://ada:hunter2@h/v1\r\nX: y",
        "http://ada:hunter2@[bad]/v1",
        "//ada:hunter2@h/v1",
        "http://ada:hunter2@h\x00/v1",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UsageError, match="is no URL of a model's server") as caught:
        OpenAIChat("m", base_url=url)

    for secret in ("hun", "ter2"):
        assert secret not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://ada:x@h/v1?key=y#z", "http://h/v1"),
        ("ada:x@h", "h"),
        ("http://h/v1", "http://h/v1"),
        ("", ""),
        ("http://a:b://c@h", "h"),
    ],
)
def test_a_message_shows_a_url_without_credentials(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


@pytest.mark.real_clock
@pytest.mark.parametrize("kind", [OpenAIChat, OpenAIResponses, Anthropic])
async def test_credentials_in_a_base_url_are_sent_and_shown_nowhere(
    kind: type[OpenAIChat | OpenAIResponses | Anthropic], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = answer(b"no entry for ada:se@cret, or se%40cret, or YWRhOnNlQGNyZXQ=", status="401 Unauthorized")
    async with serving(answering(echo, echo, echo)) as server:
        url = server.url.replace("//", "//ada:se%40cret@") + "?a=1"
        model = kind("m", base_url=url)
        with pytest.raises(ModelStatusError) as caught:
            await ask(model)
        with pytest.raises(ModelStatusError):
            await ask(kind("m", base_url=url, api_key="k"))
        with pytest.raises(ModelStatusError):
            await ask(kind("m", base_url=url, headers={"authorization": "Mine"}))

        sent = [request.headers["authorization"] for request in server.requests]
        assert sent == ["Basic YWRhOnNlQGNyZXQ=", "Basic YWRhOnNlQGNyZXQ=", "Mine"]
        assert server.requests[0].line.endswith("?a=1 HTTP/1.1")
        assert "@" not in server.requests[0].headers["host"]
    for text in (
        str(caught.value),
        repr(model),
        repr(model.__dict__ if hasattr(model, "__dict__") else ""),
        caplog.text,
    ):
        assert "cret" not in text.replace("<redacted>", "")
        assert "YWRhOnNlQGNyZXQ=" not in text


# --------------------------------------------------------------------------------- proxies


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "direct"),
    [
        ("", "h.example", 80, False),
        ("*", "h.example", 80, True),
        ("example.com", "example.com", 80, True),
        ("example.com", "api.example.com", 80, True),
        ("example.com", "badexample.com", 80, False),
        (".example.com", "api.example.com", 80, True),
        (".example.com", "example.com", 80, True),
        ("*.example.com", "api.example.com", 80, True),
        ("Example.COM.", "api.example.com", 80, True),
        ("example.com", "API.example.com.", 80, True),
        ("api-*.example.com", "api-7.example.com", 80, True),
        ("api-*.example.com", "web.example.com", 80, False),
        ("a.example, example.com", "example.com", 80, True),
        ("a.example example.com", "example.com", 80, True),
        ("example.com:8080", "example.com", 8080, True),
        ("example.com:8080", "example.com", 80, False),
        ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "11.1.2.3", 80, False),
        ("10.9.9.9/8", "10.1.2.3", 80, True),
        ("10.0.0.0/255.0.0.0", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "10.example.com", 80, False),
        ("192.168.1.0/24,10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.1.2.3", "10.1.2.3", 80, True),
        ("10.1.2.3:81", "10.1.2.3", 81, True),
        ("10.1.2.3:81", "10.1.2.3", 80, False),
        ("10.*", "10.1.2.3", 80, True),
        ("10.0.0.0/8:81", "10.1.2.3", 81, True),
        ("10.0.0.0/8:81", "10.1.2.3", 80, False),
        ("0.0.0.0/0", "10.1.2.3", 80, True),
        ("*:81", "h.example", 80, False),
        ("http://h", "h", 80, False),
        ("2.3", "10.1.2.3", 80, False),
        ("fd00::/8", "fd12::1", 80, True),
        ("fd00::/8", "fe80::1", 80, False),
        ("::1", "0:0:0:0:0:0:0:1", 80, True),
        ("[fd12::1]:81", "fd12::1", 81, True),
        ("[fd12::1]:81", "fd12::1", 80, False),
        ("[fd12::1]", "fd12::1", 80, True),
        ("10.1.2.3", "::ffff:10.1.2.3", 80, True),
        ("10.0.0.0/99", "10.1.2.3", 80, False),
        ("nonsense/8, ,:,/,.,h", "h", 80, True),
        (".,:80,/", "h", 80, False),
    ],
)
def test_no_proxy_knows_names_networks_and_ports(no_proxy: str, host: str, port: int, direct: bool) -> None:
    assert is_direct(host, port, no_proxy) is direct
