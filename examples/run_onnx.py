"""A UTNet in a file of `utnet export`, run with numpy, OpenCV and ONNX Runtime alone; nothing of utnet is imported.

    utnet export ti --format onnx --out ti.onnx
    python examples/run_onnx.py ti.onnx photo.jpg --box 210 90 330 310 --side right --mesh hand.obj
    python examples/run_onnx.py ti.onnx rgb.png --depth depth.png --K 907 907 957 547 --box 796 452 974 579 --side right

Everything between a picture and metres in its camera is on this page, to be rewritten in another language: the crop,
the mirror of left hands, the inputs and the way back. The file's metadata entry "utnet" (JSON) contains the network's
size, how crops are cut and the mesh's faces.
"""

import argparse
import json
import math

import cv2
import numpy as np
import onnxruntime


def crop_matrix(box, size, expand, aspect):
    """(3, 3) picture to crop: a square `expand` times the box, its centre on the crop's. Pixel centres are whole."""
    x0, y0, x1, y1 = box
    scale = size / (max((x1 - x0) / aspect, y1 - y0) * expand)
    middle = (size - 1) / 2
    return np.array([[scale, 0, middle - scale * (x0 + x1) / 2], [0, scale, middle - scale * (y0 + y1) / 2], [0, 0, 1]])


