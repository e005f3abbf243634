// A GLB mesh: colour per vertex or a base colour texture, softly lit from above.

import { program } from "./gl.js";

const VERTEX = `
uniform mat4 view;
uniform mat4 projection;
uniform mat4 model;
in vec3 position;
in vec3 normal;
in vec4 tint;
in vec2 uv;
out vec3 facing;
out vec4 base;
out vec2 at;
void main() {
  facing = mat3(model) * normal;
  base = tint;
  at = uv;
  gl_Position = projection * view * model * vec4(position, 1.0);
}`;

const FRAGMENT = `
uniform sampler2D picture;
uniform vec4 factor;
in vec3 facing;
in vec4 base;
in vec2 at;
out vec4 pixel;
void main() {
  vec3 linear = base.rgb * factor.rgb * texture(picture, at).rgb;
  vec3 n = normalize(facing);
  float light = 0.80 + 0.20 * n.y + 0.10 * max(0.0, dot(n, normalize(vec3(0.4, 0.5, 0.8))));
  vec3 lit = min(linear * light, 1.0);
  vec3 low = lit * 12.92, high = 1.055 * pow(lit, vec3(1.0 / 2.4)) - 0.055;
  pixel = vec4(mix(high, low, vec3(lessThan(lit, vec3(0.0031308)))), 1.0);
}`;

const TYPES = { 5120: Int8Array, 5121: Uint8Array, 5122: Int16Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array };
const COUNTS = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4, MAT4: 16 };
const IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
const MOST_BYTES = 512 * 2 ** 20;

// The two chunks of a GLB.
export function readGlb(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < 20 || view.getUint32(0, true) !== 0x46546c67) throw new Error("this is no GLB file");
  if (buffer.byteLength > MOST_BYTES) throw new Error("the file is too large to be shown");
  const length = view.getUint32(12, true);
  const json = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, length)));
  return { json, start: 20 + length + 8, buffer };
}

function accessor({ json, start, buffer }, index) {
  const { bufferView, byteOffset = 0, componentType, count, type, normalized } = json.accessors[index];
  const { byteOffset: at = 0, byteStride } = json.bufferViews[bufferView];
  const [Type, width] = [TYPES[componentType], COUNTS[type]];
  const step = byteStride ?? width * Type.BYTES_PER_ELEMENT;
  const values = new Type(count * width);
  const bytes = new Uint8Array(buffer);
  const raw = new Uint8Array(values.buffer);
  const row = width * Type.BYTES_PER_ELEMENT;
  for (let i = 0; i < count; i++) {
    const from = start + at + byteOffset + i * step;
    raw.set(bytes.subarray(from, from + row), i * row);
  }
  if (Type === Float32Array || !normalized) return { values, width, count };
  const largest = 2 ** (8 * Type.BYTES_PER_ELEMENT) - 1;
  return { values: Float32Array.from(values, (value) => value / largest), width, count };
}

function multiply(a, b) {
  const out = new Array(16).fill(0);
  for (let c = 0; c < 4; c++) for (let r = 0; r < 4; r++) for (let k = 0; k < 4; k++) out[4 * c + r] += a[4 * k + r] * b[4 * c + k];
  return out;
}

function local({ matrix, translation: t = [0, 0, 0], rotation: q = [0, 0, 0, 1], scale: s = [1, 1, 1] }) {
  if (matrix) return matrix;
  const [x, y, z, w] = q;
  return [
    (1 - 2 * (y * y + z * z)) * s[0], 2 * (x * y + z * w) * s[0], 2 * (x * z - y * w) * s[0], 0,
    2 * (x * y - z * w) * s[1], (1 - 2 * (x * x + z * z)) * s[1], 2 * (y * z + x * w) * s[1], 0,
    2 * (x * z + y * w) * s[2], 2 * (y * z - x * w) * s[2], (1 - 2 * (x * x + y * y)) * s[2], 0,
    ...t, 1,
  ];
}

function smoothNormals(positions, indices) {
  const normals = new Float32Array(positions.length);
  for (let i = 0; i < indices.length; i += 3) {
    const [a, b, c] = [0, 1, 2].map((k) => 3 * indices[i + k]);
    const edge = (p, k) => positions[p + k] - positions[a + k];
    const cross = [0, 1, 2].map((k) => edge(b, (k + 1) % 3) * edge(c, (k + 2) % 3) - edge(b, (k + 2) % 3) * edge(c, (k + 1) % 3));
    for (const p of [a, b, c]) for (let k = 0; k < 3; k++) normals[p + k] += cross[k];
  }
  return normals;
}

