"""GPU packages without a GPU: adapters against stand-ins with the packages' own signatures; Warp for real, on its CPU.

No test here says that anything runs on a GPU. Warp's kernels are compared with the references on Warp's CPU device and
compiled for CUDA; gsplat's and nerfacc's adapters are held to what those packages document.
"""

import importlib
import itertools
import math
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from dream3d import doctor
from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.errors import ConfigError
from renderers import backends, mesh, splats, volume
from renderers.backends import BACKENDS, choose_backend, import_failure
from renderers.hash_grid import HashGridLayout, encode, geometric_layout
from renderers.splats import SplatData, render_splats
from renderers.splats_data import RasterSettings
from renderers.volume import composite

GPU = [backend for backend in BACKENDS if backend.module]


@pytest.fixture(autouse=True)
def forget_probes():
    import_failure.cache_clear()
    yield
    import_failure.cache_clear()


@pytest.fixture
def package(monkeypatch, tmp_path):
    """Install a stand-in: source text, or attributes of a module."""

    def install(name, source=None, kernels=True, **attributes):
        for backend in GPU:
            if name in backend.needs:
                monkeypatch.delitem(sys.modules, backend.module, raising=False)
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "__init__.py").write_text(source or "")
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()
        if source is None:
            module = types.ModuleType(name)
            vars(module).update(attributes)
            module.__spec__ = importlib.util.find_spec(name)
            monkeypatch.setitem(sys.modules, name, module)
        if name == "gsplat" and source is None:
            for part in ("gsplat.cuda", "gsplat.cuda._backend"):
                monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
            sys.modules["gsplat.cuda._backend"]._C = kernels  # type: ignore[attr-defined]

    return install


def rasterization(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane=0.01,
    far_plane=1e10, radius_clip=0.0, eps2d=0.3, sh_degree=None, packed=True, tile_size=16,
    backgrounds=None, render_mode="RGB", sparse_grad=False, absgrad=False,
    rasterize_mode="classic", channel_chunk=32, distributed=False, camera_model="pinhole",
):  # fmt: skip
    """gsplat 1.5's call and answer: activated parameters in, premultiplied colours and more out."""
    n, views = len(means), len(viewmats)
    assert means.shape == (n, 3) and quats.shape == (n, 4) and scales.shape == (n, 3)
    assert opacities.shape == (n,) and viewmats.shape == (views, 4, 4) and Ks.shape == (views, 3, 3)
    assert colors.shape[:2] == (views, n) and sh_degree is None and not packed and eps2d == 0.3
    means2d = torch.zeros(views, n, 2, requires_grad=True) + 0.0  # an intermediate, not a leaf
    images, alphas, radii = [], [], []
    for b in range(views):
        zero = torch.zeros(1)
        camera = CameraBatch(
            torch.linalg.inv(viewmats[b : b + 1]), Ks[b : b + 1], height, width, zero, zero, zero
        )
        splats = SplatData(means, scales.log(), quats, torch.logit(opacities), colors[b])
        out = render_splats(
            splats, camera, "torch", near=near_plane, antialias=rasterize_mode == "antialiased",
            screen_offset=means2d[b : b + 1],
        )  # fmt: skip
        images.append(out.rgb[0])
        alphas.append(out.alpha[0])
        radii.append(out.radii[0].ceil().int())
    both = torch.stack(radii)[..., None].expand(-1, -1, 2)
    return torch.stack(images), torch.stack(alphas), {"means2d": means2d, "radii": both}


def cloud(n=40):
    g = torch.Generator().manual_seed(0)
    return SplatData(
        0.4 * torch.randn(n, 3, generator=g),
        -2.5 + 0.4 * torch.randn(n, 3, generator=g),
        torch.randn(n, 4, generator=g),
        torch.randn(n, generator=g),
        torch.rand(n, 3, generator=g),
    )


