// One window onto a mesh or onto splats: turn, zoom, reset, full screen, by mouse, finger and key. Draws only on change.

import { button, h, icon } from "./dom.js";
import { hold, Orbit } from "./gl.js";
import { MeshDrawing } from "./mesh.js";
import { SplatDrawing } from "./splats.js";

const DRAWINGS = {
  mesh: (gl, buffer) => MeshDrawing.load(gl, buffer),
  splats: async (gl, buffer) => new SplatDrawing(gl, buffer),
};

// `kind` is "mesh" (GLB) or "splats" (PLY); `name` is what a screen reader says; a shared `orbit` moves viewers together.
export function viewer(kind, url, name, orbit = new Orbit()) {
  const canvas = h("canvas", {
    tabindex: "0",
    role: "img",
    "data-kind": kind,
    "aria-label": `${name}. Arrow keys turn it, plus and minus zoom, Home resets.`,
  });
  const status = h("p", { class: "d-viewer-status", role: "status" }, "Loading");
  const place = h("div", { class: "d-viewer" }, canvas, status);
  const redraw = () => place.dispatchEvent(new Event("redraw"));
  orbit.watchers ??= new Set();
  orbit.watchers.add(redraw);
  const all = () => orbit.watchers.forEach((watcher) => watcher());
  hold(canvas, orbit, all);
  place.append(
    h("div", { class: "d-viewer-tools" },
      button(icon("reset"), () => { orbit.reset(); all(); }, { kind: "quiet", "aria-label": "Reset the view", title: "Reset the view" }),
      button(icon("full"), () => (document.fullscreenElement ? document.exitFullscreen() : place.requestFullscreen()), { kind: "quiet", "aria-label": "Full screen", title: "Full screen" }),
    ),
  );
  start(kind, url, canvas, status, place, orbit).catch((error) => {
    status.textContent = `Cannot be shown here: ${error.message}`;
    canvas.dataset.state = "failed";
  });
  return place;
}

async function start(kind, url, canvas, status, place, orbit) {
  const gl = canvas.getContext("webgl2", { antialias: true, premultipliedAlpha: true, alpha: true });
  if (!gl) throw new Error("this browser has no WebGL 2");
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  const drawing = await DRAWINGS[kind](gl, await answer.arrayBuffer());
  let due = false;
  const draw = () => {
    due = false;
    const density = Math.min(2, window.devicePixelRatio || 1);
    const [width, height] = [Math.round(canvas.clientWidth * density), Math.round(canvas.clientHeight * density)];
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    drawing.draw(orbit, width, height);
    canvas.dataset.state = "drawn";
  };
  const later = () => {
    if (!due) requestAnimationFrame(draw);
    due = true;
  };
  place.addEventListener("redraw", later);
  new ResizeObserver(later).observe(canvas);
  canvas.addEventListener("webglcontextlost", () => (status.textContent = "The graphics were reset; open the result again."));
  status.textContent = drawing.about;
  later();
}
