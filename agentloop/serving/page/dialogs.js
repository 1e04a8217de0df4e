// Small dialogs: a question with two answers, and a line of text to edit.

import { button, h, newId } from "./dom.js";

function open(title, content, words, isDangerous) {
  return new Promise((resolve) => {
    const id = newId("dialog");
    let result = null;
    const accept = button(words, { kind: isDangerous ? "danger" : "main", type: "submit" });
    const cancel = button("Cancel", { onclick: () => dialog.close() });
    const form = h("form", { onsubmit: (event) => {
      event.preventDefault();
      result = true;
      dialog.close();
    } }, h("h2", { id, text: title }), ...content, h("div", { class: "buttons" }, accept, cancel));
    const dialog = h("dialog", { "aria-labelledby": id }, form);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result);
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("input") ?? (isDangerous ? cancel : accept)).focus();
    form.querySelector("input")?.select();
  });
}

export function confirm(title, text, words) {
  return open(title, [h("p", { text })], words, true);
}

export async function edit(title, label, value, words) {
  const input = h("input", { id: newId("edit"), type: "text", maxlength: 200, autocomplete: "off", dir: "auto" });
  input.value = value;
  const isDone = await open(title, [h("div", { class: "field" }, h("label", { for: input.id, text: label }), input)], words, false);
  return isDone ? input.value.trim() : null;
}
