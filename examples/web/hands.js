// Hands of a picture, found and reconstructed in the page with ONNX Runtime Web: MediaPipe's palm detector and landmark
// network, then a network of `utnet export`. Pixel centres are whole numbers, cameras have x right, y down, z forward.

const PALM = 192, LANDMARK = 224;
const STEADY = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]; // joints that place the region of a hand
export const BONES = [];
for (let finger = 0; finger < 5; finger++)
  for (let k = 0; k < 4; k++) BONES.push([k ? 4 * finger + k : 0, 4 * finger + k + 1]);

/** Loads the three networks. `ort`: the module onnxruntime-web; `files`: URLs of palm, landmark and hand. */
export async function loadNetworks(ort, files) {
  const bytes = Object.fromEntries(await Promise.all(Object.entries(files).map(async ([name, url]) => {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url}: ${response.status}; make the files by "make web"`);
    return [name, new Uint8Array(await response.arrayBuffer())];
  })));
  const options = { executionProviders: ["wasm"] };
  const networks = { ort, about: JSON.parse(metadata(bytes.hand).utnet) };
  if ((networks.about.config.crop.recipe ?? "utnet") !== "utnet")
    throw new Error("this network takes crops of another recipe (crop.recipe)");
  for (const name in bytes) networks[name] = await ort.InferenceSession.create(bytes[name], options);
  return networks;
}

/** Hands of an ImageData: [{side, presence, landmarks, joints, vertices, faces, K}], metres in the camera K. */
export async function findHands(networks, image, K = guessK(image)) {
  const found = [];
  for (const palm of await palms(networks, image)) {
    let hand = await landmarks(networks, image, regionOfPalm(palm));
    if (hand.presence > 0.5) hand = await landmarks(networks, image, regionOfLandmarks(hand.points));
    if (hand.presence > 0.5 && !found.some((other) => sameHand(other.points, hand.points))) found.push(hand);
  }
  const hands = [];
  for (const { points, presence, right } of found) {
    const side = right >= 0.5 ? "right" : "left";
    hands.push({ side, presence, landmarks: points, K, ...await reconstruct(networks, image, boxOf(points), side, K) });
  }
  return hands;
}

/** Focal length of the longer side, principal point in the middle. */
export function guessK({ width, height }) {
  return { f: Math.max(width, height), cx: (width - 1) / 2, cy: (height - 1) / 2 };
}

/** One hand in a tight box [x0, y0, x1, y1]: joints, vertices (arrays of [x, y, z], metres in the camera) and faces. */
export async function reconstruct({ ort, hand, about }, image, box, side, K) {
  const { width, height } = image, size = about.config.model.size_px, { expand, aspect } = about.config.crop;
  const left = side === "left"; // the network takes right hands
  const [x0, y0, x1, y1] = left ? [width - 1 - box[2], box[1], width - 1 - box[0], box[3]] : box;
  const cx = left ? width - 1 - K.cx : K.cx;
  const edge = Math.max((x1 - x0) / aspect, y1 - y0) * expand, step = edge / size;
  const toPicture = (c, r) => {
    const x = (x0 + x1) / 2 + (c - (size - 1) / 2) * step, y = (y0 + y1) / 2 + (r - (size - 1) / 2) * step;
    return [left ? width - 1 - x : x, y];
  };
  const feeds = { rgb: new ort.Tensor("float32", chw(cut(image, size, step, toPicture, false), size), [1, 3, size, size]) };
  if (about.inputs.includes("depth_m")) { // all zeros: no depth; NaN: no camera
    feeds.depth_m = new ort.Tensor("float32", new Float32Array(size * size), [1, size, size]);
    feeds.K_px = new ort.Tensor("float32", new Float32Array(9).fill(NaN), [1, 3, 3]);
  }
  if (about.inputs.includes("landmarks")) feeds.landmarks = new ort.Tensor("float32", new Float32Array(126), [1, 21, 6]);
  const out = await hand.run(feeds);
  const local = rows(out.joints_m.data, 3);
  const rays = rows(out.joints_crop.data, 2).map(([u, v]) => [
    ((x0 + x1) / 2 + u * edge - cx) / K.f, ((y0 + y1) / 2 + v * edge - K.cy) / K.f]);
  const t = translation(local, rays), flip = left ? -1 : 1;
  const place = (p) => [flip * (p[0] + t[0]), p[1] + t[1], p[2] + t[2]];
  const faces = left ? about.faces.map(([a, b, c]) => [c, b, a]) : about.faces;
  return { joints: local.map(place), vertices: rows(out.vertices_m.data, 3).map(place), faces };
}

/** Pixel of a point in the camera. */
export function project([x, y, z], K) {
  return [K.f * x / z + K.cx, K.f * y / z + K.cy];
}

// ------------------------------------------------------------------------------------------------------ the detector

async function palms({ ort, palm }, image) {
  const { width, height } = image;
  const region = { x: (width - 1) / 2, y: (height - 1) / 2, side: Math.max(width, height), angle: 0 };
  const pixels = cutRegion(image, region, PALM, false);
  const outputs = await palm.run({ [palm.inputNames[0]]: new ort.Tensor("float32", pixels, [1, PALM, PALM, 3]) });
  const [raw, logits] = palm.outputNames.map((name) => outputs[name].data);
  const candidates = [];
  anchors().forEach(([ax, ay], i) => {
    const score = 1 / (1 + Math.exp(-logits[i]));
    if (score < 0.5) return;
    const number = (k) => raw[18 * i + k];
    const back = (x, y) => toPictureOf(region, PALM)(x - 0.5, y - 0.5); // edges at 0 to pixel centres at 0
    const half = [number(2) / 2, number(3) / 2], middle = [number(0) + ax, number(1) + ay];
    const box = [...back(middle[0] - half[0], middle[1] - half[1]), ...back(middle[0] + half[0], middle[1] + half[1])];
    const keypoints = Array.from({ length: 7 }, (_, k) => back(number(4 + 2 * k) + ax, number(5 + 2 * k) + ay));
    candidates.push({ score, box, keypoints });
  });
  candidates.sort((a, b) => b.score - a.score);
  const kept = [];
  for (const one of candidates) if (!kept.some((other) => overlap(one.box, other.box) > 0.3)) kept.push(one);
  return kept;
}

async function landmarks({ ort, landmark }, image, region) {
  const pixels = cutRegion(image, region, LANDMARK, true);
  const input = new ort.Tensor("float32", pixels, [1, LANDMARK, LANDMARK, 3]);
  const outputs = await landmark.run({ [landmark.inputNames[0]]: input });
  const [points, presence, right] = landmark.outputNames.map((name) => outputs[name].data);
  const back = toPictureOf(region, LANDMARK);
  return { points: rows(points, 3).map(([x, y]) => back(x - 0.5, y - 0.5)), presence: presence[0], right: right[0] };
}

function anchors() {
  const centres = [];
  for (const [cells, count] of [[24, 2], [12, 6]])
    for (let row = 0; row < cells; row++)
      for (let column = 0; column < cells; column++)
        for (let k = 0; k < count; k++) centres.push([(column + 0.5) * PALM / cells, (row + 0.5) * PALM / cells]);
  return centres;
}

function regionOfPalm({ box: [x0, y0, x1, y1], keypoints }) {
  return grown([(x0 + x1) / 2, (y0 + y1) / 2], [x1 - x0, y1 - y0], upright(keypoints[0], keypoints[2]), 2.6, -0.5);
}

function regionOfLandmarks(points) {
  const knuckles = [0, 1].map((i) => (points[5][i] + points[13][i]) / 4 + points[9][i] / 2);
  const angle = upright(points[0], knuckles), cos = Math.cos(angle), sin = Math.sin(angle);
  const turned = STEADY.map((i) => [cos * points[i][0] + sin * points[i][1], cos * points[i][1] - sin * points[i][0]]);
  const [x0, y0, x1, y1] = boxOf(turned), mx = (x0 + x1) / 2, my = (y0 + y1) / 2;
  return grown([cos * mx - sin * my, sin * mx + cos * my], [x1 - x0, y1 - y0], angle, 2.0, -0.1);
}

function grown([x, y], [width, height], angle, scale, shift) {
  const along = shift * height;
  return { x: x - Math.sin(angle) * along, y: y + Math.cos(angle) * along, side: Math.max(width, height, 1) * scale, angle };
}

/** The turn of the region in which the knuckle is above the wrist. */
const upright = (wrist, knuckle) => Math.atan2(knuckle[0] - wrist[0], wrist[1] - knuckle[1]);

function toPictureOf({ x, y, side, angle }, size) {
  const cos = Math.cos(angle) * side / size, sin = Math.sin(angle) * side / size, m = (size - 1) / 2;
  return (c, r) => [x + cos * (c - m) - sin * (r - m), y + sin * (c - m) + cos * (r - m)];
}

// ------------------------------------------------------------------------------------------------------------ pixels

const cutRegion = (image, region, size, repeat) =>
  cut(image, size, region.side / size, toPictureOf(region, size), repeat);

/** (size, size, 3) of 0 to 1. Each pixel is the mean of bilinear samples, enough to skip none where the picture shrinks. */
function cut({ data, width, height }, size, step, toPicture, repeat) {
  const pixels = new Float32Array(size * size * 3), n = Math.max(1, Math.ceil(step));
  const add = (x, y, weight, at) => {
    if (repeat) [x, y] = [Math.min(Math.max(x, 0), width - 1), Math.min(Math.max(y, 0), height - 1)];
    if (x < 0 || y < 0 || x >= width || y >= height) return;
    const from = 4 * (y * width + x);
    for (let k = 0; k < 3; k++) pixels[at + k] += weight * data[from + k];
  };
  for (let row = 0; row < size; row++)
    for (let column = 0; column < size; column++)
      for (let s = 0; s < n * n; s++) {
        const [x, y] = toPicture(column + (s % n + 0.5) / n - 0.5, row + (Math.floor(s / n) + 0.5) / n - 0.5);
        const left = Math.floor(x), top = Math.floor(y), dx = x - left, dy = y - top, at = 3 * (row * size + column);
        const share = 1 / (255 * n * n);
        add(left, top, (1 - dx) * (1 - dy) * share, at);
        add(left + 1, top, dx * (1 - dy) * share, at);
        add(left, top + 1, (1 - dx) * dy * share, at);
        add(left + 1, top + 1, dx * dy * share, at);
      }
  return pixels;
}

function chw(pixels, size) {
  const planes = new Float32Array(pixels.length);
  for (let i = 0; i < size * size; i++) for (let k = 0; k < 3; k++) planes[k * size * size + i] = pixels[3 * i + k];
  return planes;
}

// ---------------------------------------------------------------------------------------------------------- geometry

/** t with joints + t nearest to their rays (u, v): least squares of t_x - u t_z = u Z - X and t_y - v t_z = v Z - Y. */
function translation(joints, rays) {
  let n = 0, u1 = 0, v1 = 0, square = 0, p = 0, q = 0, r = 0;
  joints.forEach(([X, Y, Z], i) => {
    const [u, v] = rays[i], a = u * Z - X, b = v * Z - Y;
    n += 1; u1 += u; v1 += v; square += u * u + v * v; p += a; q += b; r -= u * a + v * b;
  });
  // Normal equations [[n, 0, -u1], [0, n, -v1], [-u1, -v1, square]] t = [p, q, r]; t_x and t_y eliminated.
  const z = (r + (u1 * p + v1 * q) / n) / (square - (u1 * u1 + v1 * v1) / n);
  return [(p + u1 * z) / n, (q + v1 * z) / n, z];
}

const rows = (data, columns) =>
  Array.from({ length: data.length / columns }, (_, i) => Array.from(data.slice(columns * i, columns * (i + 1))));

function boxOf(points) {
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

function overlap(a, b) {
  const w = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), h = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]), common = Math.max(w, 0) * Math.max(h, 0);
  return common / (area(a) + area(b) - common);
}

function sameHand(a, b) {
  const size = (points) => { const [x0, y0, x1, y1] = boxOf(points); return Math.sqrt((x1 - x0) * (y1 - y0)); };
  const apart = a.reduce((sum, p, i) => sum + Math.hypot(p[0] - b[i][0], p[1] - b[i][1]), 0) / a.length;
  return apart < 0.3 * Math.min(size(a), size(b));
}

// ---------------------------------------------------------------------------------------------------------- metadata

/** The metadata entries of an ONNX file, which is a protobuf message: field 14 are pairs of key (1) and value (2). */
export function metadata(bytes) {
  const text = new TextDecoder(), entries = {};
  for (const [field, part] of fields(bytes)) {
    if (field !== 14) continue;
    const pair = Object.fromEntries([...fields(part)].map(([key, value]) => [key, text.decode(value)]));
    entries[pair[1]] = pair[2];
  }
  return entries;
}

function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0, factor = 1, byte;
    do { byte = bytes[at++]; value += (byte & 127) * factor; factor *= 128; } while (byte > 127);
    return value;
  };
  while (at < bytes.length) {
    const tag = varint(), kind = tag % 8;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else {
      const length = varint();
      yield [Math.floor(tag / 8), bytes.subarray(at, at + length)];
      at += length;
    }
  }
}
