"""What holds for every test: a machine that is busy makes none fail."""

from hypothesis import settings

settings.register_profile("haif", deadline=None)
settings.load_profile("haif")
