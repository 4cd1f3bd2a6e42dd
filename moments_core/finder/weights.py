"""The fitted weights: data made by `benchmarks/fit_finder.py`, read once when first needed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from moments_core.finder.features import zscored

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Weights:
    """One weight a feature of `feature_columns`; their sum over a passage is the log-odds of a new moment there."""

    of_feature: dict[str, float]
    fingerprint: str = "unsaved"

    def evidence(self, columns: dict[str, Vector]) -> Vector:
        """Log-odds of a boundary at each passage, in standard deviations over the video."""
        import numpy as np

        return zscored(np.asarray(sum(weight * columns[name] for name, weight in self.of_feature.items())))


@lru_cache(maxsize=1)
def shipped_weights() -> Weights:
    """The weights that come with the package; `fingerprint` is the hash of all data that the finder decides with."""
    folder = resources.files("moments_core.finder")
    content = folder.joinpath("weights.json").read_bytes()
    digest = hashlib.sha256(content + folder.joinpath("words.json").read_bytes()).hexdigest()
    features = json.loads(content)["features"]
    return Weights({name: float(weight) for name, weight in features.items()}, digest[:8])
