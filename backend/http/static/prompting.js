// Prompts objects on the video itself, shows their masks at once, and their tracks as they grow; corrects both.

import { $, ask, count, link, put, say, sentence } from "./base.js";
import { drawMask } from "./frames.js";
import { Player } from "./player.js";
import { PromptedObject } from "./prompted_object.js";
import { colourAt, css, Painter } from "./painter.js";
import { describeSent, listLabels, trackList } from "./prompting_list.js";
import { Pointer } from "./prompting_pointer.js";
import { Review } from "./prompting_review.js";
import { Tracks } from "./prompting_tracks.js";
import { listenForKeys } from "./shortcuts.js";
import { nextLow, Timeline } from "./timeline.js";
import { Zoom } from "./zoom.js";

const PATIENT = 120_000; // ms: the video may have to be fetched first, the model to be loaded
const RESTING = 150; // ms that the cursor rests before its frame is encoded

let state = null; // as GET state tells it
let range = null; // first and last frame to track
let masks = 0; // previews that were drawn
let answers = 0; // to what was asked to be tracked
let isFollowing = false; // the cursor goes along with the track that grows
let object = new PromptedObject();
let video = null;
let review = null;

const canvas = $("#picture");
const post = (path, sent) => ask(path, { method: "POST", sent, within: PATIENT });
const colourOf = (id) => colourAt(tracks.index(id));
const tracks = new Tracks({ onChange: onGrowth, onNew: () => refresh(), open: () => new EventSource("events") });
const zoom = new Zoom($("#stage"), canvas, draw);
const gestures = { onChoose: choose, onStop: stopOrGoOn, onRemove: (id) => act("remove", id), colourOf: (id) => css(colourOf(id)) };
const [showSearches, showTracks, showRegions] = ["#searches", "#tracks", "#regions"].map((name) => trackList($(name), gestures));
const timeline = new Timeline($("#timeline"), { onFrame: moveTo, onRange: setRange });

// --- prompts ---

function add(step) {
  object.add({ frame: video.frame, ...step });
  preview();
}

function undo() {
  object.undo();
  preview();
}

function redo() {
  object.redo();
  preview();
}

function nextCandidate() {
  object.nextCandidate();
  draw();
}

async function preview() {
  const asked = object;
  draw();
  try {
    const isNewest = await asked.preview(video.frame, post);
    if (!isNewest || asked !== object) return;
    told(asked.previewed && !asked.candidates.length ? "Nothing is seen there." : "");
    draw();
    document.body.dataset.masks = masks += asked.candidates.length > 0; // for tests and benchmarks
  } catch (error) {
    if (asked === object) told(error.message);
  }
}

async function track() {
  const asked = object; // while the answer is on its way, a person may go on to the next object
  const prompts = asked.chosenPrompts();
  if (asked.isAsked) return;
  if (!prompts.length) return told("Click on an object first.");
  asked.isAsked = true;
  const [first, last] = range ?? [null, null];
  try {
    const made = await post("track", { id: asked.id, label: asked.label, direction: $("#direction").value, first, last, prompts });
    asked.id = made.id;
    tracks.put(made);
    told("");
    tracks.again();
  } catch (error) {
    told(error.message);
  } finally {
    asked.isAsked = false;
  }
  show();
  document.body.dataset.answers = answers += 1; // for tests
}

async function trackAndFinish() {
  const asked = object;
  await track();
  if (asked === object && asked.id) finish();
}

function finish() {
  object = new PromptedObject({ label: object.label });
  setRange(null);
  show();
}

function clear() {
  object.clear();
  show();
}

function choose(id) {
  const { label, prompts, isRegion } = tracks.get(id);
  object = new PromptedObject({ id, label, ...(isRegion ? { known: prompts } : { prompts }) });
  show();
  preview();
}

// --- what is done to tracks ---

async function act(path, id) {
  try {
    const found = await post(path, { id });
    if (path === "remove") await refresh(); // what it had corrected is a region of the annotation again
    else tracks.take(found);
    if (object.id && !tracks.get(object.id)) object = new PromptedObject({ label: object.label });
    tracks.again();
  } catch (error) {
    told(error.message);
  }
  show();
}

function stopOrGoOn(id = object.id) {
  const known = tracks.get(id) ?? tracks.searches.find((one) => one.id === id);
  if (!known || known.isRegion || known.state === "done") return;
  act(["queued", "running"].includes(known.state) ? "stop" : "resume", id);
}

// Looks for the objects of words; with examples, for those that are like these boxes.
async function search(text, examples = []) {
  const [first, last] = range ?? [null, null];
  try {
    await post("search", { text, label: object.label, examples, first, last });
    $("#words input").value = "";
    await refresh();
    tracks.again();
    told("");
  } catch (error) {
    told(error.message);
  }
}

