from __future__ import annotations

import base64
from pathlib import Path

from moments_resources.media.canary import make_canary
from moments_resources.media.runner import FfmpegRunner
from tests.stand_ins.watched_video import watch


def test_the_canary_changes_its_colour_when_it_says_and_only_then(runner: FfmpegRunner, tmp_path: Path) -> None:
    target = tmp_path / "canary.mp4"
    canary = make_canary(runner, target)
    seen = watch("data:video/mp4;base64," + base64.b64encode(target.read_bytes()).decode(), longest_s=60)
    assert canary.change_ms == seen.change_ms
    assert canary.duration_ms == seen.duration_ms
    assert canary.change_ms % 1000 != 0
    after = [time >= canary.change_ms for time in seen.picture_ms]
    blue, yellow = (0, 0, 255), (255, 255, 0)
    for is_after, rgb in zip(after, seen.mean_rgb, strict=True):
        assert max(abs(one - other) for one, other in zip(rgb, yellow if is_after else blue, strict=True)) < 12


def test_the_canary_is_small_and_always_the_same(runner: FfmpegRunner, tmp_path: Path) -> None:
    make_canary(runner, tmp_path / "a.mp4")
    make_canary(runner, tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert (tmp_path / "a.mp4").stat().st_size < 10_000
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}
