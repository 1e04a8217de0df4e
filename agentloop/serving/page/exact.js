// JSON as it was written. `JSON.parse` would round long numbers, and a person approves what runs to the last digit.

import { h } from "./dom.js";
import { visible } from "./text.js";

export class NumberText {
  constructor(text) {
    this.text = text;
  }
}

class Members {
  constructor(entries) {
    this.entries = entries;
  }
}

const TOKEN = /\s*(?:("(?:[^"\\\u0000-\u001f]|\\.)*")|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(true|false|null)|([[\]{}:,]))/y;
const DEEPEST = 200;

/** The value of `text`; objects as `Members`, numbers as `NumberText`. Throws a SyntaxError. */
export function parseExact(text) {
  let position = 0;
  function next() {
    TOKEN.lastIndex = position;
    const match = TOKEN.exec(text);
    if (!match) throw new SyntaxError("not JSON");
    position = TOKEN.lastIndex;
    return match;
  }
  function peek(mark) {
    const before = position;
    const is = next()[4] === mark;
    if (!is) position = before;
    return is;
  }
  function expect(mark) {
    if (next()[4] !== mark) throw new SyntaxError(`expected ${mark}`);
  }
  function value(depth) {
    if (depth > DEEPEST) throw new SyntaxError("nested too deeply");
    const [, string, number, word, mark] = next();
    if (string !== undefined) return JSON.parse(string);
    if (number !== undefined) return new NumberText(number);
    if (word !== undefined) return JSON.parse(word);
    if (mark === "[") {
      const items = [];
      if (peek("]")) return items;
      do items.push(value(depth + 1));
      while (peek(","));
      expect("]");
      return items;
    }
    if (mark === "{") {
      const entries = [];
      if (peek("}")) return new Members(entries);
      do {
        const name = next()[1];
        if (name === undefined) throw new SyntaxError("expected a name");
        expect(":");
        entries.push([JSON.parse(name), value(depth + 1)]);
      } while (peek(","));
      expect("}");
      return new Members(entries);
    }
    throw new SyntaxError(`unexpected ${mark}`);
  }
  const parsed = value(0);
  if (text.slice(position).trim()) throw new SyntaxError("text after the value");
  return parsed;
}

/** The arguments of an approval, from the JSON text of its event. */
export function argumentsIn(eventText) {
  const parsed = parseExact(eventText);
  const found = parsed.entries.find(([name]) => name === "arguments");
  return found ? found[1] : new Members([]);
}

function written(value, indent = "") {
  const inner = `${indent}  `;
  if (value instanceof NumberText) return value.text;
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    return `[\n${value.map((item) => inner + written(item, inner)).join(",\n")}\n${indent}]`;
  }
  if (value instanceof Members) {
    if (!value.entries.length) return "{}";
    const lines = value.entries.map(([name, item]) => `${inner}${JSON.stringify(name)}: ${written(item, inner)}`);
    return `{\n${lines.join(",\n")}\n${indent}}`;
  }
  return JSON.stringify(value);
}

function isPlainText(text) {
  // A text that could be taken for another JSON value stands in quotes.
  if (!text.trim()) return false;
  if (!/^["[{\-\dtfn]/.test(text)) return true;
  try {
    JSON.parse(text);
    return false;
  } catch {
    return !text.startsWith('"');
  }
}

const EDGE = { " ": "space", "\n": "line break", "\t": "tab" };

/** A text as its lines, with marks for the white space at its ends, which could not be seen. */
function shownText(text) {
  const inside = text.trim();
  const begin = text.indexOf(inside);
  const marks = (part) => [...part].map((character) => (EDGE[character] ? h("span", { class: "code-point", text: EDGE[character] }) : visible(character)));
  return [...marks(text.slice(0, begin)), visible(inside), ...marks(text.slice(begin + inside.length))];
}

function shownValue(value) {
  const content = typeof value === "string" && isPlainText(value) ? shownText(value) : [visible(written(value))];
  return h("pre", { class: "value", dir: "ltr", tabindex: "0" }, ...content);
}

/** Arguments as a list of names and values; texts as they are, so that a person can read them. */
export function argumentList(value) {
  if (!(value instanceof Members)) return shownValue(value);
  if (!value.entries.length) return h("p", { class: "faint", text: "no arguments" });
  const rows = value.entries.flatMap(([name, item]) => [h("dt", { dir: "ltr" }, visible(name)), h("dd", {}, shownValue(item))]);
  return h("dl", { class: "arguments" }, ...rows);
}

/** Arguments as the model wrote them, which may be no JSON. */
export function argumentsFromText(text) {
  if (!text.trim()) return h("p", { class: "faint", text: "no arguments" });
  try {
    return argumentList(parseExact(text));
  } catch {
    return h("pre", { class: "value", dir: "ltr" }, visible(text));
  }
}

export function argumentSummary(text) {
  try {
    const value = parseExact(text);
    if (!(value instanceof Members)) return text;
    return value.entries.map(([name, item]) => (value.entries.length > 1 ? `${name}: ` : "") + (typeof item === "string" ? item : written(item))).join(", ");
  } catch {
    return text;
  }
}
