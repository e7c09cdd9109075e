// A class by its first letters, or a new one: a small dialog over the page.

import { css } from "./colors.js";
import { text } from "./grid.js";

const MOST = 9; // lines of the list

export class Chooser {
  constructor(dialog, { classes, onChoose, onAdd }) {
    Object.assign(this, { dialog, classes, onChoose, onAdd });
    this.input = dialog.querySelector("input");
    this.list = dialog.querySelector("ol");
    this.input.addEventListener("input", () => this.filter());
    this.input.addEventListener("keydown", e => this.key(e));
    dialog.addEventListener("click", e => e.target === dialog && dialog.close());
  }

  // `adding`: only add a class, give it to nothing.
  open(letters = "", adding = false) {
    this.adding = adding;
    this.input.value = letters;
    this.input.placeholder = adding ? "Name of the new class" : "Class: first letters, then Enter";
    this.dialog.showModal();
    this.filter();
  }

  // The name itself first, then names that begin with the letters, then a new class, then names
  // that hold the letters further on: Enter takes the first.
  filter() {
    const typed = this.input.value.trim(), low = typed.toLowerCase();
    const names = this.classes().map((c, label) => ({ label, name: c.name, at: c.name.toLowerCase().indexOf(low) }));
    const rank = c => (c.name === typed ? 0 : c.name.toLowerCase() === low ? 1 : 2);
    const begin = names.filter(c => c.at === 0).sort((a, b) => rank(a) - rank(b));
    const within = names.filter(c => c.at > 0);
    const added = typed && !names.some(c => c.name === typed) ? [{ label: -1, name: typed }] : [];
    this.options = this.adding ? added : [...begin.slice(0, MOST - added.length), ...added, ...within].slice(0, MOST);
    this.at = 0;
    this.paint();
  }

  paint() {
    this.list.replaceChildren(...this.options.map((option, i) => {
      const item = document.createElement("li");
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", i === this.at);
      const swatch = text("i", "swatch", "");
      swatch.style.background = option.label < 0 ? "transparent" : css(option.label);
      item.append(swatch, text("span", "", option.label < 0 ? `Add class “${option.name}”` : option.name));
      item.addEventListener("click", () => this.choose(i));
      return item;
    }));
  }

  key(event) {
    // an input method's own keys, its last Enter too (229: as Safari says it)
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter") {
      event.preventDefault();
      if (!event.repeat) this.choose(this.at);
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const n = this.options.length;
      if (n) this.at = (this.at + (event.key === "ArrowDown" ? 1 : n - 1)) % n;
      this.paint();
    }
    event.stopPropagation();
  }

  choose(i) {
    const option = this.options[i];
    if (!option) return;
    this.dialog.close();
    if (option.label < 0) this.onAdd(option.name, this.adding);
    else this.onChoose(option.label);
  }
}
