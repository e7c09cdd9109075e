// All points on a canvas: colour by label, strength by certainty, labelled ones ringed.

import { rgb } from "./colors.js";

const LEVELS = 16; // shades of certainty
const PICK_PIXELS = 14;
export const MOST_RINGS = 4000; // in sight at once
export const MOST_SELECTED = 500;

export class PointMap {
  constructor(canvas, { onSelect, onHover }) {
    Object.assign(this, { canvas, onSelect, onHover });
    this.context = canvas.getContext("2d");
    this.n = 0;
    this.mode = "move";
    this.selected = new Set();
    this.pointers = new Map();
    this.fit();
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolor());
    canvas.addEventListener("wheel", e => this.wheel(e), { passive: false });
    canvas.addEventListener("pointerdown", e => this.down(e));
    canvas.addEventListener("pointermove", e => this.move(e));
    canvas.addEventListener("pointerup", e => this.up(e));
    canvas.addEventListener("pointercancel", e => this.up(e));
    canvas.addEventListener("pointerleave", () => this.onHover(null));
  }

  setPlaces(buffer) {
    const places = new Uint16Array(buffer);
    this.n = places.length / 2;
    this.x = new Float32Array(this.n);
    this.y = new Float32Array(this.n);
    for (let i = 0; i < this.n; i++) {
      this.x[i] = places[2 * i] / 65535;
      this.y[i] = 1 - places[2 * i + 1] / 65535;
    }
  }

  setColours(buffer) {
    this.labels = new Int32Array(this.n);
    this.certainty = new Uint8Array(this.n);
    this.given = [];
    const data = new DataView(buffer);
    const counts = new Uint32Array(LEVELS + 1);
    for (let i = 0; i < this.n; i++) {
      this.labels[i] = data.getUint16(4 * i, true) - 1;
      this.certainty[i] = Math.min(LEVELS - 1, (data.getUint8(4 * i + 2) * LEVELS) >> 8);
      if (data.getUint8(4 * i + 3)) this.given.push(i);
      counts[this.certainty[i] + 1]++;
    }
    for (let level = 1; level <= LEVELS; level++) counts[level] += counts[level - 1];
    this.order = new Uint32Array(this.n); // the least certain below the others
    for (let i = 0; i < this.n; i++) this.order[counts[this.certainty[i]]++] = i;
    this.recolor();
  }

  recolor() {
    const style = getComputedStyle(this.canvas);
    const parse = name => style.getPropertyValue(name).trim().split(/\s+/).map(Number);
    this.back = parse("--map-back");
    this.grey = parse("--map-grey");
    this.shades = new Map();
    this.draw();
  }

  shade(label, level) {
    const key = label * LEVELS + level;
    let found = this.shades.get(key);
    if (found === undefined) {
      const color = label < 0 ? this.grey : rgb(label), share = label < 0 ? 0.6 : 0.22 + (0.78 * level) / (LEVELS - 1);
      const [r, g, b] = color.map((v, i) => Math.round(v * share + this.back[i] * (1 - share)));
      found = (255 << 24) | (b << 16) | (g << 8) | r;
      this.shades.set(key, found);
    }
    return found;
  }

  fit() {
    this.scale = 1;
    this.left = this.top = 0; // of the window onto the unit square
    this.draw();
  }

  resize() {
    const ratio = Math.min(2, devicePixelRatio || 1);
    const width = Math.round(this.canvas.clientWidth * ratio), height = Math.round(this.canvas.clientHeight * ratio);
    if (!width || !height || (width === this.canvas.width && height === this.canvas.height)) return;
    Object.assign(this.canvas, { width, height });
    this.ratio = ratio;
    this.draw();
  }

  // Drawn once for each frame, however often it is asked for.
  draw() {
    if (this.asked || !this.order) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = 0;
      this.paint();
    });
  }

  get frame() {
    const margin = 16 * (this.ratio || 1);
    const width = this.canvas.width - 2 * margin, height = this.canvas.height - 2 * margin;
    return { ax: width * this.scale, ay: height * this.scale, bx: margin - this.left * width * this.scale, by: margin - this.top * height * this.scale };
  }

  paint() {
    const { width, height } = this.canvas;
    if (!width || !height) return;
    if (!this.image || this.image.width !== width || this.image.height !== height) this.image = this.context.createImageData(width, height);
    const pixels = new Uint32Array(this.image.data.buffer);
    const [r, g, b] = this.back;
    pixels.fill((255 << 24) | (b << 16) | (g << 8) | r);
    const { ax, ay, bx, by } = this.frame, { x, y, labels, certainty, order } = this;
    const area = (width * height) / Math.max(1, this.n);
    const size = Math.max(2, Math.min(5 * this.ratio, Math.round(Math.sqrt(area) * 0.22 * Math.sqrt(this.scale))));
    for (let j = 0; j < this.n; j++) {
      const i = order[j];
      const px = (ax * x[i] + bx - size / 2) | 0, py = (ay * y[i] + by - size / 2) | 0;
      if (px < 0 || py < 0 || px + size > width || py + size > height) continue;
      const color = this.shade(labels[i], certainty[i]);
      for (let row = 0, at = py * width + px; row < size; row++, at += width) {
        const corner = size > 4 && (row === 0 || row === size - 1) ? 1 : 0; // round enough
        pixels.fill(color, at + corner, at + size - corner);
      }
    }
    this.context.putImageData(this.image, 0, 0);
    const radius = Math.max(size * 0.8, 3.6 * this.ratio);
    let rings = 0;
    for (const i of this.given) {
      if (rings === MOST_RINGS) break;
      if (this.ring(i, radius, `rgb(${rgb(labels[i]).join(" ")})`, this.strong, 1.5)) rings++;
    }
    for (const i of this.selected) this.ring(i, radius + this.ratio, null, this.strong, 2.5);
    if (this.box) {
      const { x0, y0, x1, y1 } = this.box, k = this.ratio;
      this.context.strokeStyle = this.strong;
      this.context.setLineDash([5 * k, 4 * k]);
      this.context.strokeRect(Math.min(x0, x1) * k, Math.min(y0, y1) * k, Math.abs(x1 - x0) * k, Math.abs(y1 - y0) * k);
      this.context.setLineDash([]);
    }
  }

  get strong() {
    return this.back[0] > 128 ? "rgb(20 24 40)" : "rgb(245 247 255)";
  }

  // True if the point is in sight.
  ring(i, radius, fill, stroke, line) {
    const { ax, ay, bx, by } = this.frame, c = this.context;
    const px = ax * this.x[i] + bx, py = ay * this.y[i] + by;
    if (px < 0 || py < 0 || px > this.canvas.width || py > this.canvas.height) return false;
    c.beginPath();
    c.arc(px, py, radius, 0, 2 * Math.PI);
    if (fill) {
      c.fillStyle = fill;
      c.fill();
    }
    c.lineWidth = line * this.ratio;
    c.strokeStyle = stroke;
    c.stroke();
    return true;
  }

  // The nearest point to a place in CSS pixels, or -1.
  pick(cx, cy) {
    const { ax, ay, bx, by } = this.frame, px = cx * this.ratio, py = cy * this.ratio;
    let best = -1, least = (PICK_PIXELS * this.ratio) ** 2;
    for (let i = 0; i < this.n; i++) {
      const dx = ax * this.x[i] + bx - px, dy = ay * this.y[i] + by - py, d = dx * dx + dy * dy;
      if (d < least) [least, best] = [d, i];
    }
    return best;
  }

  zoom(factor, cx = this.canvas.clientWidth / 2, cy = this.canvas.clientHeight / 2) {
    const before = this.frame, px = cx * this.ratio, py = cy * this.ratio;
    const ux = (px - before.bx) / before.ax, uy = (py - before.by) / before.ay;
    this.scale = Math.max(0.8, Math.min(200, this.scale * factor));
    const after = this.frame;
    this.left += ux - (px - after.bx) / after.ax;
    this.top += uy - (py - after.by) / after.ay;
    this.draw();
  }

  pan(dx, dy) {
    const { ax, ay } = this.frame;
    this.left -= (dx * this.ratio) / ax;
    this.top -= (dy * this.ratio) / ay;
    this.draw();
  }

  wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode ? 30 : 1);
    this.zoom(Math.exp(-pixels * 0.0018), event.offsetX, event.offsetY);
  }

  down(event) {
    if (event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    this.moved = this.pointers.size > 1;
    const selects = this.mode === "select" || event.shiftKey;
    if (selects && this.pointers.size === 1) this.box = { x0: event.offsetX, y0: event.offsetY, x1: event.offsetX, y1: event.offsetY };
    else this.box = null;
  }

  move(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) {
      const i = this.n ? this.pick(event.offsetX, event.offsetY) : -1;
      return this.onHover(i < 0 ? null : { point: i, x: event.offsetX, y: event.offsetY });
    }
    const x = event.offsetX, y = event.offsetY;
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
      const was = Math.hypot(last.x - other.x, last.y - other.y), is = Math.hypot(x - other.x, y - other.y);
      if (was > 0) this.zoom(is / was, (x + other.x) / 2, (y + other.y) / 2);
      this.pan((x - last.x) / 2, (y - last.y) / 2);
    } else if (Math.hypot(x - last.x, y - last.y) > 3 || this.moved) {
      this.moved = true;
      this.onHover(null);
      if (this.box) {
        Object.assign(this.box, { x1: x, y1: y });
        this.draw();
        return;
      }
      this.pan(x - last.x, y - last.y);
    } else return;
    this.pointers.set(event.pointerId, { x, y });
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    const { box, moved } = this;
    this.box = null;
    if (event.type === "pointercancel") return this.draw();
    if (box && moved) this.selectBox(box);
    else if (!moved) {
      const i = this.pick(event.offsetX, event.offsetY);
      if (i >= 0) {
        if (!this.selected.delete(i)) this.selected.add(i);
      } else this.selected.clear();
      this.onSelect();
    }
    this.draw();
  }

  selectBox({ x0, y0, x1, y1 }) {
    const { ax, ay, bx, by } = this.frame, k = this.ratio;
    const left = Math.min(x0, x1) * k, right = Math.max(x0, x1) * k, top = Math.min(y0, y1) * k, bottom = Math.max(y0, y1) * k;
    for (let i = 0; i < this.n && this.selected.size < MOST_SELECTED; i++) {
      const px = ax * this.x[i] + bx, py = ay * this.y[i] + by;
      if (px >= left && px <= right && py >= top && py <= bottom) this.selected.add(i);
    }
    this.onSelect();
  }

  clear() {
    this.selected.clear();
    this.onSelect();
    this.draw();
  }

  // True if the key was for the map.
  key(event) {
    const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (event.key in steps) this.pan(...steps[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoom(1.4);
    else if (event.key === "-") this.zoom(1 / 1.4);
    else if (event.key === "Escape") this.clear();
    else if (event.key === " ") {
      const i = this.pick(this.canvas.clientWidth / 2, this.canvas.clientHeight / 2);
      if (i >= 0) this.selected.add(i);
      this.onSelect();
      this.draw();
    } else return false;
    return true;
  }
}
