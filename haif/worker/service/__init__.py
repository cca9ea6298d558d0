"""The worker's door: its offers, pulses and answers, the pool of its models, and the socket its operator speaks to."""

from haif.worker.service.control import ask, controlled
from haif.worker.service.entry import Opener, Served, Variant
from haif.worker.service.pool import Pool
from haif.worker.service.worker import Worker, WorkerSettings, generate

__all__ = ["Opener", "Pool", "Served", "Variant", "Worker", "WorkerSettings", "ask", "controlled", "generate"]