function searchAlike() {
  const examples = object.prompts().filter(({ box }) => box);
  if (!examples.length) return told("Draw a box around an example first.");
  search($("#words input").value, examples);
  finish();
}

async function send() {
  try {
    const found = await post("send", { ids: tracks.ofPage.map(({ id }) => id) });
    tracks.take(found);
    if (tracks.get(object.id)?.isRegion) choose(object.id); // its clicks are the region's now
    say("sent", describeSent(found));
  } catch (error) {
    say("sent", sentence(error.message));
    refresh().catch(() => null); // others may have been written or offered
  }
  show();
}

async function refresh() {
  tracks.take(await ask("state", { within: PATIENT }));
  show();
}

let ended = "";

function onGrowth() {
  if (!state) return;
  const chosen = tracks.get(object.id);
  if (isFollowing && chosen?.isRunning && chosen.newest) video.moveTo(chosen.newest);
  const now = JSON.stringify(tracks.ofPage.filter(({ isComplete }) => isComplete).map(({ job }) => job));
  if (now !== ended) review.refresh().catch(() => null);
  ended = now;
  show();
}

function lookAt({ frame, ids }) {
  if (tracks.get(ids[0])) choose(ids[0]);
  moveTo(frame);
}

// The first frame of the next part with a low score, of the chosen track or of all.
function stepLow(isOnward) {
  const chosen = tracks.get(object.id);
  const place = nextLow(chosen ? [chosen] : tracks.ofPage, video.frame, isOnward);
  if (place) moveTo(place);
  else told(isOnward ? "No low score after this frame." : "No low score before this frame.");
}

// --- drawing ---

const loadMask = (id) => async (frame) => {
  const { mask } = await ask(`masks/${encodeURIComponent(id)}/${frame}`);
  return mask && drawMask(mask, colourOf(id));
};

function draw() {
  video?.draw();
}

function paint(context) {
  const { frame } = video;
  const painter = new Painter(context, zoom.scale);
  for (const [id, track] of tracks.all) {
    const mask = video.isPlaying ? null : track.mask(frame, loadMask(id), draw);
    painter.track(track, frame, { colour: colourOf(id), mask, isChosen: id === object.id, isPrompted: object.candidate(frame) });
  }
  painter.object(object, frame, colourOf(object.id));
  if (pointer.dragged) painter.box(pointer.dragged, css(colourOf(object.id)));
}

function show() {
  for (const button of document.querySelectorAll(".modes button")) button.setAttribute("aria-pressed", button.dataset.key === pointer.mode);
  for (const button of document.querySelectorAll("#labels button")) button.setAttribute("aria-pressed", button.dataset.label === object.label);
  $("#play").textContent = video.isPlaying ? "Stop" : "Play";
  $("#follow").setAttribute("aria-pressed", isFollowing);
  const chosen = tracks.get(object.id);
  put("#chosen", chosen ? `${chosen.name}: ${chosen.isRegion ? "click or draw a box to correct it" : "more clicks correct it"}` : "");
  showLinks();
  $(".apply").textContent = chosen ? "Correct" : "Track";
  $("#empty").hidden = tracks.ofPage.length > 0;
  $("#send").hidden = !tracks.ofPage.length;
  $("#annotation").hidden = !tracks.regions.length;
  showSearches(tracks.searches.map((one) => ({ ...one, name: one.text })), "");
  showTracks(tracks.ofPage, object.id);
  showRegions(tracks.regions, object.id);
  const shown = chosen ?? tracks.ofPage.at(-1);
  const prompted = [...(shown?.prompts ?? []), ...object.steps].map(({ frame }) => frame);
  timeline.show(shown?.boxes ?? new Map(), prompted);
  draw();
}

// To the page on which what is submitted is renamed, merged, split: at this frame, with the track that is chosen.
function showLinks() {
  const number = tracks.get(object.id)?.number;
  const query = new URLSearchParams({ project: state.project, frame: video.frame, ...(number && { select: number }) });
  for (const anchor of document.querySelectorAll(".manage")) anchor.href = `../../tasks/${state.task}?${query}`;
  $("aside .manage").hidden = !number;
}

function told(text) {
  say("told", text && sentence(text));
}

// --- the frame that is shown ---

function moveTo(frame) {
  video.moveTo(frame);
}

function onFrame(frame) {
  $("#frame").textContent = `${frame} of ${state.frames}`;
  timeline.setFrame(frame);
  showLinks();
  encodeSoon();
}

let resting = 0;

