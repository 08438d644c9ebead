"""Websocket transports behind one small interface."""
