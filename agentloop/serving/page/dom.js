// Small helpers that make DOM nodes. All text goes in as text: nothing in this page parses markup.

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  menu: ["M4 7h16", "M4 12h16", "M4 17h16"],
  close: ["M6 6l12 12", "M18 6L6 18"],
  plus: ["M12 5v14", "M5 12h14"],
  send: ["M12 19V5", "M5.5 11.5L12 5l6.5 6.5"],
  stop: ["M7 7h10v10H7z"],
  pause: ["M8 6v12", "M16 6v12"],
  play: ["M8 5l11 7-11 7z"],
  down: ["M12 5v14", "M5.5 12.5L12 19l6.5-6.5"],
  copy: ["M9 9h10v11H9z", "M15 9V5H5v11h4"],
  check: ["M5 12.5l4.5 4.5L19 7.5"],
  cross: ["M7 7l10 10", "M17 7L7 17"],
  pencil: ["M5 19l1-4L16 5l3 3L9 18z"],
  fork: ["M7 4v16", "M7 14c0-4 10-2 10-8", "M14.5 7.5L17 5l2.5 2.5"],
  trash: ["M5 7h14", "M9 7V4.5h6V7", "M7 7l1 13h8l1-13"],
  chart: ["M4 6h9", "M8 12h11", "M6 18h7"],
  tool: ["M14.5 6.5a4 4 0 0 1 5-1l-2.5 2.5 1.5 2 2.3-2.6a4 4 0 0 1-5.6 4.7L8 19.300a2 2 0 0 1-2.800-2.800L12.400 9.300a4 4 0 0 1 2.100-2.800z"],
  hand: ["M12 3l8 3v6c0 4.500-3.200 7.700-8 9-4.800-1.300-8-4.500-8-9V6z", "M12 8v5", "M12 16v.2"],
  form: ["M6 4h12v16H6z", "M9 9h6", "M9 13h6", "M9 17h3"],
  link: ["M10 14l9-9", "M13 5h6v6", "M18 14v5H5V6h5"],
  clock: ["M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16z", "M12 8v4.500l3 2"],
  alert: ["M12 4l9 16H3z", "M12 10v4.500", "M12 17v.2"],
  chevron: ["M9 6l6 6-6 6"],
};

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  for (const line of ICONS[name] ?? []) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", line);
    svg.append(path);
  }
  return svg;
}

export function button(label, { icon: name, kind = "plain", iconOnly = false, onclick, ...rest } = {}) {
  const made = h("button", { type: "button", class: iconOnly ? "icon-button" : `${kind}-button`, onclick, ...rest });
  if (name) made.append(icon(name));
  if (iconOnly) {
    made.setAttribute("aria-label", label);
    made.title = label;
  } else {
    made.append(label);
  }
  return made;
}

export const byId = (id) => document.getElementById(id);

let counter = 0;
export const newId = (prefix) => `${prefix}-${(counter += 1)}`;

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https, a browser has no clipboard but this one.
    const area = h("textarea", { class: "hidden", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

export function copyButton(label, textOf) {
  const made = button(label, { icon: "copy", iconOnly: true, class: "icon-button copy-button" });
  made.addEventListener("click", async () => {
    await copyText(textOf());
    made.replaceChildren(icon("check"));
    announce("Copied");
    setTimeout(() => made.replaceChildren(icon("copy")), 1500);
  });
  return made;
}

export function announce(text) {
  // One region for all of the page: a screen reader hears of events, and not of each word of an answer.
  byId("announcer").textContent = text;
}

export function isModified(event) {
  return event.shiftKey || event.altKey || event.ctrlKey || event.metaKey || event.isComposing || event.keyCode === 229;
}
