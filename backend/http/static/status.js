// Follows GET /jobs and shows it.

import { $, ask, count, link, put, say } from "./base.js";

const SOON = 1000; // ms until the next look while something goes on
const LATER = 5000; // while nothing does, or nobody answers
const AT_FIRST = 12; // ended jobs that are shown before a person asks for all
const GIB = 2 ** 30;

const PHASES = {
  "": "starting",
  fetching: "fetching the video",
  waiting: "waiting for the device",
  decoding: "reading the video",
  loading: "loading the model",
  "warming up": "warming up the model",
  "hot start": "making sure of what was found",
  tracking: "tracking",
  thinning: "choosing keyframes",
  posting: "handing over to Label Studio",
};

const cards = new Map(); // a job's number → what is on the page for it
let showsAll = false;
let newest = 0; // the number of the last look: an older one that comes late is not shown
let timer = 0;

class Card {
  constructor(id) {
    this.id = id;
    this.job = null;
    this.seen = ""; // what is shown, as JSON
    this.isOpen = false;
    this.pending = null; // what a person asked for and the job has not done yet
    this.refusal = "";
    this.picture = ""; // which one is shown
    this.pictureAsked = 0; // when the last one was asked for, ms
    this.isLoading = false;
    this.logOf = ""; // the state of the job whose log lines are shown
    this.root = $("#job").content.firstElementChild.cloneNode(true);
    $(".cancel", this.root).addEventListener("click", () => this.ask("DELETE", `jobs/${id}`));
    $(".resume", this.root).addEventListener("click", () => this.ask("POST", `jobs/${id}/resume`));
    $(".open", this.root).addEventListener("click", () => {
      this.isOpen = !this.isOpen;
      this.update();
    });
  }

  // Asks for a change; the button says so until the job's state is another one, or a few seconds went by.
  async ask(method, path) {
    if (this.pending) return;
    this.pending = { state: this.job.state, until: Infinity };
    this.refusal = "";
    this.update();
    try {
      await ask(path, { method });
      this.pending = this.pending && { ...this.pending, until: Date.now() + LATER };
    } catch (error) {
      this.pending = null;
      this.refusal = error.message;
    }
    this.update();
    refresh();
  }

  update(job = this.job) {
    if (this.job && this.job.state !== job.state) this.refusal = "";
    this.job = job;
    const { pending } = this;
    if (pending && (pending.state !== job.state || pending.until < Date.now())) this.pending = null;
    this.updatePicture();
    const now = JSON.stringify([job, this.isOpen, this.pending, this.refusal]);
    if (now === this.seen) return;
    this.seen = now;
    this.root.dataset.state = job.state;
    this.root.classList.toggle("is-open", this.isOpen);
    this.updateText();
    this.updateButtons();
    this.updateLog();
  }

  // Shows the log's lines of an ended job whose details are open.
  updateLog() {
    const list = $(".log", this.root);
    list.hidden = !this.isOpen || !list.childElementCount;
    if (!this.isOpen || this.logOf === this.job.state) return;
    this.logOf = this.job.state;
    const lines = (found) => (found.job.log ?? []).map((line) => Object.assign(document.createElement("li"), { textContent: line }));
    ask(`jobs/${this.id}`).then((found) => {
      list.replaceChildren(...lines(found));
      list.hidden = !this.isOpen || !list.childElementCount;
    }, () => (this.logOf = ""));
  }

