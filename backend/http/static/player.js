// The frame under the cursor on a canvas, one at a time or played; what lies over it is painted by the page.

import { Frames } from "./frames.js";

export class Player {
  // `onFrame` is told where the cursor goes, `onShown` which frame is drawn, `onPlay` whether it plays; `paint` draws
  // over the picture.
  constructor(canvas, { onFrame, onShown, onProblem, onPlay, paint }) {
    Object.assign(this, { canvas, onFrame, onShown, onProblem, onPlay, paint });
    this.frame = this.length = this.direction = this.speed = 1;
    this.picture = null;
    this.run = 0; // counts up with each start and stop
    this.isPlaying = this.isLoading = false;
    document.addEventListener("visibilitychange", () => document.hidden && this.isPlaying && this.stop());
  }

  // `address` gives that of a frame's picture. The canvas gets the size of the video, or that of the first picture.
  open({ address, length, rate, size = null }) {
    Object.assign(this, { length, rate, shown: 0, address, size });
    this.frames = new Frames(address, length);
    if (size) this.fit(size);
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
    const { frames } = this;
    let problem = "";
    const picture = await frames.get(frame).catch((error) => {
      problem = error.message;
    });
    if (frames !== this.frames) return true; // another video, or another version of its pictures, was opened meanwhile
    this.picture = picture ?? this.picture;
    this.shown = frame;
    this.frames.fetchAhead(frame, this.direction);
    if (problem) this.onProblem(problem);
    else {
      this.draw();
      this.canvas.dataset.address = this.address(frame);
      this.onShown(frame);
    }
    return !problem;
  }

  draw() {
    if (!this.picture) return;
    this.fit(this.size ?? this.picture);
    const context = this.canvas.getContext("2d");
    context.drawImage(this.picture, 0, 0, this.canvas.width, this.canvas.height);
    this.paint(context);
  }

  // As many pixels as the screen has, so that lines and text over a small video are sharp.
  fit({ width, height }) {
    const { canvas } = this;
    const times = Math.max(1, Math.ceil((canvas.clientWidth * devicePixelRatio) / width));
    if (canvas.width !== width * times) Object.assign(canvas, { width: width * times, height: height * times });
  }

  toggle() {
    if (this.isPlaying) this.moveTo(this.frame);
    else this.play();
  }

  stop() {
    this.run += 1;
    this.setPlaying(false);
  }

  setPlaying(isPlaying) {
    if (isPlaying === this.isPlaying) return;
    this.isPlaying = isPlaying;
    this.onPlay(isPlaying);
  }

  // Plays as fast as the video does; where pictures come more slowly, frames are left out.
  async play() {
    const run = (this.run += 1);
    this.setPlaying(true);
    const first = this.frame < this.length ? this.frame : 0;
    const began = performance.now();
    const pace = (this.rate * this.speed) / 1000;
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
    if (run === this.run) this.stop();
  }
}