@pytest.mark.parametrize("settings", [RasterSettings(0.1, False), RasterSettings(0.1, True)])
def test_gsplat_is_asked_for_what_we_define(package, settings):
    package("gsplat", rasterization=rasterization)
    ours = importlib.import_module("renderers.splats_gsplat").rasterize
    from renderers.splats_torch import rasterize as theirs

    cameras = orbit_cameras([0.0, 100.0], [10.0, 40.0], size=24)
    found = []
    for run in (ours, theirs):
        splats = SplatData(**{k: v.clone().requires_grad_() for k, v in cloud().tensors().items()})
        offset = torch.zeros(2, 40, 2, requires_grad=True)
        image, alpha, radii = run(splats, splats.features[None], cameras, settings, offset)
        (image.square().sum() + alpha.sum()).backward()
        grads = [value.grad for value in splats.tensors().values()]
        found.append([image, alpha, (radii > 0).float(), offset.grad, *grads])
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-6


def test_gsplat_of_nothing_and_of_moved_splats(package):
    package("gsplat", rasterization=rasterization)
    run = importlib.import_module("renderers.splats_gsplat").rasterize
    cameras, settings = orbit_cameras([0.0], size=8), RasterSettings(0.1, False)
    empty = cloud(0)
    image, alpha, radii = run(empty, empty.features[None], cameras, settings, None)
    assert image.shape == (1, 8, 8, 4) and (alpha == 0).all() and radii.shape == (1, 0)
    with pytest.raises(ConfigError, match="only takes its gradient"):
        run(cloud(), cloud().features[None], cameras, settings, torch.ones(1, 40, 2))


def render_weight_from_density(
    t_starts, t_ends, sigmas, packed_info=None, ray_indices=None, n_rays=None, prefix_trans=None
):
    """nerfacc 0.5's: weights, transmittances, alphas of flattened samples."""
    assert t_starts.shape == t_ends.shape == sigmas.shape == ray_indices.shape and n_rays
    depth = sigmas * (t_ends - t_starts)
    before = torch.stack([depth[:i][ray_indices[:i] == r].sum() for i, r in enumerate(ray_indices)])
    alphas = 1.0 - torch.exp(-depth)
    return torch.exp(-before) * alphas, torch.exp(-before), alphas


def accumulate_along_rays(weights, values=None, ray_indices=None, n_rays=None):
    """nerfacc 0.5's: [rays, D], or [rays, 1] without values."""
    assert weights.ndim == 1 and (values is None or values.ndim == 2)
    source = weights[:, None] if values is None else weights[:, None] * values
    return torch.zeros(n_rays, source.shape[1]).index_add(0, ray_indices, source)


def samples(channels=4):
    g = torch.Generator().manual_seed(0)
    start = torch.tensor([0, 5, 5, 30, 31])
    density = (20.0 * torch.rand(31, generator=g)).requires_grad_()
    features = torch.randn(31, channels, generator=g).requires_grad_()
    return density, features, 0.1 * torch.rand(31, generator=g), start


def assert_same_compositing(run, channels=4):
    found = []
    for how in (run, lambda *values: composite(*values, backend="torch")):
        density, features, length, start = samples(channels)
        outputs = how(density, features, length, start)
        g = torch.Generator().manual_seed(1)
        cotangents = [torch.randn(o.shape, generator=g) for o in outputs]
        found.append([*outputs, *torch.autograd.grad(outputs, [density, features], cotangents)])
    for a, b in zip(*found, strict=True):
        assert a.shape == b.shape and (a - b).norm() <= 1e-4 * b.norm()


def test_nerfacc_is_asked_for_what_we_define(package):
    package(
        "nerfacc",
        render_weight_from_density=render_weight_from_density,
        accumulate_along_rays=accumulate_along_rays,
    )
    run = importlib.import_module("renderers.volume_nerfacc").composite
    assert_same_compositing(run)
    nothing = torch.zeros(0)
    image, alpha = run(nothing, torch.zeros(0, 3), nothing, torch.tensor([0, 0, 0]))
    assert image.shape == (2, 3) and alpha.shape == (2,)


