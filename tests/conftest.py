"Shared fixtures: real data is used where `HMIX_DATA` names it, and its absence is said."
import os
import pytest
from hypothesis import settings

settings.register_profile('same', derandomize=True) # a failure can be had again, on any machine
settings.load_profile('same')

@pytest.fixture(scope='session')
def hub():
    "The hub on the released data; skips where `HMIX_DATA` is not set."
    if not os.environ.get('HMIX_DATA'): pytest.skip('HMIX_DATA is not set: the released data is not at hand')
    from hmix_nb.data.hub import DataHub
    return DataHub()
