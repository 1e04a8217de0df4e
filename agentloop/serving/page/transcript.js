// Shows a conversation: a view for each node of its state. Changes are collected and shown once per frame.

import { button, copyButton, h, icon } from "./dom.js";
import { argumentSummary, argumentsFromText } from "./exact.js";
import { MarkdownView } from "./markdown.js";
import { QuestionView } from "./questions.js";
import { isOpenQuestion } from "./conversation.js";
import { amount, outgoing, plural, safeUrl, seconds, shorten, usageDetails, usageWords, visible, visibleText } from "./text.js";

const SHOWN_OUTPUT = 8_000;
const SHOWN_RESULT = 8_000;
const FRAME_MS = 10;
const SLOW_TEXT = 30_000;
const GROUP = 30;
const QUESTION_MARGIN = 72;

export class Transcript {
  constructor(element, scroll, actions) {
    this.element = element;
    this.scroll = scroll;
    this.actions = actions;
    this.dirty = new Set();
    this.isStuck = true;
    this.frame = 0;
    this.onShown = () => {};
    scroll.addEventListener("scroll", () => {
      this.isStuck = this.end() - scroll.scrollTop < 60;
      this.onShown();
    });
    // The height also changes without events: a picture is decoded, the window gets narrower.
    new ResizeObserver(() => this.stick()).observe(element);
  }

  show(conversation) {
    this.conversation = conversation;
    this.dirty.clear();
    this.element.replaceChildren();
    this.isStuck = true;
    this.changed(conversation);
  }

  changed(node) {
    this.dirty.add(node);
    this.frame ||= requestAnimationFrame(() => this.flush());
    // A tab in the background has no frames.
    if (document.hidden) this.timer ||= setTimeout(() => this.flush(), 500);
  }

  flush() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    this.frame = this.timer = 0;
    const deadline = performance.now() + FRAME_MS;
    for (const node of this.dirty) {
      this.dirty.delete(node);
      if (node === this.conversation) this.mountRuns();
      else if (node.view) node.view.update();
      if (performance.now() > deadline && this.dirty.size) {
        this.frame = requestAnimationFrame(() => this.flush());
        break;
      }
    }
    this.stick();
    this.onShown();
  }

  mountRuns() {
    for (const run of unmounted(this.conversation.runs)) {
      run.view = new RunView(run, this);
      this.element.append(run.view.element);
    }
  }

  /** Where the reader stands who follows: at the end, or at the beginning of a question that is longer than the window. */
  end() {
    const { scroll } = this;
    const bottom = scroll.scrollHeight - scroll.clientHeight;
    const question = this.conversation?.openQuestions.at(-1)?.view?.element;
    if (!question?.isConnected) return bottom;
    const top = question.getBoundingClientRect().top - scroll.getBoundingClientRect().top + scroll.scrollTop;
    return Math.min(bottom, top - QUESTION_MARGIN);
  }

  stick() {
    if (this.isStuck) this.scroll.scrollTop = this.end();
  }

  toEnd() {
    this.isStuck = true;
    this.stick();
  }
}

/** The nodes at the end of a list that have no view yet. */
function unmounted(nodes) {
  let first = nodes.length;
  while (first > 0 && !nodes[first - 1].view) first -= 1;
  return nodes.slice(first);
}

/** Shows the new blocks at the end of a list, in groups: the browser passes over a whole group that is out of sight. */
function mountBlocks(blocks, place, transcript) {
  for (const block of unmounted(blocks)) {
    block.view = viewOf(block, transcript);
    let group = place.lastElementChild;
    if (!group || group.childElementCount >= GROUP) {
      group = h("div", { class: "group" });
      place.append(group);
    }
    group.append(block.view.element);
  }
}

function viewOf(block, transcript) {
  switch (block.kind) {
    case "text":
      return new TextView(block, transcript);
    case "reasoning":
      return new ReasoningView(block);
    case "call":
      return new CallView(block, transcript);
    case "child":
      return new ChildView(block, transcript);
    case "question":
      return new QuestionView(block, transcript.actions);
    case "message":
      return new MessageView(block);
    default:
      return new NoteView(block);
  }
}