  updateText() {
    const { root, job } = this;
    const ended = hasEnded(job);
    const details = !ended || this.isOpen;
    put(".what", nameOf(job), root);
    $(".what", root).title = nameOf(job);
    put(".state", ended ? job.state : "", root);
    put(".kind", details && job.what ? job.kind : "", root);
    put(".project", job.project ? `project ${job.project}` : "", root);
    put(".clip", job.clip ?? "", root);
    put(".user", job.user ?? "", root);
    put(".task", job.task ? `task ${job.task}` : "", root);
    link($(".task", root), job.task_url);
    put(".tracks", job.tracks ? count(job.tracks, "track") : /^\d+$/.test(job.task) ? "tracks" : "", root);
    this.updateTracksLink();
    $(".batch", root).hidden = !job.batch;
    const frames = job.total ? `${job.done} of ${count(job.total, "frame")}` : "";
    put(".facts .amount", job.state === "running" || !job.done ? "" : frames, root);
    put(".when", ended && job.ended ? clock(job.ended) : details ? `asked ${clock(job.asked)}` : "", root);
    put(".done", frames, root);
    put(".phase", PHASES[job.phase] ?? job.phase, root);
    put(".speed", job.fps ? `${job.fps < 10 ? job.fps.toFixed(1) : Math.round(job.fps)} frames/s` : "", root);
    put(".left", job.left_s === null ? "" : `${about(job.left_s)} left`, root);
    put(".together", job.together.length ? `together with ${nameAll(job.together)}` : "", root);
    put(".worker-name", job.state === "running" && job.worker ? `on ${job.worker}` : "", root);
    put(".error", job.error ?? job.stall ?? job.damage ?? "", root);
    put(".refusal", this.refusal, root);
    const share = job.total ? job.done / job.total : null;
    fill($(".bar", root), share, `${nameOf(job)}: ${PHASES[job.phase] ?? job.phase}`);
  }

  updateTracksLink() {
    const { task, project } = this.job;
    const anchor = $(".tracks", this.root);
    anchor.removeAttribute("href");
    if (!/^\d+$/.test(task)) return;
    anchor.href = `tasks/${task}?project=${encodeURIComponent(project ?? "")}`;
    anchor.title = `The tracks of task ${task}: look at them, rename, merge or split them`;
  }

  updateButtons() {
    const { root, job, pending } = this;
    const [cancel, resume, open] = [".cancel", ".resume", ".open"].map((name) => $(name, root));
    cancel.hidden = hasEnded(job);
    resume.hidden = !job.resumable;
    open.hidden = !hasEnded(job);
    // Not `disabled`, which would take the keyboard's focus away.
    for (const [button, word, active] of [[cancel, "Cancel", "Cancelling …"], [resume, "Go on", "Going on …"]]) {
      const text = pending ? active : word;
      button.setAttribute("aria-disabled", String(Boolean(pending)));
      if (button.textContent !== text) button.textContent = text;
      button.setAttribute("aria-label", `${text}: ${nameOf(job)}`);
    }
    open.setAttribute("aria-expanded", String(this.isOpen));
    open.setAttribute("aria-label", `Details: ${nameOf(job)}`);
  }

  // Shows the newest picture where one is to be seen; the one before stays until it is there.
  updatePicture() {
    const { job } = this;
    const box = $(".picture", this.root);
    const wanted = job.picture !== null && (job.state === "running" || (hasEnded(job) && this.isOpen));
    box.hidden = !wanted || !box.firstChild;
    const soon = this.pictureAsked + SOON - 50 > Date.now();
    const picture = `${job.asked} ${job.picture}`; // a backend that starts anew may count its jobs from 1 again
    if (!wanted || this.picture === picture || this.isLoading || soon) return;
    const image = new Image();
    image.alt = `The newest picture of ${nameOf(job)}, with its boxes`;
    image.src = `jobs/${this.id}/picture.jpg?frame=${job.picture}`;
    this.isLoading = true;
    this.pictureAsked = Date.now();
    const take = () => {
      this.picture = picture;
      box.replaceChildren(image);
    };
    image.decode().then(take, () => {}).then(() => {
      this.isLoading = false;
      this.updatePicture();
    });
  }
}

