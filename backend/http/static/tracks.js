// Shows the tracks of one task and changes them: every change is shown before it is made.

import { clock, FrameAxis, placeTicks } from "./axis.js";
import { $, ask, count, link, put, say, sentence } from "./base.js";
import { boxAt } from "./frames.js";
import { Painter } from "./painter.js";
import { Player } from "./player.js";
import { colourOf, Row } from "./track_row.js";

const PATIENT = 120_000; // ms: the video may have to be fetched first, Label Studio to be written to
const LARGE = "sam3-backend.large-picture"; // kept for the next visit

const task = location.pathname.match(/\d+$/)?.[0] ?? "";
const project = new URLSearchParams(location.search).get("project") ?? "";
const at = (path, more = {}) => `${task}/${path}?${new URLSearchParams({ project, ...more })}`;
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

let state = null; // as GET tracks tells it
let preview = null; // what an edit would do, and the edit
let isBusy = false; // something was asked for that changes or previews
let cursor = 1; // frame
const selected = new Set(); // track numbers
const rows = new Map(); // a track's number → its row

// --- showing ---

function show() {
  const before = new Map(state.tracks.map((track) => [track.id, track]));
  const now = preview ? new Map(preview.tracks.map((track) => [track.id, track])) : before;
  const ids = [...new Set([...before.keys(), ...now.keys()])].sort((a, b) => a - b);
  for (const id of rows.keys()) {
    if (before.has(id) || now.has(id)) continue;
    rows.get(id).root.remove();
    rows.delete(id);
  }
  ids.forEach((id, place) => {
    if (!rows.has(id)) rows.set(id, new Row(id, select));
    const row = rows.get(id);
    const shown = { isSelected: selected.has(id), isPreview: Boolean(preview), length: state.frames };
    row.update(now.get(id) ?? null, before.get(id) ?? null, shown);
    const list = $("#list .table ul");
    if (list.children[place] !== row.root) list.insertBefore(row.root, list.children[place] ?? null);
  });
  $("#list").classList.toggle("is-preview", Boolean(preview));
  showFiltered();
  showWork();
  player.draw();
}

function showState() {
  const known = new Set(state.tracks.map((track) => track.id));
  for (const id of selected) if (!known.has(id)) selected.delete(id);
  put("#about .of", state.of ?? "");
  put("#about .by", state.by ? `by ${state.by}` : "");
  put("#about .video", state.video ?? "");
  put("#about .length", count(state.frames, "frame"));
  link($(".studio"), state.url);
  $(".export").href = `../export?${new URLSearchParams({ project: state.project ?? project })}`;
  $(".studio").hidden = !$(".studio").href;
  $(".undo").textContent = $(".undo").title = `Undo: ${state.undo}`;
  choices($("#label"), state.labels);
  for (const id of ["frame", "from", "to"]) document.getElementById(id).max = state.frames;
  $("#axis").setAttribute("aria-valuemax", state.frames);
  showProposals();
  $("main").hidden = false;
  if (lanes.length !== state.frames || !player.frames) {
    lanes.length = state.frames;
    player.open({ address: (frame) => `${state.prompting}frames/${frame}.jpg`, length: state.frames, rate: state.rate });
  }
  showAxis();
  moveTo(cursor);
  show();
}

function showFiltered() {
  const terms = $("#filter").value.toLowerCase().split(",").map((term) => term.trim()).filter(Boolean);
  const tracks = new Map([...state.tracks, ...(preview?.tracks ?? [])].map((track) => [track.id, track]));
  const fits = ({ id, label }) => terms.some((term) => String(id).startsWith(term) || label.toLowerCase().includes(term));
  for (const [id, { root }] of rows) {
    root.hidden = terms.length > 0 && !root.classList.contains("is-changed") && !fits(tracks.get(id));
  }
  const shown = [...rows.values()].filter(({ root }) => !root.hidden);
  const all = $("#list .all");
  all.checked = shown.length > 0 && shown.every(({ id }) => selected.has(id));
  all.indeterminate = !all.checked && selected.size > 0;
  all.disabled = Boolean(preview) || !shown.length;
  put(".tools .count", terms.length ? `${shown.length} of ${count(rows.size, "track")}` : count(rows.size, "track"));
  const none = rows.size ? "No track has this label or number." : "This task has no tracks yet.";
  put("#list .empty", shown.length ? "" : none);
}

