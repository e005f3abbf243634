"""Mitsuba's volumetric primitives (`volprim_rf_basic`, Condor et al. 2024) beside our splats, in its own process.

    python -m dream3d.bench.mitsuba_peer SPLATS SIZE

Prints "ready", then answers every line on standard input with one forward and backward pass: a JSON line of its
processor and wall-clock seconds. Its LLVM may take the whole process down on some CPUs, hence the process.
"""

import json
import sys
import time
from typing import Any


def scene_of(mi: Any, count: int, size: int) -> tuple[Any, Any]:
    """The scene the splat rows use, as ellipsoids that each row of `shell` describes; and its parameters."""
    import numpy as np

    from dream3d.bench.kernel_cases import shell, splat_camera

    splats, cameras = shell(count).detach(), splat_camera(size)
    assert splats.features is not None
    w, x, y, z = np.moveaxis(splats.quaternions.numpy(), -1, 0)
    colors = (splats.features.numpy() - 0.5) / 0.28209479177387814
    primitives = {
        "type": "ellipsoids",
        "centers": mi.TensorXf(splats.means.numpy()),
        "scales": mi.TensorXf(splats.log_scales.exp().numpy()),
        "quaternions": mi.TensorXf(np.stack([x, y, z, w], axis=-1)),
        "opacities": mi.TensorXf(splats.opacity_logits.sigmoid()[:, None].numpy()),
        "sh_coeffs": mi.TensorXf(colors),
    }
    eye = cameras.position[0].tolist()
    up = mi.ScalarTransform4f().look_at(origin=eye, target=[0, 0, 0], up=[0, 1, 0])
    film = {"type": "hdrfilm", "width": size, "height": size, "rfilter": {"type": "box"}}
    fov = 2.0 * np.degrees(np.arctan(0.5 * size / cameras.K[0, 0, 0].item()))
    sensor = {"type": "perspective", "fov": float(fov), "to_world": up, "film": film}
    scene = mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "volprim_rf_basic", "srgb_primitives": False},
            "sensor": sensor,
            "primitives": primitives,
        }
    )
    return scene, mi.traverse(scene)


def main(count: int, size: int) -> None:
    """Serve passes until standard input ends."""
    # A package without type stubs that this project does not require.
    import drjit as dr  # pyright: ignore[reportMissingImports]
    import mitsuba as mi  # pyright: ignore[reportMissingImports]

    mi.set_variant("llvm_ad_rgb")
    dr.set_thread_count(1)
    scene, parameters = scene_of(mi, count, size)
    keys = [key for key in parameters.keys() if key.split(".")[-1] in LEARNED]  # noqa: SIM118
    for key in keys:
        dr.enable_grad(parameters[key])
    parameters.update()

    def render() -> None:
        image = mi.render(scene, parameters, spp=1)
        dr.backward(dr.mean(image))
        dr.eval([dr.grad(parameters[key]) for key in keys])
        dr.sync_thread()

    print("ready", flush=True)
    for _ in sys.stdin:
        wall, core = time.perf_counter(), time.process_time()
        render()
        seconds = {"core": time.process_time() - core, "wall": time.perf_counter() - wall}
        print(json.dumps(seconds), flush=True)


LEARNED = ("data", "opacities", "sh_coeffs")
"""Mitsuba packs centres, scales and rotations into `data`."""

if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