// ------------------------------------------------------------------------------ runs

class RunView {
  constructor(run, transcript) {
    this.run = run;
    this.transcript = transcript;
    const label = h("span", { class: "hidden", text: "You: " });
    this.prompt = run.promptNote ? h("p", { class: "note", text: run.promptNote }) : h("div", { class: "bubble" }, label, ...userParts(run.prompt.parts));
    this.promptActions = h("div", { class: "row-actions" });
    const avatar = h("span", { class: "avatar", "aria-hidden": "true", "data-hue": hueOf(run.agent), text: run.agent.slice(0, 1).toUpperCase() });
    this.blocks = h("div", { class: "blocks" });
    this.working = h("p", { class: "working" }, h("span", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i")), h("span", { class: "working-words" }));
    this.end = h("div", { class: "run-end" });
    this.pending = h("div", { class: "pending-place" });
    this.answer = h("div", { class: "answer" }, h("h2", { class: "speaker" }, avatar, h("span", { dir: "auto" }, visible(run.agent))), this.blocks, this.pending, this.working, this.end);
    this.element = h("article", { class: "run", "aria-label": `Message to ${run.agent}, and its answer` }, h("div", { class: "prompt" }, this.prompt, this.promptActions), this.answer);
    this.shownStatus = "";
    this.update();
  }

  update() {
    const { run } = this;
    mountBlocks(run.blocks, this.blocks, this.transcript);
    const isRunning = run.status === "running";
    this.working.hidden = !isRunning;
    if (isRunning) this.working.lastChild.textContent = workingWords(run);
    this.element.classList.toggle("is-running", isRunning);
    this.element.classList.toggle("is-paused", isRunning && run.isPaused);
    if (run.promptIndex !== null && run.promptIndex >= 0 && !this.promptActions.firstChild) {
      const text = userText(run.prompt.parts);
      this.promptActions.append(
        copyButton("Copy this message", () => text),
        button("Edit this message in a copy of the conversation", { icon: "pencil", iconOnly: true, onclick: () => this.transcript.actions.editFrom(run.promptIndex, text) }),
      );
    }
    this.showPending();
    const status = `${run.status} ${run.isGivenUp} ${isRunning ? "" : run.usage.requests}`;
    if (status !== this.shownStatus) {
      this.shownStatus = status;
      this.end.replaceChildren(...(isRunning ? [] : this.ending()));
    }
  }

  showPending() {
    // Messages of this tab that the agent has not read yet.
    const { run } = this;
    const texts = run.pending;
    const shown = `${run.status} ${texts.join(" ")}`;
    if (shown === this.shownPending) return;
    this.shownPending = shown;
    const words = run.status === "running" ? "not read yet" : "not read: the run ended first";
    this.pending.replaceChildren(...texts.map((text) => h("div", { class: "prompt prompt-between pending" }, h("div", { class: "bubble" }, longText(text, "bubble-text")), h("p", { class: "pending-words", text: words }))));
  }

  ending() {
    const { run } = this;
    const nodes = [];
    const words = endWords(run);
    if (words) nodes.push(h("p", { class: `outcome outcome-${run.status}`, dir: "auto" }, icon(run.status === "failed" ? "alert" : "stop"), h("span", {}, visible(words))));
    const isLeftOpen = run.status === "interrupted" || run.status === "needs_input";
    if (isLeftOpen && !run.isGivenUp && !run.conversation.openQuestions.length) nodes.push(button("Continue the run", { onclick: () => this.transcript.actions.resume() }));
    const usage = usageWords(run.usage);
    const text = run.blocks.filter((block) => block.kind === "text").map((block) => block.text).join("\n\n");
    const actions = h("div", { class: "row-actions" });
    if (text) actions.append(copyButton("Copy the whole answer", () => text));
    if (usage) actions.append(h("span", { class: "usage", title: usageDetails(run.usage), text: usage }));
    nodes.push(actions);
    return nodes;
  }
}

function workingWords(run) {
  if (run.isPaused) return "Paused";
  if (run.conversation.openQuestions.length) return "Waits for you";
  const last = run.blocks.at(-1);
  if (last?.kind === "call" && (last.status === "running" || last.status === "writing")) return "";
  return last?.kind === "text" && run.text ? "" : "Thinking";
}

function endWords({ status, detail, error, conversation, isGivenUp, isPaused }) {
  if (isGivenUp) return "Not finished: the conversation went on with the next message";
  switch (status) {
    case "completed":
      return detail;
    case "cancelled":
      return detail && detail !== "stopped by the user" ? `Stopped: ${detail}` : "Stopped";
    case "failed":
      return `Failed: ${error?.message ?? detail}`;
    case "blocked":
      return `Blocked: ${detail}`;
    case "limit":
      return `Ended at a limit: ${detail}`;
    case "interrupted":
      return conversation.openQuestions.length ? "" : "The server was stopped in the middle of this. The run continues here by itself.";
    case "needs_input":
      return isPaused && !conversation.openQuestions.length ? "Paused for long, so the run was put away. It continues when you say so." : "";
    default:
      return `${status} ${detail}`;
  }
}

/** A colour for an agent, the same each time. */
export function hueOf(name) {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) % 997;
  return sum % 6;
}

const userText = (parts) => parts.filter((part) => part.type === "text").map((part) => part.text).join("\n");

function userParts(parts) {
  return parts.map((part) => (part.type === "text" ? longText(part.text, "bubble-text") : mediaNode(part)));
}

function longText(text, kind) {
  const element = h("div", { class: kind, dir: "auto" });
  const limit = 4000;
  if (text.length <= limit) {
    element.textContent = text;
    return element;
  }
  const more = button(`Show all ${amount(text.length)} characters`, { kind: "quiet" });
  more.addEventListener("click", () => element.replaceChildren(text));
  element.append(`${text.slice(0, limit)}\u2026 `, more);
  return element;
}

const PICTURES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);

