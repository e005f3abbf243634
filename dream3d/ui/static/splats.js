// Gaussian splats with spherical harmonics, sorted back to front, drawn the way the optimiser draws them.

import { program } from "./gl.js";
import { readSplats } from "./ply.js";

const WIDTH = 1024; // texels in a row of the data texture
const TEXELS = 16; // per splat: position and opacity, covariance (2), one spare, 12 of spherical harmonics

const VERTEX = `
uniform highp sampler2D data;
uniform mat4 view;
uniform vec2 size;
uniform float focal;
uniform vec3 eye;
uniform int degree;
in vec2 corner;
in float order;
out vec2 place;
out vec4 paint;

vec4 texel(int splat, int k) {
  int at = splat * ${TEXELS} + k;
  return texelFetch(data, ivec2(at % ${WIDTH}, at / ${WIDTH}), 0);
}

vec3 coefficient(int splat, int k) {
  int at = 3 * k;
  vec4 a = texel(splat, 4 + at / 4);
  vec4 b = texel(splat, 4 + min(at / 4 + 1, 11));
  int first = at % 4;
  if (first == 0) return a.xyz;
  if (first == 1) return a.yzw;
  if (first == 2) return vec3(a.zw, b.x);
  return vec3(a.w, b.xy);
}

vec3 colour(int splat, vec3 d) {
  vec3 c = 0.28209479 * coefficient(splat, 0);
  float x = d.x, y = d.y, z = d.z;
  if (degree > 0) {
    c += 0.48860251 * (-y * coefficient(splat, 1) + z * coefficient(splat, 2) - x * coefficient(splat, 3));
  }
  if (degree > 1) {
    c += 1.09254843 * (x * y * coefficient(splat, 4) - y * z * coefficient(splat, 5) - x * z * coefficient(splat, 7));
    c += 0.31539157 * (2.0 * z * z - x * x - y * y) * coefficient(splat, 6);
    c += 0.54627422 * (x * x - y * y) * coefficient(splat, 8);
  }
  if (degree > 2) {
    c += -0.59004359 * y * (3.0 * x * x - y * y) * coefficient(splat, 9);
    c += 2.89061144 * x * y * z * coefficient(splat, 10);
    c += -0.45704580 * y * (4.0 * z * z - x * x - y * y) * coefficient(splat, 11);
    c += 0.37317633 * z * (2.0 * z * z - 3.0 * x * x - 3.0 * y * y) * coefficient(splat, 12);
    c += -0.45704580 * x * (4.0 * z * z - x * x - y * y) * coefficient(splat, 13);
    c += 1.44530572 * z * (x * x - y * y) * coefficient(splat, 14);
    c += -0.59004359 * x * (x * x - 3.0 * y * y) * coefficient(splat, 15);
  }
  return max(c + 0.5, 0.0);
}

void main() {
  int splat = int(order);
  vec4 first = texel(splat, 0);
  vec4 a = texel(splat, 1);
  vec4 b = texel(splat, 2);
  vec3 t = (view * vec4(first.xyz, 1.0)).xyz;
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);
  float z = -t.z;
  if (z < 0.1) return;
  mat3 turn = mat3(view);
  mat3 sigma = mat3(a.x, a.y, a.z, a.y, a.w, b.x, a.z, b.x, b.y);
  mat3 inCamera = turn * sigma * transpose(turn);
  vec3 jx = vec3(focal / z, 0.0, focal * t.x / (z * z));
  vec3 jy = vec3(0.0, focal / z, focal * t.y / (z * z));
  float xx = dot(jx, inCamera * jx), xy = dot(jx, inCamera * jy), yy = dot(jy, inCamera * jy);
  // A splat is at least about a pixel wide, and pays for it with its opacity: the area it covers stays.
  float before = max(xx * yy - xy * xy, 0.0);
  xx += 0.3;
  yy += 0.3;
  float after = xx * yy - xy * xy;
  float middle = 0.5 * (xx + yy);
  float apart = sqrt(max(0.0, 0.25 * (xx - yy) * (xx - yy) + xy * xy));
  float wide = middle + apart, narrow = max(middle - apart, 0.05);
  vec2 along = abs(xy) > 1e-6 ? normalize(vec2(xy, wide - xx)) : (xx >= yy ? vec2(1.0, 0.0) : vec2(0.0, 1.0));
  place = corner * 3.0;
  vec2 moved = place.x * sqrt(wide) * along + place.y * sqrt(narrow) * vec2(-along.y, along.x);
  vec2 centre = focal * t.xy / z;
  gl_Position = vec4((centre + moved) * 2.0 / size, 0.0, 1.0);
  paint = vec4(colour(splat, normalize(first.xyz - eye)), first.w * sqrt(before / after));
}`;

