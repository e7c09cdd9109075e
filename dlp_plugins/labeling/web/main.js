// The page: views, keys and answers. The server holds all labels; this shows them.

import * as api from "./api.js";
import { Chooser } from "./chooser.js";
import { css } from "./colors.js";
import { Grid, text } from "./grid.js";
import { MOST_RINGS, MOST_SELECTED, PointMap } from "./map.js";

const $ = selector => document.querySelector(selector);
const VIEWS = ["next", "class", "map", "check"];
const HEADINGS = {
  next: ["Next images worth a label", "Press a class's number; it goes to the framed image, or to all that are selected."],
  class: ["Labels by class", "The least certain first. Select the wrong ones and press their class, then confirm the rest."],
  map: ["All points", "Each point is an image; images alike lie together. Rings are labelled. Select some, then press a class."],
  check: ["Labels in doubt", "Labels that the others speak against. Press the right class, or go on to keep them."],
};
const MORE = { next: "Next images", class: "Confirm all", check: "Keep, go on" };
const POLL_FAST = 300, POLL_SLOW = 3000; // milliseconds

let setup, state, view, sent = 0, order = "useful", shownClass = 0;
let stale = false; // the cards and the map do not show all of `state` yet
let problem = ""; // why the server does not answer
const kept = new Set(); // looked at in this view and left as they are

const className = label => state.classes[label]?.name ?? "?";
const number = n => n.toLocaleString("en");

// -- talking to the server --------------------------------------------------------------------

function toast(message, bad = false) {
  const box = $("#toast");
  box.textContent = message;
  box.classList.toggle("bad", bad);
  box.classList.add("shown");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => box.classList.remove("shown"), bad ? 6000 : 2600);
}

async function attempt(task) {
  try {
    return await task();
  } catch (error) {
    toast(error.message, true);
  }
}

const screenful = () => {
  const wide = matchMedia("(min-width: 801px)").matches;
  return wide ? 24 : 12;
};

async function load() {
  if (view === "map") return loadMap();
  const source = { next: order, class: "class", check: "suspicious" }[view];
  const asked = [view, order, shownClass].join();
  const body = { source, count: screenful(), label: shownClass, exclude: [...kept] };
  const found = await attempt(() => api.post("cards", body));
  if (found && asked === [view, order, shownClass].join()) grid.show(found.cards);
  showEmpty();
}

// Points as the server knows them now.
async function cardsOf(points) {
  const body = { source: "points", count: MOST_SELECTED, points: points.slice(0, MOST_SELECTED) };
  return (await api.post("cards", body)).cards;
}

// Everything in an answer's effect, in the order in which people answered.
function answer(cards, label) {
  if (!cards.length) return;
  const points = cards.map(card => card.point), many = points.length;
  const value = label === null ? null : label < 0 ? -2 : label;
  if (view === "map") map.clear();
  else {
    grid.update(cards.map(card => ({ ...card, given: value, label: value ?? card.label })));
    grid.clear();
  }
  sent++;
  return attempt(() => api.inTurn(async () => {
    try {
      const versions = new Map([...cards, ...grid.cards, ...map.cards].map(card => [card.point, card.version]));
      const unseen = points.filter(point => versions.get(point) === undefined);
      if (unseen.length) for (const card of await cardsOf(unseen)) versions.set(card.point, card.version);
      const seen = points.map(point => [point, versions.get(point)]);
      const done = await api.post("answer", { seen, label: label === -2 ? "skip" : label });
      settle(done);
      if (done.refused.length) toast(`${done.refused.length} of ${many} had been labelled by someone else; theirs stays.`, true);
      else if (many > 1 || view === "map") toast(`${many} × ${label === null ? "label taken away" : label === -2 ? "skipped" : className(label)}`);
    } catch (error) {
      grid.update(await cardsOf(points).catch(() => cards));
      throw error;
    }
  }));
}

const undo = () => attempt(() => api.inTurn(async () => {
  sent++;
  const done = await api.post("undo");
  settle(done);
  const back = new Set(done.cards.map(card => card.point));
  const first = grid.cards.findIndex(card => back.has(card.point));
  if (first >= 0) grid.moveTo(first);
  toast(done.changed ? `Took back ${done.changed === 1 ? "one label" : `${done.changed} labels`}` : "Nothing to undo");
}));

function settle(done) {
  map.cards = map.cards.map(card => done.cards.find(c => c.point === card.point) ?? card);
  grid.update(done.cards);
  showState(done.state);
}

async function poll() {
  try {
    if (!document.hidden && !api.waiting) await look();
  } catch (error) {
    connection(error.message);
  } finally {
    setTimeout(poll, state.settled ? POLL_SLOW : POLL_FAST);
  }
}