function mediaNode(part) {
  if (part.type === "image" && part.data && PICTURES.has(part.media_type ?? "image/png")) {
    return h("img", { class: "picture", src: `data:${part.media_type ?? "image/png"};base64,${part.data}`, alt: "Picture in the message" });
  }
  const name = part.name ?? part.type;
  const url = part.url ? safeUrl(part.url) : null;
  return h("p", { class: "attachment" }, icon("form"), url ? outgoing(url, visible(name === part.type ? url.href : name)) : h("span", {}, visible(name)));
}

class ChildView {
  constructor(child, transcript) {
    this.child = child;
    this.transcript = transcript;
    this.title = h("span", { class: "child-title" });
    this.facts = h("span", { class: "faint" });
    this.blocks = h("div", { class: "blocks" });
    const avatar = h("span", { class: "avatar avatar-small", "aria-hidden": "true", "data-hue": hueOf(child.agent), text: child.agent.slice(0, 1).toUpperCase() });
    const prompt = userText(child.prompt.parts);
    this.element = h(
      "details",
      { class: "child" },
      h("summary", {}, icon("chevron"), avatar, h("span", { class: "child-name", dir: "auto" }, visible(child.agent)), this.facts),
      prompt ? h("details", { class: "child-prompt" }, h("summary", { text: "What it was asked" }), longText(prompt, "plain-text")) : "",
      this.blocks,
    );
    this.element.open = true;
    this.element.firstChild.addEventListener("click", () => {
      this.isSetByPerson = true;
    });
    this.update();
  }