class TcnnEncoding(torch.nn.Module):
    """tiny-cuda-nn's HashGrid as its sources describe it: positions, strides, hash, padding; one flat `params`."""

    def __init__(self, n_input_dims, encoding_config, seed=1337, dtype=None):
        super().__init__()
        c = encoding_config
        assert n_input_dims == 3 and dtype == torch.float32 and c["otype"] == "HashGrid"
        self.features, self.levels, first = c["n_features_per_level"], [], 0
        for level in range(c["n_levels"]):
            scale = c["per_level_scale"] ** level * c["base_resolution"] - 1.0
            side = math.ceil(scale) + 1
            rows = min((side**3 + 7) // 8 * 8, 2 ** c["log2_hashmap_size"])
            self.levels.append((scale, side, rows, first))
            first += rows
        self.params = torch.nn.Parameter(torch.rand(first * self.features) * 1e-4)

    def forward(self, x):
        outputs, table = [], self.params.reshape(-1, self.features)
        for scale, side, rows, first in self.levels:
            position = x * scale + 0.5
            cell = position.detach().floor()
            share, total = position - cell, 0.0
            for corner in range(8):
                bits = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2 & 1])
                i, j, k = (cell.long() + bits).unbind(1)
                dense = i + side * j + side * side * k
                hashed = i ^ (j * 2654435761) ^ (k * 805459861)
                index = (dense if side**3 <= rows else hashed & 0xFFFFFFFF) % rows
                weight = torch.where(bits == 1, share, 1.0 - share).prod(dim=1, keepdim=True)
                total = total + weight * table[first + index]
            outputs.append(total)
        return torch.cat(outputs, dim=1)


# One-level dense grids, tables that fold, and row counts (7^3) that are no multiple of eight.
@pytest.mark.parametrize("layout", [geometric_layout(5, 3, 80, 9, 2), HashGridLayout((6,), 12, 4)])
def test_tinycudann_is_asked_for_what_we_define(package, layout):
    package("tinycudann", Encoding=TcnnEncoding)
    module = importlib.import_module("renderers.hash_grid_tinycudann")
    g = torch.Generator().manual_seed(0)
    points = 2.3 * torch.rand(200, 3, generator=g) - 1.15
    table = torch.randn(layout.offsets[-1], layout.features, generator=g)
    cotangent = torch.randn(200, layout.width, generator=g)
    found = []
    for run in (module.encode, lambda *values: encode(*values, backend="torch")):
        inputs = points.clone().requires_grad_(), table.clone().requires_grad_()
        out = run(*inputs, layout)
        found.append([out, *torch.autograd.grad(out, inputs, cotangent)])
    for a, b in zip(*found, strict=True):
        assert a.shape == b.shape and (a - b).norm() <= 1e-4 * b.norm()
    levels = module.to_tcnn(table, layout)
    assert all(level.numel() % 8 == 0 for level in levels)
    assert torch.equal(module.from_tcnn(levels, layout), table)
    with pytest.raises(ConfigError, match="this layout needs"):
        module.from_tcnn(levels[:-1], layout)
    with pytest.raises(ConfigError, match="3 features a row"):
        module.encode(points, table, HashGridLayout((6,), 12, 3))


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_warp_composites_like_the_reference(channels):
    pytest.importorskip("warp")
    assert_same_compositing(lambda *values: composite(*values, backend="warp"), channels)


@pytest.mark.parametrize("layout", [geometric_layout(5, 3, 80, 9, 3), HashGridLayout((6,), 12, 2)])
def test_warp_reads_hash_grids_like_the_reference(layout):
    pytest.importorskip("warp")
    g = torch.Generator().manual_seed(0)
    points = 2.3 * torch.rand(200, 3, generator=g) - 1.15
    table = torch.randn(layout.offsets[-1], layout.features, generator=g)
    cotangent = torch.randn(200, layout.width, generator=g)
    found = []
    for backend in ("warp", "torch"):
        inputs = points.clone().requires_grad_(), table.clone().requires_grad_()
        out = encode(*inputs, layout, backend)
        found.append([out, *torch.autograd.grad(out, inputs, cotangent)])
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()
    with pytest.raises(ConfigError, match="'warp' needs float32"):
        encode(points.double(), table.double(), layout, "warp")


WARP_MODULES = sorted(
    p.stem
    for p in Path(backends.__file__).parent.glob("*_warp*.py")
    if "wp.kernel" in p.read_text()
)


