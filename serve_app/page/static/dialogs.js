// Questions, notes that pass, and what a screen reader is told.

import { byId, make } from "./dom.js";

const NOTE_MS = 5000;
const WARNING_MS = 15_000;

/** Asks for a text, or with `value` null just for a yes. The text (or true), or null. */
export function question(text, yes, value = null, isDangerous = false) {
  const dialog = byId("question");
  const answer = byId("answer");
  byId("question-text").textContent = text;
  byId("question-yes").textContent = yes;
  byId("question-yes").className = isDangerous ? "danger" : "primary";
  answer.hidden = value === null;
  answer.value = value ?? "";
  dialog.returnValue = "no";
  dialog.showModal();
  (value === null ? byId("question-no") : answer).focus();
  return new Promise((resolve) => {
    const end = () => {
      if (dialog.returnValue !== "yes") resolve(null);
      else resolve(value === null ? true : answer.value.trim());
    };
    dialog.addEventListener("close", end, { once: true });
  });
}

export function openDialogs() {
  byId("question-yes").value = "yes";
  byId("question-no").addEventListener("click", () => byId("question").close("no"));
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close("no"); // its backdrop: the form covers the rest
    });
  }
}

/** A line that goes away by itself, or when its returned function is called. */
export function note(text, staysUntilTold = false) {
  const line = make("div", { class: "note", text });
  byId("notes").append(line);
  const remove = () => line.remove();
  if (!staysUntilTold) setTimeout(remove, NOTE_MS);
  return remove;
}

/** Why something was not done. */
export function warn(text) {
  const line = make("div", { class: "note", role: "alert", text });
  byId("notes").append(line);
  setTimeout(() => line.remove(), WARNING_MS);
}

export function announce(text) {
  byId("announcer").textContent = text;
}
