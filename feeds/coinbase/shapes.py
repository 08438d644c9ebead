"""The texts of frequent frames: one event each, with and without the `client_id` of the document.

A message with several events, a snapshot, and one whose number was not expected go to `decode`.
"""

from __future__ import annotations

from typing import Final

from ingestor.adapter import RowClass, shape

_LEVEL: Final = (
    '{"side":"<side:bid=1|offer=2>","event_time":"<iso:ts_event>","price_level":"<price>",'
    '"new_quantity":"<size>"}<level>'
)
# The aggressor is the other side than the maker's, which the venue names.
_NUMBERS: Final = '"price":"<price:price>","size":"<size:size>"'
_TRADE: Final = (
    f'{{"product_id":"<symbol>","trade_id":"<int:sequence,trade_id_low>",{_NUMBERS},'
    '"time":"<iso:ts_event>","side":"<side:BUY=2|SELL=1>"}<row>'
)


def _message(channel: str, client: str, number: str, event: str) -> str:
    return (
        f'{{"channel":"{channel}",{client}"timestamp":"<text>","sequence_num":{number},'
        f'"events":[{{"type":"update",{event}}}]}}'
    )


SHAPES: Final = tuple(
    message
    for client in ("", '"client_id":"",')
    for message in (
        shape(
            RowClass.LEVEL,
            _message(
                "l2_data",
                client,
                "<next:first,last>",
                f'"product_id":"<symbol>","updates":<[>{_LEVEL}<]>',
            ),
        ),
        shape(
            RowClass.TRADE,
            _message("market_trades", client, "<next>", f'"trades":<[>{_TRADE}<]>'),
            newest_first=True,
        ),
    )
)