export class MeshDrawing {
  static async load(gl, buffer) {
    const drawing = new MeshDrawing();
    Object.assign(drawing, { gl, program: program(gl, VERTEX, FRAGMENT), parts: [], faces: 0 });
    const glb = readGlb(buffer);
    const { json } = glb;
    const visit = async (index, above) => {
      const node = json.nodes[index];
      const model = multiply(above, local(node));
      for (const primitive of json.meshes?.[node.mesh]?.primitives ?? []) await drawing.add(glb, primitive, model);
      for (const child of node.children ?? []) await visit(child, model);
    };
    for (const root of json.scenes[json.scene ?? 0].nodes) await visit(root, IDENTITY);
    if (!drawing.parts.length) throw new Error("the file holds no triangles");
    return drawing;
  }

  async add(glb, { attributes, indices, material, mode = 4 }, model) {
    if (mode !== 4 || attributes.POSITION === undefined) return;
    const { gl } = this;
    const position = accessor(glb, attributes.POSITION);
    const index = indices === undefined ? Uint32Array.from({ length: position.count }, (_, i) => i) : Uint32Array.from(accessor(glb, indices).values);
    const normal = attributes.NORMAL === undefined ? smoothNormals(position.values, index) : accessor(glb, attributes.NORMAL).values;
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    this.attribute("position", position.values, 3);
    this.attribute("normal", normal, 3);
    const tint = attributes.COLOR_0 === undefined ? null : accessor(glb, attributes.COLOR_0);
    this.attribute("tint", tint?.values, tint?.width);
    this.attribute("uv", attributes.TEXCOORD_0 === undefined ? null : accessor(glb, attributes.TEXCOORD_0).values, 2);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, index, gl.STATIC_DRAW);
    const { baseColorTexture, baseColorFactor = [1, 1, 1, 1] } = glb.json.materials?.[material]?.pbrMetallicRoughness ?? {};
    const picture = await this.texture(glb, baseColorTexture);
    this.parts.push({ array, count: index.length, model, factor: baseColorFactor, picture });
    this.faces += index.length / 3;
  }

  attribute(name, values, width) {
    const { gl } = this;
    const place = gl.getAttribLocation(this.program, name);
    if (place < 0) return;
    if (!values) {
      gl.vertexAttrib4f(place, 1, 1, 1, 1);
      return;
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, Float32Array.from(values), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, width, gl.FLOAT, false, 0, 0);
  }

  async texture({ json, start, buffer }, reference) {
    const { gl } = this;
    const texture = gl.createTexture();
    let image = null;
    if (reference !== undefined) {
      const { bufferView, mimeType } = json.images[json.textures[reference.index].source];
      const { byteOffset = 0, byteLength } = json.bufferViews[bufferView];
      image = await createImageBitmap(new Blob([new Uint8Array(buffer, start + byteOffset, byteLength)], { type: mimeType }));
    }
    gl.bindTexture(gl.TEXTURE_2D, texture);
    // The hardware turns sRGB texels into linear ones before it mixes them.
    if (image) gl.texImage2D(gl.TEXTURE_2D, 0, gl.SRGB8_ALPHA8, gl.RGBA, gl.UNSIGNED_BYTE, image);
    else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array([255, 255, 255, 255]));
    gl.generateMipmap(gl.TEXTURE_2D);
    return texture;
  }

  draw(orbit, width, height) {
    const { gl } = this;
    const place = (name) => gl.getUniformLocation(this.program, name);
    gl.useProgram(this.program);
    gl.enable(gl.DEPTH_TEST);
    gl.disable(gl.BLEND);
    gl.uniformMatrix4fv(place("view"), false, orbit.view);
    gl.uniformMatrix4fv(place("projection"), false, orbit.projection(width, height));
    for (const { array, count, model, factor, picture } of this.parts) {
      gl.bindVertexArray(array);
      gl.bindTexture(gl.TEXTURE_2D, picture);
      gl.uniformMatrix4fv(place("model"), false, model);
      gl.uniform4fv(place("factor"), factor);
      gl.drawElements(gl.TRIANGLES, count, gl.UNSIGNED_INT, 0);
    }
  }

  get about() {
    return `${Math.round(this.faces).toLocaleString()} triangles`;
  }
}
