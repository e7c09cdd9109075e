// Images side by side: one framed by the cursor, any number selected, some with a label.

import { css } from "./colors.js";

const DRAG_PIXELS = 6; // a pointer that moved less has clicked

export class Grid {
  constructor(root, { className, hasImages, onChange }) {
    Object.assign(this, { root, className, hasImages, onChange });
    this.cards = [];
    this.cursor = 0;
    this.anchor = 0;
    this.selected = new Set();
    this.elements = new Map();
    root.addEventListener("pointerdown", e => this.press(e));
  }

  show(cards) {
    this.cards = cards;
    this.cursor = this.anchor = 0;
    this.selected.clear();
    this.elements.clear();
    this.root.replaceChildren(...cards.map(card => this.element(card)));
    this.paint();
  }

  element(card) {
    const box = document.createElement("div");
    box.className = "card";
    box.id = `card-${card.point}`;
    box.setAttribute("role", "option");
    box.dataset.point = card.point;
    const picture = document.createElement("div");
    picture.className = "picture";
    if (this.hasImages) {
      const image = new Image();
      image.alt = card.name;
      image.draggable = false;
      image.decoding = "async";
      image.onload = () => image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= 64);
      image.onerror = () => { picture.replaceChildren(text("span", "name", card.name)); };
      image.src = `image/${card.point}`;
      picture.append(image);
    } else picture.append(text("span", "name", card.name));
    const tag = text("span", "tag", "");
    const meter = document.createElement("i");
    meter.className = "meter";
    const note = text("small", "note", "");
    box.append(picture, tag, note, meter);
    box.title = card.name;
    this.elements.set(card.point, { box, tag, meter, note });
    return box;
  }

  // Cards as the server knows them now; those not shown are ignored.
  update(cards) {
    const known = new Map(cards.map(card => [card.point, card]));
    this.cards = this.cards.map(card => known.get(card.point) || card);
    this.paint();
  }

  paint() {
    this.cards.forEach((card, i) => {
      const { box, tag, meter, note } = this.elements.get(card.point);
      const done = card.given !== null, skipped = done && card.given < 0;
      const label = done ? card.given : card.label;
      box.classList.toggle("done", done);
      box.classList.toggle("skipped", skipped);
      box.classList.toggle("cursor", i === this.cursor);
      box.classList.toggle("selected", this.selected.has(card.point));
      box.setAttribute("aria-selected", this.selected.has(card.point));
      box.style.setProperty("--own", css(label));
      tag.textContent = skipped ? "skipped" : label >= 0 ? this.className(label) : "no label yet";
      tag.classList.toggle("guess", !done);
      meter.style.setProperty("--share", done ? 1 : card.probability);
      const doubted = card.doubt > 0.5 && done && !skipped && card.suggested !== label;
      note.textContent = doubted ? `rather ${this.className(card.suggested)}?` : done || label < 0 ? "" : `${Math.round(100 * card.probability)} %`;
    });
    const at = this.cards[this.cursor];
    if (at) this.root.setAttribute("aria-activedescendant", `card-${at.point}`);
    this.onChange(this);
  }

  get targets() {
    const chosen = this.cards.filter(card => this.selected.has(card.point));
    return chosen.length ? chosen : this.cards.slice(this.cursor, this.cursor + 1);
  }

  get open() {
    return this.cards.filter(card => card.given === null);
  }

  // To the next card without a label, from the cursor on and then from the start.
  advance() {
    const n = this.cards.length;
    for (let step = 1; step <= n; step++) {
      const i = (this.cursor + step) % n;
      if (this.cards[i].given === null) return this.moveTo(i);
    }
    this.paint();
  }

  moveTo(i, extend = false) {
    const from = this.cursor;
    this.cursor = Math.max(0, Math.min(this.cards.length - 1, i));
    if (extend) this.range(from, this.cursor);
    else this.anchor = this.cursor;
    const at = this.cards[this.cursor];
    if (at) this.elements.get(at.point).box.scrollIntoView({ block: "nearest" });
    this.paint();
  }

  range(a, b) {
    for (let i = Math.min(a, b); i <= Math.max(a, b); i++) this.selected.add(this.cards[i].point);
  }

  get columns() {
    const boxes = [...this.root.children], top = boxes[0]?.offsetTop;
    const first = boxes.findIndex(box => box.offsetTop !== top);
    return first < 0 ? boxes.length || 1 : first;
  }

  toggle(i = this.cursor) {
    const card = this.cards[i];
    if (!card) return;
    if (!this.selected.delete(card.point)) this.selected.add(card.point);
    this.cursor = this.anchor = i;
    this.paint();
  }

  selectAll() {
    const open = this.open.length ? this.open : this.cards;
    open.forEach(card => this.selected.add(card.point));
    this.paint();
  }

  clear() {
    this.selected.clear();
    this.paint();
  }

  // A click selects, with shift up to there; dragging the mouse selects what it touches.
  press(event) {
    if (event.button || !this.cards.length) return;
    const start = { x: event.clientX, y: event.clientY }, before = new Set(this.selected);
    let band = null;
    const move = e => {
      if (event.pointerType !== "mouse") return;
      if (!band && Math.hypot(e.clientX - start.x, e.clientY - start.y) < DRAG_PIXELS) return;
      if (!band) {
        band = document.createElement("div");
        band.className = "band";
        document.body.append(band);
      }
      const left = Math.min(start.x, e.clientX), top = Math.min(start.y, e.clientY);
      const right = Math.max(start.x, e.clientX), bottom = Math.max(start.y, e.clientY);
      Object.assign(band.style, { left: `${left}px`, top: `${top}px`, width: `${right - left}px`, height: `${bottom - top}px` });
      this.selected = new Set(before);
      for (const [point, { box }] of this.elements) {
        const r = box.getBoundingClientRect();
        if (r.left < right && r.right > left && r.top < bottom && r.bottom > top) this.selected.add(point);
      }
      this.paint();
    };
    const stop = e => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", stop);
      removeEventListener("pointercancel", stop);
      if (band) return band.remove();
      const box = e.type === "pointerup" && e.target.closest?.(".card");
      if (!box || !this.root.contains(box)) return;
      const i = this.cards.findIndex(card => String(card.point) === box.dataset.point);
      if (e.shiftKey) {
        this.range(this.anchor, i);
        this.cursor = i;
        this.paint();
      } else this.toggle(i);
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", stop);
    addEventListener("pointercancel", stop);
  }

  // True if the key was for the grid.
  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns };
    if (event.key in steps) {
      const to = this.cursor + steps[event.key];
      if (to >= 0 && to < this.cards.length) this.moveTo(to, event.shiftKey);
    } else if (event.key === "Home" || event.key === "End") this.moveTo(event.key === "Home" ? 0 : Infinity, event.shiftKey);
    else if (event.key === " ") this.toggle();
    else if (event.key === "Escape") this.clear();
    else if (event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey)) this.selectAll();
    else return false;
    return true;
  }
}

export function text(tag, className, content) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = content;
  return element;
}
