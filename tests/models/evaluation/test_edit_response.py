"""A slider's response is the mean move of its own score, made by each network from the same codes."""

import numpy as np

from models.evaluation.edit_response import edit_responses
from models.training.direction_recipes import RECIPES
from models.training.directions import Slider


class Brightness:
    """A smile's score is the mean level, an age twice that."""

    def score(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        level = crops.mean(axis=(1, 2, 3))
        return {RECIPES["age"].score: 2.0 * level, RECIPES["smile"].score: level}


def test_the_own_score_moves_as_far_as_the_network_lets_it():
    codes = np.full((3, 6, 512), 10.0, np.float32)
    direction = np.zeros((4, 512))
    direction[3] = 1.0
    sliders = {
        "age": Slider(RECIPES["age"], direction, -1.0, 4.0),
        "smile": Slider(RECIPES["smile"], direction, -1.0, 2.0),
    }

    def last_row(codes: np.ndarray) -> np.ndarray:
        return np.broadcast_to(codes[:, -1, :1, None, None], (len(codes), 4, 4, 3)).astype(np.uint8)

    def half(codes: np.ndarray) -> np.ndarray:
        return last_row(codes[:, :4]) // 2

    found = edit_responses({"teacher": last_row, "half": half}, sliders, codes, Brightness())
    assert found == {"age": {"teacher": 8.0, "half": 4.0}, "smile": {"teacher": 2.0, "half": 1.0}}
    assert np.all(codes == 10.0)
