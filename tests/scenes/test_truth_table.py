import random

import numpy as np

from t2i_course.scenes.drawing import sample_scene
from t2i_course.scenes.oracle import check_facts
from t2i_course.scenes.truth_table import TruthTable
from t2i_course.scenes.wording import choose_facts, contradict


def test_table_says_of_every_pair_what_check_facts_says():
    rng = random.Random(3)
    scenes = [sample_scene(rng) for _ in range(60)]
    facts = [choose_facts(scene, rng) for scene in scenes for _ in range(3)]
    facts += [contradict(stated, rng, swap_listed=True, third=True) for stated in facts]
    found = TruthTable(facts, scenes)(np.arange(len(facts)), np.arange(len(scenes)))
    expected = [[all(check_facts(f, scene).values()) for scene in scenes] for f in facts]
    assert (found == np.array(expected)).all()
    own = np.repeat(np.arange(60), 3)
    assert found[np.arange(180), own].all()  # a caption is true of its own picture
    assert 0 < found[:180].sum() - 180 < 0.1 * found[:180].size  # and of some others
