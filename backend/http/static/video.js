// The frame under the cursor on a canvas, one at a time or played; what lies over it is painted by the page.

import { Frames } from "./frames.js";

export class Video {
  // `onFrame` is told where the cursor goes, `onShown` which frame is drawn; `paint` draws over the picture.
  constructor(canvas, { address, length, rate, onFrame, onShown, onProblem, paint }) {
    Object.assign(this, { canvas, length, rate, onFrame, onShown, onProblem, paint });
    this.frames = new Frames(address, length);
    this.frame = 1;
    this.shown = 0;
    this.direction = 1;
    this.picture = null;
    this.run = 0; // counts up with each start and stop
    this.isPlaying = this.isLoading = false;
  }

  moveTo(frame) {
    this.stop();
    this.place(frame);
    this.load();
  }

  place(frame) {
    const wanted = Math.min(this.length, Math.max(1, Math.round(frame) || 1));
    this.direction = wanted < this.frame ? -1 : 1;
    this.frame = wanted;
    this.onFrame(wanted);
  }

  // One picture after another: those that a person has left behind meanwhile are not asked for.
  async load() {
    if (this.isLoading) return;
    this.isLoading = true;
    while (!this.isPlaying && this.shown !== this.frame) await this.show(this.frame);
    this.isLoading = false;
  }

  async show(frame) {
    let problem = "";
    try {
      this.picture = await this.frames.get(frame);
    } catch (error) {
      problem = error.message;
    }
    this.shown = frame;
    this.draw();
    this.frames.ahead(frame, this.direction);
    if (problem) this.onProblem(problem);
    else this.onShown(frame);
    return !problem;
  }

  draw() {
    if (!this.picture) return;
    const context = this.canvas.getContext("2d");
    context.drawImage(this.picture, 0, 0, this.canvas.width, this.canvas.height);
    this.paint(context);
  }

  toggle() {
    if (this.isPlaying) this.moveTo(this.frame);
    else this.play();
  }

  stop() {
    this.run += 1;
    this.isPlaying = false;
  }

  // Plays as fast as the video does; where pictures come more slowly, frames are left out.
  async play() {
    const run = (this.run += 1);
    this.isPlaying = true;
    const first = this.frame < this.length ? this.frame : 0;
    const began = performance.now();
    const pace = this.rate / 1000;
    for (let frame = first; frame < this.length; ) {
      const due = first + Math.floor((performance.now() - began) * pace);
      frame = Math.min(this.length, Math.max(frame + 1, due));
      await this.frames.get(frame).catch(() => null);
      const early = (frame - first) / pace - (performance.now() - began);
      if (early > 0) await new Promise((resolve) => setTimeout(resolve, early));
      if (run !== this.run) return;
      this.place(frame);
      if (!(await this.show(frame))) break;
    }
    if (run !== this.run) return;
    this.stop();
    this.onFrame(this.frame);
  }
}
