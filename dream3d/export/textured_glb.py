"""Textured meshes as binary glTF 2.0 with a physically based material; nothing is turned, scenes share glTF's frame."""

from typing import Any

from dream3d.export.about import About
from dream3d.export.glb import FLOAT, INDICES, UINT, VERTICES, Buffer, asset_info, container
from dream3d.export.materials import ROUGHNESS, Textured, png

_SLOTS = {"metallic_roughness": "metallicRoughnessTexture", "normal": "normalTexture"}


def textured_glb_bytes(mesh: Textured, about: About) -> bytes:
    """A GLB file of one textured mesh.

    Args:
        mesh: base colour is sRGB and the other maps are linear, as glTF wants them.
        about: goes into the asset's `extras`, the licence also into `copyright`.
    """
    buffer = Buffer()
    low, high = mesh.vertices.min(axis=0).tolist(), mesh.vertices.max(axis=0).tolist()
    attributes = {
        "POSITION": buffer.add(
            mesh.vertices.astype("<f4"), FLOAT, "VEC3", VERTICES, min=low, max=high
        ),
        "NORMAL": buffer.add(mesh.normals.astype("<f4"), FLOAT, "VEC3", VERTICES),
        "TEXCOORD_0": buffer.add(mesh.uvs.astype("<f4"), FLOAT, "VEC2", VERTICES),
    }
    if mesh.tangents is not None:
        # Without, every viewer would make up its own (glTF asks for MikkTSpace's), and some make up others.
        attributes["TANGENT"] = buffer.add(mesh.tangents.astype("<f4"), FLOAT, "VEC4", VERTICES)
    indices = buffer.add(mesh.faces.reshape(-1).astype("<u4"), UINT, "SCALAR", INDICES)
    pictures = {"base_color": mesh.base_color, **mesh.maps}
    images = [
        {
            "name": name,
            "mimeType": "image/png",
            "bufferView": buffer.add_bytes(png(picture)),
        }
        for name, picture in pictures.items()
    ]
    return container(
        {
            "asset": asset_info(about),
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0, "name": "asset"}],
            "meshes": [
                {
                    "name": "asset",
                    "primitives": [
                        {"attributes": attributes, "indices": indices, "material": 0, "mode": 4}
                    ],
                }
            ],
            "materials": [_material(list(pictures))],
            "textures": [{"source": i, "sampler": 0} for i in range(len(images))],
            "images": images,
            # Linear filters with mip levels; coordinates never leave the picture, and must not wrap to its other side.
            "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
            "accessors": buffer.accessors,
            "bufferViews": buffer.views,
            "buffers": [{"byteLength": len(buffer.data)}],
        },
        bytes(buffer.data),
    )


def _material(names: list[str]) -> dict[str, Any]:
    shading: dict[str, Any] = {
        "baseColorTexture": {"index": names.index("base_color")},
        "metallicFactor": 1.0 if "metallic_roughness" in names else 0.0,
        "roughnessFactor": 1.0 if "metallic_roughness" in names else ROUGHNESS,
    }
    material: dict[str, Any] = {"name": "baked", "pbrMetallicRoughness": shading}
    for name, slot in _SLOTS.items():
        if name in names:
            place = material if slot == "normalTexture" else shading
            place[slot] = {"index": names.index(name)}
    return material
