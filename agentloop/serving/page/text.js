// Text from outside, shown so that two texts that differ also look different.

import { h } from "./dom.js";

// Control characters, overrides of the direction, and all that is a character and shows nothing.
const HIDDEN = /(?![\n\t ])[\p{Cc}\p{Cf}\p{Zs}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\u{e0100}-\u{e01ef}]/gu;
const HIDDEN_OR_MARK = new RegExp(`${HIDDEN.source}|\\p{M}`, "gu");

export function visible(text) {
  const fragment = document.createDocumentFragment();
  // A text that Unicode could spell in another way has its accents spelt out.
  const pattern = text.normalize("NFC") === text ? HIDDEN : HIDDEN_OR_MARK;
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    fragment.append(text.slice(end, match.index), codeOf(match[0]));
    end = match.index + match[0].length;
  }
  fragment.append(text.slice(end));
  return fragment;
}

function codeOf(character) {
  const code = `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  return h("span", { class: "code-point", title: `an invisible character: ${code}`, text: code });
}

export function visibleText(text) {
  return visible(text).textContent;
}

export function shorten(text, length) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > length ? `${line.slice(0, length - 1).trimEnd()}\u2026` : line;
}

export function amount(number) {
  return new Intl.NumberFormat("en").format(number);
}

export function plural(number, word) {
  return `${amount(number)} ${word}${number === 1 ? "" : "s"}`;
}

export function seconds(elapsed) {
  if (elapsed < 0.0995) return `${Math.max(1, Math.round(elapsed * 1000))} ms`;
  if (elapsed < 59.95) return `${elapsed.toFixed(1)} s`;
  const whole = Math.round(elapsed);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

export function usageWords(usage) {
  if (!usage || !usage.requests) return "";
  const tokens = usage.input_tokens + usage.output_tokens;
  const words = `${amount(tokens)} tokens`;
  if (!usage.cost) return words;
  const isWhole = usage.priced_requests === usage.requests;
  const cost = usage.cost < 1 ? String(Number(usage.cost.toPrecision(3))) : usage.cost.toFixed(2);
  return `${words} \u00b7 cost ${isWhole ? "" : "at least "}${cost}`;
}

/** How full the window of the model is: in short, and in full. Nothing where it is not known. */
export function windowWords(tokens, size) {
  if (!size || !tokens) return "";
  const percent = Math.min(100, Math.round((100 * tokens) / size));
  return `${percent || "under 1"} % of the window`;
}

export function windowDetails(tokens, size) {
  return size && tokens ? `The last request had ${amount(tokens)} of ${amount(size)} tokens, ${amount(Math.max(0, size - tokens))} are left` : "";
}

export function usageDetails(usage) {
  if (!usage || !usage.requests) return "";
  const parts = [
    `${amount(usage.input_tokens)} tokens read`,
    usage.cached_tokens ? `${amount(usage.cached_tokens)} of them from the cache` : "",
    `${amount(usage.output_tokens)} tokens written`,
    plural(usage.requests, "model response"),
    usage.estimated_requests ? `${amount(usage.estimated_requests)} of them estimated` : "",
  ];
  return parts.filter(Boolean).join(", ");
}

export function addUsage(sum, usage) {
  const fields = ["input_tokens", "output_tokens", "cached_tokens", "requests", "cost", "priced_requests", "estimated_requests"];
  for (const field of fields) sum[field] = (sum[field] ?? 0) + (usage[field] ?? 0);
  return sum;
}

export function whenWords(at, now = Date.now()) {
  const date = new Date(at * 1000);
  const age = (now - date) / 1000;
  if (age < 60) return "now";
  if (age < 3600) return `${Math.floor(age / 60)} min`;
  if (date.toDateString() === new Date(now).toDateString()) return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (age < 6 * 86400) return date.toLocaleDateString([], { weekday: "short" });
  return date.toLocaleDateString([], { day: "numeric", month: "short" });
}

export function safeUrl(text) {
  // The address of a link, if it is one that cannot run anything here; else nothing.
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  return ["http:", "https:", "mailto:"].includes(url.protocol) ? url : null;
}

export function outgoing(url, ...children) {
  return h("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow", title: url.href }, ...children);
}