// A share from 0 to 1; null: nobody knows how far it is.
function fill(bar, share, label = null, text = null) {
  const percent = share === null ? null : Math.floor(100 * Math.min(1, Math.max(0, share)));
  bar.classList.toggle("is-vague", percent === null);
  if (percent === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", String(percent));
  if (label) bar.setAttribute("aria-label", label);
  if (text) bar.setAttribute("aria-valuetext", text);
  bar.firstElementChild.style.width = percent === null ? "" : `${percent}%`;
}

const nameOf = (job) => job.what || job.kind || `job ${job.id}`;

// The names of jobs; alike ones once.
function nameAll(ids) {
  const names = ids.map((id) => nameOf(cards.get(id)?.job ?? { id }));
  const kinds = [...new Set(names)].map((name) => {
    const alike = names.filter((other) => other === name).length;
    return alike > 1 ? `${alike} x ${name}` : name;
  });
  const others = kinds.length > 4 ? ` and ${kinds.length - 3} more` : "";
  return kinds.slice(0, others ? 3 : 4).join(", ") + others;
}

// Every word of the search has to be in one of these.
function isWanted(job) {
  const state = $("#state").value;
  const texts = [nameOf(job), job.kind, job.clip, job.user, `task ${job.task}`, `project ${job.project}`, job.error];
  const text = texts.join("\n").toLowerCase();
  const words = $("#search").value.toLowerCase().split(/\s+/);
  return (!state || job.state === state) && words.every((word) => text.includes(word));
}

const hasEnded = (job) => job.state !== "running" && job.state !== "queued";

function clock(seconds) {
  const [moment, today] = [new Date(seconds * 1000), new Date()];
  const day = moment.toDateString() === today.toDateString() ? {} : { month: "short", day: "numeric" };
  return moment.toLocaleString("en-GB", { hour: "2-digit", minute: "2-digit", ...day });
}

function about(seconds) {
  if (seconds < 5) return "a few seconds";
  if (seconds < 55) return `about ${Math.ceil(seconds / 5) * 5} s`;
  const minutes = Math.max(1, Math.round(seconds / 60));
  return minutes < 60 ? `about ${minutes} min` : `about ${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

let shown = null; // the newest board

function show(board) {
  shown = board;
  const jobs = board.jobs.filter(isWanted);
  const isFiltered = Boolean($("#search").value.trim() || $("#state").value);
  say("matches", isFiltered ? `${jobs.length} of ${count(board.jobs.length, "job")}` : "");
  const running = jobs.filter((job) => job.state === "running");
  const waiting = jobs.filter((job) => job.state === "queued");
  const ended = jobs.filter(hasEnded);
  waiting.sort((a, b) => a.batch - b.batch || a.asked - b.asked || a.id - b.id);
  ended.sort((a, b) => b.ended - a.ended || b.id - a.id);
  running.reverse();
  tell(board.jobs);
  keepFocus(() => {
    for (const job of board.jobs) card(job.id).job ??= job; // a card may name others
    for (const job of board.jobs) card(job.id).update(job);
    arrange($("#running ul"), running);
    arrange($("#waiting ol"), waiting);
    arrange($("#ended ul"), showsAll ? ended : ended.slice(0, AT_FIRST));
    $("#running").hidden = !running.length;
    $("#idle").hidden = running.length + waiting.length > 0 || isFiltered;
    $("#waiting").hidden = !waiting.length;
    $("#ended").hidden = !ended.length;
  });
  $("main").hidden = false;
  const known = new Set(board.jobs.map((job) => job.id));
  for (const id of cards.keys()) if (!known.has(id)) cards.delete(id);
  put("#waiting .count", String(isFiltered ? waiting.length : Math.max(board.waiting, waiting.length)));
  put("#ended .more", showsAll || ended.length <= AT_FIRST ? "" : `Show all ${ended.length}`);
  showModel(board);
  const { project } = board.jobs.reduce((newest, job) => (job.id > (newest.id ?? 0) ? job : newest), {});
  $("#export").href = project ? `export?project=${encodeURIComponent(project)}` : "export";
  const [first] = running;
  const share = first?.total ? `${Math.floor((100 * first.done) / first.total)} % ` : "";
  document.title = first ? `${share}${nameOf(first)} · SAM3 backend` : "SAM3 backend";
}

function showModel(board) {
  const [status, sentence] = board.status.split(/: (.*)/s);
  $("#model").dataset.status = status;
  put("#model .status", status);
  put("#model .name", board.model.startsWith(board.engine) ? board.model : `${board.engine} · ${board.model}`);
  const trouble = board.trouble ? `Jobs pause: ${board.trouble}.` : "";
  say("failed", status === "failed" ? `The model could not be loaded: ${sentence}` : trouble);
  put("#version", `sam3-backend ${board.version}`);
  const list = $("#workers");
  while (list.children.length > board.workers.length) list.lastElementChild.remove();
  while (list.children.length < board.workers.length) list.append($("#worker").content.cloneNode(true));
  board.workers.forEach((worker, place) => showWorker(list.children[place], worker));
}

function showWorker(root, { device, status, memory, cache, jobs }) {
  const [word, sentence] = status.split(/: (.*)/s);
  root.dataset.status = word;
  put(".why", sentence ?? "", root);
  put(".device", device, root);
  put(".status", word, root);
  put(".load", jobs.length ? count(jobs.length, "job") : word === "ready" ? "idle" : "", root);
  $(".cache", root).hidden = !cache;
  const asked = cache ? cache.hits + cache.misses : 0;
  const hits = asked ? `, ${Math.floor((100 * cache.hits) / asked)} % hits` : "";
  if (cache) put(".cache", `${count(cache.frames, "frame")} cached${hits}`, root);
  $(".memory", root).hidden = !memory?.total;
  if (!memory?.total) return;
  const { used, total } = memory;
  const amount = `${(used / GIB).toFixed(1)} of ${(total / GIB).toFixed(total < 100 * GIB ? 1 : 0)} GiB`;
  put(".memory .amount", amount, root);
  fill($(".memory .bar", root), used / total, `Memory of ${device}`, amount);
}

// Says to those who listen what has ended.
function tell(jobs) {
  const ends = jobs.filter((job) => {
    const before = cards.get(job.id)?.job?.state;
    return before && before !== job.state && hasEnded(job);
  });
  if (ends.length) say("news", ends.map((job) => `${nameOf(job)}: ${job.state}`).join(". "));
}

function card(id) {
  if (!cards.has(id)) cards.set(id, new Card(id));
  return cards.get(id);
}

function arrange(list, jobs) {
  jobs.forEach((job, place) => {
    const { root } = card(job.id);
    if (list.children[place] !== root) list.insertBefore(root, list.children[place] ?? null);
  });
  while (list.children.length > jobs.length) list.lastElementChild.remove();
}

// A job that moves to another list, or whose button is hidden, takes the keyboard's focus with it.
function keepFocus(change) {
  const focused = document.activeElement;
  const job = focused?.closest(".job");
  change();
  if (!job?.isConnected || (document.activeElement === focused && !focused.hidden)) return;
  const next = () => $(".resume:not([hidden])", job) ?? $("button:not([hidden])", job);
  const target = focused.hidden ? next() : focused;
  target?.focus({ preventScroll: true });
}

async function refresh() {
  clearTimeout(timer);
  newest += 1;
  const mine = newest;
  const [board, error] = await ask("jobs").then((found) => [found, null], (problem) => [null, problem]);
  if (mine !== newest) return;
  const goesOn = board && (board.running || board.waiting || !/^(ready|failed)/.test(board.status));
  if (!document.hidden) timer = setTimeout(refresh, goesOn ? SOON : LATER);
  document.body.classList.toggle("is-lost", !board);
  say("lost", error ? `${error.message.replace(/\.?$/, ".")} Trying again every few seconds.` : "");
  if (board) show(board);
}

$("#ended .more").addEventListener("click", () => {
  showsAll = true;
  refresh();
});
for (const selector of ["#search", "#state"]) $(selector).addEventListener("input", () => shown && show(shown));
$(".filter").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
refresh();