function showWork() {
  const ids = [...selected].sort((a, b) => a - b);
  const one = ids.length === 1;
  $("#work .hint").hidden = Boolean(preview) || ids.length > 0;
  $("#edit").hidden = Boolean(preview) || !ids.length;
  $("#preview").hidden = !preview;
  $("#proposals").hidden = Boolean(preview) || !state.proposals.length;
  $(".undo").hidden = Boolean(preview) || !state.undo;
  $("#work").classList.toggle("is-idle", !preview && !ids.length && !$(".refusal").textContent);
  put(".chosen", `${one ? "Track" : `${ids.length} tracks:`} ${numbers(ids)}`);
  const action = (name) => $(`[data-do="${name}"]`);
  action("renumber").hidden = !one;
  action("split").hidden = !one;
  action("merge").hidden = ids.length < 2;
  choices($("#into"), ids.map(String));
  const range = preview ? preview.edit.frames : frames();
  put('[data-do="delete"] .what', range ? "These frames" : one ? "The track" : "These tracks");
  const list = $("#list");
  list.classList.toggle("has-range", Boolean(range) && ids.length > 0);
  list.style.setProperty("--from", lanes.share((range?.[0] ?? 1) - 1));
  list.style.setProperty("--wide", lanes.share((range?.[1] ?? 0) - (range?.[0] ?? 1) + 1));
  showLinks();
}

// To the page on which the track is corrected, at this frame.
function showLinks() {
  const [id] = selected.size === 1 ? selected : [];
  const hash = new URLSearchParams({ frame: cursor, ...(id && { track: id }) });
  for (const anchor of $$(".prompt")) anchor.href = `${state.prompting}#${hash}`;
  $("#edit .prompt").hidden = !id;
}

const numbers = (ids) => (ids.length > 12 ? `${ids.slice(0, 12).join(", ")}, …` : ids.join(", "));

// Keeps what a person has chosen where it can still be chosen.
function choices(menu, names) {
  if (JSON.stringify($$("option", menu).map((option) => option.value)) === JSON.stringify(names)) return;
  const chosen = menu.value;
  menu.replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(chosen)) menu.value = chosen;
}

function showProposals() {
  $("#proposals ul").replaceChildren(...state.proposals.map((proposal) => {
    const root = $("#proposal").content.firstElementChild.cloneNode(true);
    const names = proposal.tracks.join(" and ");
    put("strong", `${names}:`, root);
    put("span", proposal.why, root);
    $(".look", root).setAttribute("aria-label", `Look at ${names}`);
    $(".merge", root).setAttribute("aria-label", `Merge ${names} …`);
    $(".look", root).title = "The last frame before the gap; again: the first one after it";
    $(".look", root).addEventListener("click", () => lookAt(proposal));
    $(".merge", root).addEventListener("click", () => {
      selectOnly(proposal.tracks);
      propose({ do: "merge", tracks: proposal.tracks, to: proposal.tracks[0] });
    });
    return root;
  }));
}

function lookAt({ tracks }) {
  const [first, second] = tracks.map((id) => state.tracks.find((track) => track.id === id));
  if (!first || !second) return;
  const begin = second.spans[0][0];
  const end = first.spans.map(([, last]) => last).filter((last) => last < begin).at(-1) ?? first.spans.at(-1)[1];
  $("#filter").value = "";
  selectOnly(tracks);
  moveTo(cursor === end ? begin : end);
  rows.get(tracks[0]).root.scrollIntoView({ block: "nearest" });
}

// --- the time axis and its cursor ---

function showAxis() {
  const { ticks, step } = placeTicks(state.frames, $("#axis").clientWidth);
  $("#list").style.setProperty("--grid", lanes.share(step));
  $(".ticks").replaceChildren(...ticks.map((frame) => {
    const tick = document.createElement("span");
    tick.textContent = String(frame);
    tick.style.left = lanes.share(frame - 0.5);
    return tick;
  }));
}

function moveTo(frame) {
  player.moveTo(frame);
}

function placeCursor(frame) {
  cursor = frame;
  const time = clock((cursor - 1) / state.rate);
  for (const mark of $$(".cursor, .flag")) mark.style.left = lanes.share(cursor - 0.5);
  $("#axis").setAttribute("aria-valuenow", cursor);
  $("#axis").setAttribute("aria-valuetext", `frame ${cursor}, ${time}`);
  $(".flag").textContent = String(cursor);
  $("#frame").value = cursor;
  $("#look .time").textContent = time;
  put('[data-do="split"] .what', `Second part from ${cursor} on`);
  showLinks();
}

function step(how) {
  const onward = !how.includes("back");
  if (!how.startsWith("keyframe")) return moveTo(cursor + (onward ? 1 : -1));
  const tracks = state.tracks.filter(({ id }) => !selected.size || selected.has(id));
  const places = tracks.flatMap(({ keyframes }) => keyframes.map(([frame]) => frame)).filter((frame) => (onward ? frame > cursor : frame < cursor));
  if (places.length) moveTo(places.reduce((a, b) => ((a < b) === onward ? a : b)));
}

