"""Sounds as files: 16-bit WAV. Knows no score."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def save_wav(samples: NDArray[np.floating[Any]], path: str | Path, *, rate: int) -> Path:
    """Write samples (N, channels) in [-1, 1] as 16-bit PCM, at `rate` samples a second."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        # 32767, not 32768: +1.0 must not wrap around to the lowest value.
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return path
