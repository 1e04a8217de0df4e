"""What the user of an editor may choose for a session, over ACP: the mode of permissions, the model, its thinking.

As the session's config options, and the mode also as its session modes, which older editors show. Pure functions, and
the state of one session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from agentloop._choosing import (
    DEFAULT,
    MODES,
    known_levels,
    mode_of,
    model_facts,
    model_name,
    modes_for,
    named_model,
    nearest,
)
from agentloop._runtime.context_window import window_for
from agentloop.agent import Agent
from agentloop.models import Model, ModelChoice, ReasoningEffort
from agentloop.permissions import Mode, Permissions
from agentloop.serving._errors import Refusal

__all__ = ["SessionOptions"]

MODE, MODEL, THINKING = "mode", "model", "thinking"


class SessionOptions:
    """What is chosen for one session, and what may be.

    Args:
      models: the models that may be chosen, by their names.
      choice: what was chosen for the session before.
      permissions: the permissions of the session.
    """

    def __init__(
        self,
        agent: Agent[Any, Any],
        models: Mapping[str, Model | str],
        choice: ModelChoice | None = None,
        permissions: Permissions | None = None,
    ) -> None:
        self._agent = agent
        self._models = models
        self._choice = choice
        self._own = DEFAULT if DEFAULT not in models else "agent's own"
        """The value that stands for the agent's own model."""
        if choice is not None and choice.model is not None and choice.model not in models:
            # It is not offered any more, so that the agent's own answers.
            self._choice = None
        self._mode: Mode = mode_of(agent, permissions)
        self.chosen_model: ModelChoice | None = None
        """For `Runs.start`: what the user has chosen here; ``None`` if nothing."""
        self.chosen_mode: Mode | None = None
        """The mode that the user has chosen here; ``None`` if none."""

    def described(self) -> dict[str, Any]:
        """The fields of the response that begins or loads the session."""
        fields: dict[str, Any] = {}
        if options := self.listed():
            fields["configOptions"] = options
        if self._has_modes:
            modes = [{"id": mode, "name": _title(mode), "description": MODES[mode]} for mode in modes_for(self._agent)]
            fields["modes"] = {"currentModeId": self._mode, "availableModes": modes}
        return fields

    def listed(self) -> list[dict[str, Any]]:
        """The config options, with what is chosen."""
        options: list[dict[str, Any]] = []
        if self._has_modes:
            modes = [_option(mode, _title(mode), MODES[mode]) for mode in modes_for(self._agent)]
            options.append(_select(MODE, "Permissions", "Which tool calls need approval", self._mode, modes))
        if self._models:
            models = [_option(self._own, model_name(self._agent.model), self._facts(self._agent.model))]
            models += [_option(name, name, self._facts(model)) for name, model in self._models.items()]
            options.append(_select(MODEL, "Model", "The model that answers", self._model_value, models))
        if self._levels:
            levels = [_option(DEFAULT, "Default", "As the agent has it")]
            levels += [_option(level, _title(level), "") for level in self._levels]
            chosen = DEFAULT if self._choice is None else self._choice.reasoning_effort or DEFAULT
            thinking = _select(THINKING, "Thinking", "How much the model thinks before it answers", chosen, levels)
            options.append(thinking | {"category": "thought_level"})
        return options

    def set(self, id: object, value: object) -> None:
        """Set the config option ``id``. Raises `Refusal`."""
        options = {option["id"]: option for option in self.listed()}
        if not isinstance(id, str) or id not in options:
            raise Refusal(
                400, f"there is no config option {str(id)[:100]!r}; there are: {', '.join(options) or 'none'}"
            )
        values = [option["value"] for option in options[id]["options"]]
        if not isinstance(value, str) or value not in values:
            close = nearest(value[:100], values) if isinstance(value, str) else ()
            hint = f"did you mean {' or '.join(close)}" if close else f"there are: {', '.join(values)}"
            raise Refusal(400, f"config option {id} has no value {str(value)[:100]!r}; {hint}")
        if id == MODE:
            self._mode = self.chosen_mode = cast("Mode", value)
            return
        model = None if self._choice is None else self._choice.model
        level = None if self._choice is None else self._choice.reasoning_effort
        if id == MODEL:
            model = None if value == self._own else value
        else:
            level = None if value == DEFAULT else cast("ReasoningEffort", value)
        self._choice = ModelChoice(model=model, reasoning_effort=level)
        if level is not None and level not in self._levels:
            # The model that was chosen does not have it.
            self._choice = ModelChoice(model=model)
        # An empty name is the agent's own model, also where the session has another one in the store.
        self.chosen_model = ModelChoice(model=model or "", reasoning_effort=self._choice.reasoning_effort)

    def set_mode(self, mode: object) -> None:
        """Set the session mode. Raises `Refusal`."""
        self.set(MODE, mode)

    @property
    def mode(self) -> Mode:
        """The mode in which calls are judged."""
        return self._mode

    @property
    def window(self) -> int | None:
        """The window of the model that answers next, tokens; ``None`` if it is not known."""
        chosen = None if self._choice is None else self._choice.model
        if isinstance(chosen, str):
            return window_for(self._agent, ModelChoice(model=self._models[chosen]))
        return window_for(self._agent, None)

    @property
    def _has_modes(self) -> bool:
        agent = self._agent
        return bool(agent.tools or agent.toolsets or agent.members)

    @property
    def _model_value(self) -> str:
        return self._own if self._choice is None else str(self._choice.model or self._own)

    @property
    def _levels(self) -> tuple[ReasoningEffort, ...]:
        chosen = None if self._choice is None else self._choice.model
        model = self._models[chosen] if isinstance(chosen, str) else self._agent.model
        return known_levels(model_name(named_model(self._agent, ModelChoice(model=model))))

    def _facts(self, model: Model | str) -> str:
        return model_facts(self._agent, model_name(named_model(self._agent, ModelChoice(model=model))))


def _title(word: str) -> str:
    return word.replace("_", " ").capitalize()


def _option(value: str, name: str, description: str) -> dict[str, str]:
    return {"value": value, "name": name, **({"description": description} if description else {})}


def _select(id: str, name: str, description: str, current: str, options: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "id": id,
        "name": name,
        "description": description,
        "category": id,
        "type": "select",
        "currentValue": current,
        "options": options,
    }
