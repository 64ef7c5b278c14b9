// What the pages draw over a frame: boxes, masks and clicks, as thick at every size of the picture.

import { drawMask } from "./frames.js";

// Okabe and Ito's, in the order of overlay.py.
const COLOURS = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]];
const DARK = COLOURS[4]; // text on it is white
export const colourAt = (place) => COLOURS[place % COLOURS.length];
export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

const isDark = (colour) => css(DARK) === colour;

export class Painter {
  // `zoom` is how much larger the canvas is shown than it is laid out; it fits its picture into its place.
  constructor(context, zoom = 1) {
    const { width, height, clientWidth, clientHeight } = context.canvas;
    const scale = Math.max(width / Math.max(1, clientWidth), height / Math.max(1, clientHeight)) / zoom;
    Object.assign(this, { context, scale, width, height }); // pixels of the canvas in one of the screen
    context.font = `600 ${13 * scale}px system-ui, sans-serif`;
  }

  // A box may be turned about its corner, in degrees.
  box([x, y, wide, high, rotation = 0], colour, { text = "", isThick = false, isDashed = false } = {}) {
    const { context, scale } = this;
    const [left, top] = [(x * this.width) / 100, (y * this.height) / 100];
    context.save();
    context.lineWidth = (isThick ? 3 : 2) * scale;
    if (isDashed) context.setLineDash([6 * scale, 4 * scale]);
    context.strokeStyle = colour;
    context.translate(left, top);
    context.rotate((rotation * Math.PI) / 180);
    context.strokeRect(0, 0, (wide * this.width) / 100, (high * this.height) / 100);
    context.restore();
    if (text) this.label(text, left, top - 19 * scale, colour);
  }

  // Within the picture.
  label(text, left, top, colour) {
    const { context, scale } = this;
    const width = context.measureText(text).width + 8 * scale;
    const [x, y] = [Math.max(0, Math.min(left, this.width - width)), Math.max(0, top)];
    context.fillStyle = colour;
    context.fillRect(x, y, width, 18 * scale);
    context.fillStyle = isDark(colour) ? "#fff" : "#000";
    context.fillText(text, x + 4 * scale, y + 14 * scale);
  }

  mask(picture) {
    this.context.drawImage(picture, 0, 0, this.width, this.height);
  }

  point([x, y, isOn], { isKnown = false } = {}) {
    const { context, scale } = this;
    const colour = isOn ? "#25c26e" : "#e0362c";
    context.beginPath();
    context.arc((x * this.width) / 100, (y * this.height) / 100, 5 * scale, 0, 7);
    context.lineWidth = 2 * scale;
    context.fillStyle = isKnown ? "rgb(0 0 0 / 30%)" : colour;
    context.fill();
    context.strokeStyle = isKnown ? colour : "#fff";
    context.stroke();
  }

  // A track with its mask, unless the object's own prompts select one on this frame.
  track(track, frame, { colour, mask, isChosen, isPrompted }) {
    const here = track.at(frame);
    if (!here) return;
    if (mask && !(isChosen && isPrompted)) this.mask(mask);
    this.box(here, track.isRegion && !isChosen ? "#fff" : css(colour), { text: track.name, isThick: isChosen });
  }

  // What the prompts of an object select on a frame, and these.
  object(object, frame, colour) {
    const candidate = object.candidate(frame);
    if (candidate?.mask) {
      candidate.drawn ??= drawMask(candidate.mask, colour);
      this.mask(candidate.drawn);
      const which = object.candidates.length > 1 ? `${object.choice + 1} of ${object.candidates.length} (Tab)` : "";
      if (candidate.box) this.box(candidate.box, css(colour), { text: which, isDashed: true });
    }
    for (const { points } of object.known.filter((one) => one.frame === frame)) {
      for (const point of points) this.point(point, { isKnown: true });
    }
    for (const step of object.steps.filter((one) => one.frame === frame)) {
      if (step.box) this.box(step.box, css(colour), { isDashed: true });
      else this.point(step.point);
    }
  }
}
