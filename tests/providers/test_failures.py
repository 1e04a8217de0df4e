"""What a server's refusal means."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agentloop.errors import (
    ModelAuthenticationError,
    ModelContextOverflowError,
    ModelQuotaError,
    ModelRateLimitError,
    ModelStatusError,
)
from agentloop.providers._failures import failure, failure_in_stream, retry_after


@pytest.mark.parametrize(
    ("status", "codes", "body", "kind"),
    [
        pytest.param(401, (), "no key", ModelAuthenticationError, id="401"),
        pytest.param(403, (), "not yours", ModelAuthenticationError, id="403"),
        pytest.param(402, (), "pay first", ModelQuotaError, id="402"),
        pytest.param(429, (), "slower", ModelRateLimitError, id="429"),
        pytest.param(429, ("insufficient_quota",), "no credit", ModelQuotaError, id="429 without credit"),
        pytest.param(429, (None, "insufficient_quota"), "no credit", ModelQuotaError, id="its type says so"),
        pytest.param(400, ("context_length_exceeded",), "too long", ModelContextOverflowError, id="OpenAI's overflow"),
        pytest.param(
            400,
            ("invalid_request_error",),
            "prompt is too long: 210000 tokens > 200000 maximum",
            ModelContextOverflowError,
            id="Anthropic's overflow",
        ),
        pytest.param(
            400,
            (400, "exceed_context_size_error"),
            "the request exceeds the available context size",
            ModelContextOverflowError,
            id="llama.cpp's overflow",
        ),
        pytest.param(
            400,
            ("BadRequestError",),
            "This model's maximum context length is 8192 tokens.",
            ModelContextOverflowError,
            id="vLLM's overflow",
        ),
        pytest.param(413, (), "too large", ModelContextOverflowError, id="413"),
        pytest.param(400, ("invalid_request_error",), "no such field", ModelStatusError, id="400"),
        pytest.param(529, ("overloaded_error",), "later", ModelStatusError, id="529"),
    ],
)
def test_a_refusal_is_an_error_of_its_own_type(
    status: int, codes: tuple[object, ...], body: str, kind: type[ModelStatusError]
) -> None:
    error = failure(model="m", status=status, body=body, codes=codes)
    assert type(error) is kind
    assert (error.model, error.status, error.body) == ("m", status, body)
    assert error.code == next((code for code in codes if isinstance(code, str)), "")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param({"code": 502}, 502, id="an HTTP status as the code"),
        pytest.param({"code": "429"}, 429, id="an HTTP status as text"),
        pytest.param({"code": 7, "type": "overloaded_error"}, 529, id="a known type beside an unknown code"),
        pytest.param({"code": "invalid_prompt"}, 400, id="a code that blames the request"),
        pytest.param({"code": "server_error"}, 500, id="an unknown code"),
        pytest.param("crashed", 500, id="only a message"),
        pytest.param(None, 500, id="nothing"),
    ],
)
def test_an_error_in_mid_stream_gets_the_status_that_its_code_stands_for(error: object, status: int) -> None:
    assert failure_in_stream("m", error).status == status


NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, None, id="nothing said"),
        pytest.param({"retry-after": "7"}, 7.0, id="seconds"),
        pytest.param({"retry-after": "0"}, 0.0, id="at once"),
        pytest.param({"retry-after": "1.5"}, 1.5, id="a fraction"),
        pytest.param({"retry-after-ms": "250", "retry-after": "1"}, 0.25, id="milliseconds"),
        pytest.param({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0, id="a date"),
        pytest.param({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0, id="a date in the past"),
        pytest.param({"retry-after": "Sun, 22 Nov 2026 12:00:30 -0000"}, 30.0, id="a date without a zone"),
        pytest.param({"retry-after": "soon"}, None, id="a word"),
        pytest.param({"retry-after": "-5"}, None, id="a negative number"),
        pytest.param({"retry-after": "inf"}, None, id="for ever"),
        pytest.param({"retry-after": "nan"}, None, id="no number"),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=NOW) == seconds


def test_the_facts_are_in_the_message() -> None:
    error = failure(model="m", status=429, body="slower", headers={"retry-after": "7"})
    assert error.retry_after == 7.0
    assert str(error) == "model 'm': HTTP status 429 (it asks to wait for 7 s): slower"


def test_a_body_of_many_pages_is_cut() -> None:
    assert len(failure(model="m", status=500, body="x" * 100_000).body) == 4096
