"""Numba: from many rendered views back to space. Which cells are outside, and what colour a surface point shows."""

import numpy as np
from jaxtyping import Bool, Float, Int
from numba import prange

from dream3d.cameras import CameraBatch
from dream3d.kernels import kernel, kernel_threads
from renderers.splats_numba import pack_cameras

WITNESSES = 3
"""A cell is as far outside as the third most favourable view says: one or two views may be wrong."""
TRUNCATION = 4.0
"""Distances are clipped at this many cells."""


def carve(
    cameras: CameraBatch,
    alpha: Float[np.ndarray, "B H W"],
    depth: Float[np.ndarray, "B H W"],
    resolution: int,
    extent: float,
) -> tuple[Float[np.ndarray, "R R R"], Float[np.ndarray, "R R R"]]:
    """How far outside the centres of resolution^3 cells [x, y, z] are, by two kinds of evidence.

    The first value is about silhouettes: a view looks past the object (alpha under one half). The second is about
    depth: a view sees the surface behind the cell. Both are in world units, positive outside, clipped; the solid is
    where neither is positive. What no view sees is inside.

    Args:
        cameras: at least `WITNESSES` views.
        alpha: of the views.
        depth: z-depth of the views.
        resolution: cells per side.
        extent: half-side of the cube.
    """
    hull = np.empty((resolution, resolution, resolution), np.float32)
    front = np.empty_like(hull)
    packed = pack_cameras(cameras.to("cpu"))
    images = np.ascontiguousarray(alpha), np.ascontiguousarray(depth)
    with kernel_threads() as workers:
        _carve(packed, *images, extent, workers, hull, front)
    return hull, front


@kernel()
def _project(cam, x, y, z):
    """Pixel coordinates and z-depth of a world point."""
    depth = cam[6] * x + cam[7] * y + cam[8] * z + cam[11]
    u = cam[12] * (cam[0] * x + cam[1] * y + cam[2] * z + cam[9]) / depth + cam[14]
    v = cam[13] * (cam[3] * x + cam[4] * y + cam[5] * z + cam[10]) / depth + cam[15]
    return u, v, depth


@kernel()
def _bilinear(image, u, v):
    """Value between pixel centres; (u, v) lies inside the image."""
    height, width = image.shape
    x, y = min(max(u - 0.5, 0.0), width - 1.001), min(max(v - 0.5, 0.0), height - 1.001)
    i, j = int(x), int(y)
    fx, fy = x - i, y - j
    top = image[j, i] * (1.0 - fx) + image[j, i + 1] * fx
    bottom = image[j + 1, i] * (1.0 - fx) + image[j + 1, i + 1] * fx
    return top * (1.0 - fy) + bottom * fy


@kernel()
def _nearest(depth, alpha, column, row):
    """Smallest depth of a covered pixel among 3 x 3: a slanted surface must not carve itself."""
    height, width = depth.shape
    least = np.inf
    for j in range(max(row - 1, 0), min(row + 2, height)):
        for i in range(max(column - 1, 0), min(column + 2, width)):
            if alpha[j, i] >= 0.5 and depth[j, i] < least:
                least = depth[j, i]
    return least


@kernel(parallel=True)
def _carve(cameras, alpha, depth, extent, workers, hull, front):
    views, height, width = alpha.shape
    r = hull.shape[0]
    cell = 2.0 * extent / r
    limit = TRUNCATION * cell
    for worker in prange(workers):
        outside, before = np.empty(WITNESSES), np.empty(WITNESSES)
        for i in range(worker, r, workers):
            x = (i + 0.5) * cell - extent
            for j in range(r):
                y = (j + 0.5) * cell - extent
                for k in range(r):
                    z = (k + 0.5) * cell - extent
                    outside[:] = -limit
                    before[:] = -limit
                    for b in range(views):
                        u, v, d = _project(cameras[b], x, y, z)
                        if not (d > 0.0 and 0.0 <= u < width and 0.0 <= v < height):
                            continue
                        a = _bilinear(alpha[b], u, v)
                        _insert(outside, (0.5 - a) * 2.0 * limit)
                        if a >= 0.5:
                            _insert(
                                before, min(_nearest(depth[b], alpha[b], int(u), int(v)) - d, limit)
                            )
                        if outside[WITNESSES - 1] >= limit:
                            break
                    hull[i, j, k] = outside[WITNESSES - 1]
                    front[i, j, k] = before[WITNESSES - 1]


