"use strict";
// World: right-handed, +Y up, front +Z. All data lies in this file, base64 in one block, arrays by offset in `about`.
const about = JSON.parse(document.getElementById("about").textContent);
const text = atob(document.getElementById("data").textContent.trim());
const bytes = new Uint8Array(text.length);
for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
const TYPES = { f4: Float32Array, u4: Uint32Array, f2: Uint16Array, u1: Uint8Array };
const array = (name) => {
  const { type, offset, length } = about.arrays[name];
  return new TYPES[type](bytes.buffer, offset, length);
};
document.getElementById("title").textContent = about.title;

const canvas = document.getElementById("view");
const gl = canvas.getContext("webgl2", { antialias: true, alpha: false, powerPreference: "low-power" });
const fail = (message) => { document.getElementById("problem").textContent = message; throw new Error(message); };
if (!gl) fail("This page needs WebGL 2, which this browser does not offer.");

function program(vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, "#version 300 es\nprecision highp float;precision highp int;precision highp sampler2D;\n" + source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) fail(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) fail(gl.getProgramInfoLog(made));
  return made;
}

function texture(unit, width, height, internal, format, type, data, filter) {
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texImage2D(gl.TEXTURE_2D, 0, internal, width, height, 0, format, type, data);
  for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, filter);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
}

// ---- Splats: one quad each, farthest first. Geometry: (mean, opacity), (xx xy xz yy), (yz zz 0 0); harmonics: RGB halves.
const ROW = 1024;
const SPLAT_VERTEX = `
uniform sampler2D geometry, harmonics; uniform mat4 view; uniform vec3 eye; uniform vec2 focal, size; uniform int coefficients;
in vec2 corner; in uint index; out vec2 place; out vec4 color;
vec4 texel(sampler2D from, int i) { return texelFetch(from, ivec2(i % ${ROW}, i / ${ROW}), 0); }
vec3 sh(int k) { return texel(harmonics, int(index) * coefficients + k).rgb; }
vec3 shaded(vec3 d) {
  vec3 c = 0.28209479177387814 * sh(0); float x = d.x, y = d.y, z = d.z;
  if (coefficients > 1) c += 0.4886025119029199 * (-y * sh(1) + z * sh(2) - x * sh(3));
  if (coefficients > 4) c += 1.0925484305920792 * (x*y*sh(4) - y*z*sh(5) - x*z*sh(7)) + 0.31539156525252005 * (2.0*z*z-x*x-y*y) * sh(6)
    + 0.5462742152960396 * (x*x-y*y) * sh(8);
  if (coefficients > 9) c += -0.5900435899266435 * y*(3.0*x*x-y*y) * sh(9) + 2.890611442640554 * x*y*z * sh(10)
    - 0.4570457994644658 * y*(4.0*z*z-x*x-y*y) * sh(11) + 0.3731763325901154 * z*(2.0*z*z-3.0*x*x-3.0*y*y) * sh(12)
    - 0.4570457994644658 * x*(4.0*z*z-x*x-y*y) * sh(13) + 1.445305721320277 * z*(x*x-y*y) * sh(14)
    - 0.5900435899266435 * x*(x*x-3.0*y*y) * sh(15);
  return max(0.5 + c, 0.0);
}
void main() {
  int at = int(index) * 3;
  vec4 a = texel(geometry, at), b = texel(geometry, at + 1), c = texel(geometry, at + 2);
  vec3 t = (view * vec4(a.xyz, 1.0)).xyz;
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);
  if (t.z > -0.05) return;
  vec2 bound = 1.3 * 0.5 * size / focal;
  vec2 s = clamp(t.xy / -t.z, -bound, bound) * -t.z;
  mat3 J = mat3(focal.x / -t.z, 0.0, 0.0,  0.0, focal.y / -t.z, 0.0,  focal.x * s.x / (t.z * t.z), focal.y * s.y / (t.z * t.z), 0.0);
  mat3 T = J * mat3(view);
  mat3 V = T * mat3(b.x, b.y, b.z,  b.y, b.w, c.x,  b.z, c.x, c.y) * transpose(T);
  float sharp = max(V[0][0] * V[1][1] - V[0][1] * V[0][1], 0.0);
  float p = V[0][0] + 0.3, q = V[0][1], r = V[1][1] + 0.3;
  float det = p * r - q * q;
  // The low-pass filter spreads a splat; its opacity falls as much, so that it covers the same area at every size.
  float opacity = a.w * sqrt(max(sharp / det, 0.000025));
  if (opacity < 1.0 / 255.0) return;
  float mid = 0.5 * (p + r), half_gap = sqrt(max(0.25 * (p - r) * (p - r) + q * q, 1e-12));
  vec2 axis = abs(q) < 1e-6 ? (p >= r ? vec2(1.0, 0.0) : vec2(0.0, 1.0)) : normalize(vec2(q, mid + half_gap - p));
  float reach = sqrt(2.0 * log(255.0 * opacity));
  vec2 major = axis * sqrt(mid + half_gap), minor = vec2(-axis.y, axis.x) * sqrt(max(mid - half_gap, 0.05));
  vec2 offset = reach * (corner.x * major + corner.y * minor);
  place = corner * reach;
  color = vec4(shaded(normalize(a.xyz - eye)), opacity);
  gl_Position = vec4((focal * t.xy / -t.z + offset) * 2.0 / size, 0.0, 1.0);
}`;
const SPLAT_FRAGMENT = `
in vec2 place; in vec4 color; out vec4 pixel;
void main() {
  float alpha = min(0.99, color.a * exp(-0.5 * dot(place, place)));
  if (alpha < 1.0 / 255.0) discard;
  pixel = vec4(min(color.rgb, 1.0) * alpha, alpha);
}`;

