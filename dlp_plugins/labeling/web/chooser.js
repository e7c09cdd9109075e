// A class by its first letters, or a new one: a small dialog over the page.

import { css } from "./colors.js";
import { text } from "./grid.js";

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

  filter() {
    const typed = this.input.value.trim(), low = typed.toLowerCase();
    const names = this.classes().map((c, label) => ({ label, name: c.name }));
    const begin = names.filter(c => c.name.toLowerCase().startsWith(low));
    const within = low ? names.filter(c => !begin.includes(c) && c.name.toLowerCase().includes(low)) : [];
    this.options = this.adding ? [] : [...begin, ...within].slice(0, 9);
    if (typed && !names.some(c => c.name === typed)) this.options.push({ label: -1, name: typed });
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
    if (event.key === "Enter") {
      event.preventDefault();
      this.choose(this.at);
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