const FRAGMENT = `
in vec2 place;
in vec4 paint;
out vec4 pixel;
void main() {
  float alpha = min(0.999, paint.a * exp(-0.5 * dot(place, place)));
  if (alpha < 0.004) discard;
  pixel = vec4(min(paint.rgb, 1.0) * alpha, alpha);
}`;

export class SplatDrawing {
  constructor(gl, buffer) {
    this.gl = gl;
    this.splats = readSplats(buffer);
    this.program = program(gl, VERTEX, FRAGMENT);
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    this.attribute("corner", new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), 2, 0);
    this.order = this.attribute("order", new Float32Array(this.splats.count), 1, 1);
    this.upload();
  }

  attribute(name, data, size, divisor) {
    const { gl } = this;
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
    const place = gl.getAttribLocation(this.program, name);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, size, gl.FLOAT, false, 0, 0);
    gl.vertexAttribDivisor(place, divisor);
    return buffer;
  }

  upload() {
    const { gl } = this;
    const { count, means, covariances, opacities, sh } = this.splats;
    const rows = Math.ceil((count * TEXELS) / WIDTH);
    const data = new Float32Array(rows * WIDTH * 4);
    for (let i = 0; i < count; i++) {
      const at = 4 * TEXELS * i;
      data.set(means.subarray(3 * i, 3 * i + 3), at);
      data[at + 3] = opacities[i];
      data.set(covariances.subarray(6 * i, 6 * i + 6), at + 4);
      data.set(sh.subarray(48 * i, 48 * i + 48), at + 16);
    }
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, WIDTH, rows, 0, gl.RGBA, gl.FLOAT, data);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
  }

  // Far splats first, by counting in 65536 bins of depth.
  sort(view) {
    const { count, means } = this.splats;
    const depths = new Float32Array(count);
    let [low, high] = [Infinity, -Infinity];
    for (let i = 0; i < count; i++) {
      const depth = view[2] * means[3 * i] + view[6] * means[3 * i + 1] + view[10] * means[3 * i + 2];
      depths[i] = depth;
      low = Math.min(low, depth);
      high = Math.max(high, depth);
    }
    const bins = 65536;
    const scale = (bins - 1) / Math.max(high - low, 1e-9);
    const starts = new Uint32Array(bins + 1);
    const keys = depths.map((depth) => Math.floor((depth - low) * scale));
    for (const key of keys) starts[key + 1]++;
    for (let k = 0; k < bins; k++) starts[k + 1] += starts[k];
    const order = new Float32Array(count);
    for (let i = 0; i < count; i++) order[starts[keys[i]]++] = i;
    return order;
  }

  draw(orbit, width, height) {
    const { gl } = this;
    // The file is Y-down, as its readers expect: half a turn about X stands it up again.
    const view = orbit.view.map((value, i) => (i >= 4 && i < 12 ? -value : value));
    const [x, y, z] = orbit.eye;
    gl.useProgram(this.program);
    gl.bindVertexArray(this.array);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.order);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, this.sort(view));
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    const place = (name) => gl.getUniformLocation(this.program, name);
    gl.uniformMatrix4fv(place("view"), false, view);
    gl.uniform2f(place("size"), width, height);
    gl.uniform1f(place("focal"), orbit.focal(width, height));
    gl.uniform3f(place("eye"), x, -y, -z);
    gl.uniform1i(place("degree"), this.splats.degree);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.splats.count);
  }

  get about() {
    return `${this.splats.count.toLocaleString()} splats`;
  }
}
