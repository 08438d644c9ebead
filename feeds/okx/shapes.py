"""The texts of frequent frames. A quote with an empty side goes to the adapter's `decode`."""

from __future__ import annotations

from typing import Final

from ingestor.adapter import RowClass, shape

_LEVEL: Final = '["<price>","<size>","<text>","<text>"]'
_BEST: Final = '[["<price:{side}_price>","<size:{side}_size>","<text>","<text>"]]'
_TRADE: Final = (
    '{"arg":{"channel":"trades","instId":"<symbol>"},"data":<[>'
    '{"instId":"<text>","tradeId":"<int:sequence,trade_id_low>","px":"<price:price>",'
    '"sz":"<size:size>","side":"<side:buy=1|sell=2>","ts":"<ms:ts_event>","count":"1"'
)
SHAPES: Final = (
    *(
        shape(
            RowClass.TRADE,
            _TRADE + more + "<row><]>}",
        )
        for more in (',"source":"0","seqId":<n>}', ',"source":"0"}', "}")
    ),
    shape(
        RowClass.QUOTE,
        '{"arg":{"channel":"bbo-tbt","instId":"<symbol>"},"data":<[>{"asks":'
        + _BEST.format(side="ask")
        + ',"bids":'
        + _BEST.format(side="bid")
        + ',"ts":"<ms:ts_event>","seqId":<int:sequence>}<row><]>}',
    ),
    shape(
        RowClass.LEVEL,
        '{"arg":{"channel":"books","instId":"<symbol>"},"action":"update","data":<[>{"asks":<[*>'
        + _LEVEL
        + '<level:asks><]>,"bids":<[*>'
        + _LEVEL
        + '<level:bids><]>,"ts":"<ms:ts_event>","checksum":0,"seqId":<int:first,last>,'
        '"prevSeqId":<int:previous>}<row><]>}',
    ),
)
