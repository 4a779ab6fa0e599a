"""Writers and checkers of submission files: a zipped `pred.json` for HO3D and FreiHAND, a text file for DexYCB.

Writers take joints in the conventions of UTNet (OpenPose-21, OpenCV camera, metres) and convert them to those of the
benchmark. Fingertips are not changed; decode them with the fingertip vertices of the benchmark.
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
