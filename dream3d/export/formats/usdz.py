"""USDZ: a textured mesh for Apple's viewers and Omniverse. usd-core writes it; the conventions are ours."""

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

from dream3d.export.about import About
from dream3d.export.asset import Asset
from dream3d.export.formats.base import FORMATS, Encoded, ExportOptions, Format
from dream3d.export.materials import ROUGHNESS, Textured, mesh_details, png
from dream3d.files import writing


@FORMATS.register("usdz")
class Usdz(Format):
    """USDZ with a UsdPreviewSurface: a textured mesh for iOS, macOS and Omniverse."""

    holds = "mesh"
    file_name = "asset.usdz"
    media_type = "model/vnd.usdz+zip"
    opens_in = "iOS and macOS Quick Look, Omniverse, Blender"
    frame = "+Y up, front +Z, 1 unit = 1 m"
    color = "sRGB base colour texture, raw other maps"

    @classmethod
    def missing(cls) -> str | None:
        if importlib.util.find_spec("pxr") is None:
            return "the package usd-core is not installed; pip install 'dream3d[usd]'"
        return None

    def encode(self, asset: Asset, options: ExportOptions) -> Encoded:
        mesh = asset.textured(options.faces, options.texture_size)
        return Encoded(usdz_bytes(mesh, asset.about), mesh_details(mesh))


def usdz_bytes(mesh: Textured, about: About) -> bytes:
    """The package: one stage and its pictures.

    Raises:
        OutputError: there is no room for temporary files.
    """
    from pxr import Sdf, UsdUtils

    with tempfile.TemporaryDirectory(prefix="dream3d-") as name:
        directory = Path(name)
        with writing(directory / "asset.usdz"):
            (directory / "base_color.png").write_bytes(png(mesh.base_color))
            for kind, picture in mesh.maps.items():
                (directory / f"{kind}.png").write_bytes(png(picture))
            _write_stage(mesh, about, directory / "asset.usdc")
            package = str(directory / "asset.usdz")
            UsdUtils.CreateNewARKitUsdzPackage(  # pyright: ignore[reportAttributeAccessIssue]
                Sdf.AssetPath(str(directory / "asset.usdc")),  # pyright: ignore[reportAttributeAccessIssue]
                package,
            )
            return Path(package).read_bytes()


def _write_stage(mesh: Textured, about: About, path: Path) -> None:
    """/asset (Xform) with /asset/mesh and /asset/baked, the material."""
    modules: Any = __import__("pxr", fromlist=["Sdf", "Usd", "UsdGeom", "UsdShade", "Vt"])
    Sdf, Usd, UsdGeom, UsdShade, Vt = (
        getattr(modules, name) for name in ("Sdf", "Usd", "UsdGeom", "UsdShade", "Vt")
    )
    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, "/asset")
    stage.SetDefaultPrim(root.GetPrim())
    layer = stage.GetRootLayer()
    layer.documentation = f"made by {about.generator}"
    layer.customLayerData = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in about.known().items()
    }
    shape = UsdGeom.Mesh.Define(stage, "/asset/mesh")
    shape.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(mesh.vertices))
    shape.CreateFaceVertexCountsAttr([3] * len(mesh.faces))
    shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.reshape(-1)))
    shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    shape.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(mesh.normals))
    shape.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    shape.CreateExtentAttr([tuple(low.tolist()), tuple(high.tolist())])
    primvars = UsdGeom.PrimvarsAPI(shape)
    st = primvars.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
    uvs = mesh.uvs.copy()
    uvs[:, 1] = 1.0 - uvs[:, 1]  # USD's v grows upward
    st.Set(Vt.Vec2fArray.FromNumpy(uvs))
    material = _material(stage, mesh, UsdShade, Sdf)
    UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(material)
    layer.Save()


def _material(stage: Any, mesh: Textured, UsdShade: Any, Sdf: Any) -> Any:
    """UsdPreviewSurface fed by the pictures; only the base colour is sRGB."""
    types = Sdf.ValueTypeNames
    material = UsdShade.Material.Define(stage, "/asset/baked")
    surface = UsdShade.Shader.Define(stage, "/asset/baked/surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    reader = UsdShade.Shader.Define(stage, "/asset/baked/uv")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", types.String).Set("st")
    uv = reader.CreateOutput("result", types.Float2)

    def picture(name: str, space: str) -> Any:
        shader = UsdShade.Shader.Define(stage, f"/asset/baked/{name}")
        shader.CreateIdAttr("UsdUVTexture")
        shader.CreateInput("file", types.Asset).Set(Sdf.AssetPath(f"{name}.png"))
        shader.CreateInput("sourceColorSpace", types.Token).Set(space)
        for axis in ("wrapS", "wrapT"):
            shader.CreateInput(axis, types.Token).Set("clamp")
        shader.CreateInput("st", types.Float2).ConnectToSource(uv)
        return shader

    def feed(name: str, kind: Any, source: Any) -> None:
        surface.CreateInput(name, kind).ConnectToSource(source)

    base = picture("base_color", "sRGB").CreateOutput("rgb", types.Float3)
    feed("diffuseColor", types.Color3f, base)
    if "metallic_roughness" in mesh.maps:
        shader = picture("metallic_roughness", "raw")
        feed("roughness", types.Float, shader.CreateOutput("g", types.Float))
        feed("metallic", types.Float, shader.CreateOutput("b", types.Float))
    else:
        surface.CreateInput("roughness", types.Float).Set(ROUGHNESS)
        surface.CreateInput("metallic", types.Float).Set(0.0)
    if "normal" in mesh.maps:
        shader = picture("normal", "raw")
        shader.CreateInput("scale", types.Float4).Set((2.0, 2.0, 2.0, 1.0))
        shader.CreateInput("bias", types.Float4).Set((-1.0, -1.0, -1.0, 0.0))
        feed("normal", types.Normal3f, shader.CreateOutput("rgb", types.Float3))
    output = surface.CreateOutput("surface", types.Token)
    material.CreateSurfaceOutput().ConnectToSource(output)
    return material