function setRange([first, last]) {
  if (preview) return;
  [$("#from").value, $("#to").value] = [first, last];
  $('[value="part"]').checked = true;
  showWork();
}

// The frames that the form names; null: the whole video.
function frames() {
  if ($('[value="whole"]').checked) return null;
  return [$("#from"), $("#to")].map((input) => input.valueAsNumber);
}

const lanes = new FrameAxis($("#list"), {
  onFrame: moveTo,
  onRange: setRange,
  laneOf: (event) => event.target.closest(".lane"),
  slider: $("#axis"),
});

function press(event) {
  const second = Math.max(1, Math.round(state.rate));
  const keyframe = event.altKey ? "keyframe " : "";
  const from = cursor;
  const keys = {
    ArrowLeft: () => step(`${keyframe}back`),
    ArrowRight: () => step(`${keyframe}on`),
    PageDown: () => moveTo(cursor - second),
    PageUp: () => moveTo(cursor + second),
    Home: () => moveTo(1),
    End: () => moveTo(state.frames),
    " ": () => player.toggle(),
  };
  if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  keys[event.key]();
  if (!event.shiftKey) lanes.anchor = null;
  else setRange([(lanes.anchor ??= from), cursor].sort((a, b) => a - b));
}

const player = new Player($("#look canvas"), {
  onFrame: placeCursor,
  onShown: showPicture,
  onProblem: (problem) => put("#look .problem", `No picture of this frame: ${problem}`),
  onPlay: showPlaying,
  paint: paintTracks,
});

// The tracks as they are, or as the edit that is shown would make them; those that are selected above the others.
function paintTracks(context) {
  const painter = new Painter(context);
  const tracks = (preview ?? state).tracks.map(({ id, label, keyframes }) => [id, label, boxAt(keyframes, cursor)]);
  const isLast = ([id]) => Number(selected.has(id));
  for (const [id, label, box] of tracks.filter(([, , box]) => box).sort((a, b) => isLast(a) - isLast(b))) {
    painter.box(box, colourOf(id), { text: `${id} ${label}`, isThick: selected.has(id) });
  }
}

function showPicture(frame) {
  put("#look .problem", "");
  player.canvas.ariaLabel = `Frame ${frame} with its boxes, numbers and labels`;
}

function showPlaying(isPlaying) {
  const button = $("#look .play");
  button.classList.toggle("is-playing", isPlaying);
  button.ariaLabel = isPlaying ? "Pause" : "Play";
  button.title = `${button.ariaLabel} (Space)`;
}

function enlarge(isLarge) {
  $("main").classList.toggle("is-large", isLarge);
  $(".enlarge").setAttribute("aria-pressed", isLarge);
  localStorage.setItem(LARGE, isLarge ? "yes" : "");
  showAxis();
  player.draw();
}

// --- selecting ---

function select(id, isChosen) {
  if (isChosen) selected.add(id);
  else selected.delete(id);
  refuse("");
  show();
}

function selectOnly(ids) {
  selected.clear();
  for (const id of ids) selected.add(id);
  refuse("");
  show();
}

// --- edits ---

function edit(name) {
  const ids = [...selected].sort((a, b) => a - b);
  const tracks = ids.length > 1 && ids.length === state.tracks.length ? "all" : ids;
  return {
    rename: { do: name, tracks, label: $("#label").value, frames: frames() },
    renumber: { do: name, tracks: ids, to: $("#number").valueAsNumber, frames: frames() },
    delete: { do: name, tracks, frames: frames() },
    merge: { do: name, tracks: ids, to: Number($("#into").value) },
    split: { do: name, tracks: ids, at: cursor },
  }[name];
}

// Asks for one thing at a time. What is refused is said; where others changed the tracks, loading again is offered.
async function attempt(button, request) {
  if (isBusy) return null;
  isBusy = true;
  button?.setAttribute("aria-disabled", "true");
  refuse("");
  try {
    return await request();
  } catch (error) {
    const newest = await ask(at("tracks"), { within: PATIENT }).catch(() => null);
    const isOld = newest !== null && newest.version !== state.version;
    refuse(isOld ? `${sentence(error.message)} The tracks were changed meanwhile.` : sentence(error.message), isOld);
    return null;
  } finally {
    isBusy = false;
    button?.removeAttribute("aria-disabled");
  }
}

function refuse(text, isOld = false) {
  $(".refusal").textContent = text;
  $(".again").hidden = !isOld;
  $("#work").classList.toggle("is-idle", !preview && !selected.size && !text);
}

let asked = null; // the button that a preview came from