async function look() {
  const before = sent; // what was asked for before an answer is out of date after it
  const now = await api.get("state");
  if (before === sent) {
    stale ||= now.version !== state.version || now.settled !== state.settled;
    showState(now);
    if (stale) await refresh();
    stale = false;
  }
  connection("");
}

function connection(found) {
  if (found !== problem) toast(found || "The server answers again.", Boolean(found));
  problem = found;
  showStatus();
}

// What the page shows of points may have changed with others' answers.
async function refresh() {
  if (view === "map") await colour();
  const points = grid.cards.map(card => card.point);
  if (!points.length) return;
  const before = sent, cards = await cardsOf(points);
  if (before === sent) grid.update(cards);
}

// -- the column of figures --------------------------------------------------------------------

function showState(now) {
  const before = state;
  state = now;
  $("#labelled").textContent = number(now.labelled);
  $("#points").textContent = number(now.points);
  $("#likely").textContent = now.labelled ? `${Math.round(100 * now.probability)} %` : "–";
  $("#accuracy-box").hidden = !now.accuracy;
  if (now.accuracy) {
    $("#accuracy").textContent = `${(100 * now.accuracy.share).toFixed(1)} %`;
    $("#accuracy-box").title = `of ${number(now.accuracy.of)} points without a label of their own`;
  }
  $("#progress").style.width = `${(100 * now.labelled) / now.points}%`;
  $("#suspicious").textContent = now.suspicious;
  $("#suspicious").hidden = !now.suspicious;
  $("#skipped").textContent = now.skipped ? number(now.skipped) : "";
  const notes = [];
  if (now.problem) notes.push(`The refinement failed: ${now.problem}. Labels are safe; see the terminal.`);
  if (now.labelled && now.unreached) notes.push(`No label reaches ${number(now.unreached)} points yet.`);
  $("#notes").textContent = notes.join(" ");
  showStatus();
  showClasses(before);
  showEmpty();
  if (view === "map" && before && before.version !== now.version) attempt(colour);
}

function showStatus() {
  $("#status").className = `status ${problem ? "off" : state.settled ? "ready" : "working"}`;
  $("#status span").textContent = problem ? "No connection" : state.settled ? "Up to date" : "Refining";
}

function showClasses(before) {
  const list = $("#classes");
  if (list.children.length !== state.classes.length || before?.classes.some((c, i) => c.name !== state.classes[i]?.name)) {
    list.replaceChildren(...state.classes.map((c, label) => {
      const item = document.createElement("li");
      const button = text("button", "class", "");
      button.dataset.label = label;
      button.style.setProperty("--own", css(label));
      button.title = `Give this class to what is selected${label < 9 ? ` (${label + 1})` : " (type its first letters)"}`;
      button.append(text("kbd", "", label < 9 ? label + 1 : "·"), text("span", "", c.name), text("small", "", ""), text("i", "share", ""));
      button.addEventListener("click", () => give(label));
      item.append(button);
      return item;
    }));
    const select = $("#shown-class");
    select.replaceChildren(...state.classes.map((c, label) => new Option(c.name, label)));
    select.value = shownClass;
  }
  const most = Math.max(1, ...state.classes.map(c => c.total));
  state.classes.forEach((c, label) => {
    const button = list.children[label].firstChild;
    button.querySelector("small").innerHTML = "";
    button.querySelector("small").append(text("b", "", number(c.given)), ` / ${number(c.total)}`);
    button.querySelector("small").title = `${c.given} labelled, ${c.total} with the propagated ones`;
    button.querySelector(".share").style.setProperty("--share", c.total / most);
    button.querySelector(".share").style.setProperty("--given", c.total ? c.given / c.total : 0);
  });
}

// -- views --------------------------------------------------------------------------------------

function show(name) {
  view = name;
  kept.clear();
  location.hash = name;
  document.body.dataset.view = name;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    tab.setAttribute("aria-selected", tab.dataset.view === name);
    tab.tabIndex = tab.dataset.view === name ? 0 : -1;
  }
  for (const element of document.querySelectorAll("[data-for]")) element.hidden = !element.dataset.for.split(" ").includes(name);
  map.clear(); // and the grid with it
  [$("#heading").textContent, $("#hint").textContent] = HEADINGS[name];
  $("#more").textContent = MORE[name] ?? "";
  $(".work").scrollTop = 0;
  paintControls();
  return load();
}

function paintControls() {
  for (const button of document.querySelectorAll("[data-order]")) button.setAttribute("aria-pressed", button.dataset.order === order);
  for (const button of document.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === map.mode);
  $("#shown-class").value = shownClass;
}

