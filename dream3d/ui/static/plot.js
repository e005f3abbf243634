// Two small pictures: the loss over the steps, and where the time went.

import { duration, h } from "./dom.js";

const WIDTH = 340;
const HEIGHT = 120;
const LEFT = 56;
const BOTTOM = 22;
const COLORS = ["#4653d6", "#0f8f83", "#c2571a", "#9a3fb5", "#b58a12", "#5c6b82"];

export function lossPlot(points, steps) {
  if (points.length < 2) return h("p", { class: "d-quiet" }, "The loss appears after a few steps.");
  const losses = points.map((point) => point.loss);
  let low = Math.min(...losses);
  let high = Math.max(...losses);
  if (high === low) [low, high] = [low - 0.5, high + 0.5];
  const x = (step) => LEFT + ((WIDTH - LEFT - 8) * step) / Math.max(steps, 1);
  const y = (loss) => 8 + (HEIGHT - BOTTOM - 8) * (1 - (loss - low) / (high - low));
  const line = (values) => values.map((loss, i) => `${i ? "L" : "M"}${x(points[i].step).toFixed(1)},${y(loss).toFixed(1)}`).join("");
  const width = Math.max(1, Math.round(losses.length / 20));
  const smooth = losses.map((_, i) => {
    const part = losses.slice(Math.max(0, i - width), i + width + 1);
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
  const text = (value, left, top, anchor) =>
    h("svg:text", { x: left, y: top, "text-anchor": anchor }, value);
  return h(
    "svg:svg",
    {
      class: "d-plot",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      role: "img",
      "aria-label": `Loss over ${points.at(-1).step} of ${steps} steps, now ${brief(losses.at(-1))}`,
    },
    h("svg:line", { x1: LEFT, x2: WIDTH - 8, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM, class: "axis" }),
    text(brief(high), LEFT - 6, 14, "end"),
    text(brief(low), LEFT - 6, HEIGHT - BOTTOM, "end"),
    text("0", LEFT, HEIGHT - 6, "start"),
    text(`${steps} steps`, WIDTH - 8, HEIGHT - 6, "end"),
    h("svg:path", { d: line(losses), class: "raw" }),
    h("svg:path", { d: line(smooth), class: "smooth" }),
  );
}

function brief(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 10000)) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

export function timeSplit(phases) {
  const parts = Object.entries(phases).sort((a, b) => b[1] - a[1]);
  const whole = parts.reduce((sum, [, seconds]) => sum + seconds, 0);
  if (!whole) return h("p", { class: "d-quiet" }, "Where the time goes appears with the first preview.");
  const shown = parts.slice(0, COLORS.length - 1);
  const rest = parts.slice(COLORS.length - 1).reduce((sum, [, seconds]) => sum + seconds, 0);
  if (rest) shown.push(["other", rest]);
  return h(
    "div",
    { class: "d-split" },
    h(
      "div",
      { class: "bar", "aria-hidden": "true" },
      shown.map(([, seconds], i) => h("span", { style: `flex:${seconds / whole};background:${COLORS[i]}` })),
    ),
    h(
      "ul",
      { "aria-label": "Where the time went" },
      shown.map(([name, seconds], i) =>
        h("li", {}, h("i", { style: `background:${COLORS[i]}`, "aria-hidden": "true" }), `${name} `, h("b", {}, duration(seconds)), ` ${Math.round((100 * seconds) / whole)} %`),
      ),
    ),
  );
}
