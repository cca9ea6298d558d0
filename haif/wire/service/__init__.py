"""The door of the wire: dial peers, listen for them, call and be called, over real sockets."""

from haif.wire.service.api import Call, Handler, StreamHandler
from haif.wire.service.session import Session, Stream, Taking
from haif.wire.service.statistics import WireStatistics
from haif.wire.service.wire import Wire

__all__ = ["Call", "Handler", "Session", "Stream", "StreamHandler", "Taking", "Wire", "WireStatistics"]
