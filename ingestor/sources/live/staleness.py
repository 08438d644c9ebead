"""When is silence suspicious? Learned per stream, never a fixed timeout.

A stream is one class of rows of one instrument. Its gaps between arrivals teach what silence is
usual: the mean gap as a random moment sees it, E[g^2] / E[g], which unlike the plain mean grows
with clusters and lulls, and the longest gap of late. A silence beyond a multiple of both is
suspicious: for arrivals at random, 25 mean gaps, which by chance happens once in 10^10 gaps.

- A stream whose limit is above the ceiling is *quiet*: time alone never makes it suspicious. The
  other channels of its symbol can: when they had far more events than usual since it last spoke,
  it is suspected at the ceiling at the latest.
- When all streams of a connection are silent, for longer than they ever are together, and symbols
  beside the fastest should have spoken many times, they need no probe: reconnect. (Streams that
  speak at the same moments, such as candles, are silent together as a matter of course.)
- Only rows count. Heartbeats, acks and pings prove the socket, not the stream.
- Time that we spent paused by our own backpressure is taken out (`paused`).

A suspected stream is probed first (resubscribed alone). When that brings nothing, it depends on its
neighbors: where others of its connection spoke since, the connection is sound, and the stream is
marked silent (a halt, a delisting). Where none did, one reconnect is tried before that. A silent
stream is probed rarely, and costs its neighbors nothing. A venue answers a subscription
with a snapshot or the last trades, also of what is halted: the first rows after a probe or a
reconnect are such an answer, and only rows that come later say that the stream is back.

All arrays are indexed by stream = 4 x instrument + class; `heard` and `check` are one numpy sweep
each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestor.model.row_classes import ROW_CLASSES, RowClass
from ingestor.model.timestamps import SECOND

_NONE: Final = -1
_Index = NDArray[np.int64]
_Numbers = NDArray[np.float64]


class Action(Enum):
    PROBE = "probe"  # resubscribe the stream
    RECONNECT = "reconnect"
    SILENT = "silent"  # nothing helps: it is marked, and looked at rarely
    LOOK = "look"  # resubscribe a silent stream, as a rare look


@dataclass(frozen=True, slots=True)
class Suspect:
    """A stream that should have spoken."""

    instrument: int
    row_class: RowClass
    silence_s: float
    action: Action


@dataclass(frozen=True, slots=True)
class StalenessSettings:
    """floor_s: no stream is suspected sooner. ceiling_s: streams that are silent for longer as a
    matter of course are not judged by time. half_life_s: of what was learned.
    gaps_min: gaps to be seen before a stream is judged. silent_look_s: until the first look at a
    silent stream; each later one waits twice as long, at most silent_look_max_s.
    """

    floor_s: float = 5.0
    ceiling_s: float = 300.0
    half_life_s: float = 1_800.0
    gaps_min: int = 20
    silent_look_s: float = 300.0
    silent_look_max_s: float = 3_600.0
    mean_multiple: float = 12.5
    longest_multiple: float = 3.0


class _Gaps:
    """Decaying statistics of the gaps of many sequences of events, by index."""

    def __init__(self, settings: StalenessSettings) -> None:
        self._settings = settings
        self.last = np.zeros(0)  # the place of the last event: s, or a count of other events
        self._count = np.zeros(0)
        self._sum = np.zeros(0)
        self._squares = np.zeros(0)
        self._longest = np.zeros(0)

    def fit(self, size: int) -> None:
        """Make room for indices below `size`."""
        more = np.zeros(max(size - len(self.last), 0))
        if len(more):
            for name in ("last", "_count", "_sum", "_squares", "_longest"):
                setattr(self, name, np.concatenate([getattr(self, name), more]))

    def learn(self, index: _Index, place: _Numbers, keep: _Numbers) -> None:
        """Take one event of each of these sequences.

        Args:
            index: The sequences.
            place: Their times between events.
            keep: How much of the old still counts.
        """
        gaps = np.maximum(place - self.last[index], 0.0)
        self._count[index] = self._count[index] * keep + (gaps > 0)
        self._sum[index] = self._sum[index] * keep + gaps
        self._squares[index] = self._squares[index] * keep + gaps * gaps
        self._longest[index] = np.maximum(self._longest[index] * keep, gaps)
        self.last[index] = place

    def move(self, before: _Index, after: _Index) -> None:
        """Let some sequences go on under other indices."""
        for values in (self.last, self._count, self._sum, self._squares, self._longest):
            values[after] = values[before]

    def limit(self) -> _Numbers:
        """Return the longest unsuspicious silence, by index; infinite until enough was seen."""
        settings = self._settings
        mean = np.divide(
            self._squares, self._sum, out=np.zeros_like(self._sum), where=self._sum > 0
        )
        limit = np.maximum(settings.mean_multiple * mean, settings.longest_multiple * self._longest)
        return np.where(self._count >= settings.gaps_min, limit, np.inf)

    def longest(self) -> _Numbers:
        """Return the longest gap of late, by index; infinite until enough was seen."""
        return np.where(self._count >= self._settings.gaps_min, self._longest, np.inf)


class Staleness:
    """Watches all streams of the process. Pure: times are passed in, ns since the epoch."""

    def __init__(self, settings: StalenessSettings | None = None) -> None:
        self._settings = settings or StalenessSettings()
        self._classes = tuple(ROW_CLASSES)  # an instrument has a stream of each
        self._streams = _Gaps(self._settings)  # by time
        self._by_others = _Gaps(self._settings)  # by events of the symbol's other channels
        self._connections = _Gaps(self._settings)  # by time, of all their streams together
        self._connection = np.zeros(0, np.int64)  # of each stream; _NONE = not watched
        self._probed = np.zeros(0)  # when each stream was probed, s; 0 = not
        self._events = np.zeros(0)  # events of each stream
        self._reconnected = np.zeros(0, np.bool_)  # a reconnect was tried since it last spoke
        self._look_s = np.zeros(0)  # between looks at a silent stream; 0 = not silent
        self._answered = np.zeros(0, np.bool_)  # the rows that a subscription brings have come
        self._epoch_ns = 0  # times are floats of seconds from here: exact to a microsecond

    def watch(
        self, connection: int, row_class: RowClass, instruments: Sequence[int], now_ns: int
    ) -> None:
        """Count the silence of streams from now on; what was learned of a stream before is kept.

        Args:
            connection: Number of the connection that subscribed to them.
            row_class: Class of their rows.
            instruments: Their instruments.
            now_ns: Monotonic time in ns.
        """
        if not len(instruments):
            return
        self._epoch_ns = self._epoch_ns or now_ns
        streams = self._numbers(row_class, np.asarray(instruments, np.int64))
        self._fit(int(streams.max()) + 1)
        now = self._seconds(now_ns)
        self._connection[streams] = connection
        self._connections.fit(connection + 1)
        self._connections.last[connection] = now
        self._probed[streams[self._look_s[streams] == 0]] = 0.0
        self._streams.last[streams] = now
        self._by_others.last[streams] = self._others()[streams]

    def unwatch(self, connection: int) -> None:
        """The connection ended: nothing is expected of its streams until `watch`."""
        self._connection[self._connection == connection] = _NONE

    def forget(self, row_class: RowClass, instruments: Sequence[int]) -> None:
        """Nothing is expected of these streams any more: the venue refuses them."""
        streams = self._numbers(row_class, np.asarray(instruments, np.int64))
        self._connection[streams[streams < len(self._connection)]] = _NONE

    def heard(
        self, row_class: RowClass, instruments: NDArray[np.int64], heard_ns: NDArray[np.int64]
    ) -> list[int]:
        """Learn that streams spoke; return the instruments of those that were marked silent.

        Args:
            row_class: the class of the streams' rows.
            instruments: int64[n], instrument numbers, each once.
            heard_ns: int64[n], when each spoke last, ns of the clock of `check`.
        """
        if not len(instruments):
            return []
        self._epoch_ns = self._epoch_ns or int(heard_ns[0])
        streams = self._numbers(row_class, instruments)
        times = (heard_ns - self._epoch_ns) / SECOND
        self._fit(int(streams.max()) + 1)
        is_answer = self._take_answers(streams)
        if is_answer.any():
            spoke = ~is_answer
            streams, times, instruments = streams[spoke], times[spoke], instruments[spoke]
            if not len(streams):
                return []
        was_silent = self._look_s[streams] > 0
        self._streams.last[streams[was_silent]] = times[was_silent]  # a halt is no usual gap
        before = np.minimum(self._streams.last[streams] - times.max(), 0.0)
        keep = np.exp2(before / self._settings.half_life_s)
        of_symbol = self._events.reshape(-1, len(self._classes))[instruments].sum(axis=1)
        self._by_others.learn(streams, of_symbol - self._events[streams], keep)
        self._learn_connections(streams, times)
        self._streams.learn(streams, times, keep)
        self._events[streams] += 1.0
        self._probed[streams] = 0.0
        self._reconnected[streams] = False
        self._look_s[streams] = 0.0
        spoke_again: list[int] = instruments[was_silent].tolist()
        return spoke_again

    def _learn_connections(self, streams: _Index, times: _Numbers) -> None:
        """Learn how long connections are silent altogether."""
        watched = self._connection[streams] != _NONE
        last = np.full(len(self._connections.last), -np.inf)
        np.maximum.at(last, self._connection[streams[watched]], times[watched])
        heard = np.flatnonzero(last > self._connections.last)
        silence = last[heard] - self._connections.last[heard]
        keep = np.exp2(-silence / self._settings.half_life_s)
        self._connections.learn(heard, last[heard], keep)

    def _take_answers(self, streams: _Index) -> NDArray[np.bool_]:
        """Tell which of these streams only answered a subscription of ours."""
        asked = (self._probed[streams] > 0) | (self._look_s[streams] > 0)
        asked |= self._reconnected[streams]
        is_answer: NDArray[np.bool_] = asked & ~self._answered[streams]
        self._answered[streams[is_answer]] = True
        return is_answer

    def check(self, now_ns: int) -> list[Suspect]:
        """Return the streams that should have spoken, and what to do about each.

        now_ns: ns of a clock that is never set.
        """
        settings, now = self._settings, self._seconds(now_ns)
        watched = np.flatnonzero((self._connection != _NONE) & (self._look_s == 0))
        suspects = self._looks(now)
        if not len(watched):
            return suspects
        silence = now - self._streams.last[watched]
        usual = self._streams.limit()[watched]
        by_time = np.maximum(usual, settings.floor_s)
        is_quiet = by_time > settings.ceiling_s
        unheard = self._others()[watched] - self._by_others.last[watched]
        by_others = unheard > self._by_others.limit()[watched]
        limit = np.where(is_quiet & by_others, settings.ceiling_s, by_time)
        can_judge = ~is_quiet | by_others
        dead = self._dead_connections(watched, usual, now)
        stale = (can_judge & (silence > limit)) | (dead & np.isfinite(usual))
        probed = self._probed[watched]
        due = np.where(probed > 0, now - probed > np.minimum(limit, settings.ceiling_s), True)
        for at in np.flatnonzero(stale & (due | dead)).tolist():
            stream = int(watched[at])
            action = self._action(stream, now, is_dead=bool(dead[at]))
            suspects.append(self._suspect(stream, float(silence[at]), action))
        return suspects

    def _action(self, stream: int, now: float, *, is_dead: bool) -> Action:
        """Decide what is done about a suspected stream, and note that it is."""
        probed_s = float(self._probed[stream])
        self._answered[stream] = False
        if not is_dead and not probed_s:
            self._probed[stream] = now
            return Action.PROBE
        neighbors = self._connection == self._connection[stream]
        neighbors[stream] = False
        others_spoke = bool((self._streams.last[neighbors] > probed_s).any())
        self._probed[stream] = 0.0
        if self._reconnected[stream] or (not is_dead and others_spoke):
            self._look_s[stream] = self._settings.silent_look_s
            self._probed[stream] = now  # the time of the last look from here on
            return Action.SILENT
        self._reconnected[stream] = True
        self._streams.last[stream] = now  # judged anew from here, on the new connection
        return Action.RECONNECT

    def _looks(self, now: float) -> list[Suspect]:
        """Return the silent streams that are due for a look."""
        silent = np.flatnonzero((self._connection != _NONE) & (self._look_s > 0))
        due = silent[now - self._probed[silent] >= self._look_s[silent]]
        self._probed[due] = now
        self._answered[due] = False
        self._look_s[due] = np.minimum(self._look_s[due] * 2, self._settings.silent_look_max_s)
        silence = now - self._streams.last[due]
        return [
            self._suspect(stream, float(silence_s), Action.LOOK)
            for stream, silence_s in zip(due.tolist(), silence.tolist(), strict=True)
        ]

    def silent(self) -> list[tuple[int, RowClass]]:
        """Return instrument and class of each stream that is marked silent."""
        streams = np.flatnonzero((self._connection != _NONE) & (self._look_s > 0)).tolist()
        return [self._named(stream) for stream in streams]

    def replace_instruments(self, numbers: Mapping[int, int]) -> None:
        """Move what is known of instruments to their new revisions. numbers: old -> new."""
        if not numbers:
            return
        width = len(self._classes)
        self._fit((max(numbers.values()) + 1) * width)
        for old, new in numbers.items():
            before = np.arange(old * width, min((old + 1) * width, len(self._probed)))
            after = before + (new - old) * width
            self._streams.move(before, after)
            self._by_others.move(before, after)
            for values in (
                *(self._connection, self._probed, self._events),
                *(self._reconnected, self._look_s, self._answered),
            ):
                values[after] = values[before]
            self._connection[before] = _NONE
            self._look_s[before] = 0.0

    def paused(self, duration_ns: int) -> None:
        """We did not read the sockets for so long: it is nobody's silence."""
        duration = duration_ns / SECOND
        self._streams.last += duration
        self._connections.last += duration
        self._probed[self._probed > 0] += duration

    def limit_s(self, row_class: RowClass, instrument: int) -> float:
        """Return the silence at which a stream is suspected by time; infinite: never."""
        stream = instrument * len(self._classes) + self._classes.index(row_class)
        if stream >= len(self._probed):
            return float("inf")
        limit = max(float(self._streams.limit()[stream]), self._settings.floor_s)
        return limit if limit <= self._settings.ceiling_s else float("inf")

    def _dead_connections(self, watched: _Index, usual: _Numbers, now: float) -> NDArray[np.bool_]:
        """Return, for each watched stream, whether its whole connection must be dead.

        usual: the streams' limits, which say how fast they speak. The slower symbols of the
        connection together, without the fastest (its silence may be its own: a halt), should have
        spoken 25 times by now; and it was never silent for a third of that. Channels of a symbol
        speak together: the fastest counts.
        """
        settings, of_stream = self._settings, self._connection[watched]
        symbols, rates = watched // len(self._classes), 2 * settings.mean_multiple / usual
        is_first = (np.diff(symbols, prepend=_NONE) != 0) | (np.diff(of_stream, prepend=_NONE) != 0)
        first = np.flatnonzero(is_first)
        rates, of_symbol = np.maximum.reduceat(rates, first), of_stream[first]
        total = np.bincount(of_symbol, rates)
        fastest, last = np.zeros(len(total)), np.full(len(total), -np.inf)
        np.maximum.at(fastest, of_symbol, rates)
        np.maximum.at(last, of_stream, self._streams.last[watched])
        silence = np.where(np.isneginf(last), 0.0, now - last)  # -inf: a number without streams
        usual_silence = settings.longest_multiple * self._connections.longest()[: len(total)]
        dead = (silence > np.maximum(usual_silence, settings.floor_s)) & (
            (total - fastest) * silence > 2 * settings.mean_multiple
        )
        return dead[of_stream]

    def _others(self) -> _Numbers:
        """Return, by stream, the events so far of its symbol's other channels."""
        by_symbol = self._events.reshape(-1, len(self._classes))
        others: _Numbers = by_symbol.sum(axis=1, keepdims=True) - by_symbol
        return others.ravel()

    def _numbers(self, row_class: RowClass, instruments: _Index) -> _Index:
        """Return the numbers of the instruments' streams of a class."""
        return instruments * len(self._classes) + self._classes.index(row_class)

    def _named(self, stream: int) -> tuple[int, RowClass]:
        """Return the instrument and the class of a stream."""
        instrument, place = divmod(stream, len(self._classes))
        return instrument, self._classes[place]

    def _suspect(self, stream: int, silence_s: float, action: Action) -> Suspect:
        return Suspect(*self._named(stream), silence_s, action)

    def _seconds(self, ns: int) -> float:
        return (ns - self._epoch_ns) / SECOND

    def _fit(self, streams: int) -> None:
        width = len(self._classes)
        streams = -(-streams // width) * width
        missing = streams - len(self._probed)
        if missing > 0:
            missing = max(missing, len(self._probed))  # doubling
            missing += -missing % width
            size = len(self._probed) + missing
            self._streams.fit(size)
            self._by_others.fit(size)
            none = np.full(missing, _NONE, np.int64)
            self._connection = np.concatenate([self._connection, none])
            self._probed = np.concatenate([self._probed, np.zeros(missing)])
            self._events = np.concatenate([self._events, np.zeros(missing)])
            self._reconnected = np.concatenate([self._reconnected, np.zeros(missing, np.bool_)])
            self._look_s = np.concatenate([self._look_s, np.zeros(missing)])
            self._answered = np.concatenate([self._answered, np.zeros(missing, np.bool_)])
