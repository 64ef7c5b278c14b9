// The gestures on the picture: a click is a point, a long drag a box, a click with Alt chooses a track. All in percent.

const SMALLEST = { b: 6, q: 14, e: Infinity }; // pixels, by mode: a drag that is shorter is a click

export class Pointer {
  constructor(canvas, { onBegin, onDraw, onPoint, onBox, onChoose }) {
    Object.assign(this, { canvas, onBegin, onDraw, onPoint, onBox, onChoose });
    this.mode = "q"; // what a click does: q positive, e negative, b box
    this.start = null;
    this.dragged = null; // the box that is being drawn
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    canvas.addEventListener("pointerup", (event) => this.end(event));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  begin(event) {
    this.onBegin();
    this.canvas.setPointerCapture(event.pointerId);
    this.start = { at: this.place(event), x: event.clientX, y: event.clientY };
  }

  drag(event) {
    if (!this.start || !this.isDrag(event)) return;
    const [x, y] = this.place(event);
    const { at } = this.start;
    this.dragged = [Math.min(x, at[0]), Math.min(y, at[1]), Math.abs(x - at[0]), Math.abs(y - at[1])];
    this.onDraw();
  }

  end(event) {
    if (!this.start) return;
    const { at } = this.start;
    const box = this.isDrag(event) ? this.dragged : null;
    [this.start, this.dragged] = [null, null];
    if (event.altKey) this.onChoose(at);
    else if (box) this.onBox(box);
    else if (this.mode === "b") this.onDraw();
    else this.onPoint(at, event.button !== 2 && this.mode !== "e");
  }

  isDrag(event) {
    return Math.hypot(event.clientX - this.start.x, event.clientY - this.start.y) >= SMALLEST[this.mode];
  }

  place(event) {
    // The canvas fits its picture into its place (object-fit: contain).
    const { canvas } = this;
    const area = canvas.getBoundingClientRect();
    const scale = Math.min(area.width / canvas.width, area.height / canvas.height);
    const [wide, high] = [canvas.width * scale, canvas.height * scale];
    const x = (event.clientX - area.left - (area.width - wide) / 2) / wide;
    const y = (event.clientY - area.top - (area.height - high) / 2) / high;
    return [x, y].map((share) => 100 * Math.min(1, Math.max(0, share)));
  }
}
