// The list of chats: search, rename, download, delete. It does not know what is in a chat.

import * as api from "./api.js";
import { note, question } from "./dialogs.js";
import { byId, icon, iconButton, make } from "./dom.js";
import { download } from "./download.js";
import { t } from "./i18n.js";

const SEARCH_AFTER_MS = 250;
const DAY_MS = 86_400_000;

export class Sidebar {
  /** `told.open(uid)`, `told.renamed(uid, title)`, `told.deleted(uid)`. */
  constructor(told) {
    this.told = told;
    this.chats = [];
    this.hasMore = false;
    this.openUid = null;
    byId("search").addEventListener("input", () => this.searchSoon());
    byId("more-chats").addEventListener("click", () => this.loadMore());
    document.addEventListener("click", (event) => this.closeMenus(event.target));
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.closeMenus(null));
  }

  get search() {
    return byId("search").value.trim();
  }

  searchSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), SEARCH_AFTER_MS);
  }

  /** The newest chats; as many as are shown, at least one page. */
  async load() {
    const asked = (this.asked = (this.asked || 0) + 1);
    const page = await api.listChats(this.search, "", Math.min(100, Math.max(40, this.chats.length))).catch(() => null);
    if (!page || asked !== this.asked) return;
    this.chats = page.data;
    this.hasMore = page.has_more;
    this.after = page.last_id;
    this.show();
  }

  async loadMore() {
    const page = await api.listChats(this.search, this.after);
    const known = new Set(this.chats.map((chat) => chat.id));
    this.chats.push(...page.data.filter((chat) => !known.has(chat.id)));
    this.hasMore = page.has_more;
    this.after = page.last_id;
    this.show();
  }

  setOpen(uid) {
    this.openUid = uid;
    this.show();
  }

  show() {
    const groups = new Map();
    for (const chat of this.chats) {
      const name = ageOf(chat.updated_at);
      groups.set(name, [...(groups.get(name) || []), chat]);
    }
    const sections = [...groups].map(([name, chats]) => section(t(name), chats.map((chat) => this.row(chat))));
    const nothing = make("p", { class: "empty", text: t(this.search ? "nothing_found" : "no_chats") });
    byId("chat-list").replaceChildren(...(sections.length ? sections : [nothing]));
    byId("more-chats").hidden = !this.hasMore;
  }

  row(chat) {
    const title = chat.title || t("new_chat");
    const isOpen = chat.id === this.openUid;
    const link = make("a", { href: `#${chat.id}`, text: title, title, dir: "auto", "aria-current": isOpen ? "page" : null });
    const label = t("chat_actions", { title });
    const more = iconButton("more", label, (event) => this.toggleMenu(event.currentTarget, chat), { "aria-expanded": "false", "aria-haspopup": "true" });
    return make("li", { class: isOpen ? "open" : "" }, link, more);
  }

  toggleMenu(button, chat) {
    const isOpen = button.getAttribute("aria-expanded") === "true";
    this.closeMenus(null);
    if (isOpen) return;
    button.setAttribute("aria-expanded", "true");
    const title = chat.title || t("new_chat");
    const menu = make(
      "div",
      { class: "menu" },
      item("edit", "rename", () => this.rename(chat)),
      item("download", "download_markdown", () => this.download(chat, "md")),
      item("download", "download_json", () => this.download(chat, "json")),
      item("trash", "delete", () => this.remove(chat, title), "danger"),
    );
    button.after(menu);
    menu.firstElementChild.focus();
  }

  closeMenus(target) {
    for (const button of document.querySelectorAll('#chat-list [aria-expanded="true"]')) {
      if (button.contains(target)) continue;
      if (target === null && button.nextElementSibling?.contains(document.activeElement)) button.focus();
      button.setAttribute("aria-expanded", "false");
      button.nextElementSibling?.remove();
    }
  }

  async rename(chat) {
    const title = await question(t("rename_question"), t("save"), chat.title);
    if (!title) return;
    await this.ask(() => api.changeChat(chat.id, { title }));
    this.told.renamed(chat.id, title);
    await this.load();
  }

  async remove(chat, title) {
    if (!(await question(t("delete_question", { title }), t("delete"), null, true))) return;
    await this.ask(() => api.deleteChat(chat.id));
    this.told.deleted(chat.id);
    await this.load();
  }

  download(chat, form) {
    return this.ask(async () => download(await api.readChat(chat.id), form));
  }

  async ask(request) {
    try {
      await request();
    } catch (error) {
      note(error.status === 404 ? t("gone") : error.message);
    }
  }
}

function section(name, rows) {
  return make("section", {}, make("h2", { text: name }), make("ul", {}, ...rows));
}

function item(iconName, key, click, className = "") {
  return make("button", { type: "button", class: `quiet ${className}`, on: { click } }, icon(iconName), t(key));
}

/** The key of the heading under which a chat stands. */
function ageOf(seconds) {
  const today = new Date().setHours(0, 0, 0, 0);
  const age = today - seconds * 1000;
  if (age <= 0) return "today";
  if (age <= DAY_MS) return "yesterday";
  if (age <= 7 * DAY_MS) return "week";
  return age <= 30 * DAY_MS ? "month" : "earlier";
}
