// Zoom and pan of a picture in a frame of its own: the wheel and keys zoom, a drag with Shift or the middle button pans.

const MOST = 16;
const STEP = 1.25;

export class Zoom {
  constructor(stage, picture, onChange) {
    Object.assign(this, { stage, picture, onChange, scale: 1, x: 0, y: 0, held: null });
    stage.addEventListener("wheel", (event) => this.turn(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.hold(event), true);
    stage.addEventListener("pointermove", (event) => this.drag(event), true);
    for (const type of ["pointerup", "pointercancel"]) stage.addEventListener(type, (event) => this.release(event), true);
  }

  turn(event) {
    event.preventDefault();
    const { left, top } = this.stage.getBoundingClientRect();
    this.by(event.deltaY < 0 ? STEP : 1 / STEP, event.clientX - left, event.clientY - top);
  }

  // Zooms about a point of the stage, its middle if none is given.
  by(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const scale = Math.min(MOST, Math.max(1, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.apply();
  }

  reset() {
    this.scale = 1;
    this.apply();
  }

  apply() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    this.x = Math.min(0, Math.max(width * (1 - this.scale), this.x));
    this.y = Math.min(0, Math.max(height * (1 - this.scale), this.y));
    this.picture.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.onChange();
  }

  // The picture below gets no event of a drag that pans.
  hold(event) {
    if (event.button !== 1 && !(event.button === 0 && event.shiftKey)) return;
    event.preventDefault();
    event.stopPropagation();
    this.stage.setPointerCapture(event.pointerId);
    this.held = { x: event.clientX - this.x, y: event.clientY - this.y };
  }

  drag(event) {
    if (!this.held) return;
    event.stopPropagation();
    this.x = event.clientX - this.held.x;
    this.y = event.clientY - this.held.y;
    this.apply();
  }

  release(event) {
    if (!this.held) return;
    event.stopPropagation();
    this.held = null;
  }
}
