// Plugin calls as steps that fold, and the citations that lead to them.

import { icon, make, outsideUrl } from "./dom.js";
import { t } from "./i18n.js";

// By the name that a call has in MOSS's Commands.
const KINDS = {
  Search: ["search", "plugin_web_search"],
  Calculate: ["calculator", "plugin_calculator"],
  Solve: ["solver", "plugin_equation_solver"],
  Text2Image: ["picture", "plugin_text_to_image"],
};

/** The step of `call`, and its pictures, which stand beside it: they are part of the answer. */
export function callStep(call, isOpen = false) {
  const [iconName, label] = KINDS[call.name] || ["plugin", null];
  const summary = make(
    "summary",
    {},
    icon(iconName),
    make("span", { class: "call-name", text: label ? t(label) : call.name }),
    make("code", { class: "call-argument", text: call.argument, dir: "auto" }),
    state(call),
  );
  const element = make("details", { class: "call", data: { state: call.state, name: call.name, call: call.id } }, summary, body(call));
  element.open = isOpen;
  const images = imagesOf(call);
  return { element, pictures: images.length ? pictures(images, call) : null };
}

function state(call) {
  if (call.state === "started") return make("span", { class: "call-state" }, make("span", { class: "pulse" }), t("plugin_running"));
  if (call.state === "failed") return make("span", { class: "call-state bad", text: t("plugin_failed") });
  return make("span", { class: "call-state", text: shortTime(call.ms) });
}

function shortTime(ms) {
  if (ms === undefined || ms === null) return "";
  return ms < 1000 ? `${Math.max(1, Math.round(ms))} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function body(call) {
  const list = make("dl", {}, make("dt", { text: t("argument") }), make("dd", { text: call.argument, dir: "auto" }));
  if (call.state === "started") return list;
  list.append(make("dt", { text: t("result") }), make("dd", {}, ...result(call)));
  return list;
}

function result(call) {
  const { output } = call;
  if (call.state === "failed" || output === null || output === undefined) return [t("no_result")];
  if (typeof output === "string") return [make("pre", { text: output, tabindex: 0 })];
  if (imagesOf(call).length) return [String(imagesOf(call).length)];
  return [make("ol", { class: "sources" }, ...output.map(source))];
}

function source(item) {
  const url = outsideUrl(item.url);
  const title = item.title || item.url || String(item.n);
  const head = url
    ? make("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow", text: title })
    : make("strong", { text: title });
  return make("li", { value: item.n, data: { n: item.n }, tabindex: -1 }, head, make("p", { text: item.snippet, dir: "auto" }));
}

function imagesOf(call) {
  return Array.isArray(call.output) ? call.output.filter((item) => item.media_type && /^\/v1\/images\/[0-9a-f]+$/.test(item.url)) : [];
}

function pictures(images, call) {
  const frame = make("div", { class: "pictures", data: { call: call.id } });
  for (const image of images) {
    const src = image.url.replace(/^\/+/, ""); // this server's, at its prefix
    frame.append(make("a", { href: src, target: "_blank", rel: "noopener" }, make("img", { src, alt: call.argument, loading: "lazy" })));
  }
  return frame;
}

/** Makes links of a block's citations: to the source's page, or to what the search had of it. */
export function linkCitations(block, calls) {
  const items = calls.flatMap(({ call, element }) =>
    Array.isArray(call.output) ? call.output.filter((item) => item.n).map((item) => ({ item, element })) : [],
  );
  for (const mark of block.querySelectorAll("sup.cite")) {
    const n = Number(mark.textContent);
    const found = items.find(({ item }) => item.n === n);
    if (found) mark.replaceChildren(citation(n, found));
  }
}

function citation(n, { item, element }) {
  const label = t("citation", { n, title: item.title || item.url });
  const url = outsideUrl(item.url);
  if (url) {
    return make("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow", title: label, "aria-label": label, text: String(n) });
  }
  const open = () => {
    const step = document.querySelector(`details.call[data-call="${CSS.escape(element.dataset.call)}"]`);
    step.open = true;
    step.querySelector(`[data-n="${n}"]`)?.focus();
  };
  return make("button", { type: "button", title: label, "aria-label": label, text: String(n), on: { click: open } });
}