function splats() {
  const geometry = array("geometry"), count = about.splats, coefficients = about.coefficients;
  const padded = (data, width, kind) => {
    const height = Math.ceil(data.length / width / ROW), out = new kind(ROW * height * width);
    out.set(data);
    return [ROW, height, out];
  };
  const draw = program(SPLAT_VERTEX, SPLAT_FRAGMENT), at = (name) => gl.getUniformLocation(draw, name);
  gl.useProgram(draw);
  texture(0, ...insert(padded(geometry, 4, Float32Array), gl.RGBA32F, gl.RGBA, gl.FLOAT), gl.NEAREST);
  texture(1, ...insert(padded(array("harmonics"), 3, Uint16Array), gl.RGB16F, gl.RGB, gl.HALF_FLOAT), gl.NEAREST);
  gl.uniform1i(at("geometry"), 0); gl.uniform1i(at("harmonics"), 1); gl.uniform1i(at("coefficients"), coefficients);
  const state = gl.createVertexArray();
  gl.bindVertexArray(state);
  const attribute = (name, data, width, integer) => {
    const buffer = gl.createBuffer(), place = gl.getAttribLocation(draw, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(place);
    if (integer) { gl.vertexAttribIPointer(place, width, gl.UNSIGNED_INT, 0, 0); gl.vertexAttribDivisor(place, 1); }
    else gl.vertexAttribPointer(place, width, gl.FLOAT, false, 0, 0);
    return buffer;
  };
  attribute("corner", new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), 2, false);
  const order = new Uint32Array(count), keys = new Uint16Array(count), starts = new Uint32Array(65537);
  const indices = attribute("index", order, 1, true);
  const sort = (view) => {
    const depth = (i) => view[2] * geometry[12 * i] + view[6] * geometry[12 * i + 1] + view[10] * geometry[12 * i + 2];
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < count; i++) { const d = depth(i); if (d < low) low = d; if (d > high) high = d; }
    starts.fill(0);
    const scale = 65535 / Math.max(high - low, 1e-9);
    // Camera z grows toward the viewer, so ascending is farthest first.
    for (let i = 0; i < count; i++) { keys[i] = (depth(i) - low) * scale; starts[keys[i] + 1]++; }
    for (let i = 1; i < 65537; i++) starts[i] += starts[i - 1];
    for (let i = 0; i < count; i++) order[starts[keys[i]]++] = i;
    gl.bindBuffer(gl.ARRAY_BUFFER, indices);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, order);
  };
  return (camera) => {
    gl.useProgram(draw); gl.bindVertexArray(state);
    sort(camera.view);
    gl.uniformMatrix4fv(at("view"), false, camera.view); gl.uniform3fv(at("eye"), camera.eye);
    gl.uniform2f(at("focal"), camera.focal, camera.focal); gl.uniform2f(at("size"), canvas.width, canvas.height);
    gl.disable(gl.DEPTH_TEST); gl.enable(gl.BLEND); gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, count);
  };
}
const insert = ([width, height, data], internal, format, type) => [width, height, internal, format, type, data];

// ---- Mesh: base colour with a soft light from the viewer, so that shape shows.
const MESH_VERTEX = `
uniform mat4 view; uniform vec2 focal, size; in vec3 position, normal; in vec2 uv; out vec2 at; out vec3 facing;
void main() {
  vec4 t = view * vec4(position, 1.0);
  at = uv; facing = mat3(view) * normal;
  gl_Position = vec4(t.xy * focal * 2.0 / size, -1.002 * t.z - 0.1, -t.z);
}`;
const MESH_FRAGMENT = `
uniform sampler2D base; uniform float light; in vec2 at; in vec3 facing; out vec4 pixel;
void main() {
  float shade = mix(1.0, 0.62 + 0.38 * abs(normalize(facing).z), light);
  pixel = vec4(texture(base, at).rgb * shade, 1.0);
}`;
function mesh() {
  const draw = program(MESH_VERTEX, MESH_FRAGMENT), at = (name) => gl.getUniformLocation(draw, name);
  const state = gl.createVertexArray();
  gl.bindVertexArray(state);
  for (const [name, width] of [["position", 3], ["normal", 3], ["uv", 2]]) {
    const place = gl.getAttribLocation(draw, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, array(name), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, width, gl.FLOAT, false, 0, 0);
  }
  const faces = array("faces");
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
  texture(2, 1, 1, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array([128, 128, 128, 255]), gl.LINEAR);
  createImageBitmap(new Blob([array("texture")], { type: "image/png" })).then((picture) => {
    gl.activeTexture(gl.TEXTURE2);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, picture);
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    request();
  });
  return (camera) => {
    gl.useProgram(draw); gl.bindVertexArray(state);
    gl.uniform1i(at("base"), 2); gl.uniform1f(at("light"), options.light ? 1 : 0);
    gl.uniformMatrix4fv(at("view"), false, camera.view);
    gl.uniform2f(at("focal"), camera.focal, camera.focal); gl.uniform2f(at("size"), canvas.width, canvas.height);
    gl.enable(gl.DEPTH_TEST); gl.disable(gl.BLEND);
    gl.drawElements(gl.TRIANGLES, faces.length, gl.UNSIGNED_INT, 0);
  };
}

