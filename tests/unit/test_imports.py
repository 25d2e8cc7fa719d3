import gc
import weakref

import pytest

from pipelines.imports import kept


@pytest.fixture(autouse=True)
def _thawed():
    yield
    gc.unfreeze()


def test_what_is_imported_is_out_of_the_search_for_garbage():
    with kept():
        assert not gc.isenabled()
        module = {"its": []}
    assert gc.isenabled() and gc.get_freeze_count() > 0
    assert not any(found is module for found in gc.get_objects())


class Ring:
    def __init__(self) -> None:
        self.itself = self


def test_what_was_garbage_before_is_not_kept():
    gc.disable()
    gone = weakref.ref(Ring())
    assert gone() is not None
    with kept():
        assert gone() is None


def test_the_search_goes_on_after_an_import_that_failed():
    with pytest.raises(ImportError), kept():
        raise ImportError
    assert gc.isenabled()
