"use strict";
/* The section "Try it": a box that finds titles, the session, and a list for each model. Texts of the data are set as
   text and never as HTML. */

const MOST_OPTIONS = 8;
const PLAY = JSON.parse(document.getElementById("play-data").textContent);
const MODELS = PLAY.models.map(decodeModel);
const SEARCHED = PLAY.labels.map((label) => label.toLocaleLowerCase());
const part = (name) => document.getElementById(`play-${name}`);
let session = [];
let options = [];
let active = -1;
let example = -1;
let shown = MODELS.map(() => new Set());

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/* Returns the items whose titles have all words of a text; those that begin with it come first. */
function findItems(text) {
  const wanted = text.trim().toLocaleLowerCase();
  if (!wanted) return [];
  const words = wanted.split(/\s+/);
  const found = [];
  for (let item = 1; item < SEARCHED.length; item += 1) {
    if (words.every((word) => SEARCHED[item].includes(word))) found.push(item);
  }
  const begins = (item) => Number(SEARCHED[item].startsWith(wanted));
  return found.sort((a, b) => begins(b) - begins(a) || a - b);
}

function showOptions() {
  const found = findItems(part("search").value);
  options = found.slice(0, MOST_OPTIONS);
  active = options.length ? 0 : -1;
  part("options").replaceChildren(
    ...options.map((item, place) => {
      const option = element("li", PLAY.labels[item], { role: "option", id: `play-option-${place}` });
      option.addEventListener("mousedown", (event) => event.preventDefault());
      option.addEventListener("click", () => addItem(item));
      return option;
    }),
  );
  const isOpen = options.length > 0;
  part("options").hidden = !isOpen;
  part("search").setAttribute("aria-expanded", String(isOpen));
  markActive();
  if (part("search").value.trim()) announce(`${found.length} titles match.`);
}

function markActive() {
  [...part("options").children].forEach((option, place) => {
    option.setAttribute("aria-selected", String(place === active));
  });
  if (active >= 0) part("search").setAttribute("aria-activedescendant", `play-option-${active}`);
  else part("search").removeAttribute("aria-activedescendant");
}

function announce(text) {
  part("status").textContent = text;
}

function addItem(item) {
  part("search").value = "";
  showOptions();
  setSession([...session, item]);
}

function removeAt(place) {
  setSession(session.filter((_, other) => other !== place));
  part("search").focus();
}

function setSession(items) {
  session = items;
  part("session").replaceChildren(
    ...session.map((item, place) => {
      const entry = element("li", PLAY.labels[item]);
      const remove = element("button", "×", { type: "button", "aria-label": `Remove ${PLAY.labels[item]}` });
      remove.addEventListener("click", () => removeAt(place));
      entry.append(remove);
      return entry;
    }),
  );
  showLists();
}

/* The lists of the models, and how many titles of each are new. */
function showLists() {
  const lists = MODELS.map((model) => (session.length ? recommend(model, session, PLAY.length) : []));
  const changes = [];
  part("lists").replaceChildren(
    ...lists.map((list, number) => {
      const { name } = MODELS[number];
      const column = element("section", "", { "aria-label": `List of ${name}` });
      column.append(element("h3", name));
      const ordered = element("ol", "");
      for (const [item, score] of list) {
        const isNew = shown[number].size > 0 && !shown[number].has(item);
        ordered.append(element("li", PLAY.labels[item], { class: isNew ? "new" : "", title: `score ${score.toPrecision(4)}` }));
      }
      changes.push(`${name}: ${ordered.querySelectorAll(".new").length} new`);
      column.append(list.length ? ordered : element("p", "Pick a title first.", { class: "note" }));
      return column;
    }),
  );
  shown = lists.map((list) => new Set(list.map(([item]) => item)));
  announce(session.length ? `${session.length} titles in the session. ${changes.join("; ")}.` : "The session is empty.");
}

part("search").addEventListener("input", showOptions);
part("search").addEventListener("blur", () => {
  part("options").hidden = true;
  part("search").setAttribute("aria-expanded", "false");
});
part("search").addEventListener("focus", showOptions);
part("search").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && options.length) {
    active = (active + step + options.length) % options.length;
    markActive();
  } else if (event.key === "Enter" && active >= 0) {
    addItem(options[active]);
  } else if (event.key === "Escape") {
    part("search").value = "";
    showOptions();
  } else if (event.key === "Backspace" && part("search").value === "" && session.length) {
    removeAt(session.length - 1);
  } else {
    return;
  }
  event.preventDefault();
});
part("clear").addEventListener("click", () => setSession([]));
part("example").addEventListener("click", () => {
  example = (example + 1) % PLAY.sessions.length;
  setSession(PLAY.sessions[example]);
});
part("example").hidden = PLAY.sessions.length === 0;
setSession(PLAY.sessions.length ? PLAY.sessions[(example = 0)] : []);
