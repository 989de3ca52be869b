// Makes elements. Text is only ever set as text; the one place for HTML is `rendered` in turn.js.

const SVG = "http://www.w3.org/2000/svg";

// Strokes in a box of 24 by 24.
const ICONS = {
  plus: "M12 5v14M5 12h14",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M8 8h8v8H8z",
  down: "M12 5v14M6 13l6 6 6-6",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  copy: "M9 9h10v11H9zM5 15V4h10",
  check: "M5 13l4 4L19 7",
  edit: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  again: "M20 12a8 8 0 1 1-2.5-5.8M20 3v4.5h-4.5",
  like: "M7 11v9H4v-9zM7 11l4-7c1.5 0 2.5 1 2.2 2.6L12.7 10H18c1.3 0 2.2 1.200 1.900 2.500l-1.500 6c-.2.900-1 1.500-1.900 1.500H7",
  dislike: "M17 13V4h3v9zM17 13l-4 7c-1.500 0-2.500-1-2.200-2.600l.5-3.400H6c-1.300 0-2.200-1.200-1.900-2.500l1.500-6C5.800 4.600 6.600 4 7.500 4H17",
  bulb: "M9 18h6M10 21h4M12 3a6 6 0 0 0-3.500 10.900c.6.500 1 1.200 1 2.100h5c0-.9.400-1.600 1-2.100A6 6 0 0 0 12 3z",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16.500 16.500L21 21",
  calculator: "M6 3h12v18H6zM9 7h6M9 12h.01M12 12h.01M15 12h.01M9 16h.01M12 16h.01M15 16h.01",
  solver: "M4 8h7M7.500 4.500v7M14 6l5 5M19 6l-5 5M4 17h7M13 16h7M13 19h7",
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15 9h.01",
  plugin: "M9 3v5M15 3v5M6 8h12v4a6 6 0 0 1-12 0zM12 18v3",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.500v5M9 14.500v5",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  trash: "M5 7h14M10 4h4M7 7l1 13h8l1-13M10 11v5M14 11v5",
  warning: "M12 4l9 16H3zM12 10v4M12 17h.01",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.500 1.500M17.500 17.500L19 19M19 5l-1.500 1.500M6.500 17.500L5 19",
  moon: "M20 14A8 8 0 1 1 10 4a6.500 6.500 0 0 0 10 10z",
  system: "M4 5h16v11H4zM9 20h6M12 16v4",
};

export const byId = (id) => document.getElementById(id);

/** An element; `text`, `on` (listeners) and `data` are taken apart, other props are attributes. */
export function make(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  const { text, on = {}, data = {}, ...attributes } = props;
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  Object.assign(element.dataset, data);
  element.append(...children.filter((child) => child !== null));
  return element;
}

function setAttribute(element, name, value) {
  if (value === true) element.setAttribute(name, "");
  else if (value !== false && value !== null && value !== undefined) {
    element.setAttribute(name, value);
  }
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button that shows only an icon; `label` is its name and its tooltip. */
export function iconButton(name, label, click, props = {}) {
  return make(
    "button",
    { type: "button", class: "quiet icon-only", title: label, "aria-label": label, on: { click }, ...props },
    icon(name),
  );
}

/** Whether a key belongs to an input method, such as pinyin's. Safari says so by the code only. */
export const isComposing = (event) => event.isComposing || event.keyCode === 229;

/** Enter, but on touch screens, where nothing else breaks a line. */
export const sendsMessage = (event) => event.key === "Enter" && !event.shiftKey && matchMedia("(any-pointer: fine)").matches;

/** `url` if a browser may follow it to another site, else null. */
export function outsideUrl(url) {
  try {
    return ["http:", "https:"].includes(new URL(url).protocol) ? url : null;
  } catch {
    return null;
  }
}

/** Puts `text` into the clipboard, and a tick on `button` for a moment. */
export async function copyText(text, button) {
  await (navigator.clipboard ? navigator.clipboard.writeText(text) : copyOldStyle(text, button));
  if (button.dataset.copied) return;
  button.dataset.copied = "true";
  const before = button.firstChild;
  button.replaceChild(icon("check"), before);
  setTimeout(() => {
    button.replaceChild(before, button.firstChild);
    delete button.dataset.copied;
  }, 1200);
}

/** Without TLS, other hosts than loopback have no clipboard. */
function copyOldStyle(text, button) {
  const field = make("textarea", { class: "visually-hidden" });
  field.value = text;
  button.after(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  button.focus();
}
