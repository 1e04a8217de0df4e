// Questions to the person: forms, pages to visit, approvals, limits to pass.

import { ApiError } from "./api.js";
import { announce, button, h, icon, newId } from "./dom.js";
import { argumentList, argumentsIn } from "./exact.js";
import { fieldsOf, formFields } from "./forms.js";
import { isOpenQuestion } from "./conversation.js";
import { amount, outgoing, safeUrl, visible } from "./text.js";

const RETRY_MS = 2000;
const PATIENCE_MS = 45_000;

// What a call may do, where its tool says so.
const riskOf = (event) => {
  const does = event.read_only ? "It only reads." : event.destructive ? "It may destroy something." : "";
  const { commands = [], paths = [], hosts = [], is_complete: isComplete = false } = event.blast_radius ?? {};
  const touched = [...commands, ...paths, ...hosts];
  // Without an assessment, it is read from the arguments, which are shown.
  const touches = event.assessment && touched.length ? `It may touch: ${touched.join(", ")}${isComplete ? "" : ", ..."}` : "";
  return [does, touches].filter(Boolean).join(" ");
};

export class QuestionView {
  constructor(question, actions) {
    this.question = question;
    this.actions = actions;
    this.id = newId("question");
    this.element = h("section", { class: "question", "aria-labelledby": this.id, tabindex: "-1", id: `${this.id}-box` });
    this.shown = "";
    this.update();
  }

  update() {
    const { question } = this;
    const shown = isOpenQuestion(question) ? "open" : `${question.state} ${JSON.stringify(question.answer)}`;
    // A form that a person is filling in stays as it is.
    if (shown === this.shown) return;
    const hadFocus = this.hadFocus || this.element.contains(document.activeElement);
    this.shown = shown;
    this.element.classList.toggle("is-open", shown === "open");
    if (shown === "open") this.element.replaceChildren(...this.open());
    else this.element.replaceChildren(closedQuestion(question, this.id));
    if (hadFocus && shown !== "open") this.actions.focusComposer();
  }

  focus() {
    this.element.scrollIntoView({ block: "center" });
    (this.element.querySelector("input:not([type=radio]), input:checked, input, select, textarea") ?? this.element).focus({ preventScroll: true });
  }

  // --------------------------------------------------------------------------- open

  open() {
    const { event } = this.question;
    switch (event.type) {
      case "approval_requested":
        return this.approval(event);
      case "continue_requested":
        return this.limit(event);
      default:
        return event.url ? this.visit(event) : this.form(event);
    }
  }

  head(iconName, words) {
    return h("h3", { class: "question-title", id: this.id }, icon(iconName), h("span", { dir: "auto" }, words));
  }

  who() {
    const { source } = this.question.event;
    return source.agents.join(" \u203a ");
  }

  foot(...buttons) {
    this.problem = h("p", { class: "field-error", role: "alert", hidden: true });
    this.status = h("p", { class: "question-status", role: "status", hidden: true });
    this.buttons = buttons;
    return [this.problem, this.status, h("div", { class: "buttons" }, ...buttons)];
  }

  form(event) {
    const fields = formFields(event.form);
    const send = button("Send", { kind: "main", type: "submit" });
    const decline = button("Decline", { onclick: () => this.answer({ type: "decline" }) });
    const dismiss = button("Dismiss", { onclick: () => this.answer({ type: "cancel" }) });
    const foot = this.foot(send, decline, dismiss);
    const submit = (submitted) => {
      submitted.preventDefault();
      const content = fields.read();
      if (content) this.answer({ type: "accept", content });
    };
    const message = h("p", { class: "question-message", dir: "auto" }, visible(event.message));
    const form = h("form", { novalidate: true, onsubmit: submit, "aria-labelledby": this.id }, ...fields.nodes, ...foot);
    return [this.head("form", `${this.who()} asks`), message, form];
  }

  visit(event) {
    const url = safeUrl(event.url);
    const isPage = url !== null && url.protocol !== "mailto:";
    const address = h("p", { class: "address", dir: "ltr" });
    if (isPage) {
      address.append(outgoing(url, h("strong", {}, visible(url.host)), visible(url.href.slice(url.href.indexOf(url.host) + url.host.length)), icon("link")));
    } else {
      address.append(visible(event.url));
    }
    const warning = isPage ? h("p", { class: "field-hint", text: "The page opens in a new tab. Check that you trust this site: the tool has chosen the address." }) : h("p", { class: "field-error", text: "This is not the address of a web page, so it is not a link here." });
    const foot = this.foot(
      button("I agree", { kind: "main", onclick: () => this.answer({ type: "accept" }) }),
      button("Decline", { onclick: () => this.answer({ type: "decline" }) }),
      button("Dismiss", { onclick: () => this.answer({ type: "cancel" }) }),
    );
    const message = h("p", { class: "question-message", dir: "auto" }, visible(event.message));
    return [this.head("link", `${this.who()} asks you to visit a page`), message, address, warning, ...foot];
  }

