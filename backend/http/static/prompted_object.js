// The object that is prompted now: its clicks and boxes in their order, and the masks that those of a frame select.

export class PromptedObject {
  // `known` are prompts by frame that it has already and that stay; `id` is empty for a new object.
  constructor({ id = "", label = "", prompts = [], known = [] } = {}) {
    Object.assign(this, { id, label, known, steps: [], undone: [], isAsked: false });
    this.forget();
    this.asked = 0; // counts the previews
    for (const { frame, box, points } of prompts) {
      if (box) this.steps.push({ frame, box });
      for (const point of points) this.steps.push({ frame, point });
    }
  }

  forget() {
    Object.assign(this, { candidates: [], choice: 0, previewed: 0 });
  }

  add(step) {
    this.steps.push(step);
    this.undone = [];
  }

  undo() {
    if (this.steps.length) this.undone.push(this.steps.pop());
  }

  redo() {
    if (this.undone.length) this.steps.push(this.undone.pop());
  }

  clear() {
    this.undone = [...this.undone, ...this.steps.reverse()];
    this.steps = [];
    this.forget();
    this.asked++;
  }

  // The prompts by frame, as they are sent.
  prompts() {
    const byFrame = new Map();
    for (const step of this.steps) {
      const entry = byFrame.get(step.frame) ?? { frame: step.frame, points: [], box: null };
      if (step.box) entry.box = step.box;
      else entry.points.push(step.point);
      byFrame.set(step.frame, entry);
    }
    return [...byFrame.values()];
  }

  // As `prompts`; a mask that was chosen among several is prompted by its box, too: the clicks alone give the first.
  chosenPrompts() {
    const sent = this.prompts();
    const entry = sent.find(({ frame }) => frame === this.previewed);
    if (this.choice && entry) entry.box ??= this.candidate(this.previewed)?.box;
    return sent;
  }

  candidate(frame) {
    return this.previewed === frame ? this.candidates[this.choice] : undefined;
  }

  nextCandidate() {
    if (this.candidates.length > 1) this.choice = (this.choice + 1) % this.candidates.length;
  }

  // The masks of a frame's prompts, by `post`; false: a newer preview has overtaken this one.
  async preview(frame, post) {
    const now = ++this.asked;
    const entry = this.prompts().find((one) => one.frame === frame);
    if (!entry || (!entry.box && !entry.points.some(([, , isOn]) => isOn))) {
      this.forget(); // what only excludes something selects nothing by itself
      return true;
    }
    const found = await post("preview", entry);
    if (now !== this.asked) return false;
    Object.assign(this, { candidates: found.candidates, choice: 0, previewed: found.frame });
    return true;
  }
}
