"""The moments of one video out of what was found in all of its windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moments_core.moment import Found, Moment
from moments_core.options import Options
from moments_core.plain_text import counted, one_line
from moments_core.replies import NEUTRAL_SCORE, ReadMoments, refusals
from moments_core.time import to_ms

SAME_IOU = 0.5  # over it two spans are one moment, found twice; the same rule is a check of the asset


@dataclass(frozen=True, slots=True)
class Merged:
    """Moments in time order, no two the same; `remarks` count what was left out, and why."""

    moments: tuple[Moment, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model answered on one window, which was asked for at most `most` moments."""

    answer: ReadMoments
    most: int


def found(answered: Sequence[Answered], options: Options, *, by: str, sentences: int) -> Found:
    """The moments of a video out of the answers on all its windows; `sentences` is how many it was shown in all.

    The note says what was left out and why; without a moment, why there is none.
    """
    answers = [one.answer for one in answered]
    # A server that ignores maxItems lets a model go on, and each moment costs a clip.
    candidates = [moment for one in answered for moment in best(one.answer.moments, one.most)]
    result = merged(candidates, options)
    remarks = (
        *_remarks_on(answers, surplus=sum(len(one.moments) for one in answers) - len(candidates)),
        *result.remarks,
    )
    said = counted(sentences, "sentence") + (f" in {len(answered)} windows" if len(answered) > 1 else "")
    if result.moments:
        head = f"{counted(len(result.moments), 'moment')} by {by} from {said}"
    elif candidates:
        head = f"No moment: none of the {len(candidates)} that {by} found is {asked_length(options)} long"
    else:
        about = f' about "{one_line(options.query)}"' if options.query else ""
        head = f"No moment: {by} found none{about} in {said}"
    return Found(result.moments, "; ".join((head, *remarks)))


def _remarks_on(answers: Sequence[ReadMoments], *, surplus: int) -> list[str]:
    refused = [reason for answer in answers for reason in answer.refused]
    unscored = sum(answer.unscored for answer in answers)
    cut_off = [len(answer.moments) for answer in answers if answer.cut_off]
    remarks = (
        (refused, f"{len(refused)} refused ({refusals(refused)})"),
        (unscored, f"{unscored} without a score, taken as {NEUTRAL_SCORE}"),
        (cut_off, f"{len(cut_off)} of the replies broke off and gave {counted(sum(cut_off), 'whole moment')}"),
        (surplus, f"{surplus} beyond what was asked for"),
    )
    return [remark for is_so, remark in remarks if is_so]


def merged(candidates: Sequence[Moment], options: Options) -> Merged:
    """The best candidates, at most `options.max_moments`, each of a length that was asked for, and none twice.

    `min_seconds` and `max_seconds` leave out whole moments and cut none short: its end is what a moment is for. They
    come first, so that a moment that is too long takes nothing of the right length away with it. The default minimum
    of the local finder is no limit here: a model is told what is usual, and may have found a good one of 20 seconds.
    """
    shorter, fitting, longer = _by_length(candidates, options)
    distinct = without_repeats(fitting)
    best = distinct[: options.max_moments]
    remarks = (
        (shorter, f"shorter than {options.min_seconds or 0:g} s"),
        (longer, f"longer than {options.max_seconds or 0:g} s"),
        (len(fitting) - len(distinct), "found twice"),
        (len(distinct) - len(best), f"beyond the best {len(best)}"),
    )
    said = tuple(f"{count:,} {why}" for count, why in remarks if count)
    return Merged(tuple(sorted(best, key=lambda moment: moment.span)), said)


def without_repeats(moments: Sequence[Moment]) -> list[Moment]:
    """From the best score down, those whose IoU with a better one is not over 0.5 (non-maximum suppression).

    Among equal scores the earlier, then the longer one, comes first: the order of the candidates decides nothing.
    """
    kept: list[Moment] = []
    for moment in sorted(moments, key=_rank):
        if all(moment.span.iou(better.span) <= SAME_IOU for better in kept):
            kept.append(moment)
    return kept


def best(moments: Sequence[Moment], most: int) -> list[Moment]:
    """The `most` best by score."""
    return sorted(moments, key=_rank)[:most]


def asked_length(options: Options) -> str:
    """`between 30 and 60 seconds`; empty where no length was asked for."""
    least, most = options.min_seconds, options.max_seconds
    if least is not None and most is not None:
        return f"between {least:g} and {most:g} seconds"
    if least is not None:
        return f"at least {least:g} seconds"
    return "" if most is None else f"at most {most:g} seconds"


def _by_length(moments: Sequence[Moment], options: Options) -> tuple[int, list[Moment], int]:
    """How many are too short, those that are not, and how many are too long."""
    least = to_ms(options.min_seconds or 0)
    most = None if options.max_seconds is None else to_ms(options.max_seconds)
    long_enough = [moment for moment in moments if moment.span.length_ms >= least]
    fitting = [moment for moment in long_enough if most is None or moment.span.length_ms <= most]
    return len(moments) - len(long_enough), fitting, len(long_enough) - len(fitting)


def _rank(moment: Moment) -> tuple[float, int, int, str]:
    return -moment.score, moment.span.start_ms, -moment.span.end_ms, moment.title
