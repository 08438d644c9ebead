"""The texts of frequent frames. A trade against RPI orders goes to the adapter's `decode`."""

from __future__ import annotations

from ingestor.adapter import CompiledShape, RowClass, level_pairs, shape


def shapes(kind: str) -> tuple[CompiledShape, ...]:
    """Return the shapes of a market, the most frequent first. kind: its `instType`."""
    head = f'{{"action":"update","arg":{{"instType":"{kind}","topic":'
    trade = (
        f'{head}"publicTrade","symbol":"<symbol>"}},"data":<[>{{"i":"<int:sequence,trade_id_low>",'
        '"p":"<price:price>","v":"<size:size>","S":"<side:sell=2|buy=1>","T":"<ms:ts_event>"'
    )
    book = (
        f'{head}"books","symbol":"<symbol>"}},"data":<[>{{"a":{level_pairs("asks")},'
        f'"b":{level_pairs("bids")},"checksum":<number>,"seq":<int:first,last>,'
        '"pseq":<int:previous>,"ts":"<ms:ts_event>"}<row><]>,"ts":<n>}'
    )
    return (
        *(
            shape(RowClass.TRADE, f'{trade}{more}}}<row><]>,"ts":<n>}}', newest_first=True)
            for more in (',"L":"<text>","isRPI":"no"', ',"L":"<text>"', "")
        ),
        shape(RowClass.LEVEL, book),
    )
