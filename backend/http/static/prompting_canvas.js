// What the prompting page draws over a frame: boxes, masks and clicks, as thick at every zoom.

import { drawMask } from "./frames.js";

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

export class Painter {
  // `scale` is how many pixels of the picture one pixel of the screen is.
  constructor(context, scale) {
    Object.assign(this, { context, scale, width: context.canvas.width, height: context.canvas.height });
    context.font = `600 ${13 * scale}px system-ui, sans-serif`;
  }

  box([x, y, wide, high], colour, { text = "", isThick = false, isDashed = false } = {}) {
    const { context, scale } = this;
    const [left, top] = [(x * this.width) / 100, (y * this.height) / 100];
    context.lineWidth = (isThick ? 3 : 2) * scale;
    context.setLineDash(isDashed ? [6 * scale, 4 * scale] : []);
    context.strokeStyle = colour;
    context.strokeRect(left, top, (wide * this.width) / 100, (high * this.height) / 100);
    context.setLineDash([]);
    if (text) this.label(text, left, Math.max(0, top - 19 * scale), colour);
  }

  label(text, left, top, colour) {
    const { context, scale } = this;
    context.fillStyle = colour;
    context.fillRect(left, top, context.measureText(text).width + 8 * scale, 18 * scale);
    context.fillStyle = "#000";
    context.fillText(text, left + 4 * scale, top + 14 * scale);
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
