"""Run by Blender's Python in a process of its own: opens a GLB and writes its vertices at some times.

python blender_vertices.py FILE.glb OUT.npz TIME_S ...
"""

import sys

import bpy
import numpy as np

file, out, *times = sys.argv[1:]
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.context.scene.render.fps = 1000  # whole frames are milliseconds
bpy.ops.import_scene.gltf(filepath=file)
vertices = {}
for i, time_s in enumerate(map(float, times)):
    frame = time_s * 1000
    bpy.context.scene.frame_set(int(frame), subframe=frame - int(frame))
    graph = bpy.context.evaluated_depsgraph_get()
    for item in bpy.data.objects:
        if item.type == "MESH" and item.vertex_groups:
            mesh = item.evaluated_get(graph).to_mesh()
            points = np.empty(3 * len(mesh.vertices))
            mesh.vertices.foreach_get("co", points)
            turn = np.array(item.matrix_world)
            vertices[f"{item.name}_{i}"] = points.reshape(-1, 3) @ turn[:3, :3].T + turn[:3, 3]
bones = [f"{a.name}/{b.name}" for a in bpy.data.objects if a.type == "ARMATURE" for b in a.data.bones]
np.savez(out, bones=np.array(bones), **vertices)
