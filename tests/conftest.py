"""What holds for all tests."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # the first example of a busy worker may import a framework
settings.load_profile("untimed")