@kernel()
def _insert(best, value):
    """Put `value` into a short descending list, dropping the smallest."""
    for n in range(len(best)):
        if value > best[n]:
            value, best[n] = best[n], value


def silhouettes(
    cameras: CameraBatch, vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> Bool[np.ndarray, "B H W"]:
    """Which pixel centres a mesh covers, in every view. The mesh lies in front of the cameras."""
    shadow = np.zeros((len(cameras), cameras.height, cameras.width), np.bool_)
    with kernel_threads():
        _silhouettes(pack_cameras(cameras.to("cpu")), vertices.astype(np.float64), faces, shadow)
    return shadow


@kernel(parallel=True)
def _silhouettes(cameras, vertices, faces, shadow):
    views, height, width = shadow.shape
    for b in prange(views):
        pixels = np.empty((len(vertices), 2))
        for i in range(len(vertices)):
            u, v, _ = _project(cameras[b], vertices[i, 0], vertices[i, 1], vertices[i, 2])
            pixels[i, 0], pixels[i, 1] = u - 0.5, v - 0.5
        for f in range(len(faces)):
            ax, ay = pixels[faces[f, 0]]
            bx, by = pixels[faces[f, 1]]
            cx, cy = pixels[faces[f, 2]]
            x0, x1 = max(0, int(np.ceil(min(ax, bx, cx)))), min(width - 1, int(max(ax, bx, cx)))
            y0, y1 = max(0, int(np.ceil(min(ay, by, cy)))), min(height - 1, int(max(ay, by, cy)))
            for y in range(y0, y1 + 1):
                for x in range(x0, x1 + 1):
                    p = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
                    q = (cx - bx) * (y - by) - (cy - by) * (x - bx)
                    r = (ax - cx) * (y - cy) - (ay - cy) * (x - cx)
                    if (p >= 0 and q >= 0 and r >= 0) or (p <= 0 and q <= 0 and r <= 0):
                        shadow[b, y, x] = True


def observe_colors(
    cameras: CameraBatch,
    images: Float[np.ndarray, "B H W 5"],
    points: Float[np.ndarray, "V 3"],
    normals: Float[np.ndarray, "V 3"],
    tolerance: float,
) -> tuple[Float[np.ndarray, "V 3"], Float[np.ndarray, " V"]]:
    """Weighted sums of the colours surface points show, and the weights' sums (0: no view sees the point).

    Args:
        cameras: of the views.
        images: premultiplied colour, alpha, z-depth.
        points: of the surface, in the world.
        normals: unit length, outward.
        tolerance: how far behind the rendered surface a point may lie and still count as seen.
    """
    colors, weight = np.zeros((len(points), 3)), np.zeros(len(points))
    packed, position = pack_cameras(cameras.to("cpu")), cameras.position.cpu().double().numpy()
    geometry = (points, normals, tolerance)
    with kernel_threads() as workers:
        _observe_colors(packed, position, images, *geometry, workers, colors, weight)
    return colors, weight


@kernel(parallel=True)
def _observe_colors(cameras, position, images, points, normals, tolerance, workers, colors, weight):
    views, height, width, _ = images.shape
    for worker in prange(workers):
        for p in range(worker, len(points), workers):
            x, y, z = points[p, 0], points[p, 1], points[p, 2]
            for b in range(views):
                u, v, d = _project(cameras[b], x, y, z)
                if not (d > 0.0 and 0.0 <= u < width and 0.0 <= v < height):
                    continue
                tx, ty, tz = position[b, 0] - x, position[b, 1] - y, position[b, 2] - z
                facing = normals[p, 0] * tx + normals[p, 1] * ty + normals[p, 2] * tz
                facing /= np.sqrt(tx * tx + ty * ty + tz * tz)
                pixel = images[b, int(v), int(u)]
                if facing < 0.1 or pixel[3] < 0.5 or d > pixel[4] + tolerance:
                    continue
                w = facing**4
                weight[p] += w
                for c in range(3):
                    colors[p, c] += w * pixel[c] / pixel[3]
