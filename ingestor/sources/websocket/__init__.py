"""Turn bytes of a websocket connection into whole messages, and messages into bytes."""
