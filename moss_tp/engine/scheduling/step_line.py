"""What a whole step takes, prompts included, by the number of sequences in it: a straight line.

Its height is that of the last steps, its slope that of the last thousand, or of earlier ones if
the number has hardly changed since. No clock.
"""

HEIGHT_MEMORY = 0.97  # of an average, for each further step
SLOPE_MEMORY = 0.999
MIN_VARIANCE = 0.5  # of the number of sequences, to tell a slope from
MAX_RISE = 4.0  # a step that took more than so many times the average counts as this


class StepLine:
    def __init__(self) -> None:
        self._weight = self._seconds = self._num_seqs = 0.0
        # Weight, seconds, number, its square, and number times seconds.
        self._sums = [0.0] * 5
        self._slope = 0.0

    def note(self, seconds: float, num_seqs: int) -> None:
        """A step that took `seconds`, with that many sequences in it."""
        if self._weight:
            seconds = min(seconds, MAX_RISE * self._seconds / self._weight)
        self._weight = HEIGHT_MEMORY * self._weight + 1
        self._seconds = HEIGHT_MEMORY * self._seconds + seconds
        self._num_seqs = HEIGHT_MEMORY * self._num_seqs + num_seqs
        new = 1.0, seconds, num_seqs, num_seqs**2, num_seqs * seconds
        self._sums = [SLOPE_MEMORY * old + more for old, more in zip(self._sums, new, strict=True)]
        self._learn_slope()

    def seconds(self, num_seqs: float) -> float:
        """Expected of a step with that many sequences; 0 before the first one was measured."""
        if not self._weight:
            return 0.0
        height, middle = self._seconds / self._weight, self._num_seqs / self._weight
        return height + min(self._slope, height / middle) * (num_seqs - middle)

    def _learn_slope(self) -> None:
        """Least squares."""
        weight, seconds, num_seqs, squares, products = self._sums
        variance = squares / weight - (num_seqs / weight) ** 2
        if variance >= MIN_VARIANCE:
            covariance = products / weight - num_seqs * seconds / weight**2
            self._slope = max(0.0, covariance / variance)
