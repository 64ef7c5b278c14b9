// Prompts objects on the video itself, shows their masks at once, and their tracks as they grow.

import { $, ask, count, link, put, say } from "./base.js";
import { boxAt, drawMask, Frames } from "./frames.js";

const PATIENT = 120_000; // ms: the video may have to be fetched first, the model to be loaded
const SMALLEST = 6; // pixels: a drag that is shorter is a click
// Okabe and Ito's, in the order of overlay.py.
const COLOURS = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]];

let state = null; // as GET state tells it
let frames = null;
let cursor = 1;
let shown = null; // the picture that is drawn
let mode = "q"; // what a click does: q positive, e negative, b box
let playing = 0; // timer
let dragged = null; // the box that is being drawn, in percent
let object = null; // what is prompted now
const tracks = new Map(); // by id: as the server tells it, with `boxes` by frame

object = newObject();

const canvas = $("#picture");
const post = (path, sent) => ask(path, { method: "POST", sent, within: PATIENT });
const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;
const colourOf = (id) => COLOURS[Math.max(0, [...tracks.keys()].indexOf(id)) % COLOURS.length];

function newObject() {
  // `steps` are the prompts in their order, `undone` those that were taken back.
  return { id: "", label: object?.label ?? "", steps: [], undone: [], candidates: [], choice: 0, asked: 0, previewed: 0 };
}

// --- prompts ---

// The prompts of the object by frame, as they are sent.
function prompts() {
  const byFrame = new Map();
  for (const step of object.steps) {
    const entry = byFrame.get(step.frame) ?? { frame: step.frame, points: [], box: null };
    if (step.box) entry.box = step.box;
    else entry.points.push(step.point);
    byFrame.set(step.frame, entry);
  }
  return [...byFrame.values()];
}

function add(step) {
  object.steps.push({ frame: cursor, ...step });
  object.undone = [];
  preview();
}

function undo() {
  if (object.steps.length) object.undone.push(object.steps.pop());
  preview();
}

function redo() {
  if (object.undone.length) object.steps.push(object.undone.pop());
  preview();
}

// The mask of this frame's prompts; an answer that a newer click has overtaken is dropped.
async function preview() {
  const now = ++object.asked;
  const asked = object;
  const entry = prompts().find(({ frame }) => frame === cursor);
  if (!entry) {
    object.candidates = [];
    return draw();
  }
  draw();
  try {
    const found = await post("preview", entry);
    if (asked !== object || now !== object.asked) return;
    Object.assign(object, { candidates: found.candidates, choice: 0, previewed: found.frame });
    told(found.candidates.length ? "" : "Nothing is seen there.");
  } catch (error) {
    if (asked === object && now === object.asked) told(error.message);
  }
  draw();
}

function nextCandidate() {
  if (object.candidates.length < 2) return;
  object.choice = (object.choice + 1) % object.candidates.length;
  draw();
}

async function track() {
  const asked = object; // while the answer is on its way, a person may go on to the next object
  if (asked.isAsked) return;
  // A mask that was chosen among several is prompted by its box, too: the clicks alone would give the first.
  const sent = prompts();
  const chosen = object.candidates[object.choice];
  const entry = sent.find(({ frame }) => frame === object.previewed);
  if (object.choice && entry && chosen?.box) entry.box ??= chosen.box;
  if (!sent.length) return told("Click on an object first.");
  asked.isAsked = true;
  try {
    const made = await post("track", { id: asked.id, label: asked.label, direction: $("#direction").value, prompts: sent });
    tracks.set(made.id, { ...made, boxes: new Map() });
    asked.id = made.id;
    told("");
    listen();
  } catch (error) {
    told(error.message);
  } finally {
    asked.isAsked = false;
  }
  show();
}

function finish() {
  object = newObject();
  show();
}

function clear() {
  Object.assign(object, { steps: [], undone: [], candidates: [] });
  object.asked++;
  show();
}

function choose(id) {
  const { label, prompts: sent } = tracks.get(id);
  object = { ...newObject(), id, label };
  for (const { frame, box, points } of sent) {
    if (box) object.steps.push({ frame, box });
    for (const point of points) object.steps.push({ frame, point });
  }
  show();
  preview();
}

// --- tracks as they grow ---

let source = null;

