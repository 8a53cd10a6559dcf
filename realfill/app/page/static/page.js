// The parts of the page that Gradio has no component for. Each is a custom element; they share one visit, which is
// asked for its state every second, so that a reload or a second tab shows the same.

import { MaskEditor } from "/page/editor.js";

const POLL_MS = 1000;

async function ask(path, options = {}) {
  // Send a request to the visit; returns its answer, or throws the sentence that says what is wrong.
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new Error(sentence(answer.error || `The server answered ${response.status}; reload the page.`));
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.?!]$/.test(whole) ? whole : `${whole}.`;
}

function sendJson(path, method, values) {
  return ask(path, { method, body: JSON.stringify(values), headers: { "Content-Type": "application/json" } });
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list" && name !== "role") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const visit = {
  state: null,
  async poll() {
    try {
      visit.state = await (await ask("/visit/state")).json();
      document.dispatchEvent(new CustomEvent("visit", { detail: visit.state }));
    } catch (error) {
      document.dispatchEvent(new CustomEvent("visit-lost", { detail: error.message }));
    }
  },
};

class VisitPart extends HTMLElement {
  // A part of the page that the server renders, fetched again whenever the visit has changed.
  connectedCallback() {
    this.classList.add("rf");
    this.listener = (event) => this.update(event.detail);
    document.addEventListener("visit", this.listener);
    this.addEventListener("click", (event) => this.clicked(event));
    this.addEventListener("change", (event) => this.changed(event));
    if (visit.state) this.update(visit.state);
  }
  disconnectedCallback() {
    document.removeEventListener("visit", this.listener);
  }
  async update(state) {
    if (this.revision === state.revision) return;
    const previous = this.revision;
    this.revision = state.revision;
    try {
      const html = await (await ask(`/visit/parts/${this.getAttribute("name")}`)).text();
      if (html !== this.html) {
        this.html = html;
        this.innerHTML = html;
      }
    } catch {
      this.revision = previous;
    }
  }
  async clicked(event) {
    const button = event.target.closest("button");
    if (!button) return;
    if ("remove" in button.dataset) await this.act(() => ask(`/visit/photos/${button.dataset.remove}`, { method: "DELETE" }));
    if ("everyone" in button.dataset || "nobody" in button.dataset) {
      for (const box of this.querySelectorAll("[data-instance]"))
        box.checked = "everyone" in button.dataset && box.dataset.kind === "person";
      await this.choosePeople();
    }
    if ("forget" in button.dataset && confirm("Remove all your photos and results from this server?")) {
      await this.act(() => ask("/visit/everything", { method: "DELETE" }));
      location.reload();
    }
  }
  async changed(event) {
    if (event.target.matches("[data-instance], [data-strangers]")) await this.choosePeople();
    if (event.target.matches("[data-engine]"))
      await this.act(() => sendJson("/visit/engine", "PUT", { name: event.target.value }));
  }
  choosePeople() {
    const numbers = [...this.querySelectorAll("[data-instance]:checked")].map((box) => Number(box.dataset.instance));
    const hides_strangers = this.querySelector("[data-strangers]").checked;
    return this.act(() => sendJson("/visit/people", "PUT", { numbers, hides_strangers }));
  }
  async act(action) {
    const message = this.querySelector(":scope .message");
    try {
      await action();
      if (message) message.textContent = "";
    } catch (error) {
      if (message) message.textContent = error.message;
    }
    await visit.poll();
  }
}

class PhotoDrop extends HTMLElement {
  // A field for photos: drop them, or choose files with the keyboard.
  connectedCallback() {
    const role = this.getAttribute("role");
    this.removeAttribute("role"); // it is no role in the sense of ARIA
    this.photoRole = role || this.photoRole;
    this.input = make("input", {
      type: "file", multiple: this.hasAttribute("many"), accept: "image/*,.heic,.heif,.tif,.tiff",
      onchange: () => this.send([...this.input.files]),
    });
    this.message = make("p", { className: "message" });
    this.message.setAttribute("role", "alert");
    this.progress = make("progress", { max: 1, value: 0, hidden: true });
    this.progress.setAttribute("aria-label", "upload");
    const label = make("label", {}, make("b", { textContent: this.getAttribute("label") }),
      make("span", { textContent: this.getAttribute("hint") }), this.input);
    for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
      label.addEventListener(name, (event) => {
        event.preventDefault();
        label.classList.toggle("over", over);
        if (name === "drop") this.send([...event.dataTransfer.files]);
      });
    this.replaceChildren(label, this.progress, this.message);
  }
  async send(files) {
    const problems = [];
    this.input.disabled = true;
    for (const [place, file] of files.entries()) {
      try {
        await this.sendOne(file, (share) => this.show((place + share) / files.length));
      } catch (error) {
        problems.push(`${file.name}: ${error.message}`);
      }
      if (!this.hasAttribute("many")) break;
    }
    this.input.disabled = false;
    this.input.value = "";
    this.progress.hidden = true;
    this.message.textContent = problems.join(" ");
    if (problems.length < files.length) await visit.poll();
  }
  sendOne(file, onProgress) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest(); // fetch does not tell how much is sent
      const query = new URLSearchParams({ role: this.photoRole, name: file.name });
      request.open("POST", `/visit/photos?${query}`);
      request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
      request.onload = () => {
        if (request.status < 300) return resolve();
        let error = `The server answered ${request.status}.`;
        try { error = JSON.parse(request.responseText).error || error; } catch { /* it was no JSON */ }
        reject(new Error(sentence(error)));
      };
      request.onerror = () => reject(new Error("The file could not be sent; it may be too large, or the server is gone."));
      request.send(file);
    });
  }
  show(share) {
    this.progress.hidden = false;
    this.progress.value = share;
  }
}