@pytest.mark.parametrize("name", WARP_MODULES)
def test_warp_kernels_compile_for_cuda(name, tmp_path):
    """Compiled, not run: no GPU and no driver are needed, and none is used."""
    wp = pytest.importorskip("warp")
    module = importlib.import_module(f"renderers.{name}")
    wp.compile_aot_module(module, arch=86, module_dir=str(tmp_path), use_ptx=True)
    (binary,) = tmp_path.glob("*.sm86.ptx")
    text = binary.read_text()
    assert ".target sm_86" in text
    for kernel in (k for k in vars(module).values() if isinstance(k, wp.Kernel)):
        assert f"{kernel.key}_" in text, kernel.key
    if name == "splats_warp":  # what a CPU cannot run: threads in step
        assert "shfl.sync" in text and "vote.sync" in text


def test_on_a_gpu_without_packages_warp_draws(package):
    pytest.importorskip("warp")
    assert choose_backend("splats", "auto", "cuda", splats.FASTEST) == "warp"
    assert choose_backend("volume", "auto", "cuda", volume.FASTEST) == "warp"
    assert choose_backend("mesh", "auto", "cuda", mesh.FASTEST) == "warp"
    package("gsplat", rasterization=rasterization)
    assert choose_backend("splats", "auto", "cuda", splats.FASTEST) == "gsplat"


def test_warp_carries_gradients_to_screen_offsets_and_draws_float32_only():
    pytest.importorskip("warp")
    cameras, found = orbit_cameras([0.0, 100.0], [10.0, 40.0], size=24), []
    for backend in ("warp", "torch"):
        offset = torch.full((2, 40, 2), 0.3, requires_grad=True)
        out = render_splats(cloud(), cameras, backend, screen_offset=offset)
        (grad,) = torch.autograd.grad(out.rgb.square().sum(), offset)
        found.append([grad, out.radii])
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm()
    doubles = SplatData(**{name: value.double() for name, value in cloud().tensors().items()})
    with pytest.raises(ConfigError, match="'warp' needs float32"):
        render_splats(doubles, cameras, "warp")


def awkward(n=40):
    """Needles, and splats that are huge, tiny, opaque, invisible, without orientation, behind others' copies."""
    splats = cloud(n)
    splats.log_scales[:10] = torch.tensor([0.5, -7.0, -7.0])
    splats.log_scales[10:14] = 50.0
    splats.log_scales[14:18] = -90.0
    splats.quaternions[18:20] = 0.0
    splats.opacity_logits[12:24:2] = 100.0
    splats.opacity_logits[13:24:2] = -100.0
    for value in splats.tensors().values():
        value[30:35] = value[25:30]  # of one depth: the first comes first
    return splats


@pytest.mark.parametrize("antialias", [False, True])
def test_warp_draws_awkward_splats_like_the_reference(antialias):
    pytest.importorskip("warp")
    cameras = orbit_cameras([0.0, 77.0, 180.0], [0.0, 40.0, -10.0], size=(20, 37))
    found = []
    for backend, dtype in (("warp", torch.float32), ("torch", torch.float64)):
        values = {k: v.to(dtype).requires_grad_() for k, v in awkward().tensors().items()}
        offset = torch.zeros(3, 40, 2, dtype=dtype, requires_grad=True)
        there = cameras.to("cpu", dtype)
        out = render_splats(
            SplatData(**values), there, backend, antialias=antialias, screen_offset=offset
        )
        g = torch.Generator().manual_seed(0)
        images = out.rgb, out.alpha, out.depth
        loss = sum((image * torch.randn(image.shape, generator=g)).sum() for image in images)
        found.append([*images, out.radii, *torch.autograd.grad(loss, [*values.values(), offset])])
    for a, b in zip(*found, strict=True):
        assert torch.isfinite(a).all() and (a - b).norm() <= 2e-4 * b.norm()


