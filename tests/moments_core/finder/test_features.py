from __future__ import annotations

import numpy as np
import pytest

from moments_core.finder.features import feature_columns
from moments_core.finder.passages import Passage
from moments_core.finder.salience import Part, scores
from moments_core.finder.text import terms
from moments_core.finder.vectors import smoothed, topic_space
from moments_core.finder.weights import Weights, shipped_weights


def said(*texts: str) -> list[Passage]:
    return [Passage(at * 5000, at * 5000 + 5000, text, tuple(terms(text))) for at, text in enumerate(texts)]


TWO_TOPICS = said(*["The compost feeds the soil worms."] * 20, "So what is orbit?", *["The rocket reaches orbit."] * 20)


def columns() -> dict[str, np.ndarray]:
    return feature_columns(TWO_TOPICS, topic_space([passage.terms for passage in TWO_TOPICS]))


def test_every_weight_has_a_feature_and_the_other_way_round() -> None:
    assert set(shipped_weights().of_feature) == set(columns())


def test_columns_are_z_scored() -> None:
    for column in columns().values():
        assert column.mean() == pytest.approx(0, abs=1e-9)
        assert column.std() == pytest.approx(1) or not column.any()


def test_a_change_of_topic_is_where_similarity_is_lowest_and_terms_are_new() -> None:
    found = columns()
    assert abs(int(found["similar_10"].argmin()) - 20) <= 1
    assert abs(int(found["depth_10"].argmax()) - 20) <= 1
    assert 3 + int(found["onset"][3:].argmax()) in (18, 19, 20)  # the opening is new as a whole


def test_evidence_is_highest_at_the_change() -> None:
    assert abs(int(shipped_weights().evidence(columns()).argmax()) - 20) <= 1


def test_a_cue_counts_for_its_neighbours_too() -> None:
    found = columns()
    assert [int(found[f"ask_{place}"].argmax()) for place in ("after", "here", "before")] == [19, 20, 21]


def test_who_speaks_is_no_feature() -> None:
    assert not [name for name in columns() if "turn" in name or "speaker" in name]


def test_weights_that_know_no_feature_of_ours_are_refused() -> None:
    with pytest.raises(KeyError):
        Weights({"unheard_of": 1.0}).evidence(columns())


def test_sentences_without_terms_have_no_topic() -> None:
    space = topic_space([[], ["soil", "worm"], []])
    assert not space.topics[0].any()
    assert space.topics[1].any()


def test_a_video_without_a_single_term_has_a_space() -> None:
    assert topic_space([[], []]).topics.shape[0] == 2


def test_smoothing_is_the_mean_over_the_neighbours_there_are() -> None:
    assert smoothed(np.array([[0.0], [3.0], [6.0]])).ravel().tolist() == [1.5, 3.0, 4.5]


def test_a_dense_part_outscores_small_talk() -> None:
    talk = [*TWO_TOPICS[:20], *said(*["Yeah, you know, okay."] * 20)]
    space = topic_space([passage.terms for passage in talk])
    dense, small_talk = scores([Part(0, 20), Part(20, 40)], talk, space, np.zeros(40))
    assert dense > 0.5 > small_talk


def test_the_only_part_of_a_video_is_its_average_part() -> None:
    space = topic_space([passage.terms for passage in TWO_TOPICS])
    assert scores([Part(0, 41)], TWO_TOPICS, space, np.zeros(41)) == [0.5]


def test_length_does_not_decide_a_score() -> None:
    talk = said(*["The compost feeds the soil worms."] * 80)
    space = topic_space([passage.terms for passage in talk])
    short, long, middle = scores([Part(0, 8), Part(8, 64), Part(64, 80)], talk, space, np.zeros(80))
    assert short == pytest.approx(long, abs=0.01)
    assert middle == pytest.approx(long, abs=0.01)


def test_a_clear_opening_raises_a_score_and_the_first_part_loses_nothing_by_having_none() -> None:
    talk = said(*["The compost feeds the soil worms."] * 60)
    space = topic_space([passage.terms for passage in talk])
    evidence = np.zeros(60)
    evidence[[20, 40]] = 1.0, 4.0
    first, faint, clear = scores([Part(0, 20), Part(20, 40), Part(40, 60)], talk, space, evidence)
    assert faint < first == 0.5 < clear


def test_scores_of_few_parts_stay_nearer_to_the_middle() -> None:
    talk = [*TWO_TOPICS[:20], *said(*["Yeah, you know, okay."] * 20)]
    space = topic_space([passage.terms for passage in talk])
    two = scores([Part(0, 20), Part(20, 40)], talk, space, np.zeros(40))
    eight = scores([Part(at, at + 5) for at in range(0, 40, 5)], talk, space, np.zeros(40))
    assert max(two) - min(two) < max(eight) - min(eight)
