# ruff: noqa: RUF001 - Chinese has punctuation of its own
"""The estimate of tokens is right within 15 % for texts that were measured with the tables of real tokenizers."""

from __future__ import annotations

import json
import struct

import pytest

from agentloop import File, Image
from agentloop._core.tokens import estimate, tokens_in_front, tokens_of, tokens_of_text
from agentloop.messages import AssistantMessage, Text, ToolCall, UserMessage, user_message
from agentloop.models import ToolSpec

ENGLISH = """\
The committee met again on Thursday afternoon to discuss the new budget, and for once nobody raised their voice. Mrs.
Patterson, who had travelled two hours by train to be there, explained why the library needed another $12,500 before
winter: the heating was thirty years old, the windows rattled, and last February three readers had complained that they
could see their own breath. "We cannot ask people to study in their overcoats," she said. The treasurer nodded slowly,
wrote something in the margin of his notebook, and asked whether repairs might be cheaper than replacement. They would
not be, she answered; she had brought two quotations with her, and both of them said the same. After a short break for
coffee, the chairman proposed that half of the money be taken from the reserve and the other half be raised by a
concert in the spring. Everyone agreed that this was sensible, although the question of who would organise it was,
as usual, postponed until the next meeting.
"""
CHINESE = """\
星期四下午，委员会再次开会讨论新的预算，这一次没有人提高嗓门。帕特森女士坐了两个小时的火车赶来，她解释了为什么图书馆在冬天之前还需要一笔钱：
暖气已经用了三十年，窗户嘎嘎作响，去年二月有三位读者抱怨说他们能看见自己呼出的白气。她说：“我们不能要求人们穿着大衣学习。”财务主管慢慢地点了点头，
在笔记本的空白处写了些什么，然后问修理是不是比更换更便宜。她回答说不会，她带来了两份报价单，两份的结论都一样。短暂的休息之后，主席提议一半的钱
从储备金中支出，另一半通过春天举办的音乐会来筹集。大家都认为这个办法很合理，不过由谁来组织的问题，像往常一样，被推迟到了下一次会议。
"""
CODE = '''\
class LeakyBucket:
    """Limits how often something may happen: `rate` times per second, with bursts of `capacity`."""

    def __init__(self, rate: float, capacity: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        if rate <= 0 or capacity < 1:
            raise ValueError(f"rate={rate!r}, capacity={capacity!r}: give numbers above zero")
        self._rate = rate
        self._capacity = capacity
        self._clock = clock
        self._level = 0.0
        self._updated_at = clock()

    def try_acquire(self, amount: int = 1) -> bool:
        now = self._clock()
        # What has leaked since the last call makes room for new requests.
        self._level = max(0.0, self._level - (now - self._updated_at) * self._rate)
        self._updated_at = now
        if self._level + amount > self._capacity:
            return False
        self._level += amount
        return True


async def fetch_all(urls: Sequence[str], bucket: LeakyBucket) -> dict[str, bytes]:
    results: dict[str, bytes] = {}
    for index, url in enumerate(urls):
        while not bucket.try_acquire():
            await trio.sleep(0.05)
        response = await http_client.get(url, headers={"Accept": "application/json", "X-Request-Id": f"req-{index}"})
        results[url] = response.content
    return results
'''
ROWS = [
    {
        "id": 48210 + 37 * number,
        "customer": {"name": name, "city": city, "postal_code": f"{10115 + number * 613}"},
        "status": "shipped" if number % 2 else "awaiting_payment",
        "total": 149.9 + 12.35 * number,
        "currency": "EUR",
        "created_at": f"2026-0{number + 1}-1{number}T08:4{number}:15Z",
        "items": [{"sku": f"TK-{700 + number}", "quantity": number + 1, "gift": number == 2}],
        "note": None,
    }
    for number, (name, city) in enumerate(
        [("Anna Keller", "Berlin"), ("Marco Rossi", "Torino"), ("Sofie Lund", "Aarhus"), ("Ian Murray", "Leeds")]
    )
]
JSON = json.dumps(ROWS, indent=2)
COMPACT_JSON = json.dumps(ROWS, separators=(",", ":"))

MEASURED = {
    "English": (ENGLISH, {"o200k": 207, "cl100k": 207, "Qwen": 210, "DeepSeek": 209}),
    "Chinese": (CHINESE, {"o200k": 215}),
    "code": (CODE, {"o200k": 338, "cl100k": 333, "Qwen": 334, "DeepSeek": 346}),
    "indented JSON": (JSON, {"o200k": 513, "cl100k": 513, "Qwen": 583, "DeepSeek": 525}),
    "compact JSON": (COMPACT_JSON, {"o200k": 317, "cl100k": 309, "DeepSeek": 329}),
}
"""Texts with the tokens that the tables of tokenizers make of them. Of Chinese, the families differ by a factor of two
(cl100k 343, DeepSeek 157), and Qwen makes a token of each digit: there, only the provider's count can be right."""


