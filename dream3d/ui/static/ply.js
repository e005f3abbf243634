// Gaussian splats from the 62-property PLY of the original 3DGS code: log-scales, opacity logits, wxyz quaternions.

const SIZES = { float: 4, double: 8, int: 4, uint: 4, short: 2, ushort: 2, char: 1, uchar: 1 };
const MOST = 1_000_000;

// Returns { count, means [3n], covariances [6n: xx xy xz yy yz zz], opacities [n], sh [48n, coefficient by coefficient], degree }.
export function readSplats(buffer) {
  const bytes = new Uint8Array(buffer);
  const start = new TextDecoder("latin1").decode(bytes.subarray(0, 16384));
  const end = start.indexOf("end_header\n");
  if (!start.startsWith("ply\n") || end < 0) throw new Error("this is no PLY file");
  const header = start.slice(0, end).split("\n");
  if (!header.includes("format binary_little_endian 1.0")) throw new Error("only binary little-endian PLY files are shown");
  const count = Number(header.find((line) => line.startsWith("element vertex"))?.split(" ")[2] ?? 0);
  if (!(count > 0 && count <= MOST)) throw new Error(`the file holds ${count} splats; 1 to ${MOST} can be shown`);
  const offsets = {};
  let stride = 0;
  for (const line of header) {
    const [word, type, name] = line.split(" ");
    if (word !== "property") continue;
    offsets[name] = stride;
    stride += SIZES[type] ?? NaN;
  }
  const body = end + "end_header\n".length;
  if (!(bytes.length >= body + count * stride)) throw new Error("the file is cut short");
  const view = new DataView(buffer, body);
  const rest = Object.keys(offsets).filter((name) => name.startsWith("f_rest_")).length;
  const perChannel = rest / 3;
  const out = {
    count,
    means: new Float32Array(3 * count),
    covariances: new Float32Array(6 * count),
    opacities: new Float32Array(count),
    sh: new Float32Array(48 * count),
    degree: Math.round(Math.sqrt(perChannel + 1)) - 1,
  };
  const need = ["x", "y", "z", "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3", "f_dc_0"];
  const missing = need.find((name) => offsets[name] === undefined);
  if (missing) throw new Error(`the file has no property ${missing}`);
  let used = 0;
  for (let i = 0; i < count; i++) {
    const at = (name) => view.getFloat32(i * stride + offsets[name], true);
    out.means.set([at("x"), at("y"), at("z")], 3 * i);
    out.opacities[i] = 1 / (1 + Math.exp(-at("opacity")));
    out.covariances.set(covariance(at), 6 * i);
    for (let c = 0; c < 3; c++) {
      out.sh[48 * i + c] = at(`f_dc_${c}`);
      for (let k = 0; k < perChannel; k++) {
        // In the file all of red comes first, here the three channels of one coefficient stand together.
        const value = at(`f_rest_${c * perChannel + k}`);
        out.sh[48 * i + 3 * (k + 1) + c] = value;
        if (value !== 0) used = Math.max(used, k + 1);
      }
    }
  }
  out.degree = used === 0 ? 0 : used <= 3 ? 1 : used <= 8 ? 2 : 3;
  return out;
}

function covariance(at) {
  const length = Math.hypot(at("rot_0"), at("rot_1"), at("rot_2"), at("rot_3")) || 1;
  const [w, x, y, z] = ["rot_0", "rot_1", "rot_2", "rot_3"].map((name) => at(name) / length);
  const rotation = [
    [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
    [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
  ];
  const variance = ["scale_0", "scale_1", "scale_2"].map((name) => Math.exp(2 * at(name)));
  const entry = (r, c) => variance.reduce((sum, v, k) => sum + rotation[r][k] * v * rotation[c][k], 0);
  return [entry(0, 0), entry(0, 1), entry(0, 2), entry(1, 1), entry(1, 2), entry(2, 2)];
}