function listen() {
  source?.close();
  source = new EventSource("events");
  source.addEventListener("message", ({ data }) => {
    for (const told of JSON.parse(data).tracks) take(told);
    show();
  });
}

function take(told) {
  const known = tracks.get(told.id);
  if (!known) return;
  if (known.job !== told.job) known.boxes = new Map();
  for (const [frame, ...box] of told.frames) known.boxes.set(frame, box);
  Object.assign(known, { job: told.job, state: told.state, error: told.error, done: told.done, total: told.total });
}

async function act(path, id) {
  try {
    const found = await post(path, { id });
    if (path === "remove") {
      tracks.delete(id);
      if (object.id === id) object = newObject();
    } else Object.assign(tracks.get(id), { state: found.state, job: found.job });
    listen();
  } catch (error) {
    told(error.message);
  }
  show();
}

async function send() {
  try {
    const found = await post("send", { ids: [...tracks.keys()] });
    for (const { id, offered } of found.tracks) tracks.get(id).offered = offered;
    say("sent", "Sent. In Label Studio, type sent into the blue line and press Enter; t on a box brings those of its class.");
  } catch (error) {
    say("sent", error.message);
  }
}

// --- drawing ---

function draw() {
  if (!shown) return;
  const context = canvas.getContext("2d");
  const [width, height] = [canvas.width, canvas.height];
  context.drawImage(shown, 0, 0, width, height);
  const scale = width / Math.max(1, canvas.clientWidth);
  context.lineWidth = 2 * scale;
  context.font = `600 ${13 * scale}px system-ui, sans-serif`;
  const box = ([x, y, wide, high], colour, text) => {
    const corner = [(x * width) / 100, (y * height) / 100];
    context.strokeStyle = colour;
    context.strokeRect(...corner, (wide * width) / 100, (high * height) / 100);
    if (!text) return;
    const long = context.measureText(text).width + 8 * scale;
    const top = Math.max(0, corner[1] - 19 * scale);
    context.fillStyle = colour;
    context.fillRect(corner[0], top, long, 18 * scale);
    context.fillStyle = "#000";
    context.fillText(text, corner[0] + 4 * scale, top + 14 * scale);
  };
  for (const { id, number, label, keyframes } of state.regions) {
    const here = tracks.has(id) ? null : boxAt(keyframes, cursor);
    if (here) box(here, "#ffffff", `${number} ${label}`);
  }
  for (const [id, { boxes, label }] of tracks) {
    const here = boxes.get(cursor);
    if (here?.length) box(here, css(colourOf(id)), label || "no class");
  }
  const colour = object.id ? colourOf(object.id) : COLOURS[tracks.size % COLOURS.length];
  const candidate = object.previewed === cursor ? object.candidates[object.choice] : null;
  if (candidate?.mask) {
    candidate.drawn ??= drawMask(candidate.mask, colour);
    context.drawImage(candidate.drawn, 0, 0, width, height);
    if (candidate.box) box(candidate.box, css(colour), object.candidates.length > 1 ? `${object.choice + 1} of ${object.candidates.length} (Tab)` : "");
  }
  for (const step of object.steps.filter(({ frame }) => frame === cursor)) {
    if (step.box) box(step.box, css(colour), "");
    else {
      const [x, y, isOn] = step.point;
      context.beginPath();
      context.arc((x * width) / 100, (y * height) / 100, 5 * scale, 0, 7);
      context.fillStyle = isOn ? "#25c26e" : "#e0362c";
      context.fill();
      context.strokeStyle = "#fff";
      context.stroke();
    }
  }
  if (dragged) box(dragged, css(colour), "");
}

function show() {
  for (const button of document.querySelectorAll(".modes button")) button.setAttribute("aria-pressed", button.dataset.key === mode);
  for (const button of document.querySelectorAll("#labels button")) button.setAttribute("aria-pressed", button.textContent.endsWith(` ${object.label}`));
  $("#play").textContent = playing ? "Stop" : "Play";
  $("#empty").hidden = tracks.size > 0;
  $("#send").hidden = !tracks.size;
  const list = $("#tracks");
  for (const item of [...list.children]) if (!tracks.has(item.dataset.id)) item.remove();
  for (const [id, known] of tracks) {
    const item = [...list.children].find((one) => one.dataset.id === id) ?? list.appendChild(newItem(id));
    item.style.setProperty("--colour", css(colourOf(id)));
    item.classList.toggle("is-chosen", object.id === id);
    $(".name", item).textContent = known.label || "no class";
    const isRunning = ["queued", "running"].includes(known.state);
    const words = { queued: "waits", running: `${known.done} of ${known.total}`, done: "done", cancelled: "stopped" };
    $(".state", item).textContent = known.state === "failed" ? known.error : words[known.state];
    $(".state", item).classList.toggle("is-bad", known.state === "failed");
    $(".stop", item).hidden = known.state === "done";
    $(".stop", item).textContent = isRunning ? "Stop" : "Go on";
  }
  showTimeline();
  draw();
}

