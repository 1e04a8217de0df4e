// Forms of questions: JSON Schema, as the server restricts it, as fields that a person fills in.

import { h, newId } from "./dom.js";
import { visible } from "./text.js";

const EMAIL = /^[^@\s]+@[^@\s]+$/;
const URI = /^[A-Za-z][A-Za-z0-9+.-]*:\S+$/;
const MANY_CHOICES = 6;

function withoutNull(declared) {
  // `T | null`, as some servers write it, is a T that may be left out.
  if (Array.isArray(declared.anyOf)) {
    const others = declared.anyOf.filter((option) => option.type !== "null");
    if (others.length === 1 && others.length < declared.anyOf.length) return { ...declared, anyOf: undefined, ...others[0] };
  }
  if (Array.isArray(declared.type)) return { ...declared, type: declared.type.find((type) => type !== "null") };
  return declared;
}

function choicesOf(schema) {
  const titled = schema.oneOf ?? schema.anyOf;
  if (Array.isArray(titled)) return titled.map((option) => ({ value: option.const, title: option.title ?? option.const }));
  if (Array.isArray(schema.enum)) return schema.enum.map((value, index) => ({ value, title: schema.enumNames?.[index] ?? value }));
  return null;
}

/** The fields of a form, in order. */
export function fieldsOf(form) {
  const required = new Set(form.required ?? []);
  return Object.entries(form.properties ?? {}).map(([name, declared]) => {
    const schema = withoutNull(declared);
    const choices = choicesOf(schema.type === "array" ? (schema.items ?? {}) : schema);
    const kind = schema.type === "array" ? "several" : choices ? "choice" : ["boolean", "integer", "number"].includes(schema.type) ? schema.type : "text";
    return {
      name,
      kind,
      choices,
      schema,
      label: schema.title || name.replaceAll("_", " "),
      description: schema.description ?? "",
      isRequired: required.has(name),
      default: schema.default ?? null,
    };
  });
}

/** What is wrong with `value`, in words for the person; empty if nothing is. */
export function problemOf(field, value) {
  const { schema } = field;
  if (value === null) return field.isRequired && field.default === null ? "Please fill this in." : "";
  switch (field.kind) {
    case "several": {
      const count = value.length;
      if (count < (schema.minItems ?? 0)) return `Choose at least ${schema.minItems}.`;
      if (count > (schema.maxItems ?? Infinity)) return `Choose at most ${schema.maxItems}.`;
      return "";
    }
    case "integer":
    case "number": {
      if (Number.isNaN(value)) return "This is not a number.";
      if (field.kind === "integer" && !Number.isInteger(value)) return "This is not a whole number.";
      if (field.kind === "integer" && !Number.isSafeInteger(value)) return "This number is too long.";
      const least = schema.minimum ?? -Infinity;
      const most = schema.maximum ?? Infinity;
      if (value < least || value > most) return `This should be ${boundWords(least, most)}.`;
      return "";
    }
    case "text": {
      const length = [...value].length;
      if (length < (schema.minLength ?? 0)) return `At least ${schema.minLength} characters, please.`;
      if (length > (schema.maxLength ?? Infinity)) return `At most ${schema.maxLength} characters, please: this has ${length}.`;
      if (schema.format === "email" && !EMAIL.test(value)) return "This is not an e-mail address.";
      if (schema.format === "uri" && !URI.test(value)) return "This is not an address such as https://example.com.";
      return "";
    }
    default:
      return "";
  }
}

function boundWords(least, most) {
  if (most === Infinity) return `${least} or more`;
  return least === -Infinity ? `${most} or less` : `from ${least} to ${most}`;
}

function hintOf(field) {
  const { schema } = field;
  if (field.kind === "integer" || field.kind === "number") {
    const bounds = schema.minimum !== undefined || schema.maximum !== undefined;
    if (bounds) return boundWords(schema.minimum ?? -Infinity, schema.maximum ?? Infinity);
    return field.kind === "integer" ? "a whole number" : "a number";
  }
  if (field.kind === "several" && (schema.minItems || schema.maxItems !== undefined)) {
    const { minItems = 0, maxItems } = schema;
    return maxItems === undefined ? `at least ${minItems}` : `${minItems} to ${maxItems}`;
  }
  return { email: "an e-mail address", uri: "an address such as https://example.com" }[schema.format] ?? "";
}

// ---------------------------------------------------------------------------- controls

function group(field, type, isChecked) {
  const name = newId("choice");
  const options = field.kind === "boolean" ? [{ value: true, title: "Yes" }, { value: false, title: "No" }] : field.choices;
  const inputs = options.map(({ value }) => {
    const input = h("input", { type, name, id: newId("option") });
    input.checked = isChecked(value);
    return input;
  });
  const items = options.map(({ title }, index) => h("label", { class: "option", for: inputs[index].id }, inputs[index], h("span", { dir: "auto" }, visible(String(title)))));
  return {
    element: h("div", { class: "options" }, ...items),
    inputs,
    chosen: () => options.filter((_, index) => inputs[index].checked).map(({ value }) => value),
  };
}

