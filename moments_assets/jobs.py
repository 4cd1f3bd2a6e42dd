"""The one job: everything that exists for a video."""

from __future__ import annotations

import dagster as dg

from moments_assets.audio import audio
from moments_assets.clips import clips
from moments_assets.moments import moments
from moments_assets.raw_video import raw_video
from moments_assets.refined_moments import refined_moments
from moments_assets.scene_cuts import scene_cuts
from moments_assets.thumbnails import thumbnails
from moments_assets.transcript import transcript

#: In the order in which data flows.
ASSETS = (raw_video, audio, transcript, scene_cuts, thumbnails, moments, clips, refined_moments)

process_video = dg.define_asset_job(
    "process_video",
    selection=dg.AssetSelection.assets(*ASSETS),
    description="Takes one video through every asset. What stands already is kept.",
)
