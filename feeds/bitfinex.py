"""Bitfinex, spot and perpetuals: trades and books of 250 levels; quotes are their best levels.

Reference: Bitfinex API docs v2: WebSocket "Public Channels" (Trades, Books), "General" (Info
messages, Flags), "WebSocket Checksum", REST "Configs" (pub:info:pair, pub:info:pair:futures).
Units: prices and amounts are bare JSON numbers, times are milliseconds.
Traps:
- Data are arrays that begin with a number of the channel (chanId), which the answer to its
  subscription gives. Unsubscribing names that number.
- The sign of an amount is the side: above 0 the taker bought, or it is a bid. A level is price,
  orders, amount; 0 orders remove it, and the amount is then 1 for bids, -1 for asks.
- Levels are joined to five significant digits (P0). `ticker` has the sum of 25 levels as its
  sizes: it is no quote.
- Each trade comes as `te` and again as `tu`: the first counts.
- A checksum comes in a message of its own: the CRC32 of the 25 best levels a side in turns,
  amounts of asks below 0, as JavaScript writes numbers. Times come with the flag TIMESTAMP, at the
  end.
- `status` of a contract has mark and spot price, funding accrued for the next exchange and that of
  the current eight hours, and open interest in base.
- Info 20051 and 20061 want a new connection. UST is USDT.
- A list has no increments: prices have at most five significant digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, ClassVar, Final
from zlib import crc32

import msgspec
import orjson

from ingestor.adapter import (
    MILLISECOND,
    Ack,
    BookRule,
    ColumnBuffer,
    Continuity,
    Contract,
    Control,
    DecimalLevels,
    DecodeError,
    Endpoint,
    FeedAdapter,
    Filtered,
    Flag,
    FundingState,
    Instrument,
    InterestUnit,
    Limits,
    Listing,
    Market,
    Notice,
    PlainFeed,
    Reconnect,
    Refused,
    RestLimit,
    RestRequest,
    Side,
    TradeNumbers,
    UnknownMessage,
    VenueError,
    add_funding,
    add_mark_price,
    add_open_interest,
    instrument,
    time_ns,
    unsigned,
    whole_number,
)

_CHANNELS: Final = {
    "trades": "trades",
    "quotes": "book",
    "book": "book",
    "funding": "status",
    "mark_price": "status",
    "open_interest": "status",
}
_STANDARD: Final = frozenset({"trades", "quotes", "book"})
_OF_MARKET: Final = {"spot": _STANDARD, "derivatives": frozenset(_CHANNELS)}
_STATUS_KEY: Final = "deriv:t"
# Where the status of a contract has these.
_SPOT, _DUE, _ACCRUED, _CURRENT, _MARK, _INTEREST = 3, 7, 8, 11, 14, 17
_FLAGS: Final = 32_768 + 131_072  # TIMESTAMP, OB_CHECKSUM
_CONFIGURE: Final = orjson.dumps({"event": "conf", "flags": _FLAGS})
_BOOK: Final = {"prec": "P0", "freq": "F0", "len": "250"}
_LISTS: Final = {"spot": "pub:info:pair", "derivatives": "pub:info:pair:futures"}
_RECONNECT: Final = frozenset({20_051, 20_061})
_DUPLICATE: Final = 10_301  # of a refusal: it is subscribed to already
_SECOND_TIME: Final = Filtered("tu", duplicate=True)
_LEFT_OUT: Final = Filtered("other_channel")
_TIMES_MIN: Final = 10**12  # numbers behind the data: of a message, smaller; a time in ms
_DEPTH: Final = 250
_CHECKED: Final = 25
_ALIASES: Final = {"UST": "USDT", "USTF0": "USDT", "EUT": "EURT"}
_SMALLEST: Final = 3  # where a pair's facts have the size of the smallest order
_ORDER: Final = re.compile(r"\d{1,12}(\.\d{1,12})?", re.ASCII)
_PLAIN_PAIR: Final = 6
_CODE: Final = 3
# Decimals that hold five significant digits of the cheapest coins; fewer where coins cost millions.
_PRICE_PLACES: Final = 12
_CHEAP_PLACES: Final = 8
_CHEAP_QUOTES: Final = frozenset({"JPY", "TRY", "KRW", "IDR", "INR", "VND", "COP", "ARS"})
_SIZE_LOT: Final = "0.00000001"
_EXPONENT_BELOW: Final = 6  # zeros behind the point from which JavaScript writes an exponent


def book_checksum(bids: DecimalLevels, asks: DecimalLevels) -> int:
    """Return the CRC32 of a book's 25 best levels a side, bids and asks in turns."""
    parts: list[str] = []
    for bid, ask in zip_longest(bids[:_CHECKED], asks[:_CHECKED]):
        if bid is not None:
            parts += (script_number(bid[0]), script_number(bid[1]))
        if ask is not None:
            parts += (script_number(ask[0]), f"-{script_number(ask[1])}")
    return crc32(":".join(parts).encode())