function controlFor(field) {
  const initial = field.default;
  if (field.kind === "several") {
    const made = group(field, "checkbox", (value) => Array.isArray(initial) && initial.includes(value));
    // Nothing chosen is an answer where the form has a default, or asks for no minimum.
    return { ...made, read: () => made.chosen(), isGroup: true };
  }
  if (field.kind === "boolean" || (field.kind === "choice" && field.choices.length <= MANY_CHOICES)) {
    const made = group(field, "radio", (value) => value === initial);
    return { ...made, read: () => made.chosen()[0] ?? null, isGroup: true };
  }
  if (field.kind === "choice") {
    const select = h("select", { id: newId("field") }, h("option", { value: "", text: field.isRequired ? "Choose one" : "\u2014" }));
    field.choices.forEach(({ value, title }, index) => {
      const option = h("option", { value: index }, visible(String(title)).textContent);
      option.selected = value === initial;
      select.append(option);
    });
    return { element: select, inputs: [select], read: () => (select.value === "" ? null : field.choices[Number(select.value)].value) };
  }
  return textControl(field, initial);
}

function textControl(field, initial) {
  const { schema } = field;
  const id = newId("field");
  const isNumber = field.kind === "integer" || field.kind === "number";
  const isTime = schema.format === "date-time";
  let input;
  if (field.kind === "text" && !schema.format && (schema.maxLength ?? 0) > 200) {
    input = h("textarea", { id, rows: 3, dir: "auto" });
  } else {
    const type = { email: "email", date: "date", "date-time": "datetime-local" }[schema.format] ?? "text";
    const mode = isNumber ? (field.kind === "integer" && (schema.minimum ?? -1) >= 0 ? "numeric" : "decimal") : undefined;
    input = h("input", { id, type, inputmode: mode, autocomplete: "off", step: isTime ? "any" : undefined, dir: type === "text" && !isNumber ? "auto" : undefined });
  }
  if (initial !== null) input.value = isTime ? localTime(initial) : String(initial);
  return {
    element: input,
    inputs: [input],
    read() {
      const text = isNumber || schema.format ? input.value.trim() : input.value;
      if (text === "") return null;
      if (isNumber) return /^[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text.replace(",", ".")) : NaN;
      return isTime ? withOffset(text) : text;
    },
  };
}

function localTime(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return "";
  return new Date(date - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function withOffset(text) {
  // The person means the time of the place that the browser is in.
  const minutes = -new Date(text).getTimezoneOffset();
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  const size = Math.abs(minutes);
  return `${text.length === 16 ? `${text}:00` : text}${minutes < 0 ? "-" : "+"}${two(size / 60)}:${two(size % 60)}`;
}

/** The fields of a form, as nodes; `read()` gives the content, or nothing after it has shown what is wrong. */
export function formFields(form) {
  const rows = fieldsOf(form).map((field) => {
    const control = controlFor(field);
    const problem = h("p", { class: "field-error", id: newId("problem"), hidden: true });
    const details = [field.description, hintOf(field)].filter(Boolean).join(" \u2013 ");
    const hint = details ? h("p", { class: "field-hint", id: newId("hint"), dir: "auto" }, visible(details)) : null;
    const label = [h("span", { dir: "auto" }, visible(field.label)), field.isRequired ? h("span", { class: "required", text: " (required)" }) : null].filter(Boolean);
    const described = [hint?.id, problem.id].filter(Boolean).join(" ");
    let row;
    if (control.isGroup) {
      row = h("fieldset", { class: "field", "aria-describedby": described }, h("legend", {}, ...label), ...(hint ? [hint] : []), control.element, problem);
    } else {
      control.inputs[0].setAttribute("aria-describedby", described);
      if (field.isRequired) control.inputs[0].setAttribute("aria-required", "true");
      row = h("div", { class: "field" }, h("label", { for: control.inputs[0].id }, ...label), ...(hint ? [hint] : []), control.element, problem);
    }
    return { field, control, problem, row };
  });

  function show(entry, words) {
    entry.problem.textContent = words;
    entry.problem.hidden = !words;
    entry.problem.classList.remove("is-solved");
    entry.row.classList.toggle("is-wrong", Boolean(words));
    for (const input of entry.control.inputs) {
      if (words) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
  }

  for (const entry of rows) {
    entry.row.addEventListener("change", () => {
      if (entry.problem.hidden) return;
      const words = problemOf(entry.field, entry.control.read());
      if (words) {
        show(entry, words);
      } else {
        // The line keeps its place: were the form to shrink while the mouse is down, the click would go elsewhere.
        const solved = entry.problem.textContent;
        show(entry, "");
        entry.problem.textContent = solved;
        entry.problem.hidden = false;
        entry.problem.classList.add("is-solved");
      }
    });
  }

  return {
    nodes: rows.map(({ row }) => row),
    read() {
      const content = {};
      let first = null;
      for (const entry of rows) {
        const value = entry.control.read();
        const words = problemOf(entry.field, value);
        show(entry, words);
        if (words) first ??= entry.control.inputs[0];
        else if (value !== null) content[entry.field.name] = value;
      }
      first?.focus();
      return first ? null : content;
    },
    disable(isDisabled) {
      for (const { control } of rows) for (const input of control.inputs) input.disabled = isDisabled;
    },
  };
}