def test_warp_lists_every_box_in_every_tile_it_reaches_by_rank():
    pytest.importorskip("warp")
    tiles = importlib.import_module("renderers.tiles_warp")
    cameras, g = orbit_cameras([0.0, 90.0], size=(40, 70)), torch.Generator().manual_seed(0)
    low = torch.stack([torch.randint(0, s, (60,), generator=g) for s in (70, 40)], dim=1)
    high = low + torch.randint(-2, 30, (60, 2), generator=g)
    high = torch.minimum(high, torch.tensor([70, 40]))
    box = torch.stack([low, high], dim=-1).flatten(1)
    view = torch.randint(0, 2, (60,), generator=g)
    rank = torch.randint(0, 5, (60,), generator=g).int()
    for ranks in (rank, None):
        start, entry = tiles.tile_lists(box, view, cameras, ranks)
        lists = [entry[a:b].tolist() for a, b in itertools.pairwise(start.tolist())]
        assert start[0] == 0 and start[-1] == len(entry) and len(lists) == 2 * 3 * 5
        for tile, listed in enumerate(lists):
            v, y, x = tile // 15, 16 * (tile % 15 // 5), 16 * (tile % 5)
            x0, x1, y0, y1 = box.unbind(1)
            hit = (view == v) & (x0 < x + 16) & (x1 > x) & (y0 < y + 16) & (y1 > y)
            hit &= (x0 < x1) & (y0 < y1)
            expected = hit.nonzero().flatten().tolist()
            assert listed == sorted(expected, key=lambda r: 0 if ranks is None else int(ranks[r]))
    none = tiles.tile_lists(box[:0], view[:0], cameras)
    assert (none[0] == 0).all() and len(none[1]) == 0


@pytest.mark.parametrize("backend", GPU, ids=lambda backend: f"{backend.renderer}-{backend.name}")
def test_a_broken_package_is_named_and_breaks_nothing(backend, package, monkeypatch):
    name = backend.needs[-1]
    package(name, "raise OSError('libcudart.so.11: cannot open shared object file')")
    # Everything of ours still imports, and "auto" goes on without it.
    for module in ("splats", "volume", "mesh", "hash_grid"):
        importlib.import_module(f"renderers.{module}")
    order = (backend.name, "torch")
    assert choose_backend(backend.renderer, "auto", "cuda", order) == "torch"
    with pytest.raises(ConfigError, match=r"libcudart\.so\.11.*backend 'auto'"):
        choose_backend(backend.renderer, backend.name, "cuda", order)
    monkeypatch.setattr(doctor, "embedded_prior", lambda: {"usable": True, "summary": "not asked"})
    findings = doctor.examine()
    entry = next(e for e in findings["optional"] if name in (e["name"], e["name"].split("-")[0]))
    assert "libcudart" in entry["broken"] and entry["remedy"]
    text = doctor.report(findings)
    assert "BROKEN" in text and "libcudart" in text


def test_gsplat_without_kernels_is_broken(package):
    package("gsplat", kernels=None, rasterization=rasterization)
    assert choose_backend("splats", "auto", "cuda", ("gsplat", "torch")) == "torch"
    with pytest.raises(ConfigError, match="no CUDA compiler"):
        choose_backend("splats", "gsplat", "cuda", ("gsplat", "torch"))


def test_an_absent_package_is_skipped(monkeypatch):
    find = importlib.util.find_spec
    gone = {backend.needs[-1] for backend in GPU}
    monkeypatch.setattr(
        backends.importlib.util, "find_spec", lambda name: None if name in gone else find(name)
    )
    assert choose_backend("splats", "auto", "cuda", ("gsplat", "torch")) == "torch"
    with pytest.raises(ConfigError, match="needs gsplat, which is not installed"):
        choose_backend("splats", "gsplat", "cuda", ("gsplat", "torch"))


def test_importing_the_renderers_imports_no_gpu_package():
    names = [path.stem for path in Path(backends.__file__).parent.glob("*.py")]
    plain = [
        n for n in names if not n.endswith(tuple(b.needs[-1] for b in GPU)) and "warp" not in n
    ]
    found = {backend.needs[-1] for backend in GPU}
    code = "import sys\n" + "".join(f"import renderers.{n}\n" for n in sorted(plain))
    code += f"print(sorted({{m.split('.')[0] for m in sys.modules}} & {found!r}))"
    root = Path(backends.__file__).parent.parent
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.stdout.strip() == "[]", done.stderr
