// The tracks of the prompting page as they grow, and the regions of the annotation; each is drawn on every frame.

import { boxAt } from "./frames.js";

const RUNNING = ["queued", "running"];
const MASKS = 48; // of one track that are kept

// A track of the page, or a region of the annotation that nobody has corrected here.
class Track {
  constructor(told, isRegion) {
    this.boxes = new Map(); // by frame: x, y, width, height, score; empty where the object is not seen
    this.masks = new Map(); // by frame: a promise of its mask
    this.isRegion = isRegion;
    this.update(told);
  }

  update(told) {
    if (told.job !== this.job) {
      this.masks.clear();
      this.isComplete = false;
      // What a correction does not compute stays as it was.
      const computed = told.kept?.length ? told.computed : [[1, Infinity]];
      for (const frame of [...this.boxes.keys()]) {
        if (computed.some(([first, last]) => first - 1 <= frame && frame <= last + 1)) this.boxes.delete(frame);
      }
    }
    Object.assign(this, told);
    this.kept = told.keyframes ?? told.kept ?? this.kept;
    const drawn = this.isRegion ? [] : told.prompts?.filter(({ box }) => box);
    this.drawn = new Map(drawn?.map(({ frame, box }) => [frame, box]));
  }

  get isRunning() {
    return RUNNING.includes(this.state);
  }

  // The box on a frame, first of all the one that a person drew: x, y, width, height, rotation; null: there is none.
  at(frame) {
    const known = this.drawn.get(frame) ?? this.boxes.get(frame);
    if (known) return known.length ? [...known.slice(0, 4), 0] : null;
    return boxAt(this.kept, frame);
  }

  // The picture of its mask on a frame as far as it was loaded; `load` loads it, `onLoad` is called then.
  mask(frame, load, onLoad) {
    if (this.isRegion || !this.boxes.get(frame)?.length) return null;
    if (!this.masks.has(frame)) {
      if (this.masks.size >= MASKS) this.masks.delete(this.masks.keys().next().value);
      this.masks.set(frame, null);
      load(frame).then((mask) => {
        this.masks.set(frame, mask);
        onLoad();
      }, () => null);
    }
    return this.masks.get(frame);
  }

  get name() {
    return [this.number, this.label || "no class"].filter(Boolean).join(" ");
  }
}

export class Tracks {
  // `onChange` is called when one of them has changed, `onNew` when there is another one; `open` opens the stream of events.
  constructor({ onChange, onNew, open }) {
    Object.assign(this, { onChange, onNew, open, all: new Map(), searches: [], source: null });
  }

  get(id) {
    return this.all.get(id);
  }

  get ofPage() {
    return [...this.all.values()].filter(({ isRegion }) => !isRegion);
  }

  get regions() {
    return [...this.all.values()].filter(({ isRegion }) => isRegion);
  }

  index(id) {
    const place = [...this.all.keys()].indexOf(id);
    return place < 0 ? this.all.size : place;
  }

  // The id of the smallest box under a place of a frame.
  under([x, y], frame) {
    const here = [...this.all].map(([id, track]) => [id, track.at(frame)]).filter(([, box]) => box);
    const hit = here.filter(([, [left, top, wide, high]]) => x >= left && y >= top && x <= left + wide && y <= top + high);
    return hit.sort(([, a], [, b]) => a[2] * a[3] - b[2] * b[3])[0]?.[0];
  }

  // As GET state tells them.
  take({ tracks, searches, regions = this.regions }) {
    this.searches = searches;
    const numbers = new Map(regions.map(({ id, number }) => [id, number]));
    const told = [
      ...tracks.map((one) => [{ ...one, number: numbers.get(one.id) }, false]),
      ...regions.filter(({ id }) => !tracks.some((one) => one.id === id)).map((one) => [one, true]),
    ];
    const ids = new Set(told.map(([{ id }]) => id));
    for (const id of this.all.keys()) if (!ids.has(id)) this.all.delete(id);
    for (const [one, isRegion] of told) this.put(one, isRegion);
    this.onChange();
    this.listen();
  }

  put(told, isRegion = false) {
    const known = this.all.get(told.id);
    if (known && known.isRegion === isRegion) known.update(told);
    else this.all.set(told.id, new Track({ number: known?.number, ...told }, isRegion));
  }

  // Events are asked for while somebody looks and something is missing: a browser opens few connections to a host.
  listen() {
    const isMissing =
      this.ofPage.some((track) => track.isRunning || !track.isComplete) || this.searches.some(({ state }) => RUNNING.includes(state));
    if (document.hidden || !isMissing) {
      this.source?.close();
      this.source = null;
    } else if (!this.source || this.source.readyState === EventSource.CLOSED) {
      this.source = this.open();
      this.source.addEventListener("message", ({ data }) => this.grow(JSON.parse(data)));
    }
  }

  again() {
    this.source?.close();
    this.source = null;
    this.listen();
  }

  grow({ tracks, searches }) {
    this.searches = searches;
    if (tracks.some(({ id }) => !this.all.has(id))) this.onNew();
    for (const one of tracks) {
      const track = this.all.get(one.id);
      if (!track || track.isRegion || track.job !== one.job) continue;
      for (const [frame, ...box] of one.frames) track.boxes.set(frame, box);
      Object.assign(track, { state: one.state, error: one.error, done: one.done, total: one.total });
      if (one.frames.length) track.newest = one.frames.at(-1)[0];
      track.isComplete = !track.isRunning && !one.more;
    }
    this.onChange();
    this.listen();
  }
}
