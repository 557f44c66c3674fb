"""What a network returned, as it returned it: int8 values stay int8 until somebody reads them.

A dense output of a large photo has millions of values, and a keypoint looks at a few of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Tensor:
    """int8 values that stand for ``scale * (values - zero_point)``; ``np.asarray`` gives these, float32.

    Attributes:
        values: int8, of any shape. scale: finite, above 0. zero_point: from -128 to 127.
    """

    values: np.ndarray
    scale: float
    zero_point: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Tensor:
        return Tensor(self.values[index], self.scale, self.zero_point)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        real = self.values.astype(np.float32)
        real -= np.float32(self.zero_point)
        real *= np.float32(self.scale)
        return real if dtype is None else real.astype(dtype, copy=False)

    def reshape(self, *shape: int) -> Tensor:
        """As numpy's."""
        return Tensor(self.values.reshape(*shape), self.scale, self.zero_point)

    def take(self, rows: np.ndarray, axis: int) -> Tensor:
        """As numpy's."""
        return Tensor(self.values.take(rows, axis), self.scale, self.zero_point)


Output = np.ndarray | Tensor
"""float32, or int8 that is read as float32 by ``np.asarray``."""
