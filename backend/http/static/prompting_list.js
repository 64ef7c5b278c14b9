// The lists beside the picture: the classes; tracks, searches or regions with their states and what can be done to them.

import { $ } from "./base.js";

const RUNNING = ["queued", "running"];

// A function that shows entries in a list; `chosen` is the id of the one that is prompted.
export function trackList(root, { onChoose, onStop, onRemove, colourOf }) {
  const add = (id) => {
    const item = root.appendChild($("#track").content.firstElementChild.cloneNode(true));
    item.dataset.id = id;
    $(".choose", item).addEventListener("click", () => onChoose(id));
    $(".stop", item).addEventListener("click", () => onStop(id));
    $(".remove", item).addEventListener("click", () => onRemove(id));
    return item;
  };
  return (entries, chosen) => {
    const items = new Map([...root.children].map((item) => [item.dataset.id, item]));
    for (const [id, item] of items) if (!entries.some((one) => one.id === id)) item.remove();
    for (const entry of entries) show(items.get(entry.id) ?? add(entry.id), entry, entry.id === chosen, colourOf);
  };
}

function show(item, entry, isChosen, colourOf) {
  item.style.setProperty("--colour", entry.isRegion && !isChosen ? "#fff" : colourOf(entry.id));
  item.classList.toggle("is-chosen", isChosen);
  $(".choose", item).disabled = "text" in entry; // a search
  $(".name", item).textContent = entry.name;
  $(".state", item).textContent = words(entry);
  $(".state", item).classList.toggle("is-bad", entry.state === "failed");
  $(".stop", item).hidden = entry.isRegion || entry.state === "done";
  $(".stop", item).textContent = RUNNING.includes(entry.state) ? "Stop" : "Go on";
  $(".remove", item).hidden = entry.isRegion;
}

function words({ isRegion, score, state, error, done, total }) {
  if (isRegion) return score ? score.toFixed(2) : "";
  if (state === "failed") return error;
  return { queued: "waits", running: `${done} of ${total}`, done: "done", cancelled: "stopped" }[state];
}

// A button for each class; `onChoose` is told its number, from 1.
export function listLabels(root, labels, onChoose) {
  root.replaceChildren(...labels.map((label, at) => {
    const item = document.createElement("li");
    const button = item.appendChild(document.createElement("button"));
    button.type = "button";
    button.dataset.label = label;
    button.textContent = `${at < 9 ? at + 1 : ""} ${label}`;
    button.addEventListener("click", () => onChoose(at + 1));
    return item;
  }));
}

// What has become of the tracks that were sent: numbers of those that are written, and those that are left on the page.
export function describeSent({ written, tracks: left }) {
  const numbers = `${written.length > 1 ? "Tracks" : "Track"} ${written.join(", ")}`;
  return [
    written.length && `${numbers}: the correction is in the annotation that was submitted. Load its page in Label Studio again.`,
    left.length && "Sent. In Label Studio, type sent into the blue line and press Enter; t on a box brings its correction, and those of its class.",
  ].filter(Boolean).join(" ");
}
