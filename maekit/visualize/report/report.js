"use strict";
// How numbers are written, by the curves and by the pictures.

// A whole number with its thousands marked.
const grouped = (whole) => String(whole).replace(/\B(?=(\d{3})+$)/g, ",");

// So many significant digits, with an exponent where zeros would be many.
function plain(value, digits) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) {
    return value.toExponential(digits - 2).replace(/\.?0*e\+?/, "e");
  }
  return String(Number(value.toPrecision(digits)));
}

// Draws the curves as SVG. Every chart shows the values at one common cursor, a step, which the
// pointer or the arrow keys move; what is plotted has been thinned before, see curves.py.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const MARGIN = { top: 18, right: 14, bottom: 24, left: 60 };
  const EDGE = 5; // room beside the first and the last point
  const MOST_DOTS = 80; // more are only a line
  const JUMP = 10; // points that Shift and an arrow, or a page key, move the cursor by

  let cursor = null; // a step, or null
  let smoothed = false;

  const packed = JSON.parse(document.getElementById("curve-data").textContent);
  const charts = packed.map((data, index) => {
    const figure = document.querySelector(`[data-chart="${index}"]`);
    return {
      ...data,
      logarithmic: false,
      plot: figure.querySelector(".plot"),
      entries: [...figure.querySelectorAll(".legend li")],
      spoken: figure.querySelector(".spoken"),
      title: figure.querySelector(".title").textContent,
      toggle: figure.querySelector(".log"),
    };
  });

  // Numbers

  function format(value, chart) {
    if (value === null) return "not finite";
    return `${plain(value, 4)}${chart.suffix}`;
  }

  // Where a sorted list holds what is nearest to a step.
  function nearest(steps, step) {
    let low = 0;
    let high = steps.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle] < step) low = middle + 1;
      else high = middle;
    }
    return low > 0 && step - steps[low - 1] <= steps[low] - step ? low - 1 : low;
  }

  // Scales

  function linearTicks(low, high, count) {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((each) => each * power >= rough) * power;
    const ticks = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) {
      ticks.push(Number((k * step).toPrecision(12)));
    }
    return ticks;
  }

  function logTicks(low, high, count) {
    const decades = Math.log10(high / low);
    if (decades < 1) return linearTicks(low, high, count);
    const factors = decades < 2.5 ? [1, 2, 5] : [1];
    const every = Math.max(1, Math.ceil(decades / count));
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += every) {
      for (const factor of factors) {
        const tick = factor * 10 ** power;
        if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(Number(tick.toPrecision(3)));
      }
    }
    return ticks;
  }

  function extent(lists) {
    let low = Infinity;
    let high = -Infinity;
    for (const list of lists) {
      for (const value of list) {
        if (value === null) continue;
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    return low <= high ? [low, high] : null;
  }

  // The range without the outer tenths: enough to see how much a smoothed curve scatters.
  function middle(values) {
    const sorted = Float64Array.from(values.filter((value) => value !== null)).sort();
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
    return sorted.length > 0 ? [at(0.1), at(0.9)] : [];
  }

  // What a curve shows now: its smoothed line where asked for and there is one.
  const seen = (curve) => (smoothed && curve.smooth ? curve.smooth : curve);

  function scales(chart) {
    const across = chart.plot.clientWidth - MARGIN.left - MARGIN.right;
    const down = chart.plot.clientHeight - MARGIN.top - MARGIN.bottom;
    const positive = (values) =>
      chart.logarithmic ? values.filter((value) => value !== null && value > 0) : values;
    const last = extent(chart.curves.map((curve) => curve.steps))[1];
    const values = extent(chart.curves.map((curve) => {
      if (seen(curve) === curve) return positive(curve.values);
      return [...positive(curve.smooth.values), ...middle(positive(curve.values))];
    }));
    if (values === null) return null;
    const wide = last || 1;
    let [low, high] = values;
    if (chart.logarithmic) {
      if (low === high) [low, high] = [low / 2, high * 2];
      const room = (high / low) ** 0.04;
      [low, high] = [low / room, high * room];
    } else {
      const room = 0.05 * (high - low || Math.abs(high) || 1);
      // Without room below where it would show values that cannot be.
      [low, high] = [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
    }
    const bend = chart.logarithmic ? Math.log10 : (value) => value;
    return {
      across, down, last, low, high,
      x: (step) => EDGE + (step / wide) * (across - 2 * EDGE),
      y: (value) => down - ((bend(value) - bend(low)) / (bend(high) - bend(low))) * down,
      step: (x) => ((x - EDGE) / (across - 2 * EDGE)) * wide,
      drawable: (value) => value !== null && (!chart.logarithmic || value > 0),
    };
  }

  // Drawing

  function add(parent, name, attributes, text) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  function path(points, scale) {
    let words = "";
    let pen = "M";
    points.values.forEach((value, index) => {
      if (!scale.drawable(value)) {
        pen = "M";
        return;
      }
      words += `${pen}${scale.x(points.steps[index]).toFixed(1)} ${scale.y(value).toFixed(1)}`;
      pen = "L";
    });
    return words;
  }

  function drawAxes(chart, svg, scale) {
    const lines = Math.max(2, Math.floor(scale.down / 28));
    const ticks = chart.logarithmic
      ? logTicks(scale.low, scale.high, lines) : linearTicks(scale.low, scale.high, lines);
    for (const tick of ticks) {
      const y = MARGIN.top + scale.y(tick);
      const [x1, x2] = [MARGIN.left, MARGIN.left + scale.across];
      add(svg, "line", { class: "grid", x1, x2, y1: y, y2: y });
      const place = { x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" };
      add(svg, "text", place, `${plain(tick, 6)}${chart.suffix}`);
    }
    const columns = Math.max(2, Math.floor(scale.across / 90));
    const marks = scale.last === 0 ? [0] : linearTicks(0, scale.last, columns);
    for (const tick of marks.filter(Number.isInteger)) {
      const x = MARGIN.left + scale.x(tick);
      const end = scale.across - scale.x(tick) < 20 ? "end" : "middle";
      add(svg, "text", { x, y: MARGIN.top + scale.down + 18, "text-anchor": end }, grouped(tick));
    }
  }

  function drawCurve(chart, curve, inner, scale, look) {
    const shown = seen(curve);
    if (shown !== curve) add(inner, "path", { class: `${look} faint`, d: path(curve, scale) });
    add(inner, "path", { class: look, d: path(shown, scale) });
    const alone = curve.values.filter(scale.drawable).length === 1;
    if (alone || (curve.style === "dots" && curve.values.length <= MOST_DOTS)) {
      curve.values.forEach((value, index) => {
        if (!scale.drawable(value)) return;
        const place = { cx: scale.x(curve.steps[index]), cy: scale.y(value), r: 3 };
        add(inner, "circle", { class: look, ...place });
      });
    }
    curve.values.forEach((value, index) => {
      if (value !== null) return;
      const x = scale.x(curve.steps[index]).toFixed(1);
      add(inner, "path", { class: "lost", d: `M${x} 0v7` });
    });
  }

  function draw(chart) {
    if (chart.plot.clientWidth <= MARGIN.left + MARGIN.right) return; // a tab not shown yet
    chart.plot.replaceChildren();
    const scale = scales(chart);
    chart.scale = scale;
    if (scale === null) {
      const word = document.createElement("p");
      word.className = "empty";
      word.textContent = chart.logarithmic ? "No value above zero." : "No finite value.";
      chart.plot.append(word);
      return;
    }
    const svg = add(chart.plot, "svg", { "aria-hidden": "true" });
    drawAxes(chart, svg, scale);
    const box = { x: MARGIN.left, y: MARGIN.top, width: scale.across, height: scale.down };
    const inner = add(svg, "svg", box);
    chart.curves.forEach((curve, index) => {
      drawCurve(chart, curve, inner, scale, chart.entries[index].className);
    });
    const place = { transform: `translate(${MARGIN.left} ${MARGIN.top})` };
    chart.overlay = add(svg, "g", { class: "cursor", ...place });
    point(chart);
  }

  // The cursor

  function point(chart) {
    if (!chart.scale) return;
    chart.overlay.replaceChildren();
    if (cursor !== null) {
      const x = chart.scale.x(cursor);
      if (x >= 0 && x <= chart.scale.across) {
        add(chart.overlay, "line", { x1: x, x2: x, y1: 0, y2: chart.scale.down });
        const side = x < chart.scale.across / 2 ? "start" : "end";
        add(chart.overlay, "text", { x, y: -5, "text-anchor": side }, `step ${grouped(cursor)}`);
      }
    }
    chart.curves.forEach((curve, index) => {
      const points = seen(curve);
      const last = points.steps.length - 1;
      const place = cursor === null ? last : nearest(points.steps, cursor);
      const [step, value] = [points.steps[place], points.values[place]];
      const entry = chart.entries[index];
      const where = cursor !== null && step !== cursor ? ` at ${grouped(step)}` : "";
      entry.querySelector(".value").textContent = `${format(value, chart)}${where}`;
      if (cursor === null || !chart.scale.drawable(value)) return;
      const at = { cx: chart.scale.x(step), cy: chart.scale.y(value), r: 3.5 };
      add(chart.overlay, "circle", { class: entry.className, ...at });
    });
  }

  function move(step) {
    if (step === cursor) return;
    cursor = step;
    charts.forEach(point);
  }

  // The steps that the cursor stops at in a chart: those of its most detailed curve.
  function stops(chart) {
    return chart.curves
      .map((curve) => seen(curve).steps)
      .reduce((most, steps) => (steps.length > most.length ? steps : most));
  }

  function onPointer(chart, event) {
    if (!chart.scale) return;
    const x = event.clientX - chart.plot.getBoundingClientRect().left - MARGIN.left;
    const steps = stops(chart);
    move(steps[nearest(steps, chart.scale.step(x))]);
  }

  function onKey(chart, event) {
    const steps = stops(chart);
    const here = cursor === null ? steps.length : nearest(steps, cursor);
    const far = event.shiftKey ? JUMP : 1;
    const goals = {
      ArrowLeft: here - far, ArrowRight: here + far, Home: 0, End: steps.length - 1,
      PageUp: here - JUMP, PageDown: here + JUMP,
    };
    if (event.key === "Escape") {
      move(null);
      chart.spoken.textContent = "";
    } else if (event.key in goals) {
      event.preventDefault();
      move(steps[Math.min(Math.max(goals[event.key], 0), steps.length - 1)]);
      const words = chart.entries.map((entry) =>
        [...entry.children].slice(1).map((part) => part.textContent).join(" "));
      chart.spoken.textContent = `step ${grouped(cursor)}: ${words.join(", ")}`;
    }
  }

  // Life

  // Draws for the first time too, as soon as the plots have a size.
  const observer = new ResizeObserver((entries) => {
    for (const entry of entries) draw(charts.find((chart) => chart.plot === entry.target));
    performance.mark("charts-drawn");
  });
  for (const chart of charts) {
    observer.observe(chart.plot);
    chart.plot.addEventListener("pointermove", (event) => onPointer(chart, event));
    chart.plot.addEventListener("pointerdown", (event) => onPointer(chart, event));
    chart.plot.addEventListener("pointerleave", () => move(null));
    chart.plot.addEventListener("keydown", (event) => onKey(chart, event));
    chart.toggle?.addEventListener("change", () => {
      chart.logarithmic = chart.toggle.checked;
      draw(chart);
    });
  }
  document.getElementById("smooth")?.addEventListener("change", (event) => {
    smoothed = event.target.checked;
    charts.forEach(draw);
  });
})();
// One slider over the steps at which pictures were drawn; each run shows its newest until there.
(() => {
  const slider = document.getElementById("slider");
  if (slider === null) return;
  const MILLISECONDS = 250; // a step of the film
  const REST = 6; // times as long on the last one
  const steps = JSON.parse(slider.dataset.steps);
  const output = document.getElementById("picture-step");
  const play = document.getElementById("play");
  const figures = [...document.querySelectorAll(".reconstruction")].map((figure) => ({
    images: [...figure.querySelectorAll("img")],
    caption: figure.querySelector(".step"),
  }));
  let timer = null;

  function show() {
    const step = steps[Number(slider.value)];
    output.textContent = grouped(step);
    slider.setAttribute("aria-valuetext", `step ${step}`);
    for (const { images, caption } of figures) {
      const drawn = images.filter((image) => Number(image.dataset.step) <= step);
      const shown = drawn.at(-1) ?? images[0];
      for (const image of images) image.hidden = image !== shown;
      if (caption) caption.textContent = grouped(shown.dataset.step);
    }
  }

  function stop() {
    clearTimeout(timer);
    timer = null;
    play.textContent = "Play";
  }

  function advance() {
    slider.value = (Number(slider.value) + 1) % steps.length;
    show();
    const last = Number(slider.value) === steps.length - 1;
    timer = setTimeout(advance, last ? REST * MILLISECONDS : MILLISECONDS);
  }

  slider.addEventListener("input", () => {
    stop();
    show();
  });
  play.addEventListener("click", () => {
    if (timer !== null) {
      stop();
      return;
    }
    play.textContent = "Stop";
    advance();
  });
})();

// Sorts the table of a sweep by the column whose heading is pressed; what is missing comes last.
(() => {
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      head.querySelector("button").addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].map((row) => ({ row, key: row.cells[place].dataset.sort }));
        const known = rows.filter((each) => each.key !== "");
        known.sort((one, other) => (down ? -1 : 1) * (Number(one.key) - Number(other.key)));
        body.append(...known.map((each) => each.row));
        body.append(...rows.filter((each) => each.key === "").map((each) => each.row));
      });
    });
  }
})();