def warp(rgb, A, size):
    """(size, size, 3) uint8, bilinear, black outside. Where the picture shrinks it is halved and blurred first."""
    shrink = 1 / A[0, 0]
    halvings = max(0, int(math.log2(shrink / 1.7)))
    k = 2**halvings
    corners = (np.array([[-1.0, -1.0], [size, size]]) - A[:2, 2]) * shrink
    height, width = rgb.shape[:2]
    spans = []
    for low, high, limit in zip(corners[0], corners[1], (width, height), strict=True):
        first = int(min(max(low - 1, 0), limit - 1)) // k * k
        last = int(min(max(high + 3, first + 1), limit))
        spans.append((first, min(first + -(-(last - first) // k) * k, limit)))
    (x0, x1), (y0, y1) = spans
    part = rgb[y0:y1, x0:x1]
    part = cv2.copyMakeBorder(part, 0, -part.shape[0] % k, 0, -part.shape[1] % k, cv2.BORDER_CONSTANT)
    for _ in range(halvings):
        part = cv2.resize(part, (part.shape[1] // 2, part.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if shrink >= 1.1:
        taps = 3 if shrink < 2.8 * k else 5
        part = cv2.GaussianBlur(part, (taps, taps), math.sqrt((0.1 + 0.3 * shrink) ** 2 - (k * k - 1) / 12) / k)
    from_part = np.array([[k, 0, x0 + (k - 1) / 2], [0, k, y0 + (k - 1) / 2], [0, 0, 1]], float)
    rgba = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)
    return cv2.cvtColor(cv2.warpAffine(rgba, (A @ from_part)[:2], (size, size)), cv2.COLOR_RGBA2RGB)


def translation(joints, points, K, z=None):
    """(3,) metres that project joints (21, 3) nearest to pixels (21, 2), by linear least squares; z: where it is known.

    With (u, v) = K^-1 pixel: t_x - u t_z = u Z - X and t_y - v t_z = v Z - Y for every joint.
    """
    u, v, _ = np.linalg.solve(K, np.c_[points, np.ones(len(points))].T)
    X, Y, Z = joints.T
    if z is not None:
        return np.array([(u * (Z + z) - X).mean(), (v * (Z + z) - Y).mean(), z])
    one, zero = np.ones_like(u), np.zeros_like(u)
    A = np.concatenate([np.stack([one, zero, -u], 1), np.stack([zero, one, -v], 1)])
    return np.linalg.lstsq(A, np.concatenate([u * Z - X, v * Z - Y]), rcond=None)[0]


class OnnxHand:
    """One hand of a picture.

    Args:
        path: an .onnx file of `utnet export`.
    """

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["utnet"])
        self.faces = np.array(self.about["faces"])
        self.size, self.crop = self.about["config"]["model"]["size_px"], self.about["config"]["crop"]
        if self.crop.get("recipe", "utnet") != "utnet":
            raise SystemExit("this network takes crops of another recipe (crop.recipe); `warp` does not make them")

    def __call__(self, rgb, box, side, K=None, depth=None):
        """The hand in a box.

        Args:
            rgb: (H, W, 3) uint8.
            box: tight box x0, y0, x1, y1 in pixels.
            side: "right" or "left".
            K: (3, 3) intrinsics; None: f = the longer side, centred.
            depth: (H, W) metres aligned to rgb, 0 where there is no reading, or None.

        Returns:
            joints (21, 3) in OpenPose's order, vertices (V, 3) and faces (F, 3), metres in the camera (x right, y down,
            z forward). The distance comes from the hand's size, or with depth from the network (`root_z_m`).
        """
        height, width = rgb.shape[:2]
        f = max(width, height)
        K = np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]], float) if K is None else K.copy()
        x0, y0, x1, y1 = box
        if side == "left":  # the network takes right hands
            rgb, depth = rgb[:, ::-1], None if depth is None else depth[:, ::-1]
            x0, x1, K[0, 2], K[0, 1] = width - 1 - x1, width - 1 - x0, width - 1 - K[0, 2], -K[0, 1]
        A = crop_matrix((x0, y0, x1, y1), self.size, self.crop["expand"], self.crop["aspect"])
        crop = warp(np.ascontiguousarray(rgb), A, self.size)
        inputs = {"rgb": crop.transpose(2, 0, 1)[None].astype(np.float32) / 255}
        size = self.size
        unused = {"depth_m": np.zeros((1, size, size), "f"), "K_px": np.full((1, 3, 3), np.nan, "f")}
        unused["landmarks"] = np.zeros((1, 21, 6), "f")  # prompts of a detector or a person
        inputs |= {name: array for name, array in unused.items() if name in self.about["inputs"]}
        if depth is not None:
            readings = np.ascontiguousarray(np.nan_to_num(depth), np.float32)
            inputs["depth_m"][0] = cv2.warpAffine(readings, A[:2], (self.size, self.size), flags=cv2.INTER_NEAREST)
            inputs["K_px"][0] = A @ K
        names = [output.name for output in self.session.get_outputs()]
        out = dict(zip(names, self.session.run(names, inputs), strict=True))
        joints, vertices, points = (out[name][0].astype(float) for name in ("joints_m", "vertices_m", "joints_crop"))
        points = points * self.size + (self.size - 1) / 2  # crop units: 0 at the centre, 0.5 at the outer edge
        root_z = float(out["root_z_m"][0]) if depth is not None else math.nan
        t = translation(joints, points, A @ K, None if math.isnan(root_z) else root_z - joints[0, 2])
        flip = np.array([-1.0, 1, 1]) if side == "left" else np.ones(3)
        return (joints + t) * flip, (vertices + t) * flip, self.faces[:, ::-1] if side == "left" else self.faces


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("picture")
    parser.add_argument("--box", type=float, nargs=4, required=True, metavar=("X0", "Y0", "X1", "Y1"))
    parser.add_argument("--side", choices=("right", "left"), required=True)
    parser.add_argument("--K", type=float, nargs=4, metavar=("FX", "FY", "CX", "CY"))
    parser.add_argument("--depth", help="16-bit PNG in millimetres, aligned to the picture")
    parser.add_argument("--mesh", help="an .obj file to write")
    args = parser.parse_args()
    K = args.K and np.array([[args.K[0], 0, args.K[2]], [0, args.K[1], args.K[3]], [0, 0, 1]])
    for path in filter(None, (args.picture, args.depth)):
        if not cv2.haveImageReader(path):
            raise SystemExit(f"{path}: no picture that OpenCV reads")
    depth = cv2.imread(args.depth, cv2.IMREAD_UNCHANGED) / 1000 if args.depth else None
    rgb = cv2.cvtColor(cv2.imread(args.picture), cv2.COLOR_BGR2RGB)
    joints, vertices, faces = OnnxHand(args.network)(rgb, args.box, args.side, K, depth)
    print(np.array2string(joints, precision=4, suppress_small=True))
    if args.mesh:
        with open(args.mesh, "w") as file:
            file.writelines(f"v {x:.5f} {y:.5f} {z:.5f}\n" for x, y, z in vertices)
            file.writelines(f"f {a} {b} {c}\n" for a, b, c in faces + 1)


if __name__ == "__main__":
    main()
