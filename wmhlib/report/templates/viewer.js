// The slice viewer: three linked planes of one scan, with masks over them. JupyterLab (through anywidget) and pages without
// a kernel use the same code. Everything it draws comes from `scan`, which wmhlib/report/viewers.py packs: grey values and
// masks as two 8-bit PNGs (slices side by side, one bit per mask). Any slice of any plane is drawn within milliseconds, and
// memory use stays constant.
const viewerPlanes = {
  axial: { axes: [0, 1, 2], letters: ["R", "L", "A", "P"] },    // axes across, up, through; letters at left, right, top, bottom
  coronal: { axes: [0, 2, 1], letters: ["R", "L", "S", "I"] },
  sagittal: { axes: [1, 2, 0], letters: ["A", "P", "S", "I"] },
};

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// The bytes of a greyscale PNG of slices laid out in `columns`, in the order of the volume: i fastest, then j, then k.
async function unpackVolume(uri, [nx, ny, nz], columns) {
  const picture = new Image();
  picture.src = uri;
  await picture.decode();
  const sheet = element("canvas", { width: picture.width, height: picture.height });
  const pen = sheet.getContext("2d", { willReadFrequently: true });
  pen.drawImage(picture, 0, 0);
  const volume = new Uint8Array(nx * ny * nz);
  for (let k = 0; k < nz; k++) {
    const part = pen.getImageData((k % columns) * nx, Math.floor(k / columns) * ny, nx, ny).data;
    for (let n = 0; n < nx * ny; n++) volume[k * nx * ny + n] = part[4 * n];
  }
  return volume;
}

function colourParts(hex) {
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
}

