// The lesion explorer: a sortable, filterable table of reference lesions; the chosen lesion is shown with the mask of each
// loss. It works in JupyterLab and in pages without a kernel. wmhlib/report/viewers.py packs `data`.
function mountExplorer(root, data) {
  const columns = [
    ["subject", (row) => row.subject], ["centre", (row) => row.centre], ["split", (row) => row.split],
    ["volume (mm³)", (row) => row.volume], ["z (mm)", (row) => row.mm[2]],
    ...data.losses.map((loss, n) => [`${loss.label}`, (row) => row.found[n]]),
  ];
  const state = { by: null, down: true, chosen: null }; // by no column: as packed, the most telling lesions first
  const choice = (title, entries) => element("select", { title }, ...entries.map(([value, text]) => element("option", { value, textContent: text })));
  const unique = (key) => [["", "any"], ...[...new Set(data.rows.map((row) => row[key]))].sort().map((value) => [value, value])];
  const losses = [["", "—"], ...data.losses.map((loss, n) => [String(n), loss.label])];
  const split = choice("split", unique("split")), centre = choice("centre", unique("centre"));
  const missed = choice("missed by", losses), found = choice("detected by", losses);
  const smallest = element("input", { type: "number", min: 0, title: "smallest volume" });
  const largest = element("input", { type: "number", min: 0, title: "largest volume" });
  const count = element("output"), table = element("table", { className: "explorer-table" });
  const pictures = element("div", { className: "explorer-pictures" }), caption = element("p", { className: "explorer-caption" });
  const label = (text, ...controls) => element("label", {}, text, ...controls);
  root.classList.add("viewer", "explorer");
  root.replaceChildren(
    element("div", { className: "viewer-bar" }, label("split ", split), label("centre ", centre), label("mm³ ", smallest, " to ", largest),
      label("missed by ", missed), label("detected by ", found), count),
    element("div", { className: "explorer-rows", tabIndex: 0 }, table), caption, pictures);

  function rows() {
    const kept = data.rows.filter((row) =>
      (!split.value || row.split === split.value) && (!centre.value || row.centre === centre.value) &&
      (!smallest.value || row.volume >= Number(smallest.value)) && (!largest.value || row.volume <= Number(largest.value)) &&
      (!missed.value || row.found[missed.value] < 0.5) && (!found.value || row.found[found.value] > 0.5));
    if (state.by === null) return kept;
    const value = columns[state.by][1];
    kept.sort((a, b) => (value(a) > value(b)) - (value(a) < value(b)));
    return state.down ? kept.reverse() : kept;
  }

  function cell(row, n) {
    const value = columns[n][1](row);
    if (n === 3 || n === 4) return element("td", { textContent: value.toFixed(n === 3 ? 1 : 0), className: "number" });
    if (n < 5) return element("td", { textContent: value });
    const text = value === 1 ? "✓" : value === 0 ? "✗" : `${Math.round(value * 100)} %`;
    return element("td", { textContent: text, className: value > 0.5 ? "yes" : "no", title: `detected by ${Math.round(value * 100)} % of its trainings` });
  }

  function list() {
    const kept = rows();
    const head = element("tr", {}, ...columns.map(([name], n) => {
      const button = element("button", { type: "button", textContent: name + (n === state.by ? (state.down ? " ↓" : " ↑") : "") });
      button.addEventListener("click", () => { state.down = n === state.by ? !state.down : true; state.by = n; list(); });
      return element("th", { scope: "col" }, button);
    }));
    const body = kept.slice(0, 300).map((row) => {
      const line = element("tr", { tabIndex: 0, className: row === state.chosen ? "chosen" : "" }, ...columns.map((_, n) => cell(row, n)));
      const choose = () => { state.chosen = row; for (const other of table.rows) other.classList.toggle("chosen", other === line); show(); };
      line.addEventListener("click", choose);
      line.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); } });
      return line;
    });
    table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
    const order = state.by === null ? "; those of external scans on which the losses disagree most come first" : "";
    const listed = data.all > data.rows.length ? ` (all ${data.all} are in per_lesion.csv)` : "";
    count.textContent = `${kept.length} of ${data.rows.length} lesions${listed}` + (kept.length > 300 ? "; the first 300 are shown" : order);
    if (!kept.includes(state.chosen)) { state.chosen = kept[0] || null; if (table.tBodies[0].rows[0]) table.tBodies[0].rows[0].className = "chosen"; show(); }
    root.dataset.rows = kept.length;
  }

  async function show() {
    const row = state.chosen;
    pictures.replaceChildren();
    if (!row) { caption.textContent = "No lesion matches these filters."; return; }
    caption.textContent = `Subject ${row.subject}, ${row.centre}: a lesion of ${row.volume.toFixed(1)} mm³ at x ${row.mm[0].toFixed(0)}, ` +
      `y ${row.mm[1].toFixed(0)}, z ${row.mm[2].toFixed(0)} mm. Axial slice, ${data.side_mm} mm wide; the patient's right is on the left, and the cross marks the lesion. Seed ${data.seed}.`;
    const side = data.side_px, shape = [side, side, 1];
    const [grey, codes] = await Promise.all([unpackVolume(row.grey, shape, 1), unpackVolume(row.codes, shape, 1)]);
    if (row !== state.chosen) return;
    const errors = data.errors.map((kind) => colourParts(kind.colour)), outline = colourParts(data.reference);
    const shown = [{ label: "FLAIR and reference", bit: 0 }, ...data.losses.map((loss, n) => ({ label: loss.label, bit: 2 << n }))];
    pictures.replaceChildren(...shown.map(({ label, bit }) => {
      const canvas = element("canvas", { width: side * 4, height: side * 4 });
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${label}: subject ${row.subject}, ${row.volume.toFixed(1)} mm³`);
      const pen = canvas.getContext("2d"), image = new ImageData(side, side);
      for (let n = 0; n < side * side; n++) {
        const code = codes[n], base = grey[n];
        let colour = [base, base, base];
        const tint = (by, share) => colour.map((value, part) => value * (1 - share) + by[part] * share);
        if (bit && code & (bit | 1)) colour = tint(errors[code & bit ? (code & 1 ? 0 : 2) : 1], 0.6);
        if (!bit && code & 1) colour = tint(outline, 0.5);
        image.data.set([...colour, 255], 4 * n);
      }
      const sheet = element("canvas", { width: side, height: side });
      sheet.getContext("2d").putImageData(image, 0, 0);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(sheet, 0, 0, side * 4, side * 4);
      pen.strokeStyle = "#ffffff";
      for (const [x, y] of [[-14, 0], [14, 0], [0, -14], [0, 14]]) { pen.beginPath(); pen.moveTo(side * 2 + x, side * 2 + y); pen.lineTo(side * 2 + x * 2, side * 2 + y * 2); pen.stroke(); }
      return element("figure", {}, canvas, element("figcaption", { textContent: label }));
    }), element("p", { className: "viewer-key" }, ...data.errors.map((kind) => element("span", {}, element("b", { style: `background:${kind.colour}` }), kind.label))));
    root.dataset.shown = `${row.subject} ${row.volume.toFixed(1)}`;
  }

  for (const control of [split, centre, missed, found, smallest, largest]) control.addEventListener("input", list);
  list();
}