function showEmpty() {
  const empty = !grid.cards.length && view !== "map";
  $("#empty").hidden = !empty;
  if (!empty) return;
  const nothing = state.labelled
    ? { next: "Every image has a label, or was skipped.", class: `No image without a label has “${className(shownClass)}” propagated to it.`, check: "No label is in doubt." }
    : { next: "There is nothing to label.", class: "Label a few images first: then every class has its images here.", check: "Label a few images first: then those that do not fit show here." };
  $("#empty").textContent = nothing[view];
}

// What the blue button of "By class" confirms: the label of a card may have changed since it came.
const confirmable = () => grid.open.filter(card => card.label === shownClass && !grid.selected.has(card.point));

function onGrid() {
  const n = grid.selected.size;
  if (view === "class") {
    const rest = confirmable().length;
    $("#more").textContent = rest ? `Confirm ${rest} as ${className(shownClass)}` : "Next images";
  }
  $("#unlabel").hidden = !targets().some(card => card.given != null);
  document.body.classList.toggle("selecting", n > 0);
  $("#all").textContent = n ? `${n} selected` : "Select all";
}

// The blue button: what is left on the screen is done with.
async function more() {
  if (view === "map") return;
  if (view === "class") {
    const rest = confirmable();
    for (const card of grid.open) if (grid.selected.has(card.point)) kept.add(card.point);
    if (rest.length) await answer(rest, shownClass);
  } else for (const card of grid.cards) if (view === "check" || card.given === null) kept.add(card.point);
  if (view === "next") kept.clear(); // the server does not show them again while they are on the screen
  const left = view === "next" ? grid.cards.map(card => card.point) : []; // some answers may still wait
  left.forEach(point => kept.add(point));
  await load();
  if (view === "next") kept.clear();
}

// What an answer is for. A point that was only just selected on the map has no card yet.
function targets() {
  if (view !== "map") return grid.targets;
  const cards = new Map(map.cards.map(card => [card.point, card]));
  return [...map.selected].slice(0, MOST_SELECTED).map(point => cards.get(point) ?? { point });
}

async function give(label) {
  const chosen = targets();
  if (!chosen.length) return toast(view === "map" ? "Select points first" : "There is no image to label");
  const one = view !== "map" && !grid.selected.size;
  const done = answer(chosen, label);
  if (view === "map") return done;
  if (one || grid.cards[grid.cursor]?.given !== null) grid.advance();
  if (view === "next" && !grid.open.length) {
    await done;
    if (view === "next" && !grid.open.length && grid.cards.length) await load();
  }
}

// -- the map ------------------------------------------------------------------------------------

async function loadMap() {
  await attempt(async () => {
    if (!map.n) map.setPlaces(await api.bytes("places"));
    await colour();
    map.resize();
  });
}

async function colour() {
  map.setColours(await api.bytes("colours"));
  const ringed = map.given.length > MOST_RINGS ? `labelled, ${number(MOST_RINGS)} of those in sight` : "labelled";
  $("#legend").textContent = `${number(setup.points)} points, the first two principal components. Pale: uncertain. Ringed: ${ringed}.`;
  if (!$("#tip").hidden) describe(+$("#tip").dataset.point);
}

let selections = 0;

async function onSelect() {
  const mine = ++selections, points = [...map.selected].slice(0, MOST_SELECTED);
  if (!points.length) {
    map.cards = [];
    $("#hint").textContent = HEADINGS.map[1];
    return grid.show([]);
  }
  const found = await attempt(async () => {
    await api.answersSent(); // a card from before an answer would be out of date
    return cardsOf(points);
  });
  if (!found || mine !== selections) return;
  map.cards = found;
  grid.show(found.slice(0, 60));
  const at = points.length === MOST_SELECTED ? `the first ${MOST_SELECTED}` : points.length;
  $("#hint").textContent = `${at} selected: press a class to label ${points.length === 1 ? "it" : "them all"}, Esc to let go.`;
}

function onHover(hit) {
  const tip = $("#tip");
  tip.hidden = !hit;
  if (!hit) return delete tip.dataset.point;
  if (tip.dataset.point === String(hit.point)) return place(tip, hit);
  tip.dataset.point = hit.point;
  const image = tip.querySelector("img");
  image.hidden = !setup.images;
  if (setup.images) image.src = `image/${hit.point}`;
  describe(hit.point);
  place(tip, hit);
}

function describe(point) {
  const label = map.labels?.[point] ?? -1;
  $("#tip b").textContent = label >= 0 ? className(label) : "no label yet";
  $("#tip span").textContent = label >= 0 ? `certainty about ${Math.round((100 * (map.certainty[point] + 0.5)) / 16)} %` : "";
}

function place(tip, { x, y }) {
  const box = tip.parentElement;
  tip.style.left = `${Math.min(x + 16, box.clientWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.max(8, Math.min(y + 16, box.clientHeight - tip.offsetHeight - 8))}px`;
}

// -- keys ---------------------------------------------------------------------------------------