  update() {
    const { child } = this;
    const isRunning = child.status === "running";
    const hasQuestion = child.blocks.some((block) => block.kind === "question" && isOpenQuestion(block));
    // Open while it happens, and closed once its answer is in the result of the call.
    if (!this.isSetByPerson) this.element.open = isRunning || hasQuestion || child.status === "needs_input";
    mountBlocks(child.blocks, this.blocks, this.transcript);
    const words = isRunning ? (child.isPaused ? "is paused" : "works") : child.status === "completed" ? "" : endWords(child) || "waits";
    const ended = child.call && child.call.status !== "running" && isRunning ? "works in the background" : words;
    this.facts.textContent = [visibleText(ended), usageWords(child.usage)].filter(Boolean).join(" \u00b7 ");
    this.element.classList.toggle("is-running", isRunning);
  }
}

// ----------------------------------------------------------------------------- texts

class TextView {
  constructor(block, transcript) {
    this.block = block;
    this.transcript = transcript;
    this.element = h("div", { class: "text" });
    this.markdown = new MarkdownView(this.element);
    this.shownAt = 0;
    this.update();
  }

  update() {
    const { block } = this;
    const now = performance.now();
    const growing = block.text.length - this.markdown.done;
    // The last block of a text is made again each time: less often, the longer it is.
    if (growing > SLOW_TEXT && !block.isCommitted && now - this.shownAt < growing / 100) {
      this.timer ||= setTimeout(() => {
        this.timer = 0;
        this.transcript.changed(block);
      }, growing / 100);
      return;
    }
    this.shownAt = now;
    this.markdown.update(block.text);
  }
}

class ReasoningView {
  constructor(block) {
    this.block = block;
    this.words = h("div", { class: "plain-text", dir: "auto" });
    this.element = h("details", { class: "reasoning" }, h("summary", {}, icon("chevron"), "Reasoning"), this.words);
    this.element.addEventListener("toggle", () => this.update());
    this.update();
  }

  update() {
    if (this.element.open) this.words.textContent = this.block.text;
  }
}

class MessageView {
  constructor({ message }) {
    this.element = h("div", { class: "prompt prompt-between" }, h("div", { class: "bubble" }, h("span", { class: "hidden", text: "You, meanwhile: " }), ...userParts(message.parts)));
  }

  update() {}
}

class NoteView {
  constructor(note) {
    this.element = h("p", { class: `note note-${note.level}`, dir: "auto" }, icon(note.level === "warning" ? "alert" : "clock"), h("span", {}, visible(note.text)));
  }

  update() {}
}

// ----------------------------------------------------------------------------- calls

const STATUS = {
  writing: ["", "is being written"],
  running: ["", "runs"],
  ok: ["check", "done"],
  error: ["alert", "failed"],
  denied: ["cross", "denied"],
  timeout: ["clock", "timed out"],
  interrupted: ["stop", "interrupted"],
  parked: ["clock", "waits"],
};

class CallView {
  constructor(call, transcript) {
    this.call = call;
    this.transcript = transcript;
    this.mark = h("span", { class: "call-mark" });
    this.name = h("code", { class: "call-title", dir: "ltr" }, visible(call.name));
    this.summary = h("span", { class: "call-summary", dir: "ltr" });
    this.facts = h("span", { class: "call-facts" });
    this.head = h("summary", {}, this.mark, this.name, this.summary, this.facts, icon("chevron"));
    this.details = h("div", { class: "call-details" });
    this.box = h("details", { class: "call-box" }, this.head, this.details);
    this.box.addEventListener("toggle", () => this.showDetails());
    this.bar = h("progress", { class: "call-progress", hidden: true, "aria-label": `Progress of ${call.name}` });
    this.live = h("pre", { class: "call-live", hidden: true, dir: "ltr" });
    this.children = h("div", { class: "children", hidden: true });
    this.element = h("div", { class: "call" }, this.box, this.bar, this.live, this.children);
    this.shown = {};
    this.update();
  }

