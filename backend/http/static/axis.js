// The frames of a video from left to right: where a frame is, and which one is under the pointer.

export class FrameAxis {
  // `onFrame` is told the frame under the pointer, `onRange` the first and the last frame of what is dragged with Shift.
  // `laneOf` gives the lane that an event is on, if it is on one; `slider` gets the keys then.
  constructor(root, { onFrame, onRange, laneOf = () => root, slider = root }) {
    Object.assign(this, { root, onFrame, onRange, laneOf, slider, length: 1, anchor: null });
    for (const type of ["pointerdown", "pointermove"]) root.addEventListener(type, (event) => this.drag(event));
  }

  // So many frames as a part of the axis.
  share(frames) {
    return `${(100 * frames) / this.length}%`;
  }

  drag(event) {
    const lane = this.laneOf(event);
    if (event.type === "pointerdown") {
      if (!lane || event.button !== 0) return;
      event.preventDefault();
      lane.setPointerCapture(event.pointerId);
      this.slider.focus({ preventScroll: true });
      this.anchor = event.shiftKey ? this.frameUnder(event, lane) : null;
    } else if (!lane?.hasPointerCapture(event.pointerId)) return;
    const frame = this.frameUnder(event, lane);
    this.onFrame(frame);
    if (this.anchor !== null) this.onRange([Math.min(frame, this.anchor), Math.max(frame, this.anchor)]);
  }

  frameUnder(event, lane) {
    const { left, width } = lane.getBoundingClientRect();
    return Math.min(this.length, Math.max(1, Math.floor(((event.clientX - left) / width) * this.length) + 1));
  }
}

// The frames to label on an axis of so many pixels, and how far they are apart.
export function placeTicks(frames, width) {
  const most = Math.max(1, Math.floor(width / 52));
  const power = 10 ** Math.floor(Math.log10(Math.max(1, frames / most)));
  const steps = [1, 2, 2.5, 5, 10].map((times) => times * power).filter(Number.isInteger);
  const step = steps.find((one) => frames / one <= most) ?? frames;
  const ticks = [];
  for (let frame = step; frame <= frames; frame += step) ticks.push(frame);
  return { ticks, step };
}

// 65.25 seconds as 1:05.25.
export function clock(seconds) {
  const [minutes, rest] = [Math.floor(seconds / 60), (seconds % 60).toFixed(2)];
  return Number.isFinite(seconds) ? `${minutes}:${rest.padStart(5, "0")}` : "";
}
