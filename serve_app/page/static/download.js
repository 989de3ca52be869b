// A chat as a file: its active path as Markdown, or all that the server has of it as JSON.

import { make } from "./dom.js";
import { plainReply } from "./turn.js";

export function download(session, form) {
  const text = form === "json" ? asJson(session) : asMarkdown(session);
  const type = form === "json" ? "application/json" : "text/markdown";
  const url = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  make("a", { href: url, download: `${fileName(session)}.${form}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function asJson(session) {
  const drop = ({ html, ...turn }) => turn;
  return JSON.stringify({ ...session, turns: session.turns.map(drop), tree: session.tree.map(drop) }, null, 2);
}

function asMarkdown(session) {
  const parts = session.turns.map((turn) => `**${turn.user.trim()}**\n\n${plainReply(turn).trim()}${sources(turn)}\n`);
  return `# ${session.title || "MOSS"}\n\n${parts.join("\n---\n\n")}`;
}

function sources(turn) {
  const items = turn.plugin_calls.flatMap((call) => (Array.isArray(call.output) ? call.output.filter((item) => item.n) : []));
  return items.length ? `\n\n${items.map((item) => `[${item.n}]: ${item.title || ""} ${item.url || ""}`.trim()).join("\n")}` : "";
}

function fileName(session) {
  return (session.title || "MOSS").replace(/[^\p{L}\p{N} _-]+/gu, "_").trim().slice(0, 60) || "MOSS";
}
