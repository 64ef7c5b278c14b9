// The frames of a task that are worth a look, worst first; those that were looked at are ticked off.

import { $ } from "./base.js";

const SHOWN = 50;

export class Review {
  // `load` asks for the list, `onGo` goes to an entry; what was seen is kept under `key` in this browser.
  constructor(root, { key, load, onGo }) {
    Object.assign(this, { root, key, load, onGo, entries: [], current: "" });
    this.seen = new Set(JSON.parse(localStorage.getItem(key) ?? "[]"));
  }

  async refresh() {
    const { entries } = await this.load();
    this.entries = entries.map((entry) => ({ ...entry, name: [entry.kind, entry.frame, ...entry.ids].join(" ") }));
    this.show();
  }

  get left() {
    return this.entries.filter(({ name }) => !this.seen.has(name));
  }

  // The next entry that nobody has seen, the worst first; backwards, the one that was seen before.
  step(isOnward) {
    const entry = isOnward
      ? this.left[0]
      : this.entries.filter(({ name }) => this.seen.has(name) && name !== this.current).at(-1);
    if (entry) this.go(entry);
    return Boolean(entry);
  }

  go(entry) {
    this.current = entry.name;
    this.seen.add(entry.name);
    localStorage.setItem(this.key, JSON.stringify([...this.seen].slice(-2000)));
    this.onGo(entry);
    this.show();
  }

  show() {
    const { left, entries } = this;
    this.root.hidden = !entries.length;
    $(".count", this.root).textContent = left.length ? `${left.length} of ${entries.length} left` : "all seen";
    $("ol", this.root).replaceChildren(...entries.slice(0, SHOWN).map((entry) => {
      const item = document.createElement("li");
      const button = item.appendChild(document.createElement("button"));
      button.type = "button";
      button.className = "plain";
      button.textContent = `${entry.frame} · ${entry.what}`;
      button.addEventListener("click", () => this.go(entry));
      item.classList.toggle("is-seen", this.seen.has(entry.name));
      item.classList.toggle("is-current", entry.name === this.current);
      return item;
    }));
    $(".is-current", this.root)?.scrollIntoView({ block: "nearest" });
  }
}