  approval(event) {
    const scope = h("select", { id: newId("scope") });
    scope.append(
      h("option", { value: "once", text: "this time" }),
      h("option", { value: "same", text: "this very call, in all of this conversation" }),
      h("option", { value: "safe", text: "this time, and from now on all that only reads" }),
      h("option", { value: "safer", text: "this time, and from now on all that is harmless" }),
      h("option", { value: "tool", text: `all calls of ${event.name}, in all of this conversation` }),
    );
    const reason = h("input", { type: "text", id: newId("reason"), placeholder: "The agent reads the reason", autocomplete: "off", dir: "auto" });
    const approve = button("Approve", {
      icon: "check",
      kind: "main",
      onclick: () => {
        const always = { once: undefined, same: true, safe: "safe", safer: "safer", tool: { tool: event.name } }[scope.value];
        this.answer(always === undefined ? { type: "approve" } : { type: "approve", always });
      },
    });
    const deny = button("Deny", { icon: "cross", onclick: () => this.answer({ type: "deny", reason: reason.value.trim() }) });
    reason.addEventListener("keydown", (pressed) => {
      if (pressed.key === "Enter" && !pressed.isComposing) {
        pressed.preventDefault();
        deny.click();
      }
    });
    const call = h("div", { class: "call-exact" }, h("p", { class: "call-name" }, icon("tool"), h("code", { dir: "ltr" }, visible(event.name))), argumentList(argumentsIn(this.question.raw)));
    const why = event.reason ? h("p", { class: "field-hint", dir: "auto" }, visible(event.reason)) : null;
    const risk = riskOf(event);
    const touched = risk ? h("p", { class: "field-hint", dir: "auto" }, visible(risk)) : null;
    const foot = this.foot(approve, deny);
    const row = h(
      "div",
      { class: "approval-row" },
      h("div", { class: "field" }, h("label", { for: scope.id, text: "An approval is for" }), scope),
      h("div", { class: "field grows" }, h("label", { for: reason.id, text: "Reason, if you deny" }), reason),
    );
    return [this.head("hand", `${this.who()} wants to run ${event.name}`), ...(why ? [why] : []), call, ...(touched ? [touched] : []), row, ...foot];
  }

  limit(event) {
    const foot = this.foot(
      button("Continue", { kind: "main", onclick: () => this.answer({ type: "approve" }) }),
      button("End the run", { onclick: () => this.answer({ type: "deny" }) }),
    );
    const words = `The run has used ${amount(event.used)} of ${amount(event.allowed)} ${event.limit.replaceAll("_", " ")}. May it use as much again?`;
    return [this.head("clock", `${this.who()} has reached a limit`), h("p", { class: "question-message", text: words }), ...foot];
  }

  // ------------------------------------------------------------------------- answers

  async answer(answer) {
    if (this.isSending) return;
    this.isSending = true;
    // A button that is disabled loses the focus.
    this.hadFocus = this.element.contains(document.activeElement);
    this.problem.hidden = true;
    for (const one of this.buttons) one.disabled = true;
    const deadline = Date.now() + PATIENCE_MS;
    try {
      for (;;) {
        try {
          await this.actions.answer(this.question.event.id, answer);
          announce("Your answer was sent");
          return;
        } catch (error) {
          const mayPass = error instanceof ApiError && (error.status === 0 || error.status === 503 || (error.status === 409 && /another process/.test(error.message)));
          if (!mayPass || Date.now() > deadline || !isOpenQuestion(this.question)) throw error;
          this.status.textContent = error.status === 409 ? "The server that was stopped still holds this conversation. Your answer is sent as soon as that ends, within half a minute." : "The server cannot be reached. Your answer is sent as soon as it can.";
          this.status.hidden = false;
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        }
      }
    } catch (error) {
      if (isOpenQuestion(this.question)) {
        this.problem.textContent = error.message;
        this.problem.hidden = false;
        for (const one of this.buttons) one.disabled = false;
        this.buttons[0].focus();
      }
    } finally {
      this.isSending = false;
      if (this.status) this.status.hidden = true;
    }
  }
}

// ------------------------------------------------------------------------------ closed

function closedQuestion(question, id) {
  const { event, answer } = question;
  const what = event.type === "approval_requested" ? event.name : event.type === "continue_requested" ? `limit of ${event.limit.replaceAll("_", " ")}` : event.message;
  const [mark, words] = outcomeWords(question);
  const summary = [icon(mark), h("span", { class: "closed-words" }, words, h("span", { class: "faint", dir: "auto" }, " \u00b7 ", visible(what)))];
  const details = closedDetails(question, answer);
  if (!details.length) return h("p", { class: "closed", id }, ...summary);
  return h("details", { class: "closed" }, h("summary", { id }, ...summary), ...details);
}

function outcomeWords({ event, state, answer, by, note }) {
  if (state === "withdrawn") return ["cross", "Not asked any more"];
  if (state === "declined") return ["cross", `Not answered: ${note}`];
  const whose = by === "reader" ? "" : by === "rule" ? ", by an earlier answer" : ", by the program";
  switch (answer?.type) {
    case "approve":
      return ["check", event.type === "continue_requested" ? "Continued" : `Approved${answer.always ? " for this conversation" : ""}${whose}`];
    case "deny":
      return ["cross", answer.reason ? `Denied${whose}: \u201c${answer.reason}\u201d` : `Denied${whose}`];
    case "accept":
      return ["check", event.url ? `Agreed${whose}` : `Answered${whose}`];
    case "decline":
      return ["cross", answer.note ? `Declined: ${answer.note}` : `Declined${whose}`];
    default:
      return ["cross", `Dismissed${whose}`];
  }
}

function closedDetails({ event, raw }, answer) {
  if (event.type === "approval_requested") return [argumentList(argumentsIn(raw))];
  if (answer?.type !== "accept" || event.url) return [];
  const labels = new Map(fieldsOf(event.form).map((field) => [field.name, field]));
  const rows = Object.entries(answer.content ?? {}).flatMap(([name, value]) => {
    const field = labels.get(name);
    const shown = (item) => String(field?.choices?.find((choice) => choice.value === item)?.title ?? (item === true ? "Yes" : item === false ? "No" : item));
    const words = Array.isArray(value) ? value.map(shown).join(", ") || "none" : shown(value);
    return [h("dt", { dir: "auto" }, visible(field?.label ?? name)), h("dd", { dir: "auto" }, visible(words))];
  });
  return rows.length ? [h("dl", { class: "arguments answers" }, ...rows)] : [];
}