// Builds the viewer in `root` and returns a function that shows a scan. `names` are the subjects in the menu; `choose` is
// called with the name of the chosen one.
function mountViewer(root, names, choose) {
  let scan, grey, masks, position, shown, latest = 0;
  const planes = {};
  const subject = element("select", { title: "subject" }, ...names.map((name) => element("option", { textContent: name })));
  const loss = element("select", { title: "whose mask" });
  const style = element("select", { title: "how masks are drawn" },
    ...["errors", "filled", "outline", "none"].map((name) => element("option", { textContent: name })));
  const opacity = element("input", { type: "range", min: 0, max: 100, value: 55, title: "opacity of filled masks" });
  const reference = element("input", { type: "checkbox", checked: true });
  const dark = element("input", { type: "range", min: 0, max: 255, title: "darkest grey value" });
  const bright = element("input", { type: "range", min: 0, max: 255, title: "brightest grey value" });
  const key = element("p", { className: "viewer-key" });
  const readout = element("output", { className: "viewer-readout" });
  const figures = element("table", { className: "viewer-figures" });
  const views = element("div", { className: "viewer-planes" });
  const label = (text, control) => element("label", {}, text, control);
  root.classList.add("viewer");
  root.replaceChildren(
    element("div", { className: "viewer-bar" }, ...(names.length > 1 ? [label("subject ", subject)] : []),
      label("mask ", loss), label("drawn as ", style), label("opacity ", opacity), label("reference outline ", reference),
      label("black ", dark), label("white ", bright)),
    key, views, readout, figures);

  for (const [name, { axes, letters }] of Object.entries(viewerPlanes)) {
    const canvas = element("canvas", { tabIndex: 0 });
    canvas.setAttribute("role", "img");
    const slider = element("input", { type: "range", min: 0, title: `${name} slice` });
    const caption = element("span");
    const marks = letters.map((letter, n) => element("i", { textContent: letter, className: `at-${n}` }));
    views.append(element("div", { className: `viewer-plane ${name}` },
      element("div", { className: "viewer-picture" }, canvas, ...marks), element("label", {}, caption, slider)));
    planes[name] = { axes, canvas, slider, caption, sheet: document.createElement("canvas") };
    const step = (by) => {
      const axis = axes[2], to = Math.min(Math.max(position[axis] + by, 0), scan.shape[axis] - 1);
      if (to === position[axis]) return false;
      position[axis] = to;
      draw();
      return true;
    };
    slider.addEventListener("input", () => { position[axes[2]] = Number(slider.value); draw(); });
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.shiftKey) return; // the page scrolls until the picture is clicked
      if (step((event.deltaY || event.deltaX) < 0 ? 1 : -1)) event.preventDefault();
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5 }[event.key];
      if (by) { event.preventDefault(); event.stopPropagation(); step(by); }
    });
    const voxel = (event) => {
      const box = canvas.getBoundingClientRect(), at = [...position];
      const share = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      axes.slice(0, 2).forEach((axis, n) => {
        const count = scan.shape[axis]; // both axes are reversed in the picture: the patient's right is on the left, superior is up
        at[axis] = Math.min(Math.max(count - 1 - Math.floor(share[n] * count), 0), count - 1);
      });
      return at;
    };
    canvas.addEventListener("pointermove", (event) => { if (scan) read(voxel(event)); });
    canvas.addEventListener("pointerdown", (event) => { canvas.focus({ preventScroll: true }); position = voxel(event); draw(); });
  }
  for (const control of [loss, style, opacity, reference, dark, bright]) control.addEventListener("input", () => draw());
  let slow; // a notebook opened without a kernel shows its stored scan, but cannot load others
  subject.addEventListener("input", () => {
    key.textContent = `Loading ${subject.value} …`;
    clearTimeout(slow);
    slow = setTimeout(() => {
      key.textContent = `${subject.value} has not loaded yet. Further scans need a running kernel: run this notebook's cells.`;
    }, 15000);
    choose(subject.value);
  });

  function read(at) {
    const mm = scan.affine.slice(0, 3).map((row) => row[0] * at[0] + row[1] * at[1] + row[2] * at[2] + row[3]);
    const index = at[0] + scan.shape[0] * (at[1] + scan.shape[1] * at[2]);
    const here = scan.masks.filter((_, n) => masks[index] & (1 << n)).map((mask) => mask.label);
    readout.textContent = `x ${mm[0].toFixed(1)}  y ${mm[1].toFixed(1)}  z ${mm[2].toFixed(1)} mm · ` +
      `intensity ${(scan.low + grey[index] / 255 * (scan.high - scan.low)).toPrecision(3)} · ${here.join(", ") || "no mask"}`;
  }

  function plane({ axes: [across, up, through], canvas, slider, caption, sheet }, name) {
    const [nx, ny] = scan.shape, strides = [1, nx, nx * ny];
    const width = scan.shape[across], height = scan.shape[up];
    const start = position[through] * strides[through];
    const at = (column, row) => start + (width - 1 - column) * strides[across] + (height - 1 - row) * strides[up];
    const picture = new ImageData(width, height), overlay = new ImageData(width, height);
    const low = Number(dark.value), span = Math.max(Number(bright.value) - low, 1), alpha = Math.round(opacity.value * 2.55);
    const bit = shown ? 1 << scan.masks.indexOf(shown) : 0;
    const fill = shown && colourParts(shown.colour);
    const errors = scan.errors.map((kind) => colourParts(kind.colour)); // detected, missed, false positive
    for (let row = 0, n = 0; row < height; row++) {
      for (let column = 0; column < width; column++, n += 4) {
        const index = at(column, row), value = (grey[index] - low) / span * 255, code = masks[index];
        picture.data[n] = picture.data[n + 1] = picture.data[n + 2] = value; // clamped by the array
        picture.data[n + 3] = 255;
        let colour = null;
        if (style.value === "filled" && code & bit) colour = fill;
        else if (style.value === "errors" && bit && code & (bit | 1)) colour = errors[code & bit ? (code & 1 ? 0 : 2) : 1];
        if (colour) overlay.data.set([...colour, alpha], n);
      }
    }
    const wide = width * scan.spacing[across], high = height * scan.spacing[up];
    const pixels = Math.round((canvas.parentElement.clientWidth || 360) * (window.devicePixelRatio || 1));
    const tall = Math.round(pixels * high / wide);
    if (canvas.width !== pixels || canvas.height !== tall) { canvas.width = pixels; canvas.height = tall; }
    const pen = canvas.getContext("2d");
    sheet.width = width;
    sheet.height = height;
    const ink = sheet.getContext("2d");
    pen.imageSmoothingEnabled = true;
    ink.putImageData(picture, 0, 0);
    pen.drawImage(sheet, 0, 0, canvas.width, canvas.height);
    pen.imageSmoothingEnabled = false;
    ink.putImageData(overlay, 0, 0);
    pen.drawImage(sheet, 0, 0, canvas.width, canvas.height);
    const outline = (mask, colour) => { // along the edges of voxels
      const sx = canvas.width / width, sy = canvas.height / height;
      const inside = (column, row) => column >= 0 && row >= 0 && column < width && row < height && masks[at(column, row)] & mask;
      pen.beginPath();
      for (let row = 0; row < height; row++) {
        for (let column = 0; column < width; column++) {
          if (!(masks[at(column, row)] & mask)) continue;
          const [x, y, right, bottom] = [column * sx, row * sy, (column + 1) * sx, (row + 1) * sy];
          if (!inside(column - 1, row)) { pen.moveTo(x, y); pen.lineTo(x, bottom); }
          if (!inside(column + 1, row)) { pen.moveTo(right, y); pen.lineTo(right, bottom); }
          if (!inside(column, row - 1)) { pen.moveTo(x, y); pen.lineTo(right, y); }
          if (!inside(column, row + 1)) { pen.moveTo(x, bottom); pen.lineTo(right, bottom); }
        }
      }
      pen.strokeStyle = colour;
      pen.lineWidth = 1.6 * (window.devicePixelRatio || 1);
      pen.stroke();
    };
    if (scan.masks.length && reference.checked) outline(1, scan.masks[0].colour);
    if (shown && style.value === "outline") outline(bit, shown.colour);
    const x = (width - 0.5 - position[across]) * canvas.width / width, y = (height - 0.5 - position[up]) * canvas.height / height;
    const gap = canvas.width * 0.03;
    pen.beginPath(); // the cross that links the planes, open at its middle
    for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, canvas.width, y], [x, 0, x, y - gap], [x, y + gap, x, canvas.height]]) {
      pen.moveTo(x0, y0);
      pen.lineTo(x1, y1);
    }
    pen.strokeStyle = "rgba(255,255,255,0.22)";
    pen.lineWidth = 1;
    pen.stroke();
    slider.max = scan.shape[through] - 1;
    slider.value = position[through];
    caption.textContent = `${name} ${position[through] + 1} of ${scan.shape[through]} `;
    canvas.setAttribute("aria-label", `${name} slice ${position[through] + 1} of ${scan.title}`);
  }

  function draw() {
    if (!scan) return;
    const started = performance.now();
    shown = scan.masks.find((mask) => mask.name === loss.value && mask !== scan.masks[0]);
    for (const [name, parts] of Object.entries(planes)) plane(parts, name);
    const entry = (colour, text) => element("span", {}, element("b", { style: `background:${colour}` }), text);
    const entries = scan.masks.length && reference.checked ? [entry(scan.masks[0].colour, scan.masks[0].label)] : [];
    if (shown && style.value === "errors") entries.push(...scan.errors.map((kind) => entry(kind.colour, kind.label)));
    else if (shown && style.value !== "none") entries.push(entry(shown.colour, shown.label));
    key.replaceChildren(...entries);
    read(position);
    for (const row of figures.querySelectorAll("tr[data-name]")) row.classList.toggle("chosen", row.dataset.name === loss.value);
    root.dataset.drawMs = (performance.now() - started).toFixed(1);
  }

  return async function show(next) {
    const turn = ++latest;
    clearTimeout(slow);
    if (next.problem) { key.textContent = next.problem; return; }
    const volumes = await Promise.all([next.grey, next.codes].map((uri) => unpackVolume(uri, next.shape, next.columns)));
    if (turn !== latest) return; // another subject was chosen meanwhile
    [grey, masks] = volumes;
    const before = loss.value;
    scan = next;
    position = [...scan.opening];
    loss.replaceChildren(element("option", { value: "", textContent: "FLAIR alone" }),
      ...scan.masks.slice(1).map((mask) => element("option", { value: mask.name, textContent: mask.label })));
    loss.value = scan.masks.slice(1).some((mask) => mask.name === before) ? before : (scan.masks[1] || { name: "" }).name;
    [dark.value, bright.value] = scan.window;
    subject.value = scan.title;
    figures.replaceChildren(...(scan.figures.rows.length ? [
      element("tr", {}, ...["", ...scan.figures.columns].map((text) => element("th", { textContent: text }))),
      ...scan.figures.rows.map(({ name, cells }) => {
        const row = element("tr", {}, ...cells.map((text) => element("td", { textContent: text })));
        row.dataset.name = name;
        return row;
      })] : []));
    draw();
    root.dataset.ready = scan.title;
  };
}