// The frame under the cursor, then its neighbours: a click then costs the mask decoder alone.
function encodeSoon() {
  clearTimeout(resting);
  resting = setTimeout(() => {
    const { frame } = video;
    if (video.isPlaying) return;
    const near = [frame, frame + 1, frame - 1, frame + 2].filter((one) => one >= 1 && one <= state.frames);
    post("encode", { frames: near }).catch(() => null);
    if (object.steps.some((step) => step.frame === frame) && object.previewed !== frame) preview();
  }, RESTING);
}

function setRange(chosen) {
  range = chosen && chosen[0] < chosen[1] ? chosen : null;
  timeline.setRange(range);
  put("#range", range ? `frames ${range[0]} to ${range[1]}` : "");
}

function follow() {
  isFollowing = !isFollowing;
  onGrowth();
}

// --- gestures ---

const pointer = new Pointer(canvas, {
  onBegin: () => video.isPlaying && moveTo(video.frame),
  onDraw: draw,
  onPoint: (place, isOn) => add({ point: [...place, isOn] }),
  onBox: (box) => add({ box }),
  onChoose: (place) => {
    const id = tracks.under(place, video.frame);
    if (id) choose(id);
  },
});

function setMode(key) {
  pointer.mode = key;
  show();
}

function setLabel(number) {
  if (!state.labels[number - 1]) return;
  object.label = state.labels[number - 1];
  show();
}

const KEYS = {
  ArrowLeft: (event) => moveTo(video.frame - (event.shiftKey ? 10 : 1)),
  ArrowRight: (event) => moveTo(video.frame + (event.shiftKey ? 10 : 1)),
  Home: () => moveTo(1),
  End: () => moveTo(state.frames),
  " ": () => video.toggle(),
  q: () => setMode("q"),
  e: () => setMode("e"),
  b: () => setMode("b"),
  f: finish,
  c: clear,
  s: () => stopOrGoOn(),
  w: follow,
  n: () => stepLow(true),
  p: () => stepLow(false),
  j: () => review.step(true) || told("Nothing is left to look at."),
  k: () => review.step(false),
  r: () => setRange(null),
  "+": () => zoom.by(1.25),
  "=": () => zoom.by(1.25),
  "-": () => zoom.by(0.8),
  0: () => zoom.reset(),
  a: searchAlike,
  "/": () => $("#words input").focus(),
  Enter: (event) => (event.shiftKey ? trackAndFinish() : track()),
  Escape: finish,
  "?": () => $("#keys").showModal(),
};

function findHandler({ key, ctrlKey, metaKey, shiftKey }) {
  if (ctrlKey || metaKey) return { z: shiftKey ? redo : undo, Z: redo, y: redo }[key];
  if (/^[1-9]$/.test(key)) return () => setLabel(Number(key));
  // Without an ambiguous click, Tab moves on as everywhere.
  if (key === "Tab") return !shiftKey && object.candidate(video.frame) && object.candidates.length > 1 ? nextCandidate : null;
  return KEYS[key];
}

const focusPicture = () => canvas.focus({ preventScroll: true });
listenForKeys({ find: findHandler, keys: KEYS, isOff: () => !state || $("#keys").open, onButton: focusPicture });
$("#send").addEventListener("click", send);
$("#words").addEventListener("submit", (event) => {
  event.preventDefault();
  search($("#words input").value);
  focusPicture();
});
$("#words").addEventListener("keydown", (event) => event.key === "Escape" && focusPicture());
// Somebody who comes back from Label Studio sees what they did there.
document.addEventListener("visibilitychange", () => {
  if (!state) return;
  tracks.listen();
  if (!document.hidden) refresh().then(() => review.refresh()).catch(() => null);
});

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
  listLabels($("#labels"), state.labels, setLabel);
  $("#phrases").replaceChildren(...state.phrases.map((phrase) => new Option(phrase)));
  if (state.labels.length === 1) object.label = state.labels[0];
  $("main").hidden = false;
  const onShown = (frame) => (document.body.dataset.shown = frame); // for tests and benchmarks
  video = new Player(canvas, { onFrame, onShown, onProblem: told, onPlay: show, paint });
  const { frames: length, rate, width, height } = state;
  video.open({ address: (frame) => `frames/${frame}.jpg`, length, rate, size: { width, height } });
  review = new Review($("#review"), { key: `sam3-backend.seen ${state.project} ${state.task}`, load: () => ask("review"), onGo: lookAt });
  timeline.setLength(state.frames);
  tracks.take(state);
  show();
  // The page of the tracks links to one of them, at a frame.
  const { track, frame = 1 } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const wanted = tracks.regions.find(({ number }) => number === Number(track));
  if (wanted) choose(wanted.id);
  moveTo(Number(frame));
  review.refresh().catch(() => null);
  focusPicture();
}

export const chosen = () => object.id;
export { tracks }; // for benchmarks
load();
