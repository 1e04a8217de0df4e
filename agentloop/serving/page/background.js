// The runs in the background of the current run, each with a button that stops it.

import { button, byId, h } from "./dom.js";
import { usageWords, visible } from "./text.js";

export class BackgroundList {
  constructor(onStop, focusElsewhere) {
    this.list = byId("background");
    this.onStop = onStop;
    this.focusElsewhere = focusElsewhere;
    this.items = new Map();
  }

  show(runs) {
    const hadFocus = this.list.contains(document.activeElement);
    const ids = new Set(runs.map((run) => run.id));
    for (const [id, item] of this.items) {
      if (!ids.has(id)) {
        item.element.remove();
        this.items.delete(id);
      }
    }
    for (const run of runs) {
      let item = this.items.get(run.id);
      if (!item) {
        const facts = h("span", { class: "faint" });
        const stop = button("Stop", { kind: "quiet", "aria-label": `Stop ${run.background}`, onclick: () => this.onStop(run.background) });
        const name = h("span", { class: "background-name", dir: "auto" }, visible(run.background));
        item = { element: h("li", {}, h("span", { class: "spinner", "aria-hidden": "true" }), name, facts, stop), facts };
        this.items.set(run.id, item);
        this.list.append(item.element);
      }
      item.facts.textContent = [run.isPaused ? "is paused" : "works in the background", usageWords(run.usage)].filter(Boolean).join(" \u00b7 ");
    }
    this.list.hidden = !runs.length;
    // The button that was pressed is gone.
    if (hadFocus && !this.list.contains(document.activeElement)) this.focusElsewhere();
  }
}
