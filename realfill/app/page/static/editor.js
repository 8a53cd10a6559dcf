// The editor of a hole: brush, eraser, box, click, and the margins of a larger canvas, all over one preview. Only the
// mask leaves it, as a small PNG in which white is marked.

const PREVIEW_PX = 2048; // longer side, as on the server
const TINT = [230, 40, 40, 120];

export class MaskEditor extends HTMLElement {
  connectedCallback() {
    const number = (name) => Number(this.getAttribute(name));
    const [width, height] = [number("width"), number("height")];
    const scale = Math.min(1, PREVIEW_PX / Math.max(width, height));
    this.isPart = this.getAttribute("mode") === "part";
    this.photo = { width, height };
    this.size = { width: Math.max(1, roundEven(width * scale)), height: Math.max(1, roundEven(height * scale)) };
    this.tool = "brush";
    this.cursor = { x: this.size.width / 2, y: this.size.height / 2, shown: false };
    this.history = [];
    this.build();
    this.image = new Image();
    this.image.onload = () => this.draw();
    this.image.src = this.getAttribute("image");
    this.listener = (event) => this.follow(event.detail);
    if (!this.isPart) {
      document.addEventListener("visit", this.listener);
      if (MaskEditor.visit.state) this.follow(MaskEditor.visit.state);
    }
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this);
  }

  disconnectedCallback() {
    document.removeEventListener("visit", this.listener);
    this.observer?.disconnect();
  }

  build() {
    const { make } = MaskEditor;
    this.mask = make("canvas", this.size);
    this.pen = this.mask.getContext("2d", { willReadFrequently: true });
    this.canvas = make("canvas", { tabIndex: 0 });
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label",
      "photo to mark. Arrow keys move, with shift farther; space marks; [ and ] change the size of the brush");
    const names = this.isPart
      ? { brush: "Brush", eraser: "Eraser", box: "Box" }
      : { brush: "Brush", eraser: "Eraser", box: "Box", click: "Click on a person or thing" };
    const group = `tool-${Math.random().toString(36).slice(2)}`;
    const tools = make("div", { className: "tools" });
    tools.setAttribute("role", "radiogroup");
    tools.setAttribute("aria-label", "tool");
    for (const [value, text] of Object.entries(names))
      tools.append(make("label", {}, make("input", {
        type: "radio", name: group, value, checked: value === "brush", onchange: () => (this.tool = value),
      }), text));
    this.brush = make("input", { type: "range", min: 2, max: 200, value: Math.max(8, Math.round(this.size.width / 25)) });
    this.zoom = make("select", { onchange: () => this.fit() },
      ...[["1", "fit"], ["2", "2 ×"], ["4", "4 ×"]].map(([value, textContent]) => make("option", { value, textContent })));
    tools.append(make("label", {}, "Size ", this.brush), make("label", {}, "Zoom ", this.zoom),
      make("button", { type: "button", textContent: "Undo", onclick: () => this.undo() }),
      make("button", { type: "button", textContent: "Clear", onclick: () => this.clear() }));
    this.message = make("p", { className: "message" });
    this.message.setAttribute("role", "alert");
    this.said = make("p", { className: "fine" });
    this.said.setAttribute("aria-live", "polite");
    this.frame = make("div", { className: "frame" }, this.canvas);
    this.replaceChildren(tools, this.frame, this.message, this.said, ...(this.isPart ? [] : [this.buildMargins()]));
    this.addPointer();
    this.canvas.addEventListener("keydown", (event) => this.pressed(event));
    this.canvas.addEventListener("blur", () => { this.cursor.shown = false; this.draw(); });
  }

  buildMargins() {
    const { make } = MaskEditor;
    this.margins = {};
    const box = make("div", { className: "margins" });
    for (const side of ["left", "right", "top", "bottom"]) {
      const length = side === "left" || side === "right" ? this.photo.width : this.photo.height;
      const share = Math.round((100 * Number(this.dataset[side] || 0)) / length);
      const text = make("output", { textContent: `${share} %` });
      const input = make("input", { type: "range", min: 0, max: 100, step: 1, value: share });
      input.setAttribute("aria-label", `grow ${side}, percent of the photo`);
      input.addEventListener("input", () => { text.textContent = `${input.value} %`; this.fit(); });
      input.addEventListener("change", () => this.sendMargins());
      this.margins[side] = input;
      box.append(make("label", {}, side, input, text));
    }
    return make("details", { open: Object.values(this.margins).some((input) => Number(input.value)) },
      make("summary", { textContent: "Outpaint: grow the canvas" }), box);
  }

  // The canvas, in pixels of the preview.
  get canvasBox() {
    const share = (side) => (this.margins ? Number(this.margins[side].value) / 100 : 0);
    const [left, top] = [share("left") * this.size.width, share("top") * this.size.height];
    return {
      left, top, width: this.size.width * (1 + share("left") + share("right")),
      height: this.size.height * (1 + share("top") + share("bottom")),
    };
  }

  fit() {
    const box = this.canvasBox;
    const room = Math.max(100, this.clientWidth - 2);
    const scale = Math.min(room / box.width, (0.68 * innerHeight) / box.height) * Number(this.zoom.value);
    this.scale = scale;
    const dense = Math.min(devicePixelRatio || 1, 2);
    this.canvas.width = Math.max(1, Math.round(box.width * scale * dense));
    this.canvas.height = Math.max(1, Math.round(box.height * scale * dense));
    this.canvas.style.width = `${box.width * scale}px`;
    this.canvas.style.height = `${box.height * scale}px`;
    this.draw();
  }

  draw() {
    const box = this.canvasBox;
    const context = this.canvas.getContext("2d");
    const factor = this.canvas.width / box.width;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(factor, 0, 0, factor, box.left * factor, box.top * factor);
    if (this.image?.complete && this.image.naturalWidth) context.drawImage(this.image, 0, 0, this.size.width, this.size.height);
    context.globalAlpha = TINT[3] / 255;
    context.drawImage(this.mask, 0, 0);
    context.globalAlpha = 1;
    context.lineWidth = 2 / factor;
    if (this.margins && (box.width > this.size.width || box.height > this.size.height)) {
      context.strokeStyle = "#0a84ff";
      context.strokeRect(-box.left, -box.top, box.width, box.height);
    }
    if (this.drag?.box) {
      context.strokeStyle = "#e62828";
      context.strokeRect(...corners(this.drag.start, this.drag.now));
    }
    if (this.cursor.shown) {
      context.strokeStyle = "#fff";
      context.beginPath();
      context.arc(this.cursor.x, this.cursor.y, Math.max(2, this.radius), 0, 7);
      context.stroke();
      context.strokeStyle = "#000";
      context.setLineDash([4 / factor, 4 / factor]);
      context.stroke();
      context.setLineDash([]);
    }
  }

  get radius() {
    return Number(this.brush.value) / 2;
  }

  point(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const box = this.canvasBox;
    return {
      x: ((event.clientX - bounds.left) / bounds.width) * box.width - box.left,
      y: ((event.clientY - bounds.top) / bounds.height) * box.height - box.top,
    };
  }

  addPointer() {
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.preventDefault();
      this.canvas.setPointerCapture(event.pointerId);
      this.begin(this.point(event));
    });
    this.canvas.addEventListener("pointermove", (event) => {
      const now = this.point(event);
      Object.assign(this.cursor, now, { shown: event.pointerType !== "touch" });
      if (this.drag) this.move(now);
      this.draw();
    });
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, () => this.drag && this.finish());
    this.canvas.addEventListener("pointerleave", () => { this.cursor.shown = false; this.draw(); });
  }

  begin(start) {
    if (this.tool === "click") return void this.clickAt(start);
    this.remember();
    this.drag = { start, now: start, box: this.tool === "box" };
    if (!this.drag.box) this.stroke(start, start);
    this.draw();
  }

  move(now) {
    if (!this.drag.box) this.stroke(this.drag.now, now);
    this.drag.now = now;
  }

  finish() {
    const { start, now, box } = this.drag;
    this.drag = null;
    if (box) {
      this.paint("source-over");
      this.pen.fillRect(...corners(start, now));
    }
    this.draw();
    this.send();
  }

  paint(operation) {
    this.pen.globalCompositeOperation = operation;
    this.pen.fillStyle = this.pen.strokeStyle = `rgb(${TINT.slice(0, 3)})`;
  }

  stroke(from, to) {
    this.paint(this.tool === "eraser" ? "destination-out" : "source-over");
    this.pen.lineCap = this.pen.lineJoin = "round";
    this.pen.lineWidth = 2 * this.radius;
    this.pen.beginPath();
    this.pen.moveTo(from.x, from.y);
    this.pen.lineTo(to.x + 0.01, to.y);
    this.pen.stroke();
  }

  pressed(event) {
    const far = (event.shiftKey ? 10 : 2) / (this.scale || 1);
    const moves = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
    if (moves[event.key]) {
      const before = { x: this.cursor.x, y: this.cursor.y };
      this.cursor.x = Math.min(this.size.width - 1, Math.max(0, before.x + moves[event.key][0]));
      this.cursor.y = Math.min(this.size.height - 1, Math.max(0, before.y + moves[event.key][1]));
      this.cursor.shown = true;
      if (this.drag) this.move({ x: this.cursor.x, y: this.cursor.y });
    } else if (event.key === " ") {
      const here = { x: this.cursor.x, y: this.cursor.y };
      this.cursor.shown = true;
      if (this.drag) this.finish();
      else {
        this.begin(here);
        if (this.drag && !this.drag.box) this.finish();
      }
    } else if (event.key === "[" || event.key === "]") {
      this.brush.value = Number(this.brush.value) + (event.key === "]" ? 6 : -6);
    } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    else return;
    event.preventDefault();
    this.draw();
  }

  remember() {
    this.history.push(this.pen.getImageData(0, 0, this.mask.width, this.mask.height));
    if (this.history.length > 8) this.history.shift();
  }

  undo() {
    const before = this.history.pop();
    if (!before) return;
    this.pen.putImageData(before, 0, 0);
    this.draw();
    this.send();
  }

  clear() {
    this.remember();
    this.pen.clearRect(0, 0, this.mask.width, this.mask.height);
    this.draw();
    this.send();
  }

  // Send the mask after each stroke; a later one waits until the one before has arrived.
  async send() {
    this.isDirty = true;
    if (this.sending) return;
    this.sending = true;
    while (this.isDirty) {
      this.isDirty = false;
      const flat = document.createElement("canvas");
      Object.assign(flat, this.size);
      const context = flat.getContext("2d");
      const pixels = this.pen.getImageData(0, 0, this.size.width, this.size.height);
      for (let i = 0; i < pixels.data.length; i += 4) {
        pixels.data.fill(pixels.data[i + 3] > 127 ? 255 : 0, i, i + 3);
        pixels.data[i + 3] = 255;
      }
      context.putImageData(pixels, 0, 0);
      const body = await new Promise((done) => flat.toBlob(done, "image/png"));
      await this.attempt(async () => {
        const answer = await MaskEditor.ask(this.getAttribute("save") || "/visit/mask", { method: "PUT", body });
        this.version = (await answer.json()).mask;
      });
    }
    this.sending = false;
  }

  async sendMargins() {
    const shares = Object.fromEntries(Object.entries(this.margins).map(([side, input]) => [side, Number(input.value) / 100]));
    await this.attempt(() => MaskEditor.sendJson("/visit/margins", "PUT", shares));
  }

  async clickAt({ x, y }) {
    this.said.textContent = "looking…";
    await this.attempt(async () => {
      const at = { x: x / this.size.width, y: y / this.size.height };
      const answer = await (await MaskEditor.sendJson("/visit/click", "POST", at)).json();
      this.said.textContent = answer.said;
    });
    await MaskEditor.visit.poll();
  }

  async attempt(action) {
    try {
      await action();
      this.message.textContent = "";
    } catch (error) {
      this.message.textContent = error.message;
      this.said.textContent = "";
    }
  }

  // Show what another tab, a click or the example has marked.
  async follow(state) {
    if (this.drag || this.sending || state.mask === this.version) return;
    this.version = state.mask;
    const image = new Image();
    image.onload = () => {
      if (this.drag || this.sending || this.version !== state.mask) return;
      this.paint("source-over");
      this.pen.clearRect(0, 0, this.size.width, this.size.height);
      this.pen.drawImage(image, 0, 0);
      const pixels = this.pen.getImageData(0, 0, this.size.width, this.size.height);
      for (let i = 0; i < pixels.data.length; i += 4) {
        const alpha = pixels.data[i] > 127 ? 255 : 0;
        pixels.data.set([TINT[0], TINT[1], TINT[2], alpha], i);
      }
      this.pen.putImageData(pixels, 0, 0);
      this.draw();
    };
    image.src = `/visit/mask?v=${state.mask}`;
  }
}

// Rounds as Python does, because the server expects the same size.
function roundEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}

function corners(a, b) {
  return [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.abs(a.x - b.x), Math.abs(a.y - b.y)];
}