function step(by) {
  const n = VIEWS.length;
  show(VIEWS[(VIEWS.indexOf(view) + by + n) % n]);
}

function stepClass(by) {
  const n = state.classes.length;
  if (view !== "class" || !n) return;
  shownClass = (shownClass + by + n) % n;
  show("class");
}

function key(event) {
  if (document.querySelector("dialog[open]") || event.isComposing) return;
  const typing = event.target.matches("input, textarea"), control = event.target.closest("button, summary, a, select");
  if (typing) return;
  const k = event.key, command = event.ctrlKey || event.metaKey || event.altKey;
  if (command && (view === "map" || event.altKey || k.toLowerCase() !== "a")) return;
  // a held key gives one answer: of what comes after it nothing was looked at
  const once = k.length === 1 ? view !== "map" || !"+=-".includes(k) : ["Enter", "Delete", "Backspace"].includes(k);
  if (event.repeat && once) return event.preventDefault();
  if (control && (k === "Enter" || k === " " || (event.target.matches("select") && /^(Arrow|.$)/.test(k)))) return;
  if (event.target.matches("[role=tab]") && (k === "ArrowLeft" || k === "ArrowRight")) {
    step(k === "ArrowLeft" ? -1 : 1);
    $("[role=tab][aria-selected=true]").focus();
  } else if (view === "map" && map.key(event)) ;
  else if (view !== "map" && grid.key(event)) ;
  else if (k >= "1" && k <= "9" && k.length === 1) {
    if (+k > state.classes.length) toast(`There is no class ${k}`);
    else give(+k - 1);
  } else if (k === "0") give(-2);
  else if (k === "Delete" || k === "Backspace") answer(targets(), null);
  else if (k === "Enter") more();
  else if (k === "u") undo();
  else if (k === "[") step(-1);
  else if (k === "]") step(1);
  else if (k === ",") stepClass(-1);
  else if (k === ".") stepClass(1);
  else if (k === "?") $("#keys").showModal();
  else if (k === "+") chooser.open("", true);
  else if (k === "/") chooser.open();
  else if (/^\p{L}$/u.test(k)) chooser.open(k);
  else return;
  event.preventDefault();
}

// -- start --------------------------------------------------------------------------------------

const map = new PointMap($("#map canvas"), { onSelect, onHover });
map.cards = [];
let grid, chooser;

async function addClass(name, adding) {
  const added = await attempt(() => api.post("classes", { name }));
  if (!added) return;
  showState(added.state);
  if (adding) toast(`Class “${className(added.label)}” added`);
  else give(added.label);
}

async function start() {
  setup = await attempt(() => api.get("setup"));
  if (!setup) return;
  state = setup.state;
  $("#title").textContent = setup.title;
  document.title = `${setup.title} – dlp label`;
  grid = new Grid($("#cards"), { className, hasImages: setup.images, onChange: onGrid });
  chooser = new Chooser($("#chooser"), { classes: () => state.classes, onChoose: give, onAdd: addClass });
  showState(state);
  for (const tab of document.querySelectorAll("[role=tab]")) tab.addEventListener("click", () => show(tab.dataset.view));
  for (const button of document.querySelectorAll("[data-order]")) {
    button.addEventListener("click", () => {
      order = button.dataset.order;
      paintControls();
      load();
    });
  }
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.addEventListener("click", () => {
      map.mode = button.dataset.mode;
      paintControls();
    });
  }
  $("#shown-class").addEventListener("change", e => {
    shownClass = +e.target.value;
    show("class");
  });
  $("#undo").addEventListener("click", undo);
  $("#more").addEventListener("click", more);
  $("#all").addEventListener("click", () => (grid.selected.size ? grid.clear() : grid.selectAll()));
  $("#skip").addEventListener("click", () => give(-2));
  $("#unlabel").addEventListener("click", () => answer(targets(), null));
  $("#add").addEventListener("click", () => chooser.open("", true));
  $("#help").addEventListener("click", () => $("#keys").showModal());
  $("#fit").addEventListener("click", () => map.fit());
  addEventListener("keydown", key);
  addEventListener("beforeunload", e => api.waiting && e.preventDefault());
  for (const link of document.querySelectorAll("#export a")) {
    link.addEventListener("click", async e => {
      if (!api.waiting) return;
      e.preventDefault();
      await api.answersSent();
      link.click();
    });
  }
  addEventListener("click", e => e.target.closest("#export") || $("#export").removeAttribute("open"));
  // after a click on a control, keys are for the images again
  addEventListener("pointerup", e => e.target.closest("button") && setTimeout(() => document.activeElement.blur?.()));
  const asked = location.hash.slice(1);
  await show(VIEWS.includes(asked) ? asked : "next");
  setTimeout(poll, POLL_FAST);
}

start();