function newItem(id) {
  const item = $("#track").content.firstElementChild.cloneNode(true);
  item.dataset.id = id;
  $(".choose", item).addEventListener("click", () => choose(id));
  $(".stop", item).addEventListener("click", () => act(["queued", "running"].includes(tracks.get(id).state) ? "stop" : "resume", id));
  $(".remove", item).addEventListener("click", () => act("remove", id));
  return item;
}

// The chosen track's frames, or the last one's, and their scores.
function showTimeline() {
  const known = tracks.get(object.id) ?? [...tracks.values()].at(-1);
  $("#timeline svg").setAttribute("viewBox", `0 0 ${state.frames} 1`);
  const places = [...(known?.boxes ?? [])].sort(([a], [b]) => a - b);
  const part = (frame, before) => (frame === before + 1 ? `H${frame}` : `M${frame - 1} .9H${frame}`);
  $(".done").setAttribute("d", places.map(([frame], at) => part(frame, places[at - 1]?.[0])).join(""));
  let before = NaN;
  const line = places.filter(([, box]) => box.length).map(([frame, box]) => {
    const step = `${frame === before + 1 ? "L" : "M"}${frame - 0.5} ${0.8 - 0.7 * box[4]}`;
    before = frame;
    return step;
  });
  $(".score").setAttribute("d", line.join(""));
}

function told(text) {
  say("told", text && `${text.charAt(0).toUpperCase()}${text.slice(1)}`);
}

// --- the frame that is shown ---

async function moveTo(frame) {
  const before = cursor;
  cursor = Math.min(state.frames, Math.max(1, Math.round(frame) || 1));
  $("#frame").textContent = `${cursor} of ${state.frames}`;
  $("#timeline .cursor").style.left = `${(100 * (cursor - 0.5)) / state.frames}%`;
  $("#timeline").setAttribute("aria-valuenow", cursor);
  const wanted = cursor;
  try {
    const picture = await frames.get(wanted);
    if (wanted !== cursor) return;
    shown = picture;
    document.body.dataset.shown = wanted; // for tests and benchmarks
    draw();
  } catch (error) {
    if (wanted === cursor) told(error.message);
  }
  frames.ahead(wanted, wanted < before ? -1 : 1);
  if (!playing) encodeSoon();
}

let resting = 0;

// The frame under the cursor, then its neighbours: a click then costs the mask decoder alone.
function encodeSoon() {
  clearTimeout(resting);
  resting = setTimeout(() => {
    const near = [cursor, cursor + 1, cursor - 1, cursor + 2].filter((one) => one >= 1 && one <= state.frames);
    post("encode", { frames: near }).catch(() => null);
    if (object.steps.some(({ frame }) => frame === cursor) && object.previewed !== cursor) preview();
  }, 150);
}

function play() {
  playing = playing ? clearInterval(playing) ?? 0 : setInterval(() => (cursor < state.frames ? moveTo(cursor + 1) : play()), 1000 / state.rate);
  if (!playing) encodeSoon();
  show();
}

// --- gestures ---

function place(event) {
  // The canvas fits its picture into its place (object-fit: contain).
  const area = canvas.getBoundingClientRect();
  const scale = Math.min(area.width / canvas.width, area.height / canvas.height);
  const [wide, high] = [canvas.width * scale, canvas.height * scale];
  const x = (event.clientX - area.left - (area.width - wide) / 2) / wide;
  const y = (event.clientY - area.top - (area.height - high) / 2) / high;
  return [x, y].map((share) => 100 * Math.min(1, Math.max(0, share)));
}

let start = null;