@pytest.mark.parametrize("kind", MEASURED)
def test_the_estimate_of_a_text_is_right_within_15_percent(kind: str) -> None:
    text, counts = MEASURED[kind]

    for tokenizer, count in counts.items():
        assert tokens_of_text(text) == pytest.approx(count, rel=0.15), tokenizer


@pytest.mark.parametrize("kind", MEASURED)
def test_the_estimate_of_a_long_text_is_right_from_samples_of_it(kind: str) -> None:
    text, counts = MEASURED[kind]

    assert tokens_of_text(text * 100) == pytest.approx(counts["o200k"] * 100, rel=0.15)


@pytest.mark.parametrize("letter", ["S", "s", " ", "\n", "-", "7", "文", "😀"])
def test_no_text_is_so_monotonous_that_it_counts_for_nothing(letter: str) -> None:
    assert tokens_of_text(letter * 8_000) >= 8_000 / 60


def test_each_part_of_a_message_counts() -> None:
    text = user_message(ENGLISH)
    response = AssistantMessage((Text(ENGLISH), ToolCall("c1", "write_file", json.dumps({"text": ENGLISH}))))

    assert estimate(response) > 1.9 * estimate(text)
    assert estimate(UserMessage((*text.parts, Image(url="https://example.org/a.png")))) > estimate(text) + 1_000


def test_instructions_and_tools_count() -> None:
    spec = ToolSpec("look", ENGLISH, {"type": "object", "properties": {"page": {"type": "integer"}}})

    assert tokens_in_front("", ()) == 0
    assert tokens_in_front(ENGLISH, (spec,)) == pytest.approx(2 * 207 + 30, rel=0.15)


# ---------------------------------------------------------------------- pictures and documents


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"x" * 100_000


def jpeg(width: int, height: int) -> bytes:
    # Its metadata has a preview, which is a JPEG as well.
    preview = b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", 90, 120)
    metadata = b"\xff\xe1" + struct.pack(">H", 30_000) + preview.ljust(29_998, b"x")
    frame = b"\xff\xc2\0\x11\x08" + struct.pack(">HH", height, width)
    return b"\xff\xd8" + metadata + frame + b"x" * 100_000


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"x" * 100_000


@pytest.mark.parametrize("data", [png(600, 500), jpeg(600, 500), gif(600, 500)], ids=["png", "jpeg", "gif"])
def test_a_picture_counts_by_its_pixels(data: bytes) -> None:
    assert tokens_of(UserMessage((Image(data),))).media == 400
    assert tokens_of(UserMessage((File(data, media_type="image/png"),))).media == 400


def test_a_large_picture_counts_as_the_provider_scales_it_and_an_icon_for_the_least() -> None:
    assert tokens_of(UserMessage((Image(png(4000, 3000)),))).media == 1_500
    assert tokens_of(UserMessage((Image(png(16, 16)),))).media == 85


def test_a_pdf_counts_by_its_pages() -> None:
    pages = b"%PDF-1.4\n" + b"<< /Type /Pages /Count 3 >>" + b"<</Type/Page /Parent 1 0 R>>" * 3 + b"x" * 1_000_000

    assert tokens_of(UserMessage((File(pages, media_type="application/pdf"),))).media == 3 * 2_000


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"%PDF-1.7\n" + b"\0x" * 500_000, "application/pdf"),
        (b"PK\3\4" + b"\0x" * 500_000, "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        (b"ID3" + b"\0x" * 500_000, "audio/mpeg"),
    ],
    ids=["a packed PDF", "a Word document", "sound"],
)
def test_a_document_of_a_megabyte_counts_for_far_less_than_its_bytes(data: bytes, media_type: str) -> None:
    assert 0 < tokens_of(UserMessage((File(data, media_type=media_type),))).media <= 50_000


def test_a_file_of_text_counts_as_its_text() -> None:
    file = File((ENGLISH * 100).encode(), media_type="text/plain")

    assert tokens_of(UserMessage((file,))).media == pytest.approx(20_700, rel=0.15)


def test_an_empty_file_counts_for_nothing() -> None:
    assert tokens_of(UserMessage((File(b"", media_type="text/plain"),))).media == 0
