"""Generated tests have no deadline: machines under test are shared and slow."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
