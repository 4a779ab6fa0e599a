"""Joint orders by joint names; tables are repeated here from the documentation of the sources."""

import pytest

from utnet import conventions as c


def test_joint_names_are_openpose_21():
    expected = {
        "wrist": 0,
        "thumb_cmc": 1,
        "thumb_tip": 4,
        "index_mcp": 5,
        "middle_mcp": 9,
        "ring_mcp": 13,
        "little_tip": 20,
    }
    assert {name: c.JOINT_NAMES.index(name) for name in expected} == expected
    assert len(set(c.JOINT_NAMES)) == c.NUM_JOINTS == 21


def test_mano_21_to_openpose_is_the_published_permutation():
    assert c.MANO21_TO_OPENPOSE == (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)


@pytest.mark.parametrize(
    ("mano", "name"),
    [(0, "wrist"), (1, "index_mcp"), (7, "little_mcp"), (10, "ring_mcp"), (13, "thumb_cmc"), (15, "thumb_ip")]
    + [(16, "thumb_tip"), (17, "index_tip"), (18, "middle_tip"), (19, "ring_tip"), (20, "little_tip")],
)
def test_named_joints_of_mano(mano, name):
    assert c.MANO21_NAMES[mano] == name
    assert c.MANO21_TO_OPENPOSE[c.JOINT_NAMES.index(name)] == mano
    assert c.OPENPOSE_TO_MANO21[mano] == c.JOINT_NAMES.index(name)


def test_permutations_undo_each_other():
    labels = [f"label {i}" for i in range(21)]
    there = [labels[i] for i in c.MANO21_TO_OPENPOSE]
    assert there != labels
    assert [there[i] for i in c.OPENPOSE_TO_MANO21] == labels


def test_parents_follow_the_fingers():
    assert c.PARENTS == (-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19)
    for joint, parent in list(enumerate(c.PARENTS))[1:]:
        finger, parent_finger = c.JOINT_NAMES[joint].split("_")[0], c.JOINT_NAMES[parent].split("_")[0]
        first_of_finger = (joint - 1) % 4 == 0
        assert parent < joint
        assert parent_finger == ("wrist" if first_of_finger else finger)


def test_tips_are_the_tips():
    assert [c.JOINT_NAMES[i] for i in c.TIPS] == ["thumb_tip", "index_tip", "middle_tip", "ring_tip", "little_tip"]
    assert not set(c.TIPS) & set(c.PARENTS)


def test_mano_parents_agree_with_the_21_joints():
    assert c.MANO_PARENTS == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
    for joint, parent in list(enumerate(c.MANO_PARENTS))[1:]:
        parent_21 = c.PARENTS[c.JOINT_NAMES.index(c.MANO_JOINT_NAMES[joint])]
        assert c.JOINT_NAMES[parent_21] == c.MANO_JOINT_NAMES[parent]


def test_fingertip_vertices_by_source():
    assert c.MANO_TIP_VERTICES == {
        "smplx": (744, 320, 443, 554, 671),
        "freihand": (744, 320, 443, 555, 672),
        "ho3d": (744, 333, 444, 555, 672),
        "manopth": (745, 317, 444, 556, 673),
    }
    assert c.MANOPTH_LEFT_TIP_VERTICES == (745, 317, 445, 556, 673)