def script_number(text: str) -> str:
    """Return a decimal as JavaScript writes it: below 0.000001 with an exponent."""
    if not text.startswith("0.000000"):
        return text
    digits = text[2:].lstrip("0")
    zeros = len(text) - 2 - len(digits)
    if zeros < _EXPONENT_BELOW:
        return text
    mantissa = f"{digits[0]}.{digits[1:]}" if len(digits) > 1 else digits
    return f"{mantissa}e-{zeros + 1}"


class _Event(msgspec.Struct, rename="camel", gc=False):
    event: str
    channel: str = ""
    symbol: str = ""
    chan_id: int = 0
    code: int = 0
    msg: Any = ""
    prec: str = "P0"
    key: str = ""


_parse: Final = msgspec.json.Decoder(list[Any], float_hook=str).decode
_parse_event: Final = msgspec.json.Decoder(_Event).decode


def _market(name: str) -> Market:
    return Market(
        endpoints=(Endpoint("wss://api-pub.bitfinex.com/ws/2", _OF_MARKET[name]),),
        rest_url="https://api-pub.bitfinex.com",
        limits=Limits(
            streams_per_connection=24,  # 25 are allowed
            streams_per_subscribe=1,
            connects_per_s=0.3,  # 20 a minute
            connects_burst=2,
            requests_per_s=5.0,
            rest=RestLimit(weight_per_s=0.5, weight_burst=5),
            ping_interval_s=20.0,
        ),
        book=BookRule(
            Continuity.NONE,
            depth_max=_DEPTH,
            checksum_of_decimals=book_checksum,
            checksum_depth=_CHECKED,
            checks_apart=True,
            quotes_from_book=True,
        ),
        trade_numbers=TradeNumbers.ASCENDING,
    )


