"""The errors: one tree, and each survives a pickle, as queues and process pools need."""

from __future__ import annotations

import inspect
import pickle

import pytest

from meshaware import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_each_error_is_in_the_tree_that_the_module_draws(error: type[Exception]) -> None:
    """The drawing in the docstring names every class; all stand under MeshawareError."""
    assert error.__name__ in (errors.__doc__ or "")
    assert issubclass(error, errors.MeshawareError)
    assert inspect.getdoc(error)


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_each_error_survives_a_pickle(error: type[Exception]) -> None:
    """Type, message and details come back."""
    raised = error("what happened")
    back = pickle.loads(pickle.dumps(raised))
    assert type(back) is error
    assert str(back) == "what happened"


def test_an_unavailable_sidecar_keeps_its_cause() -> None:
    """The cause is data, so nobody parses the message."""
    back = pickle.loads(pickle.dumps(errors.SidecarUnavailable("refused", "refused")))
    assert back.cause == "refused"


@pytest.mark.parametrize("error", [errors.SettingsError, errors.RouteError, errors.ManifestError])
def test_bad_input_is_a_value_error_too(error: type[Exception]) -> None:
    """`except ValueError` catches it."""
    assert issubclass(error, ValueError)
