"use strict";
// Line charts as SVG. Everything that comes from a run goes through textContent or setAttribute, never through markup.

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#777777"];
const SVG = "http://www.w3.org/2000/svg";
const BOX = { width: 460, height: 210, left: 52, right: 450, top: 10, bottom: 184 };
const POINTS = 800;

function svg(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function html(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "class") element.className = value;
    else if (key === "style") for (const [rule, to] of Object.entries(value)) element.style.setProperty(rule, to);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  const found = [];
  for (let index = Math.ceil(low / step); index * step <= high + 1e-9 * step; index++) found.push(index * step);
  const decimals = Math.min(9, Math.max(0, -Math.floor(Math.log10(step))));
  return found.map((value) => [value, size(value, decimals)]);
}

function size(value, decimals) {
  const large = Math.abs(value);
  if (large >= 1e9) return (value / 1e9).toPrecision(3) + "G";
  if (large >= 1e6) return (value / 1e6).toPrecision(3) + "M";
  if (large >= 1e4) return (value / 1e3).toPrecision(3) + "k";
  if (large > 0 && large < 1e-3) return value.toExponential(1);
  return value.toFixed(decimals);
}

/// Exponential moving average without bias to the first value.
function smoothed(points, weight) {
  if (!(weight > 0)) return points;
  let sum = 0, norm = 0;
  return points.map(([x, y]) => {
    sum = weight * sum + (1 - weight) * y;
    norm = weight * norm + (1 - weight);
    return [x, sum / norm];
  });
}

/// Means of neighbouring points, so that a long run stays quick to draw.
function thinned(points) {
  const every = Math.ceil(points.length / POINTS);
  if (every <= 1) return points;
  const out = [];
  for (let at = 0; at < points.length; at += every) {
    const part = points.slice(at, at + every);
    out.push([0, 1].map((axis) => part.reduce((sum, point) => sum + point[axis], 0) / part.length));
  }
  return out;
}

/// Draws `series = [{ name, colour, dashed, points: [[x, y], …] }]` into a figure and keeps its cross-hair.
function drawChart(figure, title, series, weight) {
  const shown = series
    .map((one) => ({ ...one, points: one.points.filter((point) => point.every(Number.isFinite)) }))
    .filter((one) => one.points.length > 0)
    .map((one) => ({ ...one, raw: one.points, points: thinned(one.exact ? one.points : smoothed(one.points, weight)) }));
  figure.hidden = shown.length === 0;
  figure.dataset.series = shown.length;
  figure.dataset.points = shown.reduce((sum, one) => sum + one.raw.length, 0);
  if (figure.hidden) return;
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const one of shown) for (const [x, y] of one.points) {
    left = Math.min(left, x); right = Math.max(right, x);
    low = Math.min(low, y); high = Math.max(high, y);
  }
  if (left === right) { left -= 0.5; right += 0.5; }
  const room = low === high ? Math.max(0.5, 0.05 * Math.abs(low)) : 0.05 * (high - low);
  low -= room; high += room;
  const X = (x) => BOX.left + ((x - left) / (right - left)) * (BOX.right - BOX.left);
  const Y = (y) => BOX.bottom - ((y - low) / (high - low)) * (BOX.bottom - BOX.top);
  const picture = svg("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img", "aria-label": title });
  for (const [value, label] of ticks(low, high, 5)) {
    picture.append(svg("line", { class: "grid", x1: BOX.left, x2: BOX.right, y1: Y(value), y2: Y(value) }));
    picture.append(svg("text", { x: BOX.left - 6, y: Y(value) + 3.5, "text-anchor": "end" }, label));
  }
  for (const [value, label] of ticks(left, right, 6)) {
    picture.append(svg("text", { x: X(value), y: BOX.bottom + 14, "text-anchor": "middle" }, label));
  }
  picture.append(svg("path", { class: "axis", d: `M${BOX.left} ${BOX.top}V${BOX.bottom}H${BOX.right}` }));
  for (const one of shown) {
    const stroke = { stroke: one.colour, "stroke-width": 1.6, fill: "none", "stroke-linejoin": "round" };
    if (one.dashed) stroke["stroke-dasharray"] = "5 4";
    const path = one.points.map(([x, y], index) => `${index ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`);
    if (one.points.length > 1) picture.append(svg("path", { ...stroke, d: path.join("") }));
    if (one.points.length === 1 || one.exact) {
      for (const [x, y] of one.points) picture.append(svg("circle", { cx: X(x), cy: Y(y), r: 3, fill: one.colour }));
    }
  }
  const cross = svg("line", { class: "cross", y1: BOX.top, y2: BOX.bottom, visibility: "hidden" });
  picture.append(cross);
  const legend = html("div", { class: "legend" });
  const entries = shown.map((one) => {
    const value = html("b");
    legend.append(html("span", {}, html("i", { style: { background: one.colour } }), one.name + " ", value));
    return value;
  });
  const tell = (at) => shown.forEach((one, index) => {
    let near = one.points[one.points.length - 1];
    if (at !== undefined) for (const point of one.points) if (Math.abs(point[0] - at) < Math.abs(near[0] - at)) near = point;
    entries[index].textContent = size(near[1], 4).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
  });
  tell();
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * BOX.width;
    const at = Math.min(right, Math.max(left, left + ((x - BOX.left) / (BOX.right - BOX.left)) * (right - left)));
    cross.setAttribute("x1", X(at)); cross.setAttribute("x2", X(at)); cross.setAttribute("visibility", "visible");
    tell(at);
  });
  picture.addEventListener("pointerleave", () => { cross.setAttribute("visibility", "hidden"); tell(); });
  figure.replaceChildren(html("figcaption", {}, title), picture, legend);
}
