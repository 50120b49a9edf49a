"""Data set ``hdf5-spectrogram``: signals, shown as pictures of time and frequency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from maekit.contracts import DataError, Source, SourceInfo
from maekit_hdf5.rows import Rows, RowsOptions


class Spectrogram(Rows):
    """Rows of signals as pictures ``[frequency, time, channels]``: decibels, float32.

    Short-time Fourier transforms with a periodic Hann window. Low frequencies are on top. Channels
    of a signal (the axes of a sensor, the electrodes of an EEG) are those of the picture.
    """

    class Options(RowsOptions):
        layout: Literal["NS", "NSC", "NCS"] = Field(
            "NS", description="the array's axes: N rows, S samples in time, C channels"
        )
        window: int = Field(256, ge=4, description="samples of a window")
        hop: int = Field(128, ge=1, description="samples from one window to the next")
        bins: int | None = Field(
            None, ge=1, description="frequencies that are kept, from 0 up; unset: window / 2"
        )
        floor: float = Field(
            -80.0, lt=0, description="decibels; what is weaker (silence) is taken for this"
        )

    def __init__(self, options: Options) -> None:
        self._options = options
        self._bins = options.bins or options.window // 2
        if self._bins > options.window // 2 + 1:
            what = f"bins: {self._bins}, and a window of {options.window} has "
            hint = f"at most {options.window // 2 + 1}, or a longer window"
            raise DataError(f"{what}{options.window // 2 + 1}", where="bins", hint=hint)
        super().__init__(options, len(options.layout))

    def open(self, index: int) -> Source:
        """Look at a row; raises DataError that names it."""
        options = self._options
        array, _, name = self.row(index)
        sizes = dict(zip(options.layout, array.shape, strict=True))
        width = 1 + (sizes["S"] - options.window) // options.hop
        if width < 1:
            what = f"{sizes['S']} samples are less than a window of {options.window}"
            raise DataError(what, where=name, hint="set a shorter window")
        channels = sizes.get("C", 1)
        info = SourceInfo(name, self._bins, width, channels, "float32", label=self.label_of(index))

        def read(frame_ids: Sequence[int]) -> np.ndarray:
            picture = self._picture(index)
            return np.repeat(picture[None], len(frame_ids), axis=0)

        return Source(info, read)

    def _picture(self, index: int) -> np.ndarray:
        array, row, _ = self.row(index)
        signal = np.asarray(array[row], dtype=np.float32)
        if self._options.layout != "NCS":
            signal = signal.reshape(len(signal), -1).T  # [C, S]
        return spectrogram(
            signal, self._options.window, self._options.hop, self._bins, self._options.floor
        )


def spectrogram(signal: np.ndarray, window: int, hop: int, bins: int, floor: float) -> np.ndarray:
    """Return the power of a signal ``[C, S]`` in decibels, float32 ``[bins, windows, C]``.

    0 dB is a sine of amplitude 1 that fills the window.
    """
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    pieces = np.lib.stride_tricks.sliding_window_view(signal, window, axis=-1)[:, ::hop]
    amplitude = np.abs(np.fft.rfft(pieces * hann, axis=-1)) * (2 / hann.sum())
    decibels = 20 * np.log10(np.maximum(amplitude, 10.0 ** (floor / 20)))
    shown: np.ndarray = decibels[..., :bins].transpose(2, 1, 0).astype(np.float32)
    return np.ascontiguousarray(shown)