canvas.addEventListener("pointerdown", (event) => {
  if (playing) play();
  canvas.setPointerCapture(event.pointerId);
  start = { at: place(event), x: event.clientX, y: event.clientY };
});
canvas.addEventListener("pointermove", (event) => {
  if (!start || mode !== "b") return;
  const [x, y] = place(event);
  dragged = [Math.min(x, start.at[0]), Math.min(y, start.at[1]), Math.abs(x - start.at[0]), Math.abs(y - start.at[1])];
  draw();
});
canvas.addEventListener("pointerup", (event) => {
  if (!start) return;
  const far = Math.hypot(event.clientX - start.x, event.clientY - start.y);
  const { at } = start;
  const box = dragged;
  [start, dragged] = [null, null];
  if (mode === "b") return far >= SMALLEST && box ? add({ box }) : draw();
  add({ point: [...at, event.button !== 2 && mode !== "e"] });
});
canvas.addEventListener("contextmenu", (event) => event.preventDefault());

function scrub(event) {
  const { left, width } = $("#timeline").getBoundingClientRect();
  if (event.type === "pointerdown") $("#timeline").setPointerCapture(event.pointerId);
  else if (!$("#timeline").hasPointerCapture(event.pointerId)) return;
  moveTo(((event.clientX - left) / width) * state.frames + 0.5);
}
for (const type of ["pointerdown", "pointermove"]) $("#timeline").addEventListener(type, scrub);

function setMode(key) {
  mode = key;
  show();
}

function setLabel(number) {
  if (!state.labels[number - 1]) return;
  object.label = state.labels[number - 1];
  show();
}

const KEYS = {
  ArrowLeft: (event) => moveTo(cursor - (event.shiftKey ? 10 : 1)),
  ArrowRight: (event) => moveTo(cursor + (event.shiftKey ? 10 : 1)),
  Home: () => moveTo(1),
  End: () => moveTo(state.frames),
  " ": play,
  q: () => setMode("q"),
  e: () => setMode("e"),
  b: () => setMode("b"),
  f: finish,
  c: clear,
  Enter: track,
  Escape: finish,
  "?": () => $("#keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (!state || $("#keys").open || event.altKey || event.target.matches("select")) return;
  const isOnButton = event.target.matches("button, a") && ["Enter", " ", "Tab"].includes(event.key);
  if (isOnButton) return;
  let handle = KEYS[event.key];
  if (event.ctrlKey || event.metaKey) handle = { z: event.shiftKey ? redo : undo, Z: redo, y: redo }[event.key];
  else if (/^[1-9]$/.test(event.key)) handle = () => setLabel(Number(event.key));
  // Without an ambiguous click, Tab moves on as everywhere.
  else if (event.key === "Tab" && !event.shiftKey && object.candidates.length > 1) handle = nextCandidate;
  if (!handle) return;
  event.preventDefault();
  handle(event);
});
for (const button of document.querySelectorAll("[data-key]")) {
  button.addEventListener("click", (event) => {
    KEYS[button.dataset.key](event);
    canvas.focus({ preventScroll: true });
  });
}
$("#send").addEventListener("click", send);

// --- beginning ---

async function load() {
  try {
    state = await ask("state", { within: PATIENT });
  } catch (error) {
    return say("failed", `${error.message} Load the page again to try once more.`);
  }
  $("#title").textContent = document.title = `Prompt on task ${state.task}`;
  put("#about .video", state.video);
  put("#about .length", count(state.frames, "frame"));
  link($(".studio"), state.url);
  $("nav .tracks").href = `../../tasks/${state.task}?${new URLSearchParams({ project: state.project })}`;
  $("#timeline").setAttribute("aria-valuemax", state.frames);
  $("#labels").replaceChildren(...state.labels.map((label, at) => {
    const item = document.createElement("li");
    const button = item.appendChild(document.createElement("button"));
    button.type = "button";
    button.textContent = `${at < 9 ? at + 1 : ""} ${label}`;
    button.addEventListener("click", () => setLabel(at + 1));
    return item;
  }));
  if (state.labels.length === 1) object.label = state.labels[0];
  [canvas.width, canvas.height] = [state.width, state.height];
  frames = new Frames((frame) => `frames/${frame}.jpg`, state.frames);
  for (const known of state.tracks) tracks.set(known.id, { ...known, boxes: new Map() });
  $("main").hidden = false;
  show();
  moveTo(1);
  if (tracks.size) listen();
  canvas.focus({ preventScroll: true });
}

load();
