"""What a server's refusal means."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from agentloop.errors import (
    ModelAuthenticationError,
    ModelContextOverflowError,
    ModelQuotaError,
    ModelRateLimitError,
    ModelResponseError,
    ModelStatusError,
)
from agentloop.providers._failures import failure, failure_in_stream
from agentloop.providers._retry_delays import retry_after
from tests.providers.overflows import OVERFLOWS


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


# -------------------------------------------------------------------------------- wordings

NO_OVERFLOWS = {
    "a bound of the answer": "max_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
    "a bound of the answer, by Anthropic": "max_tokens: 100000 > 8192, the maximum allowed number of output tokens",
    "a field": "messages.1.content: field required",
    "an image": "image exceeds 5 MB maximum: 6000000 bytes > 5242880 bytes",
    "a name": "tools.0.name: String should have at most 64 characters",
    "too many tools": "Invalid 'tools': array too long. Expected an array with maximum length 128.",
    "too many calls": "too many tool calls",
    "a temperature": "temperature: Input should be less than or equal to 1",
}


@pytest.mark.parametrize("words", OVERFLOWS.values(), ids=OVERFLOWS)
@pytest.mark.parametrize("status", [400, 500])
def test_an_overflow_is_recognized_in_the_words_of_each_server(words: str, status: int) -> None:
    body = msgspec.json.encode({"error": {"message": words, "type": "invalid_request_error"}}).decode()

    assert type(failure(model="m", status=status, body=body)) is ModelContextOverflowError
    assert type(failure_in_stream("m", {"message": words})) is ModelContextOverflowError


@pytest.mark.parametrize("words", NO_OVERFLOWS.values(), ids=NO_OVERFLOWS)
def test_other_bounds_are_no_overflow(words: str) -> None:
    assert type(failure(model="m", status=400, body=words)) is ModelStatusError


def test_too_many_tokens_in_a_minute_are_a_rate_limit() -> None:
    words = "Too many tokens, please wait before trying again."
    assert type(failure(model="m", status=429, body=words)) is ModelRateLimitError


def test_words_of_the_prompt_that_a_validation_error_repeats_do_not_count() -> None:
    detail = [{"loc": ["body", "messages"], "msg": "Field required", "input": "the prompt is too long, he said"}]
    body = msgspec.json.encode({"detail": detail}).decode()

    assert type(failure(model="m", status=422, body=body)) is ModelStatusError


QUOTAS = {
    "OpenAI": (429, "You exceeded your current quota, please check your plan and billing details."),
    "OpenAI's bound": (400, "Billing hard limit has been reached"),
    "Anthropic": (400, "Your credit balance is too low to access the Anthropic API."),
    "Anthropic's bound": (400, "You have reached your specified API usage limits. You have reached your usage limit."),
    "DeepSeek": (402, "Insufficient Balance"),
    "Moonshot": (429, "Your account is suspended due to insufficient balance, please recharge your account"),
    "xAI": (403, "Your team has either used all available credits or reached its monthly spending limit."),
    "OpenRouter": (402, "This request requires more credits, or fewer max_tokens."),
    "OpenRouter, 403": (403, "Insufficient credits. Add more using https://example.com"),
    "Hugging Face": (403, "You have exceeded your monthly included credits for Inference Providers."),
    "OpenRouter's key": (403, "Key limit exceeded (total limit). Manage it in the settings."),
    "Gemini": (429, "Your prepayment credits are depleted"),
    "a free tier": (403, "The free tier of the model has been exhausted."),
    "a day": (429, "daily quota exceeded"),
    "a balance": (429, "Balance is insufficient, please top up"),
    "DashScope": (400, "Access denied, please make sure your account is in good standing."),
    "Zhipu": (429, "余额不足或无可用资源包,请充值。"),
}


@pytest.mark.parametrize(("status", "words"), QUOTAS.values(), ids=QUOTAS)
def test_an_empty_account_is_recognized_in_the_words_of_each_server(status: int, words: str) -> None:
    assert type(failure(model="m", status=status, body=words)) is ModelQuotaError


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "Arrearage", ModelQuotaError),
        (429, "1113", ModelQuotaError),
        (429, 1302, ModelRateLimitError),
        (400, "ThrottlingException", ModelRateLimitError),
        (400, "com.amazon.coral.service#ThrottlingException", ModelRateLimitError),
        (400, "API_KEY_INVALID", ModelAuthenticationError),
        (400, "model_max_prompt_tokens_exceeded", ModelContextOverflowError),
        (400, "tool_use_failed", ModelResponseError),
        (400, "output_parse_failed", ModelResponseError),
        (400, "json_validate_failed", ModelResponseError),
    ],
)
def test_the_codes_of_each_server_are_known(status: int, code: str, kind: type[ModelStatusError]) -> None:
    body = msgspec.json.encode({"error": {"message": "no", "code": code}}).decode()

    assert type(failure(model="m", status=status, body=body)) is kind


def test_a_quota_of_a_minute_is_a_rate_limit_and_one_of_a_day_is_not() -> None:
    def refused(quota: str) -> ModelStatusError:
        details = [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota}]},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"},
        ]
        words = f"You exceeded your current quota, please check your plan. * Quota: {quota}"
        error = {"code": 429, "message": words, "status": "RESOURCE_EXHAUSTED", "details": details}
        return failure(model="m", status=429, body=msgspec.json.encode([{"error": error}]).decode())

    assert type(refused("GenerateRequestsPerMinutePerProject")) is ModelRateLimitError
    assert refused("GenerateRequestsPerMinutePerProject").retry_after == 17.0
    assert type(refused("GenerateRequestsPerDayPerProject")) is ModelQuotaError


@pytest.mark.parametrize(
    "words",
    [
        "API key not valid. Please pass a valid API key.",
        "Incorrect API key provided: xa***.",
        "No auth credentials found",
    ],
)
def test_a_wrong_key_is_recognized_although_the_status_blames_the_request(words: str) -> None:
    assert type(failure(model="m", status=400, body=words)) is ModelAuthenticationError


@pytest.mark.parametrize(
    "words",
    [
        "Failed to call a function. Please adjust your prompt.",
        "error parsing tool call: raw='{' err=unexpected end of JSON input",
        "Unexpected token 12606 while expecting start token 200006",
        "unexpected tokens remaining in message header",
    ],
)
def test_a_response_that_the_server_cannot_parse_is_recognized_in_its_words(words: str) -> None:
    assert type(failure(model="m", status=500, body=words)) is ModelResponseError


# ------------------------------------------------------------------------------- wrappings


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "insufficient_quota", "message": "x"}},
        {"error": {"type": "insufficient_quota"}},
        {"code": "insufficient_quota", "message": "x"},
        {"object": "error", "type": "insufficient_quota", "message": "x"},
        [{"error": {"code": 429, "status": "insufficient_quota"}}],
        {"errors": [{"message": "x", "code": "insufficient_quota"}]},
        {"detail": {"error": {"code": "insufficient_quota"}}},
        {"error": '{"error":{"code":"insufficient_quota"}}'},
        {"message": '{"code":"insufficient_quota"}'},
        {"error": {"message": "Provider error", "metadata": {"raw": '{"error":{"code":"insufficient_quota"}}'}}},
        {"error": {"message": '[{"error":{"code":"insufficient_quota"}}]', "code": 429}},
        {"error": "You exceeded your current quota"},
        {"error": {"message": "Upstream said: You exceeded your current quota"}},
    ],
    ids=lambda body: msgspec.json.encode(body).decode()[:60],
)
def test_an_error_is_read_in_every_wrapping(body: object) -> None:
    error = failure(model="m", status=429, body=msgspec.json.encode(body).decode())

    assert type(error) is ModelQuotaError


def test_escaped_characters_do_not_hide_a_wording() -> None:
    body = r'{"error":{"message":"longer than the model\u0027s context length"}}'
    assert type(failure(model="m", status=400, body=body)) is ModelContextOverflowError


def test_an_error_in_mid_stream_shows_the_reason_that_a_gateway_hides() -> None:
    raw = msgspec.json.encode({"message": "This model's maximum context length is 8192 tokens."}).decode()
    error = failure_in_stream("m", {"code": 400, "message": "Provider returned error", "metadata": {"raw": raw}})

    assert type(error) is ModelContextOverflowError
    assert error.body == "Provider returned error: This model's maximum context length is 8192 tokens."


def test_an_error_that_contains_itself_many_times_is_read_to_a_bound() -> None:
    nested: object = "deep"
    for _ in range(60):
        nested = {"error": nested}
    body = msgspec.json.encode([nested] * 1000).decode()

    assert failure(model="m", status=500, body=body).status == 500


# ------------------------------------------------------------------------------ unsupported


@pytest.mark.parametrize(
    ("error", "way_out"),
    [
        (
            {
                "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                "param": "max_tokens",
                "code": "unsupported_parameter",
            },
            "'max_tokens': give the model max_tokens_field='max_completion_tokens'",
        ),
        (
            {"message": "Unsupported value: 'temperature' does not support 0.2", "param": "temperature"},
            "'temperature': leave ModelSettings.temperature out",
        ),
        ({"message": "`temperature` is deprecated, and not supported for this model"}, "ModelSettings.temperature"),
        ({"message": "stream_options: Extra inputs are not permitted"}, "stream_usage=False"),
        ({"message": "Unknown parameter: 'reasoning_effort'.", "param": "reasoning_effort"}, "reasoning_effort out"),
        ({"message": "Unsupported parameter", "param": "reasoning.summary"}, "reasoning_summary=None"),
        ({"message": "Unsupported", "param": "top_k"}, "'top_k': leave it out of ModelSettings.extra"),
        ({"message": "gemma:2b does not support tools"}, "use a model with tools"),
        ({"message": "No endpoints found that support tool use."}, "use a model with tools"),
        ({"message": "No endpoints found that support image input"}, "use a model that can see"),
        ({"message": "This model does not support response_format"}, "output_type"),
        ({"message": "`tool_choice` is not supported for this model"}, "ModelSettings.tool_choice"),
    ],
    ids=str,
)
def test_an_unsupported_parameter_is_named_with_the_model_and_the_way_out(error: dict[str, str], way_out: str) -> None:
    refused = failure(model="m", status=400, body=msgspec.json.encode({"error": error}).decode())

    assert way_out in refused.advice
    assert refused.advice in str(refused)
    assert "model 'm'" in str(refused)


def test_other_refusals_have_no_way_out() -> None:
    assert failure(model="m", status=400, body="messages: field required").advice == ""
    assert failure(model="m", status=404, body="no such model").advice == ""


# --------------------------------------------------------------------------------- delays

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
        pytest.param({"retry-after": "7, 7"}, 7.0, id="twice"),
        pytest.param({"retry-after": "7s"}, 7.0, id="with a unit"),
        pytest.param({"retry-after": "soon"}, None, id="a word"),
        pytest.param({"retry-after": "-5"}, None, id="a negative number"),
        pytest.param({"retry-after": "inf"}, None, id="for ever"),
        pytest.param({"retry-after": "nan"}, None, id="no number"),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        ({"message": "Please try again in 7.66s. Visit our page"}, 7.66),
        ({"message": "Rate limit reached. Please try again in 1m12.5s."}, 72.5),
        ({"message": "Please try again in 20ms."}, 0.02),
        ({"message": "try again in 6m0s"}, 360.0),
        ({"message": "Please try again in 1h2m3s"}, 3723.0),
        ({"message": "Please retry after 20 seconds."}, 20.0),
        ({"message": "Please retry in 41.524s."}, 41.524),
        ({"message": "too fast, wait 15 seconds before the next request"}, 15.0),
        ({"message": "Try again in 2 minutes and 5 seconds"}, 125.0),
        ({"message": "Rate limited, retry after 1 min"}, 60.0),
        ({"message": "quota resets in 3 hours"}, 10800.0),
        ({"message": "Retry your request after 45 seconds"}, 45.0),
        ({"message": "upstream said Retry-After: 30"}, 30.0),
        ({"message": "retry_after=15"}, 15.0),
        ({"message": "limit of 10 requests per 60 seconds"}, None),
        ({"message": "slow down", "retry_after": 12}, 12.0),
        ({"message": "slow down", "retryAfter": "12"}, 12.0),
        ({"message": "slow down", "metadata": {"headers": {"Retry-After": "9"}}}, 9.0),
        ({"message": "slow down", "details": [{"retryDelay": "1.5s"}]}, 1.5),
        ({"message": "slow down", "details": [{"retryDelay": "0s"}]}, 0.0),
        ({"message": "slow down", "metadata": {"retry_after_seconds": 4}}, 4.0),
        ({"message": "Limit 30000, Used 29000, Requested 2000"}, None),
        ({"message": "Try again in a while"}, None),
        ({"message": "try again in 5 monkeys"}, None),
        ({"message": "slow down", "retry_after": -1}, None),
        ({"message": "slow down", "retry_after": True}, None),
        ({"message": "slow down", "retry_after": None}, None),
        ({"message": "slow down", "retry_after": "9" * 400}, None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_delay_is_read_from_the_body(error: dict[str, object], seconds: float | None) -> None:
    body = msgspec.json.encode({"error": error}).decode()

    assert failure(model="m", status=429, body=body).retry_after == seconds


def test_the_header_is_more_exact_than_the_body() -> None:
    error = failure(model="m", status=429, body="try again in 9s", headers={"retry-after": "7"})
    assert error.retry_after == 7.0


def test_time_in_the_words_about_a_wrong_request_is_no_delay() -> None:
    assert failure(model="m", status=400, body="the video: try again in 10 seconds steps").retry_after is None


def test_the_limit_of_which_nothing_remains_gives_the_delay() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "10",
        "x-ratelimit-reset-requests": "6m0s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1.5s",
    }
    assert failure(model="m", status=429, body="slower", headers=headers).retry_after == 1.5
    assert failure(model="m", status=503, body="slower", headers=headers).retry_after is None


def test_the_facts_are_in_the_message() -> None:
    error = failure(model="m", status=429, body="slower", headers={"retry-after": "7"})
    assert error.retry_after == 7.0
    assert str(error) == "model 'm': HTTP status 429 (it asks to wait for 7 s): slower"


def test_a_body_of_many_pages_is_cut() -> None:
    assert len(failure(model="m", status=500, body="x" * 100_000).body) == 4096
