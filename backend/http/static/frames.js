// The frames of a video: fetched ahead in both directions, and kept as they came; some of them decoded.

const KEPT = 300; // pictures as they came
const DECODED = 24;
const AHEAD = 12; // pictures that are fetched before they are looked at
const AT_ONCE = 2; // more at once would reach the decoder out of order

export class Frames {
  constructor(address, length) {
    Object.assign(this, { address, length, blobs: new Map(), bitmaps: new Map(), loading: new Map() });
    this.wanted = [];
  }

  // The decoded picture of a frame; rejects with the server's sentence.
  async get(frame) {
    const known = this.bitmaps.get(frame);
    const bitmap = known ?? (await createImageBitmap(await this.fetch(frame)));
    this.keep(this.bitmaps, frame, bitmap, DECODED);
    return bitmap;
  }

  // Fetches the frames around one, those in the direction of movement first.
  fetchAhead(frame, direction) {
    const near = [];
    for (let step = 1; step <= AHEAD; step++) near.push(frame + step * direction);
    for (let step = 1; step <= AHEAD / 3; step++) near.push(frame - step * direction);
    this.wanted = near.filter((one) => one >= 1 && one <= this.length && !this.blobs.has(one));
    this.next();
  }

  next() {
    while (this.loading.size < AT_ONCE && this.wanted.length) {
      this.get(this.wanted.shift()).catch(() => null).finally(() => this.next());
    }
  }

  fetch(frame) {
    if (this.blobs.has(frame)) return this.blobs.get(frame);
    if (this.loading.has(frame)) return this.loading.get(frame);
    const request = fetch(this.address(frame)).then(async (answer) => {
      if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.error ?? "The backend does not answer.");
      const blob = await answer.blob();
      this.keep(this.blobs, frame, blob, KEPT);
      return blob;
    }).finally(() => this.loading.delete(frame));
    this.loading.set(frame, request);
    return request;
  }

  keep(map, frame, value, most) {
    map.delete(frame);
    map.set(frame, value);
    while (map.size > most) {
      map.delete(map.keys().next().value);
    }
  }
}

// A mask of run lengths down the columns as a picture in one colour.
export function drawMask({ width, height, counts }, [red, green, blue]) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  const colour = (130 << 24) | (blue << 16) | (green << 8) | red;
  let place = 0;
  counts.forEach((count, number) => {
    if (number % 2) for (let at = place; at < place + count; at++) pixels[(at % height) * width + Math.floor(at / height)] = colour;
    place += count;
  });
  context.putImageData(picture, 0, 0);
  return canvas;
}

// The box [x, y, width, height, rotation] that Label Studio shows on a frame between keyframes, which are
// [frame, enabled, x, y, width, height, rotation, human]; null: it shows none.
export function boxAt(keyframes, frame) {
  const next = keyframes.findIndex((key) => key[0] >= frame);
  if (next >= 0 && keyframes[next][0] === frame) return keyframes[next].slice(2, 7);
  const before = next < 0 ? keyframes.at(-1) : keyframes[next - 1];
  if (!before || !before[1]) return null;
  if (next < 0) return before.slice(2, 7);
  const after = keyframes[next];
  const share = (frame - before[0]) / (after[0] - before[0]);
  const turn = ((((after[6] - before[6]) % 360) + 540) % 360) - 180; // the shorter way
  return [...[2, 3, 4, 5].map((one) => before[one] + (after[one] - before[one]) * share), before[6] + turn * share];
}
