// A track in the list of the tracks page: its number and class, and its lane on the axis that all rows share.

import { $, put } from "./base.js";
import { colourAt, css } from "./painter.js";

export const colourOf = (id) => css(colourAt(id - 1));

export class Row {
  // `onSelect` is told the track's number, and whether it is selected.
  constructor(id, onSelect) {
    this.id = id;
    this.shown = [];
    this.root = $("#track").content.firstElementChild.cloneNode(true);
    this.root.style.setProperty("--colour", colourOf(id));
    this.box = $("input", this.root);
    this.box.id = `track-${id}`;
    $(".number", this.root).htmlFor = this.box.id;
    this.box.addEventListener("change", () => onSelect(id, this.box.checked));
  }

  // `now` is null where a preview takes the track away, `before` where it makes it; the video has `length` frames.
  update(now, before, { isSelected, isPreview, length }) {
    const { root, box } = this;
    box.checked = isSelected;
    box.disabled = isPreview;
    root.classList.toggle("is-selected", isSelected);
    const shown = [now, before, length];
    if (shown.every((one, place) => one === this.shown[place])) return;
    this.shown = shown;
    const track = now ?? before;
    const isChanged = JSON.stringify(now) !== JSON.stringify(before);
    root.classList.toggle("is-changed", isChanged);
    root.classList.toggle("is-gone", !now);
    root.classList.toggle("is-new", !before);
    put(".id", String(this.id), root);
    put(".name", track.label, root);
    $(".label", root).title = track.label;
    put(".was", now && before && now.label !== before.label ? before.label : "", root);
    $(".score", root).textContent = track.score === null ? "" : track.score.toFixed(2);
    $(".frames", root).textContent = String(track.frames);
    box.setAttribute("aria-label", describe(track));
    this.draw(now, isChanged && before ? before : null, length);
  }

  // A lane is as many units wide as the video has frames; frame 1 goes from 0 to 1. One frame of many is still seen.
  draw(track, ghost, length) {
    const set = (name, path) => $(`.${name}`, this.root).setAttribute("d", path);
    const bar = ([first, last]) => `M${first - 1} .5H${Math.max(last, first + length / 300 - 1)}`;
    const bars = (spans) => spans.map(bar).join("");
    $("svg", this.root).setAttribute("viewBox", `0 0 ${length} 1`);
    const [spans, keyframes] = [track?.spans ?? [], track?.keyframes ?? []];
    set("ghost", bars(ghost?.spans ?? []));
    set("thread", spans.length ? bars([[spans[0][0], spans.at(-1)[1]]]) : "");
    set("edge", bars(spans));
    set("span", bars(spans));
    set("tick", keyframes.filter((key) => !isHuman(key)).map(([frame]) => `M${frame - 0.5} .32V.68`).join(""));
    const marks = keyframes.filter(isHuman).map(([frame]) => `M${frame - 0.5} .5h0`).join("");
    set("mark", marks);
    set("pip", marks);
  }
}

const isHuman = (keyframe) => keyframe[7];

function describe(track) {
  const spans = track.spans.map(([first, last]) => `${first} to ${last}`);
  const more = spans.length > 4 ? `, and ${spans.length - 4} more` : "";
  return `Track ${track.id}, ${track.label}, frames ${spans.slice(0, 4).join(", ")}${more}`;
}