  update() {
    const { call, shown } = this;
    if (shown.status !== call.status) {
      shown.status = call.status;
      const [name, words] = STATUS[call.status] ?? ["", call.status];
      this.mark.replaceChildren(name ? icon(name) : h("span", { class: "spinner" }), h("span", { class: "hidden", text: `${words}: ` }));
      this.element.className = `call call-${call.status}`;
    }
    if (shown.arguments !== call.arguments) {
      shown.arguments = call.arguments;
      const whole = call.arguments.length > 4000 ? call.arguments.slice(0, 4000) : call.arguments;
      this.summary.replaceChildren(visible(shorten(argumentSummary(whole), 120)));
    }
    this.facts.textContent = this.factWords();
    this.showProgress();
    for (const child of unmounted(call.children)) {
      child.view = new ChildView(child, this.transcript);
      this.children.append(child.view.element);
      this.children.hidden = false;
    }
    if (this.box.open) this.showDetails();
  }

  factWords() {
    const { call } = this;
    if (call.result) return call.status === "ok" ? seconds(call.elapsed) : `${STATUS[call.status]?.[1] ?? call.status} \u00b7 ${seconds(call.elapsed)}`;
    if (call.progress && call.status === "running") {
      const { done, total, message } = call.progress;
      return message ? visibleText(shorten(message, 60)) : total ? `${Math.round((100 * done) / total)} %` : amount(done);
    }
    return call.status === "parked" ? "waits" : "";
  }

  showProgress() {
    const { call } = this;
    const isRunning = call.status === "running";
    this.bar.hidden = !(isRunning && call.progress);
    if (!this.bar.hidden) {
      if (call.progress.total) {
        this.bar.max = call.progress.total;
        this.bar.value = call.progress.done;
      } else {
        this.bar.removeAttribute("value");
      }
    }
    // The last lines while it runs; all of it is in the details.
    this.live.hidden = !(isRunning && call.output && !this.box.open);
    if (!this.live.hidden) this.live.replaceChildren(visible(call.output.slice(-1000).trimEnd().split("\n").slice(-4).join("\n")));
  }

  showDetails() {
    const { call } = this;
    if (!this.box.open) {
      this.details.replaceChildren();
      this.shown.details = "";
      this.showProgress();
      return;
    }
    const signature = `${call.arguments.length} ${call.outputLength} ${call.status}`;
    if (this.shown.details === signature) return;
    this.shown.details = signature;
    this.live.hidden = true;
    const copy = copyButton("Copy the arguments", () => call.arguments);
    const parts = [detail("Arguments", argumentsFromText(call.arguments), copy)];
    if (call.output) parts.push(detail("Output", longPre(call.output, SHOWN_OUTPUT, "end"), copyButton("Copy the output", () => call.output)));
    if (call.result) {
      const text = userText(call.result.parts);
      const media = call.result.parts.filter((part) => part.type !== "text").map(mediaNode);
      const label = call.status === "ok" ? "Result" : `Result: ${STATUS[call.status]?.[1] ?? call.status}`;
      parts.push(detail(label, h("div", {}, text ? longPre(text, SHOWN_RESULT, "start") : "", ...media, text || media.length ? "" : h("p", { class: "faint", text: "nothing" })), copyButton("Copy the result", () => text)));
    }
    if (call.error && call.error.message !== userText(call.result?.parts ?? [])) {
      parts.push(detail(`Error: ${call.error.type}`, longPre(call.error.message, SHOWN_RESULT, "start")));
    }
    this.details.replaceChildren(...parts);
  }
}

function detail(label, content, copy) {
  return h("section", { class: "detail", "aria-label": label }, h("div", { class: "detail-head" }, h("p", { text: label }), copy ?? ""), content);
}

/** A long text, of which the end (of a log) or the start is shown until a person asks for all. */
function longPre(text, limit, side) {
  const pre = h("pre", { class: "value log", dir: "ltr", tabindex: "0" });
  if (text.length <= limit) {
    pre.append(visible(text));
    return pre;
  }
  const cut = side === "end" ? text.slice(-limit) : text.slice(0, limit);
  pre.append(visible(cut));
  const more = button(`Show all ${plural(text.split("\n").length, "line")}`, { kind: "quiet" });
  more.addEventListener("click", () => {
    pre.replaceChildren(visible(text));
    more.remove();
  });
  return h("div", {}, ...(side === "end" ? [more, pre] : [pre, more]));
}
