// The picture of the frame under the cursor, one frame at a time or played.

import { $, ask, put } from "./base.js";

const SETTLED = 120; // ms that the cursor rests before its picture is asked for
const AHEAD = 2; // pictures that are asked for while one is shown: more at once would reach the decoder out of order

export class Player {
  // `address` gives that of a frame's picture; `onFrame` is told which frame is shown while it plays.
  constructor(root, { address, patience, onFrame }) {
    Object.assign(this, { root, address, patience, onFrame });
    this.frame = this.frames = 1;
    this.rate = 25;
    this.run = 0; // counts up with each start and stop
    this.isPlaying = this.isLoading = false;
    this.shown = ""; // address of the picture
    this.button = $(".play", root);
    this.speed = $(".speed", root);
    this.button.addEventListener("click", () => this.toggle());
    this.speed.addEventListener("change", () => this.isPlaying && this.play());
    document.addEventListener("visibilitychange", () => document.hidden && this.stop());
  }

  // Shows a frame once the cursor rests on it; the picture before stays until then.
  want(frame) {
    this.stop();
    this.frame = frame;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), SETTLED);
  }

  async load() {
    const { frame } = this;
    if (this.isPlaying || this.isLoading || this.shown === this.address(frame)) return;
    this.isLoading = true;
    this.root.classList.add("is-loading");
    await this.show(this.picture(frame));
    this.isLoading = false;
    this.root.classList.remove("is-loading");
    if (this.frame !== frame) this.load();
  }

  picture(frame) {
    const image = new Image();
    image.alt = `Frame ${frame} with its boxes, numbers and labels`;
    image.src = this.address(frame);
    // An image does not say why it could not be loaded.
    const why = () => ask(image.src, { within: this.patience }).catch((error) => `No picture of this frame: ${error.message}`);
    return { frame, image, problem: image.decode().then(() => "", why) };
  }

  async show({ image, problem }) {
    const found = await problem;
    if (!found) $(".picture", this.root).replaceChildren(image);
    put(".problem", found, this.root);
    this.shown = image.getAttribute("src");
    return !found;
  }

  toggle() {
    if (this.isPlaying) this.want(this.frame);
    else this.play();
  }

  stop() {
    this.run += 1;
    this.set(false);
  }

  set(isPlaying) {
    this.isPlaying = isPlaying;
    this.button.classList.toggle("is-playing", isPlaying);
    this.button.ariaLabel = isPlaying ? "Pause" : "Play";
    this.button.title = `${this.button.ariaLabel} (Space)`;
  }

  // Plays as fast as the video does; where pictures come more slowly, frames are left out.
  async play() {
    const run = (this.run += 1);
    clearTimeout(this.timer);
    this.set(true);
    const first = this.frame < this.frames ? this.frame : 0;
    const [began, pace] = [performance.now(), (this.rate * Number(this.speed.value)) / 1000];
    const queue = [];
    let last = first;
    while (last < this.frames || queue.length) {
      while (queue.length < AHEAD && last < this.frames) {
        const due = first + Math.floor((performance.now() - began) * pace);
        last = Math.min(this.frames, Math.max(last + 1, due));
        queue.push(this.picture(last));
      }
      const next = queue.shift();
      await next.problem;
      const early = (next.frame - first) / pace - (performance.now() - began);
      if (early > 0) await new Promise((resolve) => setTimeout(resolve, early));
      if (run !== this.run) return;
      this.frame = next.frame;
      this.onFrame(next.frame);
      if (!(await this.show(next))) break;
    }
    if (run === this.run) this.stop();
  }
}