// ---- Camera, controls, drawing.
const HOME = { azimuth: 0.35, elevation: 0.25, distance: 3.4 };
const pose = { ...HOME };
const options = { show: "splats", turn: !matchMedia("(prefers-reduced-motion: reduce)").matches, light: true };
const drawers = { splats: splats(), mesh: mesh() };
let pending = false, before = 0;
function request() { if (!pending) { pending = true; requestAnimationFrame(frame); } }
function frame(now) {
  pending = false;
  if (options.turn) { pose.azimuth += Math.min(now - before, 50) * 0.0005; request(); }
  before = now;
  const ratio = Math.min(devicePixelRatio || 1, 2), width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const sa = Math.sin(pose.azimuth), ca = Math.cos(pose.azimuth), se = Math.sin(pose.elevation), ce = Math.cos(pose.elevation);
  const back = [sa * ce, se, ca * ce], right = [ca, 0, -sa], up = [-sa * se, ce, -ca * se];
  const view = new Float32Array([right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0, 0, 0, -pose.distance, 1]);
  const camera = { view, eye: back.map((v) => v * pose.distance), focal: 0.5 * Math.min(width, height) / Math.tan(0.35) };
  gl.viewport(0, 0, width, height);
  const tone = document.documentElement.classList.contains("light") ? [236, 238, 240] : [23, 25, 28];
  gl.clearColor(tone[0] / 255, tone[1] / 255, tone[2] / 255, 1);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  drawers[options.show](camera);
  document.documentElement.dataset.drawn = options.show;
}
function move(azimuth, elevation, zoom) {
  pose.azimuth += azimuth;
  pose.elevation = Math.max(-1.5, Math.min(1.5, pose.elevation + elevation));
  pose.distance = Math.max(1.2, Math.min(12, pose.distance * zoom));
  request();
}
const pointers = new Map();
let spread = 0;
canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); pointers.set(e.pointerId, e); set("turn", false); spread = 0; });
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => { pointers.delete(e.pointerId); spread = 0; });
canvas.addEventListener("pointermove", (e) => {
  const old = pointers.get(e.pointerId);
  if (!old) return;
  pointers.set(e.pointerId, e);
  if (pointers.size === 1) return move((old.clientX - e.clientX) * 0.008, (e.clientY - old.clientY) * 0.008, 1);
  const [a, b] = [...pointers.values()], now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
  if (spread) move(0, 0, spread / now);
  spread = now;
});
canvas.addEventListener("wheel", (e) => { e.preventDefault(); move(0, 0, Math.exp(e.deltaY * 0.001)); }, { passive: false });
canvas.addEventListener("keydown", (e) => {
  const step = { ArrowLeft: [-0.1, 0, 1], ArrowRight: [0.1, 0, 1], ArrowUp: [0, 0.1, 1], ArrowDown: [0, -0.1, 1], "+": [0, 0, 0.9], "=": [0, 0, 0.9], "-": [0, 0, 1.1] }[e.key];
  if (step) { e.preventDefault(); set("turn", false); move(...step); }
});
const buttons = [];
function set(name, value) { options[name] = value; for (const refresh of buttons) refresh(); request(); }
function button(label, pressed, act) {
  const made = document.createElement("button");
  made.type = "button"; made.textContent = label; made.addEventListener("click", act);
  document.getElementById("bar").append(made);
  const refresh = () => made.setAttribute("aria-pressed", pressed());
  if (pressed) { buttons.push(refresh); refresh(); }
}
button("Splats", () => options.show === "splats", () => set("show", "splats"));
button("Mesh", () => options.show === "mesh", () => set("show", "mesh"));
button("Turn", () => options.turn, () => set("turn", !options.turn));
button("Light", () => options.light, () => set("light", !options.light));
button("Bright", () => document.documentElement.classList.contains("light"), () => { document.documentElement.classList.toggle("light"); set("show", options.show); });
button("Reset", null, () => { Object.assign(pose, HOME); set("turn", false); });
addEventListener("resize", request);
if (location.hash.includes("mesh")) set("show", "mesh");
if (location.hash.includes("still")) set("turn", false);
request();