class BeforeAfter extends HTMLElement {
  // Two images of the same size, one uncovered by a slider, at up to four times their full size.
  connectedCallback() {
    this.before = make("img", { alt: "before" });
    this.after = make("img", { alt: "after" });
    this.line = make("div", { className: "line" });
    this.stack = make("div", { className: "stack" }, this.before, this.after, this.line);
    this.frame = make("div", { className: "frame", tabIndex: 0 }, this.stack);
    this.frame.setAttribute("aria-label", "result; scroll to move");
    this.split = make("input", { type: "range", min: 0, max: 100, step: 0.5, value: 50, className: "split", oninput: () => this.draw() });
    this.split.setAttribute("aria-label", "before and after");
    this.zoom = make("select", { onchange: () => this.draw() },
      ...[["fit", "fit"], ["1", "100 %"], ["2", "200 %"], ["4", "400 %"]].map(([value, textContent]) => make("option", { value, textContent })));
    const tools = make("div", { className: "tools" }, make("label", {}, "Zoom ", this.zoom), make("span", { textContent: "before ◂ ▸ after" }));
    this.replaceChildren(this.split, this.frame, tools);
    this.stack.addEventListener("pointerdown", (event) => this.drag(event));
    this.stack.addEventListener("pointermove", (event) => event.buttons && this.drag(event));
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this);
  }
  disconnectedCallback() {
    this.observer.disconnect();
  }
  show({ before, after, width, height, caption }) {
    [this.width, this.height] = [width, height];
    if (this.before.getAttribute("src") !== before) this.before.src = before;
    if (this.after.getAttribute("src") !== after) this.after.src = after;
    this.after.alt = `after: ${caption}`;
    this.draw();
  }
  drag(event) {
    const box = this.stack.getBoundingClientRect();
    if (this.zoom.value !== "fit" && event.pointerType === "touch") return; // then a finger scrolls
    event.preventDefault();
    this.split.value = (100 * (event.clientX - box.left)) / box.width;
    this.draw();
  }
  draw() {
    if (!this.width) return;
    const room = this.clientWidth - 2;
    const scale = this.zoom.value === "fit"
      ? Math.min(room / this.width, (0.72 * innerHeight) / this.height, 4)
      : Number(this.zoom.value) / devicePixelRatio;
    this.stack.style.width = `${this.width * scale}px`;
    this.stack.style.height = `${this.height * scale}px`;
    const sharp = scale * devicePixelRatio >= 2 ? "pixelated" : "auto";
    this.before.style.imageRendering = this.after.style.imageRendering = sharp;
    this.after.style.clipPath = `inset(0 0 0 ${this.split.value}%)`;
    this.line.style.left = `${this.split.value}%`;
  }
}

class ResultViewer extends HTMLElement {
  // The gallery; the chosen result is shown large, with its verdict, its evidence and its downloads.
  connectedCallback() {
    queueMicrotask(() => {
      this.addEventListener("change", (event) => event.target.name === "result" && this.choose(event.target));
      const known = ResultViewer.chosen && this.querySelector(`input[value="${ResultViewer.chosen}"]`);
      const newest = this.querySelector("input[name=result]");
      const choice = known && ResultViewer.newest === newest.value ? known : newest;
      ResultViewer.newest = newest.value;
      choice.checked = true;
      this.choose(choice);
    });
  }
  choose(input) {
    const { after, before, map, evidence, width, height, caption, reason } = input.dataset;
    ResultViewer.chosen = input.value;
    this.querySelector("before-after").show({ before, after, caption, width: Number(width), height: Number(height) });
    this.querySelector(".verdict").textContent = [caption, reason, evidence].filter(Boolean).map(sentence).join(" ");
    for (const link of this.querySelectorAll(".downloads a")) link.href = `/visit/download/${input.value}/${link.dataset.kind}`;
    const details = this.querySelector(".evidence");
    details.hidden = !map;
    if (map) Object.assign(details.querySelector("img"), { src: map, alt: `map of the evidence: ${evidence}` });
    ResultViewer.shown = { value: input.value, after, width, height };
    document.dispatchEvent(new CustomEvent("result-chosen", { detail: ResultViewer.shown }));
  }
}

