"""The metrics of the GenAI conventions."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, MeterProvider, get_meter

from agentloop.messages import Usage

__all__ = ["Metrics"]

_TOKENS = [4**exponent for exponent in range(14)]
_SECONDS = [0.01 * 2**exponent for exponent in range(14)]
_FIRST = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
"""The bounds of the histograms' buckets that the conventions ask for."""


class Metrics:
    """The instruments. A measurement is recorded in the context of its span, so that it can be an example of it."""

    def __init__(self, version: str, provider: MeterProvider | None) -> None:
        meter = get_meter("agentloop", version, provider)

        def histogram(name: str, unit: str, description: str, bounds: list[float]) -> Histogram:
            return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=bounds)

        self.tokens = histogram(
            "gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", [*map(float, _TOKENS)]
        )
        self.operation = histogram("gen_ai.client.operation.duration", "s", "GenAI operation duration.", _SECONDS)
        self.first = histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "Time to the first chunk of a response.", _FIRST
        )
        self.run = histogram("gen_ai.invoke_agent.duration", "s", "Duration of an agent's run.", _SECONDS)
        self.tool = histogram("gen_ai.execute_tool.duration", "s", "Duration of a tool call.", _SECONDS)

    def count_tokens(self, usage: Usage, attributes: Mapping[str, str], context: Context) -> None:
        """Record the tokens of a response."""
        self.tokens.record(usage.input_tokens, {**attributes, "gen_ai.token.type": "input"}, context)
        self.tokens.record(usage.output_tokens, {**attributes, "gen_ai.token.type": "output"}, context)
