"""A second reader of animated GLBs: vertices at a time, as the specification of glTF 2.0 defines them."""

import numpy as np
import pygltflib
from scipy.spatial.transform import Rotation, Slerp

_TYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_SHAPES = {"SCALAR": (), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}


class Skinned:
    """The file's tree (`gltf`, pygltflib) and its skinned vertices."""

    def __init__(self, path):
        self.gltf = pygltflib.GLTF2().load(str(path))
        self._data = self.gltf.binary_blob()

    def array(self, accessor):
        a = self.gltf.accessors[accessor]
        view, shape = self.gltf.bufferViews[a.bufferView], _SHAPES[a.type]
        count = a.count * int(np.prod(shape))
        values = np.frombuffer(self._data, _TYPES[a.componentType], count, view.byteOffset + (a.byteOffset or 0))
        return values.reshape(a.count, *shape)

    def vertices(self, mesh_node, time_s):
        """(V, 3) of the skinned mesh of a node in the scene's frame."""
        node = next(n for n in self.gltf.nodes if n.name == mesh_node)
        skin, primitive = self.gltf.skins[node.skin], self.gltf.meshes[node.mesh].primitives[0]
        world = self._world(time_s)
        to_rest = self.array(skin.inverseBindMatrices).swapaxes(1, 2)  # stored by columns
        move = np.stack([world[joint] for joint in skin.joints]) @ to_rest
        a = primitive.attributes
        num = 1 if a.JOINTS_1 is None else 2
        joints = np.concatenate([self.array(getattr(a, f"JOINTS_{k}")) for k in range(num)], 1)
        weights = np.concatenate([self.array(getattr(a, f"WEIGHTS_{k}")) for k in range(num)], 1)
        blended = np.einsum("vk,vkij->vij", weights, move[joints])
        points = np.column_stack([self.array(a.POSITION), np.ones(len(blended))])
        return np.einsum("vij,vj->vi", blended, points)[:, :3]

    def node_place(self, name, time_s):
        """(4, 4) of a node in the scene."""
        index = next(i for i, n in enumerate(self.gltf.nodes) if n.name == name)
        return self._world(time_s)[index]

    def _world(self, time_s):
        local = [self._rest(node) for node in self.gltf.nodes]
        (animation,) = self.gltf.animations
        for channel in animation.channels:
            sampler = animation.samplers[channel.sampler]
            times, values = self.array(sampler.input), self.array(sampler.output)
            t = float(np.clip(time_s, times[0], times[-1]))
            if channel.target.path == "translation":
                local[channel.target.node][:3, 3] = [np.interp(t, times, values[:, k]) for k in range(3)]
            elif len(times) > 1:
                local[channel.target.node][:3, :3] = Slerp(times, Rotation.from_quat(values))(t).as_matrix()
            else:
                local[channel.target.node][:3, :3] = Rotation.from_quat(values[0]).as_matrix()
        parents = {child: i for i, node in enumerate(self.gltf.nodes) for child in node.children or ()}

        def world(i):
            return world(parents[i]) @ local[i] if i in parents else local[i]

        return [world(i) for i in range(len(local))]

    def _rest(self, node):
        T = np.eye(4)
        T[:3, 3] = node.translation or 0
        T[:3, :3] = Rotation.from_quat(node.rotation or [0, 0, 0, 1]).as_matrix()
        return T
