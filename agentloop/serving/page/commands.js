// The slash commands that begin with what is typed: a list above the message field, chosen by mouse or by keys.

import { announce, byId, h, newId } from "./dom.js";
import { plural, visible } from "./text.js";

const MOST = 50;

export class CommandList {
  /** `onChoose` is called after a command was put into the field. */
  constructor(field, onChoose) {
    this.field = field;
    this.onChoose = onChoose;
    this.list = byId("commands");
    this.offered = [];
    this.active = -1;
    /** The text for which the person has closed the list. */
    this.closedFor = "";
    field.addEventListener("blur", () => this.close());
    // A press would take the focus from the field, and close the list before the click.
    this.list.addEventListener("mousedown", (event) => event.preventDefault());
  }

  get isOpen() {
    return !this.list.hidden;
  }

  /** Offers those of `known` that begin with what is typed, while nothing but a name is. */
  offer(known) {
    const typed = /^\/([\w:.-]*)$/.exec(this.field.value);
    if (!typed || this.field.value !== this.closedFor) this.closedFor = "";
    const offered = typed && !this.closedFor ? known.filter(({ name }) => name.startsWith(typed[1])).slice(0, MOST) : [];
    const wasOpen = this.isOpen;
    this.offered = offered;
    this.list.hidden = !offered.length;
    this.list.replaceChildren(...offered.map((command, index) => this.option(command, index)));
    this.activate(-1);
    if (offered.length && !wasOpen) announce(`${plural(offered.length, "command")}: arrow keys choose, Tab completes`);
  }

  option({ name, hint, description }, index) {
    const words = [h("span", { class: "command-name" }, visible(`/${name} ${hint}`.trim())), h("span", { class: "command-description" }, visible(description))];
    return h("li", { role: "option", class: "command", id: newId("command"), "aria-selected": "false", onclick: () => this.choose(index) }, ...words);
  }

  activate(index) {
    this.active = index;
    [...this.list.children].forEach((option, place) => option.setAttribute("aria-selected", String(place === index)));
    const option = this.list.children[index];
    if (option) {
      this.field.setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    } else {
      this.field.removeAttribute("aria-activedescendant");
    }
  }

  choose(index) {
    this.field.value = `/${this.offered[index].name} `;
    this.close();
    this.field.focus();
    this.onChoose();
  }

  close() {
    this.list.hidden = true;
    this.activate(-1);
  }

  /** Handles a key of the field. Returns whether the list has used it. */
  take(event) {
    if (!this.isOpen) return false;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const count = this.offered.length;
    if (step) this.activate(this.active < 0 ? (step > 0 ? 0 : count - 1) : (this.active + step + count) % count);
    else if (event.key === "Tab" && !event.shiftKey) this.choose(Math.max(this.active, 0));
    else if (event.key === "Enter" && this.active >= 0) this.choose(this.active);
    else if (event.key === "Escape") {
      this.closedFor = this.field.value;
      this.close();
    } else return false;
    event.preventDefault();
    return true;
  }
}
