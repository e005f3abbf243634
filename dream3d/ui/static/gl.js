// What both viewers share: programs, an orbit camera, and the hands on it.

export function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, `#version 300 es\nprecision highp float;\nprecision highp int;\n${source}`);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return made;
}

const FIELD_OF_VIEW = (40 * Math.PI) / 180;

// Azimuth 0 looks at the front (from +Z), positive toward +X; elevation positive upward; +Y is up.
export class Orbit {
  constructor() {
    this.reset();
  }

  reset() {
    [this.azimuth, this.elevation, this.distance] = [0.5, 0.25, 3.4];
  }

  turn(right, up) {
    this.azimuth += right;
    this.elevation = Math.min(1.55, Math.max(-1.55, this.elevation + up));
  }

  zoom(factor) {
    this.distance = Math.min(20, Math.max(0.4, this.distance * factor));
  }

  get eye() {
    const { azimuth: a, elevation: e, distance: d } = this;
    return [d * Math.sin(a) * Math.cos(e), d * Math.sin(e), d * Math.cos(a) * Math.cos(e)];
  }

  // World to camera, OpenGL axes, column-major.
  get view() {
    const { azimuth: a, elevation: e, distance: d } = this;
    const [sa, ca, se, ce] = [Math.sin(a), Math.cos(a), Math.sin(e), Math.cos(e)];
    return [ca, -sa * se, sa * ce, 0, 0, ce, se, 0, -sa, -ca * se, ca * ce, 0, 0, 0, -d, 1];
  }

  // Focal length in pixels for an image of this size; the object stays whole when the window is narrow.
  focal(width, height) {
    return Math.min(width, height) / (2 * Math.tan(FIELD_OF_VIEW / 2));
  }

  projection(width, height) {
    const focal = this.focal(width, height);
    const [near, far] = [0.02, 60];
    const depth = (far + near) / (near - far);
    return [(2 * focal) / width, 0, 0, 0, 0, (2 * focal) / height, 0, 0, 0, 0, depth, -1, 0, 0, (2 * far * near) / (near - far), 0];
  }
}

const KEYS = {
  ArrowLeft: (orbit) => orbit.turn(-0.12, 0),
  ArrowRight: (orbit) => orbit.turn(0.12, 0),
  ArrowUp: (orbit) => orbit.turn(0, 0.12),
  ArrowDown: (orbit) => orbit.turn(0, -0.12),
  "+": (orbit) => orbit.zoom(0.88),
  "=": (orbit) => orbit.zoom(0.88),
  "-": (orbit) => orbit.zoom(1.14),
  Home: (orbit) => orbit.reset(),
  r: (orbit) => orbit.reset(),
};

// Mouse, fingers and keys; `moved` is called after every change.
export function hold(canvas, orbit, moved) {
  const fingers = new Map();
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  canvas.addEventListener("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    const before = fingers.size === 2 ? spread() : 0;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (fingers.size === 1) orbit.turn(-(event.clientX - last.x) * 0.008, (event.clientY - last.y) * 0.008);
    else if (before) orbit.zoom(before / Math.max(1, spread()));
    moved();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    orbit.zoom(Math.exp(Math.sign(event.deltaY) * 0.08));
    moved();
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const act = KEYS[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(orbit);
    moved();
  });
}