class Bitfinex(PlainFeed):
    venue: ClassVar[str] = "bitfinex"
    reference: ClassVar[str] = "Bitfinex API docs v2, read 2026-11-30"
    markets: ClassVar[Mapping[str, Market]] = {name: _market(name) for name in _LISTS}

    def __init__(self, market: str, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._channels: dict[int, str] = {}  # streams, "" of others, by the venue's number

    def stream(self, channel: str, symbol: str) -> str:
        return f"{_CHANNELS[channel]}:{symbol}"

    def subscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        yield _CONFIGURE
        for stream in streams:
            channel, _, symbol = stream.partition(":")
            request = {"event": "subscribe", "channel": channel}
            if channel == "status":
                request["key"] = f"{_STATUS_KEY}{symbol}"
            else:
                request["symbol"] = f"t{symbol}"
            yield orjson.dumps(request | (_BOOK if channel == "book" else {}))

    def unsubscribe(self, streams: Sequence[str]) -> Iterator[bytes]:
        """Name the numbers of these streams. What was never confirmed has none."""
        numbers = {stream: number for number, stream in self._channels.items()}
        for stream in streams:
            if stream in numbers:
                yield orjson.dumps({"event": "unsubscribe", "chanId": numbers[stream]})

    def ping(self) -> bytes | None:
        return b'{"event":"ping"}'

    def decode(self, payload: bytes, ts_recv: int, out: ColumnBuffer) -> Control | None:
        """Append the rows of a frame, or return what else it was.

        Args:
            payload: The frame's bytes.
            ts_recv: Time of receipt in ns.
            out: Takes the rows.
        """
        if payload[:1] == b"{":
            return self._event(_parse_event(payload))
        message = _parse(payload)
        number, content = message[0], message[1]
        if content == "hb":
            return Notice.HEARTBEAT
        stream = self._channels.get(number) if type(number) is int else None
        if stream is None:
            raise DecodeError(self.venue, f"channel {number!r:.40} was not confirmed")
        if not stream:
            return _LEFT_OUT
        channel, _, symbol = stream.partition(":")
        instrument_number = self._symbols[symbol]
        if channel == "status":
            _append_status(content, instrument_number, ts_recv, out)
            return None
        if channel == "trades":
            return _append_trades(message, instrument_number, ts_recv, out)
        _append_levels(message, instrument_number, ts_recv, out)
        return None

    def _event(self, event: _Event) -> Control:
        name, begin = (event.key, _STATUS_KEY) if event.channel == "status" else (event.symbol, "t")
        symbol = name.removeprefix(begin)
        is_pair = name.startswith(begin) or event.event == "error"  # else funding, liq:global
        is_known = event.channel in _CHANNELS.values() and is_pair
        stream = f"{event.channel}:{symbol}" if is_known else ""
        match event.event:
            case "subscribed":
                is_ours = stream and event.prec == _BOOK["prec"]
                self._channels[event.chan_id] = stream if is_ours else ""
                return Ack((stream,)) if is_ours else Notice.INFO
            case "unsubscribed":
                self._channels.pop(event.chan_id, None)
                return Notice.INFO
            case "error":
                named = (stream,) if stream and symbol else ()
                if event.code == _DUPLICATE and named:
                    return Ack(named)
                return Refused(f"{event.code} {event.msg}", named)
            case "info" if event.code in _RECONNECT:
                return Reconnect(f"{event.code} {event.msg}")
            case "info" | "conf":
                return Notice.INFO
            case "pong":
                return Notice.HEARTBEAT
        raise UnknownMessage(self.venue, f"event {event.event!r:.60}")

    def streams_of(self, payload: bytes) -> Sequence[str]:
        stream = self._channels.get(orjson.loads(payload)[0], "")
        return (stream,) if stream else ()

    @classmethod
    def is_of_market(cls, market: str, symbol: str) -> bool:
        return ("F0:" in symbol) == (market == "derivatives")

    @classmethod
    def instrument_requests(cls, market: str) -> Sequence[RestRequest]:
        return [RestRequest(f"/v2/conf/{_LISTS[market]}")]

    @classmethod
    def instrument_entries(cls, market: str, body: bytes) -> Iterable[Any]:
        answer = orjson.loads(body)
        if answer[0] == "error":
            raise VenueError(cls.venue, str(answer[1]), str(answer[2]), temporary=True)
        if not answer[0]:
            raise ValueError("no list of pairs")
        return [{"pair": pair, "smallest": facts[_SMALLEST]} for pair, facts in answer[0]]

    @classmethod
    def listing(cls, market: str, entry: Any) -> Listing | None:
        return Listing(entry["pair"], trading=True, status="listed")

    @classmethod
    def parse_instrument(cls, market: str, entry: Any) -> Instrument:
        pair = entry["pair"]
        if not _ORDER.fullmatch(entry["smallest"]):
            raise ValueError(f"the smallest order is {entry['smallest']!r:.40}")
        if ":" in pair:
            base, _, quote = pair.partition(":")
        elif len(pair) == _PLAIN_PAIR:
            base, quote = pair[:_CODE], pair[_CODE:]
        else:
            raise ValueError(f"{pair!r:.40} is no pair")
        is_perpetual = market == "derivatives"
        if is_perpetual:
            base = base.removesuffix("F0")
        base, quote = _ALIASES.get(base, base), _ALIASES.get(quote, quote)
        places = _CHEAP_PLACES if quote in _CHEAP_QUOTES else _PRICE_PLACES
        return instrument(
            cls.venue,
            market,
            pair,
            f"{base}-{quote}{'-PERP' if is_perpetual else ''}".upper(),
            base,
            quote,
            f"0.{'1':0>{places}}",
            _SIZE_LOT,
            contract=Contract.PERPETUAL if is_perpetual else Contract.SPOT,
            settlement=quote,
        )


def _append_trades(
    message: list[Any], number: int, ts_recv: int, out: ColumnBuffer
) -> Control | None:
    """Append the trades of a snapshot, newest first there, or one that was executed."""
    kind = message[1]
    if kind == "tu":
        return _SECOND_TIME
    if kind == "te":
        trades, flags = [message[2]], int(Flag.LAST)
    elif isinstance(kind, list):
        trades, flags = kind[::-1], int(Flag.LAST | Flag.SNAPSHOT)
    else:
        raise UnknownMessage("bitfinex", f"kind {kind!r:.60} of trades")
    for identifier, time, amount, price in trades:
        size, is_sold = unsigned(amount)
        trade_id = whole_number(identifier)
        out.add_trade(
            number,
            time_ns(time),
            ts_recv,
            trade_id,
            price,
            size,
            int(Side.ASK if is_sold else Side.BID),
            trade_id,
            flags=flags,
        )
    return None


def _append_status(status: Any, number: int, ts_recv: int, out: ColumnBuffer) -> None:
    """Append what the status of a contract says: an array whose places have meanings."""
    time = time_ns(status[0])
    mark, index = status[_MARK], status[_SPOT]
    if mark is not None or index is not None:
        add_mark_price(out, number, ts_recv, mark_price=mark, index_price=index, ts_event=time)
    if status[_ACCRUED] is not None:
        due_ns = None if status[_DUE] is None else time_ns(status[_DUE])
        rate = status[_ACCRUED]
        add_funding(out, number, ts_recv, rate=rate, due_ns=due_ns, ts_event=time)
    if status[_CURRENT] is not None:
        rate, state = status[_CURRENT], FundingState.SETTLED
        add_funding(out, number, ts_recv, rate=rate, state=state, ts_event=time)
    if status[_INTEREST] is not None:
        value, unit = status[_INTEREST], InterestUnit.BASE
        add_open_interest(out, number, ts_recv, value=value, unit=unit, ts_event=time)


def _append_levels(message: list[Any], number: int, ts_recv: int, out: ColumnBuffer) -> None:
    """Append an image, a change of one level, or a checksum of what the book is now."""
    content = message[1]
    checksum: int | None = None
    levels: list[Any] = []
    flags = 0
    if content == "cs":
        checksum = message[2] & 0xFFFFFFFF
    elif not isinstance(content, list):
        raise UnknownMessage("bitfinex", f"kind {content!r:.60} of a book")
    elif content and not isinstance(content[0], list):
        levels = [content]
    else:
        levels, flags = content, int(Flag.SNAPSHOT | Flag.PARTIAL)
    bids: list[tuple[Any, Any]] = []
    asks: list[tuple[Any, Any]] = []
    for price, count, amount in levels:
        size, is_ask = unsigned(amount)
        (asks if is_ask else bids).append((price, size if whole_number(count) else "0"))
    last = message[-1]
    is_timed = type(last) is int and last >= _TIMES_MIN
    time = time_ns(last, MILLISECOND) if is_timed else ts_recv
    flags |= 0 if is_timed else int(Flag.NO_VENUE_TIME)
    out.add_book_update(
        number, time, ts_recv, bids, asks, flags=flags, checksum=checksum, are_pairs=True
    )


adapter: type[FeedAdapter] = Bitfinex