class PartEditor extends HTMLElement {
  // The editor for a part of the chosen result.
  connectedCallback() {
    this.classList.add("rf");
    this.listener = (event) => this.show(event.detail);
    document.addEventListener("result-chosen", this.listener);
    if (ResultViewer.shown) this.show(ResultViewer.shown);
    else this.innerHTML = '<p class="hint">Choose a result first.</p>';
  }
  disconnectedCallback() {
    document.removeEventListener("result-chosen", this.listener);
  }
  show({ value, after, width, height }) {
    if (this.value === value) return;
    this.value = value;
    const editor = make("mask-editor", {});
    for (const [name, text] of Object.entries({ mode: "part", image: after, width, height, save: `/visit/part/${value}` }))
      editor.setAttribute(name, text);
    this.replaceChildren(editor);
  }
}

class JobStatus extends HTMLElement {
  // What the visit's job does: place in the queue, loss, time left, previews, and the buttons to end it.
  connectedCallback() {
    this.classList.add("rf");
    document.addEventListener("visit", (event) => this.update(event.detail.job));
    document.addEventListener("visit-lost", (event) => this.say(event.detail));
  }
  build() {
    this.text = make("span");
    this.bar = make("progress", { max: 1 });
    this.bar.setAttribute("aria-label", "progress of the job");
    this.curve = make("div", { className: "curve" });
    this.drawn = "";
    this.stop = make("button", { type: "button", textContent: "Stop and keep what there is", onclick: () => this.end("stop") });
    this.cancel = make("button", { type: "button", textContent: "Cancel", onclick: () => this.end("cancel") });
    this.preview = make("img", { alt: "preview of the fit", hidden: true });
    this.loud = make("span", { className: "quiet" });
    this.loud.setAttribute("aria-live", "polite");
    this.replaceChildren(make("div", { className: "row" }, this.text), this.bar,
      make("div", { className: "row" }, this.stop, this.cancel), make("div", { className: "row" }, this.curve, this.preview), this.loud);
  }
  async end(how) {
    if (this.text) this.stop.disabled = this.cancel.disabled = true;
    await ask(`/visit/job/${how}`, { method: "POST" }).catch(() => {});
    await visit.poll();
  }
  say(text) {
    const close = make("button", { type: "button", textContent: "Close", onclick: () => this.end("forget") });
    this.replaceChildren(make("p", { className: "message", textContent: text, role: "alert" }), close);
    this.text = null;
  }
  update(job) {
    const active = job && ["waiting", "running"].includes(job.state);
    if (!job || (!active && !job.message)) {
      this.text = this.said = null;
      if (this.firstChild) this.replaceChildren();
      return;
    }
    if (!active) {
      if (this.said !== job.message) this.say(sentence(job.message));
      this.said = job.message;
      return;
    }
    this.said = null;
    if (!this.text) this.build();
    this.text.textContent = job.text;
    if (this.loud.textContent !== job.phase) this.loud.textContent = job.phase;
    if (job.share === null) this.bar.removeAttribute("value");
    else this.bar.value = job.share;
    this.stop.hidden = !job.can_stop;
    this.stop.disabled = this.cancel.disabled = job.ending;
    if (this.drawn !== job.curve) this.curve.innerHTML = job.curve; // made by the server, of numbers only
    this.drawn = job.curve;
    this.preview.hidden = !job.preview;
    const source = `/visit/job.jpg?v=${job.preview}`;
    if (job.preview && this.preview.getAttribute("src") !== source) this.preview.src = source;
  }
}

document.addEventListener("visit", () => {
  for (const message of document.querySelectorAll(".rf-message:not([role])")) message.setAttribute("role", "alert"); // Gradio's
});

Object.assign(MaskEditor, { ask, sendJson, make, visit });
for (const [name, element] of Object.entries({
  "visit-part": VisitPart, "photo-drop": PhotoDrop, "before-after": BeforeAfter, "result-viewer": ResultViewer,
  "part-editor": PartEditor, "job-status": JobStatus, "mask-editor": MaskEditor,
})) customElements.define(name, element);

visit.poll();
setInterval(() => document.hidden || visit.poll(), POLL_MS);
document.addEventListener("visibilitychange", () => document.hidden || visit.poll());
