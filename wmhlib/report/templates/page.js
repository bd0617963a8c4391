// Draws figures and viewers before they scroll into view, adapts figures to light and dark mode, and folds the code.
(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const figures = [...document.querySelectorAll("figure.plot")];
  const wishes = new Map(); // the layout that each figure sets itself, which the page's colours do not override

  function colours(wish) {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink").trim();
    const line = style.getPropertyValue("--line").trim();
    const asked = (path) => path.split(".").reduce((part, key) => part && part[key], wish) !== undefined;
    const page = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "legend.bgcolor": "rgba(0,0,0,0)",
                   "font.color": ink, "font.family": getComputedStyle(document.body).fontFamily,
                   "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": style.getPropertyValue("--quiet").trim() };
    for (const axis of wish.axes) {
      for (const part of ["gridcolor", "linecolor", "zerolinecolor"]) page[`${axis}.${part}`] = line;
    }
    return Object.fromEntries(Object.entries(page).filter(([path]) => path === "paper_bgcolor" || !asked(path)));
  }

  // The page sets the width; on narrow pages the legend is moved below the figure.
  function fitted(layout, width) {
    const fit = { margin: { l: 60, r: 20, t: layout.title ? 60 : 20, b: 50 }, ...layout, paper_bgcolor: "rgba(0,0,0,0)" };
    delete fit.width;
    if (width < 560) fit.legend = { ...layout.legend, orientation: "h", x: 0, yref: "container", y: 0, yanchor: "bottom" };
    return fit;
  }

  // Panels next to each other stay readable on a phone: the figure is then wider than the page, and scrolls.
  function narrowest(layout) {
    const axes = Object.keys(layout).filter((key) => /^xaxis\d*$/.test(key));
    const columns = new Set(axes.map((key) => ((layout[key].domain || [0])[0]).toFixed(3))).size;
    return columns > 1 ? Math.min(260 * columns, 900) : 0;
  }

  async function draw(figure) {
    if (wishes.has(figure)) return;
    const source = figure.querySelector("script");
    const { data, layout = {}, frames = [] } = JSON.parse(source.textContent);
    source.remove();
    const wish = structuredClone(layout);
    delete wish.template;
    wish.axes = [];
    wishes.set(figure, wish);
    const place = document.createElement("div");
    const width = Math.max(figure.clientWidth, narrowest(layout));
    if (width > figure.clientWidth) place.style.width = `${width}px`;
    figure.append(place);
    await Plotly.newPlot(place, { data, layout: fitted(layout, width), frames,
                                  config: { displaylogo: false, responsive: true } });
    wish.axes = Object.keys(place._fullLayout).filter((key) => /^[xy]axis\d*$/.test(key));
    await Plotly.relayout(place, colours(wish));
    figure.classList.add("drawn");
    figure.style.minHeight = "";
  }

  // A viewer without a kernel: all its scans are in the page.
  function look(place) {
    const source = place.querySelector(":scope > script");
    if (!source) return; // drawn already
    const packed = JSON.parse(source.textContent);
    source.remove();
    const root = document.createElement("div");
    place.append(root);
    if (packed.kind === "lesions") return mountExplorer(root, packed.lesions);
    const show = mountViewer(root, packed.scans.map((scan) => scan.title),
                             (name) => show(packed.scans.find((scan) => scan.title === name)));
    show(packed.scans[0]);
  }

  const places = [...document.querySelectorAll(".viewer-place")];
  if (places.length) {
    const near = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); look(entry.target); }
    }, { rootMargin: "800px" });
    places.forEach((place) => near.observe(place));
  }
  const folded = [...document.querySelectorAll("details.section")];
  addEventListener("beforeprint", () => {
    folded.forEach((part) => { part.open = true; });
    figures.forEach(draw);
    places.forEach(look);
  });

  if (figures.length) {
    const near = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target); }
    }, { rootMargin: "800px" });
    figures.forEach((figure) => near.observe(figure));
    // The others follow when the browser has nothing else to do, one at a time, so that none is empty on arrival.
    const idle = window.requestIdleCallback || ((call) => setTimeout(call, 200));
    const waiting = figures.filter((figure) => !figure.closest("details:not([open])"));
    const next = () => { const figure = waiting.shift(); if (figure) draw(figure).then(() => idle(next)); };
    addEventListener("load", () => idle(next));
    dark.addEventListener("change", () => {
      for (const [figure, wish] of wishes) Plotly.relayout(figure.querySelector(".js-plotly-plot"), colours(wish));
    });
  }

  const code = [...document.querySelectorAll("details.code")];
  const button = document.getElementById("code-switch");
  if (button) {
    button.hidden = !code.length;
    button.addEventListener("click", () => {
      const show = button.getAttribute("aria-pressed") !== "true";
      code.forEach((part) => { part.open = show; });
      button.setAttribute("aria-pressed", String(show));
      button.textContent = show ? "Hide all code" : "Show all code";
    });
  }
  // A link to the heading of a folded section opens it.
  function unfold() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const part = target && target.closest("details.section");
    if (part) { part.open = true; target.scrollIntoView(); }
  }
  addEventListener("hashchange", unfold);
  unfold();
  const contents = document.querySelector(".contents details");
  if (contents) contents.open = matchMedia("(min-width: 72rem)").matches;
})();
