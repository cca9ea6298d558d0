"""What every room may know: ids, errors, codecs, limits, time as a value, and the two shapes of logic."""
