"""Full appearance: a posed hand, a camera and a seed -> a picture with depth, with simulated camera and depth sensor.

Every factor has its own random stream, so switching one off leaves the others unchanged.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from utnet.config import SynthConfig
from utnet.geometry import mirror_params
from utnet.hand.arrays import load_open_hand
from utnet.render.raster import rasterize
from utnet.synth.backgrounds import Backgrounds, scenes
from utnet.synth.decoder import NumpyHand
from utnet.synth.depth_noise import background_depth, sense_depth
from utnet.synth.forearm import Arm, cloth_color, sample_bend, sleeve, worn
from utnet.synth.gestures import sample_pose
from utnet.synth.lights import Lights
from utnet.synth.occluders import Occluder, front_object, held_object, pen_between
from utnet.synth.poses import angles_to_pose, sample_betas, sample_orientation
from utnet.synth.scene import PosedHand, Render
from utnet.synth.sensor import soften_edges, take_picture
from utnet.synth.shading import shade_scene
from utnet.synth.skin import chart, sample_skin
from utnet.synth.skin_atlas import NUM_ATLASES, atlases
from utnet.synth.surfaces import Part, Scene, Skin, faces_to_draw, surface_colors
from utnet.synth.textures import textures
from utnet.types import HandParams

_STREAMS = ("skin", "light", "arm", "things", "second", "background", "camera", "depth")
# Capsules: two joints (OpenPose-21), radius in metres, and owner: 0 the palm, 1-5 thumb to little finger.
_CAPSULES = (
    (0, 5, 0.013, 0), (0, 9, 0.014, 0), (0, 13, 0.013, 0), (0, 17, 0.012, 0),
    *((k, k + 1, radius, 1) for k, radius in ((1, 0.013), (2, 0.0105), (3, 0.0095))),
    *((4 * f + 1 + k, 4 * f + 2 + k, 0.0095 - 0.001 * k, f + 1) for f in range(1, 5) for k in range(3)),
)  # fmt: skip
_FINGER_OF_BONE = np.array([0, 2, 2, 2, 3, 3, 3, 5, 5, 5, 4, 4, 4, 1, 1, 1], np.int32)
_FIRST_THING = 20


class FullRenderer:
    """Renders a right open hand with everything in `synth.factors`."""

    def __init__(self, synth: SynthConfig):
        self.synth, self.factors = synth, synth.factors
        right = load_open_hand()
        hands = {"right": right, "left": right.mirrored()}
        self.decoders = {side: NumpyHand(hand) for side, hand in hands.items()}
        self._faces = {side: np.ascontiguousarray(hand.faces, np.int32) for side, hand in hands.items()}
        self.num_hand_faces = len(right.faces)
        self._arms = {side: Arm(self._faces[side], len(right.v_template), side) for side in hands}
        self._bones = _FINGER_OF_BONE[right.weights.argmax(1)]
        self._backgrounds = Backgrounds(synth.backgrounds)
        paint_all()  # now, so that forked workers share the textures

    def decode(self, params: HandParams) -> PosedHand:
        """Decodes the parameters of one right hand (numpy, no batch axis) in the camera frame."""
        return self.decoders["right"](params)

    def render(self, posed: PosedHand, K_px: np.ndarray, size_wh: tuple[int, int], seed: tuple[int, ...]) -> Render:
        """Renders the hand.

        Args:
            posed: the right hand in the camera frame.
            K_px: (3, 3) intrinsics of the picture.
            size_wh: its width and height.
            seed: for everything but the pose and position of the hand.
        """
        streams = {name: np.random.default_rng((*seed, k)) for k, name in enumerate(_STREAMS)}
        middle = posed.joints_m.mean(0).astype(float)
        parts, capsules = self._parts(posed, streams)
        scene = Scene.of(parts)
        drawn = faces_to_draw(scene.vertices_m, scene.faces, scene.closed)
        fragments = rasterize(scene.vertices_m, drawn, K_px, size_wh)
        albedo, finish = surface_colors(scene, fragments, middle[2] / K_px[0, 0])
        factors = self.factors
        lights = Lights.sample(
            streams["light"],
            light=factors.light,
            shadows=min(factors.shadows, 1.0),
            occlusion=min(0.9 * factors.occlusion, 1.0),
        )
        light = shade_scene(scene, fragments, K_px, albedo, finish, lights, capsules, middle)
        behind = self._backgrounds.draw(
            streams["background"],
            size_wh,
            variety=min(factors.background, 1.0),
            distractors=factors.distractors,
            defocus=factors.defocus,
        )
        mask = fragments.mask
        cv2.copyTo(light, mask.view(np.uint8), behind)
        light = soften_edges(behind, fragments.face, scene.part_of_face)
        hand = mask & (fragments.face < self.num_hand_faces)
        far = background_depth(streams["depth"], size_wh, K_px, float(middle[2]))
        np.copyto(far, fragments.depth_m, where=mask)
        return Render(
            rgb=take_picture(streams["camera"], light, hand, factors),
            depth_m=sense_depth(streams["depth"], far, light, factors, self.synth.depth_noise_m),
            mask=hand,
            joints_cam_m=posed.joints_m,
            vertices_cam_m=posed.vertices_m,
        )

    def _parts(self, posed: PosedHand, streams: dict[str, np.random.Generator]) -> tuple[list[Part], np.ndarray]:
        """Parts of the scene, the hand first, and capsules for ambient occlusion."""
        factors = self.factors
        skin = self._sample_skin(streams["skin"])
        parts = self._hand_parts("right", posed, skin, streams["arm"])
        capsules = [_hand_capsules(posed, 0)]
        rng = streams["things"]
        palm = -posed.R[:, 1].astype(float)
        draws = rng.random(3)
        occluders: list[Occluder] = []
        if draws[0] < 0.3 * factors.held:
            pinch = np.linalg.norm(posed.joints_m[4] - posed.joints_m[8])
            near = pinch < 0.035 and draws[2] < 0.6
            vertices, joints = posed.vertices_m.astype(float), posed.joints_m.astype(float)
            occluders.append(pen_between(rng, joints) if near else held_object(rng, vertices, joints, palm))
        if draws[1] < 0.2 * factors.occluder:
            occluders.append(front_object(rng, posed.joints_m.astype(float)))
        for k, occluder in enumerate(occluders):
            bone = _FIRST_THING + k
            part = occluder.part
            parts.append(replace(part, bones=np.full(len(part.vertices_m), bone, np.int32)))
            capsules.append(np.append(occluder.capsule, bone)[None])
        rng = streams["second"]
        if rng.random() < 0.2 * factors.second_hand:
            side, other = self._second_hand(rng, posed)
            whose = skin if rng.random() < 0.7 else self._sample_skin(rng)
            parts += self._hand_parts(side, other, whose, rng, first_bone=10)
            capsules.append(_hand_capsules(other, 10))
        return parts, np.concatenate(capsules)

    def _hand_parts(
        self, side: str, posed: PosedHand, skin: Skin, rng: np.random.Generator, first_bone: int = 0
    ) -> list[Part]:
        """The hand with its arm as one mesh, then the clothing of the arm."""
        arm, vertices, places = self._arms[side], posed.vertices_m, chart().places
        bones, faces, factors = self._bones + np.int32(first_bone), self._faces[side], self.factors
        if not self.synth.forearm:
            return [Part(vertices, faces, places, skin, bones)]
        bend = sample_bend(rng, arm, posed.R)
        hand = (vertices.astype(float), posed.R.astype(float))
        ring = arm.skin_vertices(*hand, bend)
        parts = [
            Part(
                np.concatenate([vertices, ring]),
                np.concatenate([faces, arm.faces]),
                np.concatenate([places, arm.places]),
                skin,
                np.concatenate([bones, np.full(len(ring), first_bone, np.int32)]),
                num_closed=len(faces),  # the arm has an open end, possibly behind the camera
            )
        ]
        draws = rng.random(2)
        if draws[0] < 0.45 * factors.sleeve:
            parts.append(sleeve(rng, arm, hand, bend))
        elif draws[1] < 0.25 * factors.worn:
            parts += worn(rng, arm, hand, bend)
        return parts

    def _sample_skin(self, rng: np.random.Generator) -> Skin:
        """Draws the skin of a person; factors scale the random amounts."""
        factors = self.factors
        melanin, blood = sample_skin(rng, factors.skin_tone)
        amounts = rng.random(6)
        polish = cloth_color(rng) * [1.3, 0.8, 0.8] if rng.random() < 0.12 * factors.nails else None
        freckled = factors.skin_detail * max(amounts[3] - 0.6, 0) * 2.5
        shine = 0.004 + 0.03 * amounts[5] ** 2
        return Skin(
            melanin=melanin,
            blood=blood,
            variation=factors.skin_detail * (0.7 + 0.3 * amounts[0]),
            nails=min(factors.nails, 1.0),
            veins=factors.veins * max(1.3 * amounts[1] - 0.3, 0.0),
            creases=factors.creases * (0.4 + 0.8 * amounts[2]),
            freckles=freckled,
            relief=factors.creases * (0.3 + 0.9 * amounts[4]),
            polish=polish,
            gloss=factors.gloss * shine,
            shininess=float(np.exp(rng.uniform(np.log(8), np.log(45)))),
            atlas=int(rng.integers(NUM_ATLASES)),
        )

    def _second_hand(self, rng: np.random.Generator, posed: PosedHand) -> tuple[str, PosedHand]:
        """Draws another hand that overlaps the first in the picture, in front of or behind it without contact."""
        side = "left" if rng.random() < 0.7 else "right"
        R = sample_orientation(rng, self.synth.max_tilt_deg)
        angles = sample_pose(rng, gestures=self.factors.gestures, contact=self.factors.contact > 0)
        params = HandParams(R[None], angles_to_pose(angles), sample_betas(rng, self.synth.betas_std), np.zeros(3))
        if side == "left":
            params = mirror_params(params)
        other = self.decoders[side](params)
        middle, away = posed.joints_m.mean(0), rng.uniform(0, 2 * np.pi)
        before = rng.random() < 0.35
        closer = (-1 if before else 1) * rng.uniform(0.06, 0.12)
        reach = rng.uniform(0.11, 0.17) if before else rng.uniform(0.06, 0.15)
        place = middle + [reach * np.cos(away), reach * np.sin(away), 0.0]
        place = place * (1 + closer / middle[2])
        shift = (place - other.joints_m.mean(0)).astype(np.float32)
        return side, PosedHand(other.vertices_m + shift, other.joints_m + shift, other.R)


def paint_all() -> None:
    """Creates the shared textures (cached; takes seconds in a new process)."""
    atlases(), textures(), scenes()


def _hand_capsules(posed: PosedHand, first_bone: int) -> np.ndarray:
    """(C, 8) capsules of the bones of a hand: two ends, radius, owner."""
    ends = np.array([row[:2] for row in _CAPSULES])
    radius_bone = np.array([row[2:] for row in _CAPSULES]) + [0.0, first_bone]
    return np.concatenate([posed.joints_m[ends[:, 0]], posed.joints_m[ends[:, 1]], radius_bone], 1)
