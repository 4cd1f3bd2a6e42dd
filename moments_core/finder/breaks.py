"""Breaks in picture and sound as evidence beside the words: scene cuts by their rarity, pauses by their length.

All is in units of log-odds, as the evidence of the words is (its deviation over a talk was 1.00 on average over the
tuning talks before z-scoring), so the three add up. The constants were set by arithmetic from what is known of slides
and pauses, and tried on talks with made-up cuts and pauses: the tuning talks have neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moments_core.content import VideoContent
from moments_core.finder.passages import Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

SLIDE_SHARE = 0.8  # of topic changes in a talk over slides that a slide change goes with
SLIDE_LAG_S = 1.5  # mean distance of the two: the speaker clicks before, while or after announcing
AROUND_S = 60.0  # cuts within this of a cut tell how rare it is
# Whether a video's cuts are slides or the changes of a camera is told by what is said at them: at slides the words
# speak for a change by 0.4 on average (1.1 at chapters, and one slide in three to five opens one), else by 0.
WORDS_AT_SLIDES, SLIDES_PRIOR = 0.4, 0.6
# Share of topic changes with a pause of their own, and by how many deviations of log-length it is longer: 0.5 s to
# 1.1 s, say. A share, as most topics follow one another in one breath: 600 sentences an hour against 13 changes, so a
# plain ratio of two normals lets chance pauses win (chapters found whole fell from 0.32 to 0.27 with such pauses).
PAUSING, PAUSE_SHIFT = 0.3, 1.5
UNHEARD_PAUSE_S = 0.2  # what stands for a pause too short to be reported; silences are from 0.35 s up
LEAST_SPREAD = 0.5  # deviation of the log-length of pauses, at least: as in read speech
PAUSE_REACH_S = 1.5  # captions come late or early by up to this


def break_evidence(said: Sequence[Passage], content: VideoContent, words: Vector) -> Vector | None:
    """Log-odds of a new moment at each passage from what is seen and heard; None where no cut or pause is known."""
    import numpy as np

    starts = np.array([passage.start_ms for passage in said], float) / 1000
    duration_s = content.duration_ms / 1000
    cuts = np.unique([cut / 1000 for cut in content.scene_cuts_ms if 0 < cut < content.duration_ms])
    pauses = np.array([(one.end_ms / 1000, one.length_ms / 1000) for one in content.silences], float).reshape(-1, 2)
    if not len(cuts) and not len(pauses):
        return None
    return _from_cuts(starts, cuts, duration_s, words) + _from_pauses(starts, pauses)


def _from_cuts(starts: Vector, cuts: Vector, duration_s: float, words: Vector) -> Vector:
    """Log-odds that the nearest cut was made for a change of topic at the passage, not in the usual run of cuts.

    Slide changes fall at a distance d from the change of topic with density f(d) = exp(-|d|/L)/(2L), and with share
    s of all changes; the usual run of cuts is a Poisson process with the rate r of the cuts around. So the odds are
    s·t·f(d)/r, where t is the trust that these cuts are slides; below 1 the cut tells nothing. With s = 0.8 and
    L = 1.5 s, a cut at the passage's very start counts 3.5 where it is alone within a minute, 2.1 at one in 30 s,
    1.0 at one in 10 s and nothing at one in 3.75 s and more: edited footage is cut for its own reasons.
    """
    import numpy as np

    if not len(cuts):
        return np.zeros_like(starts)
    nearest = _nearest(cuts, starts)
    distance = np.abs(cuts[nearest] - starts)
    density = np.exp(-distance / SLIDE_LAG_S) / (2 * SLIDE_LAG_S)
    odds = SLIDE_SHARE * density / _rates(cuts, duration_s)[nearest]
    trust = _trust(words[_nearest(starts, cuts)])
    return np.asarray(np.maximum(0.0, np.log(np.maximum(trust * odds, 1e-9))))


def _rates(cuts: Vector, duration_s: float) -> Vector:
    """Cuts a second within a minute of each cut, itself included."""
    import numpy as np

    count = np.searchsorted(cuts, cuts + AROUND_S, side="right") - np.searchsorted(cuts, cuts - AROUND_S)
    return np.asarray(count / (np.minimum(cuts + AROUND_S, duration_s) - np.maximum(cuts - AROUND_S, 0.0)))


def _trust(words_at_cuts: Vector) -> float:
    """Probability that the cuts are slide changes: Bayes' rule over two normal distributions of deviation 1."""
    import numpy as np

    shift = WORDS_AT_SLIDES
    log_odds = np.log(SLIDES_PRIOR / (1 - SLIDES_PRIOR)) + float((shift * words_at_cuts - shift**2 / 2).sum())
    return float(1 / (1 + np.exp(-np.clip(log_odds, -30.0, 30.0))))


def _from_pauses(starts: Vector, pauses: Vector) -> Vector:
    """Log-odds from the pause before each passage against the video's own pauses.

    Pauses are log-normal. With x the deviations of a pause's log-length from its median, the likelihood ratio is
    (1 - s) + s·exp(m·x - m²/2): a share s of topic changes has a pause that is longer by m. x is kept within
    -1..3, so the log of it, less that of a usual pause, within -0.1..2.5: nobody pauses for a minute because a topic
    is that new.
    """
    import numpy as np

    if not len(pauses):
        return np.zeros_like(starts)
    length = np.full(len(starts), UNHEARD_PAUSE_S)
    near = _nearest(starts, pauses[:, 0])
    reached = np.abs(starts[near] - pauses[:, 0]) <= PAUSE_REACH_S
    np.maximum.at(length, near[reached], pauses[reached, 1])
    logs = np.log(length)
    off = logs - np.median(logs)
    spread = max(LEAST_SPREAD, 1.4826 * float(np.median(np.abs(off))))  # 1.4826: median deviation to a normal's
    deviations = np.clip(off / spread, -1.0, 3.0)
    ratio = 1 - PAUSING + PAUSING * np.exp(PAUSE_SHIFT * np.append(deviations, 0.0) - PAUSE_SHIFT**2 / 2)
    return np.asarray(np.log(ratio[:-1] / ratio[-1]))


def _nearest(places: Vector, times: Vector) -> NDArray[np.int_]:
    """For each time, the index of the place nearest to it; `places` rise and are not empty."""
    import numpy as np

    right = np.clip(np.searchsorted(places, times), 0, len(places) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(times - places[left]) <= np.abs(places[right] - times), left, right)
