from haif.base.clock import Instant
from haif.engine.meter import Meter


def test_rates_are_of_the_last_seconds_and_totals_of_all_time():
    meter = Meter()
    for second in range(100):
        meter.add(Instant(second), 4, 6)
    assert (100, 400) == (meter.steps, meter.completion_tokens)
    assert (24 / 5, 6.0) == meter.rates(Instant(99.0))
    assert (0.0, 0.0) == meter.rates(Instant(1000.0))
