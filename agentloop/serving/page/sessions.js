// The list of conversations: searched, and shown page by page.

import { api } from "./api.js";
import { byId, h } from "./dom.js";
import { visibleText, whenWords } from "./text.js";

const PAGE = 40;

export const titleOf = (info) => visibleText(info.title || "").trim() || "Untitled conversation";

export class SessionList {
  constructor(onError) {
    this.list = byId("sessions");
    this.more = byId("more-sessions");
    this.empty = byId("no-sessions");
    this.search = byId("search");
    this.onError = onError;
    this.infos = [];
    this.current = "";
    this.asked = 0;
    let timer = 0;
    this.search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.refresh(), 200);
    });
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") this.list.querySelector("a")?.focus();
    });
    this.more.addEventListener("click", () => this.load(this.infos.at(-1)?.id));
    this.list.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      const links = [...this.list.querySelectorAll("a")];
      const next = links[links.indexOf(document.activeElement) + step];
      if (next) {
        event.preventDefault();
        next.focus();
      }
    });
  }

  async refresh() {
    await this.load("", Math.max(PAGE, Math.min(this.infos.length, 200)));
  }

  async load(before = "", limit = PAGE) {
    this.asked += 1;
    const asked = this.asked;
    try {
      const infos = await api.sessions({ search: this.search.value.trim(), before, limit });
      if (asked !== this.asked) return;
      this.infos = before ? [...this.infos, ...infos] : infos;
      this.more.hidden = infos.length < limit;
      this.show();
    } catch (error) {
      this.onError(error);
    }
  }

  setCurrent(session) {
    this.current = session;
    for (const link of this.list.querySelectorAll("a")) mark(link, link.dataset.session === session);
  }

  show() {
    const shown = JSON.stringify([this.infos.map((info) => [info.id, titleOf(info), info.running, whenWords(info.updated)]), this.search.value.trim()]);
    if (shown === this.shown) return;
    this.shown = shown;
    const focused = document.activeElement?.dataset?.session;
    const items = this.infos.map((info) => {
      const facts = info.running ? h("span", { class: "live-dot", title: "A run goes on" }, h("span", { class: "hidden", text: "A run goes on" })) : h("span", { class: "when", text: whenWords(info.updated) });
      const link = h("a", { href: `#/s/${info.id}`, "data-session": info.id, title: titleOf(info) }, h("span", { class: "session-title", dir: "auto", text: titleOf(info) }), facts);
      mark(link, info.id === this.current);
      return h("li", {}, link);
    });
    this.list.replaceChildren(...items);
    this.empty.hidden = items.length > 0;
    this.empty.textContent = this.search.value.trim() ? "Nothing found." : "Your conversations will be listed here.";
    if (focused) this.list.querySelector(`a[data-session="${CSS.escape(focused)}"]`)?.focus();
  }
}

function mark(link, isCurrent) {
  if (isCurrent) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}
