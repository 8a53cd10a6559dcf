(function (mark) {
  const surface = mark.parentElement, canvas = surface.querySelector("canvas");
  const panel = surface.closest(".realfill-panel");
  const pen = canvas.getContext("2d"), pending = [];
  let points = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const draw = () => {
    const box = canvas.getBoundingClientRect();
    canvas.width = box.width;
    canvas.height = box.height;
    const spots = points.map(([x, y]) => [x * box.width, y * box.height]);
    const [first, last] = [spots[0], spots[spots.length - 1]];
    pen.strokeStyle = surface.dataset.tool === "rubber" ? "rgba(255,255,255,0.7)" : "rgba(255,0,0,0.5)";
    if (surface.dataset.tool === "box") {
      pen.lineWidth = 2;
      pen.strokeRect(first[0], first[1], last[0] - first[0], last[1] - first[1]);
      return;
    }
    if (surface.dataset.tool === "pick") return;
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = 2 * surface.dataset.radius * box.width;
    pen.beginPath();
    pen.moveTo(...first);
    for (const spot of spots) pen.lineTo(...spot);
    pen.stroke();
  };
  canvas.onpointerdown = (event) => {
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    points = [at(event)];
    draw();
  };
  canvas.onpointermove = (event) => {
    if (points) {
      points.push(at(event));
      draw();
    }
  };
  canvas.onpointerup = canvas.onpointercancel = () => {
    if (!points) return;
    pending.push({ id: Date.now() + Math.random(), tool: surface.dataset.tool, points: points });
    points = null;
    const field = panel.querySelector("." + surface.dataset.field + " textarea");
    field.value = JSON.stringify(pending);
    for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
  };
})(this);
