"""Files that the benchmarks accept, and readers that refuse what their servers refuse.

HO3D and FreiHAND take a zipped `pred.json`, DexYCB a text file. Each writer takes joints in the project's conventions
(OpenPose-21, OpenCV camera, metres) and turns them into the benchmark's. Fingertips stay as they are given: decode with
the benchmark's own tips.
"""

from utnet.evaluation.submission.pred_json import (
    FREIHAND_NUM,
    HO3D_NUM,
    Submission,
    check_freihand_submission,
    check_ho3d_submission,
    write_freihand_submission,
    write_ho3d_submission,
)
from utnet.evaluation.submission.results_txt import check_dexycb_results, dexycb_scores, write_dexycb_results

__all__ = [
    "FREIHAND_NUM",
    "HO3D_NUM",
    "Submission",
    "check_dexycb_results",
    "check_freihand_submission",
    "check_ho3d_submission",
    "dexycb_scores",
    "write_dexycb_results",
    "write_freihand_submission",
    "write_ho3d_submission",
]