async function propose(wanted) {
  if (preview) return;
  asked = document.activeElement;
  const sent = { edit: wanted, version: state.version, apply: false };
  const found = await attempt(asked, () => ask(at("tracks"), { method: "POST", sent, within: PATIENT }));
  if (!found) return;
  preview = { ...found, edit: wanted };
  $(".changes").replaceChildren(...found.changes.map((change) => {
    const item = document.createElement("li");
    item.textContent = change;
    return item;
  }));
  show();
  $("#list .is-changed")?.scrollIntoView({ block: "nearest" });
  $(".apply").focus({ preventScroll: true });
}

function leave() {
  preview = null;
  refuse("");
  show();
  asked?.focus({ preventScroll: true });
}

async function apply() {
  const sent = { edit: preview.edit, version: preview.version, apply: true };
  const found = await attempt($(".apply"), () => ask(at("tracks"), { method: "POST", sent, within: PATIENT }));
  if (found) take(found, `Done: ${preview.changes.join(" ")}`);
}

async function undo() {
  const [what, sent] = [state.undo, { version: state.version }];
  const found = await attempt($(".undo"), () => ask(at("tracks/undo"), { method: "POST", sent, within: PATIENT }));
  if (found) take(found, `Undone: ${what}`);
}

function take(found, news) {
  const hadFocus = $("#work").contains(document.activeElement);
  [state, preview] = [found, null];
  refuse("");
  showState();
  say("news", news);
  if (hadFocus) $("#axis").focus({ preventScroll: true });
}

async function load() {
  try {
    const found = await ask(at("tracks"), { within: PATIENT });
    say("failed", "");
    take(found, "");
  } catch (error) {
    say("failed", `${sentence(error.message)} Load the page again to try once more.`);
  }
}

// Somebody who comes back from Label Studio sees what they did there.
async function comeBack() {
  if (document.hidden || !state || isBusy) return;
  const newest = await ask(at("tracks"), { within: PATIENT }).catch(() => null);
  if (!newest || newest.version === state.version || isBusy) return;
  if (preview) refuse("The tracks were changed meanwhile.", true);
  else take(newest, "The tracks were changed meanwhile.");
}

// --- beginning ---

$("#title").textContent = `Tracks of task ${task}`;
document.title = `Tracks of task ${task} · SAM3 backend`;

$("#axis").addEventListener("keydown", press);
$("#axis").addEventListener("keyup", (event) => event.key === "Shift" && (lanes.anchor = null));
for (const button of $$("[data-step]")) button.addEventListener("click", () => step(button.dataset.step));
$("#look .play").addEventListener("click", () => player.toggle());
$("#look .speed").addEventListener("change", (event) => {
  player.speed = Number(event.target.value);
  if (player.isPlaying) player.play();
});
$(".enlarge").addEventListener("click", () => enlarge(!$("main").classList.contains("is-large")));
$("#look .picture").addEventListener("click", () => $(".enlarge").click());
$("#frame").addEventListener("change", () => moveTo($("#frame").valueAsNumber));
$("#filter").addEventListener("input", showFiltered);
$("#list .all").addEventListener("change", (event) => {
  const shown = [...rows.values()].filter(({ root }) => !root.hidden);
  for (const { id } of shown) event.target.checked ? selected.add(id) : selected.delete(id);
  refuse("");
  show();
});
for (const button of $$("[data-do] button")) {
  button.addEventListener("click", () => propose(edit(button.closest("[data-do]").dataset.do)));
}
$("#edit").addEventListener("submit", (event) => event.preventDefault());
$("#edit").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches(".action input")) $("button", event.target.closest(".action")).click();
});
$("#edit").addEventListener("input", (event) => {
  if (["from", "to"].includes(event.target.id)) $('[value="part"]').checked = true;
  else if (event.target.value === "part" && !$("#from").value) setRange([cursor, state.frames]);
  showWork();
});
$(".none").addEventListener("click", () => selectOnly([]));
$(".apply").addEventListener("click", apply);
$(".leave").addEventListener("click", leave);
$(".again").addEventListener("click", load);
$(".undo").addEventListener("click", undo);
document.addEventListener("keydown", (event) => event.key === "Escape" && preview && !isBusy && leave());
document.addEventListener("visibilitychange", comeBack);
new ResizeObserver(() => state && showAxis()).observe($("#axis"));
new ResizeObserver(() => player.draw()).observe(player.canvas);
const [wanted, first] = ["select", "frame"].map((name) => Number(new URLSearchParams(location.search).get(name)));
load().then(() => {
  if (!state) return;
  if (state.tracks.some(({ id }) => id === wanted)) selectOnly([wanted]);
  if (first) moveTo(first);
  enlarge(Boolean(localStorage.getItem(LARGE)));
});
