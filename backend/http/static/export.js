// Plans an export, hands its zip to the browser, and shows how far it is.

import { $, ask, count, put, say } from "./base.js";

const SOON = 500; // ms until the next look at a download
const PLANNING = 30 * 60_000; // videos may have to be downloaded first

const OBJECTS = { detect: "upright boxes", segment: "polygons of masks", obb: "rotated boxes" };
const NAMES = {
  yolo: "YOLO (Ultralytics)",
  coco: "COCO",
  "coco roboflow": "COCO, in the folders of RF-DETR",
  voc: "PASCAL VOC",
  hf: "Hugging Face datasets",
  xanylabeling: "X-AnyLabeling",
  mot: "MOTChallenge",
  mots: "MOTS, masks",
  davis: "DAVIS, masks",
  "coco-vid": "COCO of videos",
  "youtube-vis": "YouTube-VIS",
  cvat: "CVAT, XML of videos",
  csv: "CSV, keyframes",
};
const PICTURES = { annotated: "with objects", all: "all", none: "none, labels alone" };
const STATES = { done: "The zip is complete.", stopped: "The download was stopped.", failed: "It failed: " };

let formats = {};
const picked = {}; // by field, what a person chose last
let planned = 0; // the number of the last plan: answers to older ones are not shown

const field = (id) => document.getElementById(id);
// A format and its layout.
const chosen = () => field("format").value.split(" ");
const number = (id) => (field(id).value === "" ? null : Number(field(id).value));

function option(value, text) {
  const node = document.createElement("option");
  node.value = value;
  node.textContent = text;
  return node;
}

// The choice of the person comes back with a format that has it.
function offer(id, values, texts) {
  field(id).replaceChildren(...values.map((value) => option(value, texts[value] ?? value)));
  if (values.includes(picked[id])) field(id).value = picked[id];
}

const isDataset = () => formats[chosen()[0]].tasks.length > 0;

// Formats of tracks hold whole videos: they have no choice of frames, classes and splits.
function showFormat() {
  const { tasks, pictures } = formats[chosen()[0]];
  offer("task", tasks, OBJECTS);
  offer("pictures", pictures, PICTURES);
  for (const part of document.querySelectorAll(".of-datasets")) part.hidden = !isDataset();
  showBackground();
}

function showBackground() {
  $(".background").hidden = !isDataset() || field("pictures").value !== "annotated";
}

function options() {
  const encoding = field("encoding").value;
  const pictures = field("pictures").value;
  if (!isDataset()) return { pictures };
  return {
    task: field("task").value,
    pictures,
    layout: chosen()[1] ?? null,
    labels: field("labels").value.split(",").map((label) => label.trim()).filter(Boolean),
    min_score: number("min_score"),
    every: number("rate") === null ? number("every") : null,
    rate: number("rate"),
    checked: number("checked"),
    max_pictures: number("max"),
    distinct: field("distinct").checked,
    background: pictures === "annotated" ? number("background") : null,
    png: encoding === "png",
    quality: encoding === "png" ? null : Number(encoding),
    split: ["train", "val", "test"].map((split) => number(split) ?? 0),
  };
}

function bytes(size) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const place = size < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(size) / 3));
  const amount = size / 1000 ** place;
  return `${amount.toFixed(amount < 10 && place ? 1 : 0)} ${units[place]}`;
}

function items(list, texts) {
  list.replaceChildren(...texts.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

// What was planned is of other options than those that are on the page now.
function forget() {
  planned += 1;
  $(".content").hidden = true;
  $(".hint").hidden = false;
  items($(".remarks"), []);
}

async function plan(event) {
  event.preventDefault();
  forget();
  const mine = planned;
  const button = field("plan");
  say("failed", "");
  button.setAttribute("aria-disabled", "true");
  put("#plan", "Looking at the videos …");
  const sent = { format: chosen()[0], options: options(), predictions: field("predictions").checked };
  try {
    const found = await ask(`projects/${number("project")}/export`, { method: "POST", sent, within: PLANNING });
    if (mine === planned) showPlan(found, mine);
  } catch (error) {
    if (mine === planned) say("failed", error.message);
  }
  button.setAttribute("aria-disabled", "false");
  put("#plan", "See what it contains");
}

function showPlan(found, mine) {
  const { key, videos, pictures, splits, remarks } = found;
  $(".hint").hidden = true;
  $(".content").hidden = false;
  const amount = found.bytes ? `${count(pictures, "picture")} of` : `Labels of ${count(pictures, "frame")} of`;
  put(".size", `${amount} ${count(videos, "video")}${found.bytes ? `, about ${bytes(found.bytes)}` : ""}`);
  const shown = Object.entries(splits).filter(([, split]) => split.videos);
  items($(".splits"), shown.map(([name, split]) => `${name}: ${count(split.pictures, "picture")} of ${count(split.videos, "video")}`));
  items($(".remarks"), remarks);
  put(".command", `The same as a command: ${found.command}`);
  showProgress(found);
  const anchor = $(".download");
  anchor.href = `exports/${encodeURIComponent(key)}.zip`;
  anchor.onclick = () => {
    setTimeout(() => anchor.removeAttribute("href"), 0); // after the browser has taken it
    setTimeout(() => follow(key, mine), SOON);
  };
}

async function follow(key, mine) {
  if (mine !== planned) return;
  const found = await ask(`exports/${encodeURIComponent(key)}`).catch(() => null);
  if (mine !== planned) return;
  if (found) {
    showProgress(found);
    items($(".remarks"), found.remarks);
  }
  if (!found || found.state === "running" || found.state === "planned") setTimeout(() => follow(key, mine), SOON);
}

function showProgress({ state, done, pictures, error, summary }) {
  const bar = $(".bar");
  const percent = pictures ? Math.floor((100 * done) / pictures) : 0;
  bar.hidden = state === "planned";
  bar.setAttribute("aria-valuenow", String(percent));
  bar.firstElementChild.style.width = `${percent}%`;
  $("#result").classList.toggle("is-failed", state === "failed" || state === "stopped");
  $("#result").classList.toggle("is-done", state === "done");
  const amount = state === "running" ? `${done} of ${count(pictures, "picture")}` : "";
  $(".state").textContent = amount || `${STATES[state] ?? ""}${state === "failed" ? error : ""} ${summary}`.trim();
}

async function start() {
  try {
    ({ formats } = await ask("export"));
  } catch (error) {
    say("failed", error.message);
    return;
  }
  const known = Object.keys(NAMES).filter((name) => name.split(" ")[0] in formats);
  const others = Object.keys(formats).filter((name) => !(name in NAMES));
  field("format").replaceChildren(...[...known, ...others].map((name) => option(name, NAMES[name] ?? name)));
  showFormat();
  field("project").value = new URLSearchParams(location.search).get("project") ?? "";
  $("main").hidden = false;
}

field("format").addEventListener("change", showFormat);
field("task").addEventListener("change", ({ target }) => (picked.task = target.value));
field("pictures").addEventListener("change", ({ target }) => {
  picked.pictures = target.value;
  showBackground();
});
field("rate").addEventListener("input", () => {
  field("every").disabled = field("rate").value !== "";
});
field("options").addEventListener("input", forget);
field("options").addEventListener("submit", plan);
start();
