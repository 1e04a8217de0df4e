// Markdown as DOM nodes. Every piece of the text becomes a text node; markup in it stays what it is, text.

import { copyButton, h } from "./dom.js";
import { outgoing, safeUrl, visibleText } from "./text.js";

const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*([^`\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( {1,4}|\t|$)/;
const DELIMITER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const DEEPEST = 12;

// ------------------------------------------------------------------------------ blocks

/** The blocks of `text`, each with the offset at which it begins. */
function blocksOf(text, depth = 0) {
  const lines = text.split("\n");
  const offsets = [];
  let offset = 0;
  for (const line of lines) {
    offsets.push(offset);
    offset += line.length + 1;
  }
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const start = offsets[at];
    const [block, end] = blockAt(lines, at, depth);
    blocks.push({ ...block, start });
    at = end;
  }
  return blocks;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return fenceAt(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [{ kind: "heading", level: heading[1].length, text: heading[2] ?? "" }, at + 1];
  if (RULE.test(line)) return [{ kind: "rule" }, at + 1];
  if (depth < DEEPEST) {
    if (QUOTE.test(line)) return quoteAt(lines, at, depth);
    if (ITEM.test(line)) return listAt(lines, at, depth);
  }
  if (line.includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && DELIMITER.test(lines[at + 1])) {
    const columns = cellsOf(line);
    if (columns.length === cellsOf(lines[at + 1]).length) return tableAt(lines, at, columns);
  }
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !interrupts(lines[end])) end += 1;
  return [{ kind: "paragraph", text: lines.slice(at, end).join("\n").trim() }, end];
}

function interrupts(line) {
  const item = ITEM.exec(line);
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || (item && (!/\d/.test(item[2]) || item[2].startsWith("1")));
}

function fenceAt(lines, at, [, indent, mark, info]) {
  const closing = new RegExp(`^ {0,3}${mark[0]}{${mark.length},}[ \\t]*$`);
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  const inside = lines.slice(at + 1, end).map((line) => (indent && line.startsWith(indent) ? line.slice(indent.length) : line));
  return [{ kind: "code", language: info.trim().split(/\s/)[0], text: inside.join("\n") }, Math.min(end + 1, lines.length)];
}

function quoteAt(lines, at, depth) {
  const inside = [];
  let end = at;
  while (end < lines.length && (QUOTE.test(lines[end]) || (lines[end].trim() && !interrupts(lines[end])))) {
    inside.push(lines[end].replace(QUOTE, ""));
    end += 1;
  }
  return [{ kind: "quote", blocks: blocksOf(inside.join("\n"), depth + 1) }, end];
}

function listAt(lines, at, depth) {
  const first = ITEM.exec(lines[at])[2];
  const isOrdered = /\d/.test(first);
  const isSame = (mark) => (isOrdered ? /\d/.test(mark) && mark.at(-1) === first.at(-1) : mark === first);
  const items = [];
  let end = at;
  let isLoose = false;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    if (!item || !isSame(item[2]) || RULE.test(lines[end])) break;
    const width = item[0].length + (item[3] === "" ? 1 : 0);
    const inside = [lines[end].slice(item[0].length)];
    end += 1;
    while (end < lines.length) {
      const line = lines[end];
      const indent = line.length - line.trimStart().length;
      if (!line.trim()) {
        let after = end + 1;
        while (after < lines.length && !lines[after].trim()) after += 1;
        const goesOn = after < lines.length && lines[after].length - lines[after].trimStart().length >= Math.min(width, 2) && !isItemHere(lines[after], isSame, item[1].length);
        if (!goesOn) break;
        inside.push("");
        end += 1;
      } else if (indent >= Math.min(width, 2) && !isItemHere(line, isSame, item[1].length)) {
        inside.push(line.slice(Math.min(indent, width)));
        end += 1;
      } else if (!ITEM.test(line) && !interrupts(line) && inside.at(-1) !== "") {
        inside.push(line.trimStart());
        end += 1;
      } else {
        break;
      }
    }
    items.push(blocksOf(inside.join("\n"), depth + 1));
    let after = end;
    while (after < lines.length && !lines[after].trim()) after += 1;
    const next = after < lines.length ? ITEM.exec(lines[after]) : null;
    if (after > end && next && isSame(next[2])) {
      isLoose = true;
      end = after;
    }
  }
  return [{ kind: "list", isOrdered, begin: isOrdered ? Number.parseInt(first, 10) : 1, items, isLoose }, Math.max(end, at + 1)];
}

function isItemHere(line, isSame, indent) {
  const item = ITEM.exec(line);
  return item !== null && isSame(item[2]) && item[1].length <= indent;
}

function cellsOf(line) {
  const inside = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inside.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function tableAt(lines, at, columns) {
  const sides = cellsOf(lines[at + 1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "end") : "start"));
  const rows = [];
  let end = at + 2;
  while (end < lines.length && lines[end].trim() && lines[end].includes("|")) {
    rows.push(cellsOf(lines[end]).slice(0, columns.length));
    end += 1;
  }
  return [{ kind: "table", columns, sides, rows }, end];
}

// ------------------------------------------------------------------------------- nodes

function nodeOf(block) {
  switch (block.kind) {
    case "heading":
      // The page's own headings are h1 and h2.
      return h(`h${Math.min(block.level + 2, 6)}`, { class: `heading-${block.level}`, dir: "auto" }, ...inline(block.text));
    case "rule":
      return h("hr");
    case "code":
      return codeBlock(block.text, block.language);
    case "quote":
      return h("blockquote", {}, ...block.blocks.map(nodeOf));
    case "list":
      return listNode(block);
    case "table":
      return tableNode(block);
    default:
      return h("p", { dir: "auto" }, ...inline(block.text));
  }
}

function listNode({ isOrdered, begin, items, isLoose }) {
  const list = h(isOrdered ? "ol" : "ul", isOrdered && begin !== 1 ? { start: begin } : {});
  for (const blocks of items) {
    const item = h("li", { dir: "auto" });
    for (const block of blocks) {
      if (block.kind === "paragraph" && !isLoose) {
        const task = /^\[([ xX])\] /.exec(block.text);
        if (task) item.append(h("span", { class: "task", text: task[1] === " " ? "\u2610 " : "\u2611 " }));
        item.append(...inline(task ? block.text.slice(4) : block.text));
      } else {
        item.append(nodeOf(block));
      }
    }
    list.append(item);
  }
  return list;
}

function tableNode({ columns, sides, rows }) {
  const head = h("tr", {}, ...columns.map((cell, column) => h("th", { scope: "col", class: `to-${sides[column]}`, dir: "auto" }, ...inline(cell))));
  const body = rows.map((row) => h("tr", {}, ...columns.map((_, column) => h("td", { class: `to-${sides[column]}`, dir: "auto" }, ...inline(row[column] ?? "")))));
  const table = h("table", {}, h("thead", {}, head), h("tbody", {}, ...body));
  return h("div", { class: "table-place", role: "group", "aria-label": "Table", tabindex: "0" }, table);
}

export function codeBlock(text, language = "") {
  const copy = copyButton("Copy the code", () => text);
  const head = h("figcaption", {}, h("span", { text: language || "text" }), copy);
  const code = h("pre", { tabindex: "0", dir: "ltr", "aria-label": language ? `Code in ${language}` : "Code" }, h("code", { text }));
  return h("figure", { class: "code" }, head, code);
}

// ------------------------------------------------------------------------------ inline

const SPECIAL = /[\\`*_~[!<\n]|https?:\/\//g;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const LINKS = new Set(["[", "!", "<", "h"]);
const WORD = /[\p{L}\p{N}]/u;

/** The nodes of a piece of text without blocks. */
export function inline(text, depth = 0, isInLink = false) {
  const nodes = [];
  let plain = "";
  let at = 0;
  // A mark that nothing closes from here on closes nothing later either: without this, a hostile text takes time in
  // the square of its length.
  const unclosed = new Set();
  const flush = () => {
    if (plain) nodes.push(document.createTextNode(plain));
    plain = "";
  };
  const put = (node, end) => {
    flush();
    nodes.push(node);
    at = end;
  };
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const found = SPECIAL.exec(text);
    if (!found) break;
    plain += text.slice(at, found.index);
    at = found.index;
    const mark = text[at];
    const span = depth < DEEPEST && !(isInLink && LINKS.has(mark)) ? spanAt(text, at, mark, depth, unclosed, isInLink) : null;
    if (span) {
      put(span[0], span[1]);
    } else if (mark === "\\" && PUNCTUATION.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
    } else if (mark === "\n") {
      if (plain.endsWith("  ") || plain.endsWith("\\")) {
        plain = plain.replace(/( +|\\)$/, "");
        put(h("br"), at + 1);
      } else {
        plain += "\n";
        at += 1;
      }
    } else {
      plain += found[0];
      at += found[0].length;
    }
  }
  plain += text.slice(at);
  flush();
  return nodes;
}

/** The node at `at`, and its end; nothing if the mark there stands for itself. */
function spanAt(text, at, mark, depth, unclosed, isInLink) {
  switch (mark) {
    case "`":
      return codeAt(text, at, unclosed);
    case "*":
    case "_":
    case "~":
      return emphasisAt(text, at, mark, depth, unclosed, isInLink);
    case "!":
      return text[at + 1] === "[" ? linkAt(text, at + 1, depth, unclosed, true) : null;
    case "[":
      return linkAt(text, at, depth, unclosed, false);
    case "<":
      return autolinkAt(text, at);
    case "h":
      return addressAt(text, at);
    default:
      return null;
  }
}

function codeAt(text, at, unclosed) {
  const mark = /^`+/.exec(text.slice(at, at + 50))[0];
  if (unclosed.has(mark)) return null;
  const closing = new RegExp(`(?<!\`)${mark}(?!\`)`, "g");
  closing.lastIndex = at + mark.length;
  const found = closing.exec(text);
  if (!found) {
    unclosed.add(mark);
    return null;
  }
  let inside = text.slice(at + mark.length, found.index).replaceAll("\n", " ");
  if (/^ .*[^ ].* $/.test(inside)) inside = inside.slice(1, -1);
  return [h("code", { dir: "ltr", text: inside }), found.index + mark.length];
}

function emphasisAt(text, at, mark, depth, unclosed, isInLink) {
  const isDouble = text[at + 1] === mark;
  if (mark === "~" && !isDouble) return null;
  const delimiter = isDouble ? mark + mark : mark;
  const begin = at + delimiter.length;
  const opens = text[begin] !== undefined && !/\s/.test(text[begin]) && !(mark === "_" && WORD.test(text[at - 1] ?? ""));
  if (!opens || unclosed.has(delimiter)) return null;
  for (let end = text.indexOf(delimiter, begin + 1); end !== -1; end = text.indexOf(delimiter, end + 1)) {
    if (/\s/.test(text[end - 1]) || text[end - 1] === "\\") continue;
    // The end of `**a**` is not that of `*a*`.
    if (!isDouble && (text[end + 1] === mark || text[end - 1] === mark)) {
      if (text[end + 1] === mark) end += 1;
      continue;
    }
    if (isDouble && text[end + 2] === mark) end += 1;
    const after = end + delimiter.length;
    if (mark === "_" && WORD.test(text[after] ?? "")) continue;
    const tag = mark === "~" ? "del" : isDouble ? "strong" : "em";
    return [h(tag, {}, ...inline(text.slice(begin, end), depth + 1, isInLink)), after];
  }
  unclosed.add(delimiter);
  return null;
}

function linkAt(text, at, depth, unclosed, isImage) {
  if (unclosed.has("](")) return null;
  let open = 0;
  let end = at;
  const last = Math.min(text.length, at + 2000);
  for (; end < last; end += 1) {
    if (text[end] === "\\") end += 1;
    else if (text[end] === "[") open += 1;
    else if (text[end] === "]" && (open -= 1) === 0) break;
  }
  if (text[end] !== "]" || text[end + 1] !== "(") {
    if (text.indexOf("](", at) === -1) unclosed.add("](");
    return null;
  }
  const target = /^\(\s*(?:<([^<>\n]*)>|([^\s()]*(?:\([^\s()]*\)[^\s()]*)*))(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/.exec(text.slice(end + 1, end + 4001));
  if (!target) return null;
  const address = target[1] ?? target[2] ?? "";
  const words = text.slice(at + 1, end);
  const url = safeUrl(address);
  const after = end + 1 + target[0].length;
  // No picture is loaded: its address would tell its server who reads this.
  const label = isImage ? [`Picture: ${words || address}`] : inline(words, depth + 1, true);
  if (!url) return [h("span", { class: "dead-link", title: `This link is not opened: ${visibleText(address)}` }, ...label), after];
  return [linkTo(url, label), after];
}

function linkTo(url, label) {
  const link = outgoing(url, ...label);
  const host = url.host.toLowerCase();
  const claimed = /\b(?:[a-z0-9-]+\.)+[a-z]{2,}\b/i.exec(link.textContent);
  if (host && claimed && !host.endsWith(claimed[0].toLowerCase())) {
    // Words that name one site, and an address of another.
    return h("span", {}, link, h("span", { class: "true-host", text: ` (${host})` }));
  }
  return link;
}

function autolinkAt(text, at) {
  const found = /^<([A-Za-z][A-Za-z0-9+.-]*:[^\s<>]*)>/.exec(text.slice(at, at + 2000));
  const url = found && safeUrl(found[1]);
  return url ? [linkTo(url, [found[1]]), at + found[0].length] : null;
}

function addressAt(text, at) {
  if (at > 0 && WORD.test(text[at - 1])) return null;
  const found = /^https?:\/\/[^\s<>"'`\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069]+/.exec(text.slice(at, at + 2000));
  if (!found) return null;
  let address = found[0].replace(/[.,;:!?*_~]+$/, "");
  while (address.endsWith(")") && address.split("(").length < address.split(")").length) address = address.slice(0, -1);
  const url = safeUrl(address);
  return url ? [linkTo(url, [address]), at + address.length] : null;
}

// ----------------------------------------------------------------------------- growing

const LONGEST = 200_000;

const showAllWords = (whole) => `Show all ${whole.length.toLocaleString("en")} characters`;

/** Shows a text that grows: blocks that are complete are made once, and only the last one is made again. */
export class MarkdownView {
  constructor(element) {
    this.element = element;
    this.whole = "";
    this.reset();
  }

  reset() {
    this.text = "";
    this.done = 0;
    this.tail = [];
    this.limit = LONGEST;
    this.element.replaceChildren();
  }

  update(whole) {
    if (!whole.startsWith(this.text.slice(0, 64)) || whole.length < this.text.length) {
      const limit = this.limit;
      this.reset();
      this.limit = limit;
    }
    const text = whole.length > this.limit ? whole.slice(0, this.limit) : whole;
    this.whole = whole;
    if (text === this.text && text.length < whole.length) {
      this.tail.at(-1).textContent = showAllWords(whole);
      return;
    }
    this.text = text;
    const rest = text.slice(this.done);
    const blocks = blocksOf(rest);
    for (const node of this.tail) node.remove();
    this.tail = [];
    const last = blocks.at(-1);
    for (const block of blocks) {
      const node = nodeOf(block);
      if (block === last) this.tail.push(node);
      this.element.append(node);
    }
    if (last) this.done += last.start;
    if (text.length < whole.length) {
      const more = h("button", { type: "button", class: "quiet-button", text: showAllWords(whole) });
      more.addEventListener("click", () => {
        this.reset();
        this.limit = Infinity;
        this.update(this.whole);
      });
      this.tail.push(more);
      this.element.append(more);
    }
  }
}
