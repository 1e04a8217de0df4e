// The model of the next message, and how much it thinks: what the server offers, and what is chosen for a conversation.

import { byId, h } from "./dom.js";
import { amount, visibleText } from "./text.js";

export class ModelPicker {
  constructor(onChange) {
    this.group = byId("model-choices");
    this.model = byId("model");
    this.thinking = byId("thinking");
    this.models = [];
    this.agents = new Map();
    this.agent = "";
    this.forget();
    this.model.addEventListener("change", () => {
      this.chosen = { ...this.chosen, model: this.model.value };
      // A level that the model does not have is given up.
      if (!this.levels.includes(this.chosen.level)) this.chosen.level = "";
      this.isNew = true;
      this.show();
      onChange();
    });
    this.thinking.addEventListener("change", () => {
      this.chosen = { ...this.chosen, level: this.thinking.value };
      this.isNew = true;
      onChange();
    });
  }

  /** `models` are those that the server offers; `agents` has the window and the levels of each agent's own model. */
  offer(models, agents) {
    this.models = models;
    this.agents = new Map(agents.map((agent) => [agent.name, agent]));
    this.shown = "";
    this.show();
  }

  setAgent(name) {
    if (this.agent === name) return;
    this.agent = name;
    this.show();
  }

  /** For another conversation, of which nothing is known yet. */
  forget() {
    this.chosen = { model: "", level: "" };
    /** Whether the person has chosen since the server was told. */
    this.isNew = false;
    this.show();
  }

  /** What the server says was chosen for the conversation, unless the person has chosen something else meanwhile. */
  take({ model, reasoning_effort: level }) {
    if (this.isNew) return;
    this.chosen = { model: this.models.some(({ name }) => name === model) ? model : "", level: level ?? "" };
    this.show();
  }

  /** The fields of a prompt's request. */
  get fields() {
    if (!this.isNew) return {};
    const { model, level } = this.chosen;
    // Another agent may have been chosen since, whose own model has other levels.
    return { model, ...(this.levels.includes(level) ? { reasoning_effort: level } : {}) };
  }

  /** The server has what was chosen when `fields` were read; the person may have chosen again meanwhile. */
  wasSent(fields) {
    if (JSON.stringify(fields) === JSON.stringify(this.fields)) this.isNew = false;
  }

  get facts() {
    return this.models.find(({ name }) => name === this.chosen.model) ?? this.agents.get(this.agent) ?? {};
  }

  get levels() {
    return this.facts.efforts ?? [];
  }

  /** The window of the next request, tokens; undefined if it is not known. */
  get window() {
    return this.facts.window ?? undefined;
  }

  show() {
    const { levels } = this;
    const shown = JSON.stringify([this.models.map(({ name }) => name), levels, this.chosen]);
    if (shown === this.shown) return;
    this.shown = shown;
    byId("model-choice").hidden = !this.models.length;
    byId("thinking-choice").hidden = !levels.length;
    this.group.hidden = !this.models.length && !levels.length;
    this.model.replaceChildren(h("option", { value: "", text: "Agent\u2019s own model" }), ...this.models.map((model) => h("option", { value: model.name, text: labelOf(model) })));
    this.model.value = this.chosen.model;
    this.thinking.replaceChildren(h("option", { value: "", text: "Thinking: default" }), ...levels.map((level) => h("option", { value: level, text: `Thinking: ${level}` })));
    this.thinking.value = levels.includes(this.chosen.level) ? this.chosen.level : "";
  }
}

function labelOf({ name, window, price }) {
  const facts = [window ? `${amount(window)} tokens` : "", price ? `${price.input} / ${price.output} ${price.currency}` : ""];
  return [visibleText(name), ...facts].filter(Boolean).join(" \u00b7 ");
}
