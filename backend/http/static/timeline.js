// The frames of a video from left to right: where a track is computed, its scores, its prompts, and a range.

import { FrameAxis } from "./axis.js";
import { $ } from "./base.js";

const LOW = 0.5; // a score is low below this,
const FALL = 0.7; // and below this share of the track's usual score

export class Timeline extends FrameAxis {
  setLength(length) {
    this.length = length;
    $("svg", this.root).setAttribute("viewBox", `0 0 ${length} 1`);
    this.root.setAttribute("aria-valuemax", length);
  }

  setFrame(frame) {
    $(".cursor", this.root).style.left = this.share(frame - 0.5);
    this.root.setAttribute("aria-valuenow", frame);
  }

  setRange(range) {
    const mark = $(".range", this.root);
    mark.hidden = !range;
    if (!range) return;
    mark.style.left = this.share(range[0] - 1);
    mark.style.width = this.share(range[1] - range[0] + 1);
  }

  // `boxes` by frame are [x, y, width, height, score], or [] where the object is not seen.
  show(boxes, prompted) {
    const places = [...boxes].sort(([a], [b]) => a - b);
    const paths = { done: "", score: "", low: runs(lowFrames(boxes)).map(([a, b]) => `M${a - 1} .06H${b}`).join("") };
    let [before, seen] = [NaN, NaN];
    for (const [frame, box] of places) {
      paths.done += frame === before + 1 ? `H${frame}` : `M${frame - 1} .94H${frame}`;
      before = frame;
      if (box[4] === undefined) continue;
      paths.score += `${frame === seen + 1 ? "L" : "M"}${frame - 0.5} ${0.86 - 0.74 * box[4]}`;
      seen = frame;
    }
    paths.prompt = prompted.map((frame) => `M${frame - 0.5} .94h0`).join("");
    for (const [name, path] of Object.entries(paths)) $(`.${name}`, this.root).setAttribute("d", path);
  }
}

// The first frame of the next part with low scores of these tracks, or of the last one before a frame.
export function nextLow(tracks, frame, isOnward) {
  const places = tracks.flatMap(({ boxes }) => runs(lowFrames(boxes)).map(([first]) => first));
  const there = places.filter((place) => (isOnward ? place > frame : place < frame));
  return there.length ? (isOnward ? Math.min(...there) : Math.max(...there)) : null;
}

// The frames on which a track's score is low, in order.
function lowFrames(boxes) {
  const scores = [...boxes.values()].map((box) => box[4]).filter((score) => score !== undefined).sort((a, b) => a - b);
  const usual = scores[Math.floor(scores.length / 2)] ?? 0;
  const limit = Math.max(LOW, usual * FALL);
  return [...boxes].filter(([, box]) => box[4] < limit).map(([frame]) => frame).sort((a, b) => a - b);
}

// Frames in order as [first, last] of each part without a gap.
function runs(frames) {
  const found = [];
  for (const frame of frames) {
    if (found.at(-1)?.[1] === frame - 1) found.at(-1)[1] = frame;
    else found.push([frame, frame]);
  }
  return found;
}
