// The list of chats: search, rename, download, delete. It does not know what is in a chat.

import * as api from "./api.js";
import { question, warn } from "./dialogs.js";
import { byId, icon, iconButton, make } from "./dom.js";
import { download } from "./download.js";
import { errorText } from "./errors.js";
import { t } from "./i18n.js";

const SEARCH_AFTER_MS = 250;
const DAY_MS = 86_400_000;

export class Sidebar {
  /** `told.chosen()`, `told.renamed(uid, title)`, `told.deleted(uid)`. */
  constructor(told) {
    this.told = told;
    this.chats = [];
    this.hasMore = false;
    this.openUid = null;
    byId("search").addEventListener("input", () => this.searchSoon());
    byId("more-chats").addEventListener("click", () => this.loadMore());
    document.addEventListener("click", (event) => this.closeMenus(event.target));
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.closeMenus(null));
    for (const name of ["wheel", "touchmove"]) byId("chat-list").addEventListener(name, () => this.closeMenus(null), { passive: true });
    byId("chat-list").addEventListener("focusout", ({ relatedTarget }) => relatedTarget && this.closeMenus(relatedTarget));
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
    const known = new Set(page.data.map((chat) => chat.id));
    const older = this.search || !page.has_more ? [] : this.chats.filter((chat) => !known.has(chat.id));
    this.chats = [...page.data, ...older];
    this.hasMore = page.has_more;
    this.after = this.chats.at(-1)?.id;
    this.show();
  }

  async loadMore() {
    const { asked } = this;
    const page = await api.listChats(this.search, this.after).catch((error) => warn(errorText(error)));
    if (!page || asked !== this.asked) return;
    const known = new Set(this.chats.map((chat) => chat.id));
    this.chats.push(...page.data.filter((chat) => !known.has(chat.id)));
    this.hasMore = page.has_more;
    this.after = page.last_id;
    this.show();
  }

  setOpen(uid) {
    this.openUid = uid;
    for (const row of document.querySelectorAll("#chat-list li")) markOpen(row, row.dataset.chat === uid);
  }

  show() {
    if (document.querySelector("#chat-list .menu")) return; // not under the pointer
    const focused = document.activeElement?.closest("#chat-list li")?.dataset.chat;
    const isButton = document.activeElement?.tagName === "BUTTON";
    const groups = new Map();
    for (const chat of this.chats) {
      const name = ageOf(chat.updated_at);
      groups.set(name, [...(groups.get(name) || []), chat]);
    }
    const sections = [...groups].map(([name, chats]) => section(t(name), chats.map((chat) => this.row(chat))));
    const nothing = make("p", { class: "empty", text: t(this.hasMore ? "more_chats" : this.search ? "nothing_found" : "no_chats") });
    byId("chat-list").replaceChildren(...(sections.length ? sections : [nothing]));
    byId("more-chats").hidden = !this.hasMore;
    if (focused) this.focus(focused, isButton ? "button" : "a");
  }

  focus(uid, tag) {
    document.querySelector(`#chat-list [data-chat="${CSS.escape(uid)}"] > ${tag}`)?.focus();
  }

  row(chat) {
    const title = chat.title || t("new_chat");
    const link = make("a", { href: `#${chat.id}`, text: title, title, dir: "auto", on: { click: () => this.told.chosen() } });
    const label = t("chat_actions", { title });
    const more = iconButton("more", label, (event) => this.toggleMenu(event.currentTarget, chat), { "aria-expanded": "false" });
    const row = make("li", { data: { chat: chat.id } }, link, more);
    markOpen(row, chat.id === this.openUid);
    return row;
  }

  toggleMenu(button, chat) {
    const isOpen = button.getAttribute("aria-expanded") === "true";
    this.closeMenus(null);
    if (isOpen) return;
    button.setAttribute("aria-expanded", "true");
    const title = chat.title || t("new_chat");
    const then = (act) => () => (this.closeMenus(null), act());
    const menu = make(
      "div",
      { class: "menu" },
      item("edit", "rename", then(() => this.rename(chat))),
      item("download", "download_markdown", then(() => this.download(chat, "md"))),
      item("download", "download_json", then(() => this.download(chat, "json"))),
      item("trash", "delete", then(() => this.remove(chat, title)), "danger"),
    );
    button.after(menu);
    placeBelow(menu, button);
    menu.firstElementChild.focus();
  }

  closeMenus(target) {
    for (const button of document.querySelectorAll('#chat-list [aria-expanded="true"]')) {
      if (target && (button.contains(target) || button.nextElementSibling?.contains(target))) continue;
      if (target === null && button.nextElementSibling?.contains(document.activeElement)) button.focus();
      button.setAttribute("aria-expanded", "false");
      button.nextElementSibling?.remove();
    }
  }

  async rename(chat) {
    const title = await question(t("rename_question"), t("save"), chat.title);
    if (!title) return;
    if (!(await this.ask(() => api.changeChat(chat.id, { title })))) return;
    this.told.renamed(chat.id, title);
    await this.load();
    this.focus(chat.id, "button");
  }

  async remove(chat, title) {
    if (!(await question(t("delete_question", { title }), t("delete"), null, true))) return;
    if (!(await this.ask(() => api.deleteChat(chat.id)))) return;
    this.chats = this.chats.filter((each) => each !== chat);
    this.told.deleted(chat.id);
    await this.load();
  }

  download(chat, form) {
    return this.ask(async () => download(await api.readChat(chat.id), form));
  }

  /** Whether it was done. */
  async ask(request) {
    try {
      await request();
      return true;
    } catch (error) {
      warn(error.status === 404 ? t("gone") : errorText(error));
      return false;
    }
  }
}

function markOpen(row, isOpen) {
  row.classList.toggle("open", isOpen);
  if (isOpen) row.firstElementChild.setAttribute("aria-current", "page");
  else row.firstElementChild.removeAttribute("aria-current");
}

/** Over everything, since the list is cut at its edges; above `button` if there is no room below. */
function placeBelow(menu, button) {
  const { top, bottom, right } = button.getBoundingClientRect();
  const { width, height } = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(8, right - width)}px`;
  menu.style.top = `${bottom + height > innerHeight ? Math.max(8, top - height) : bottom}px`;
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
