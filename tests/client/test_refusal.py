"""A refused connection is recognised under whatever wraps it."""

from __future__ import annotations

import pytest

from meshaware.client.refusal import was_refused


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def nested(depth: int) -> BaseException:
    error: BaseException = ConnectionRefusedError()
    for _ in range(depth):
        error = caused(OSError("all attempts failed"), error)
    return error


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (None, False),
        (ConnectionRefusedError(), True),
        (OSError("no route to host"), False),
        (nested(3), True),
        # Nobody wraps this deep; a chain that goes in circles must end too.
        (nested(9), False),
        (
            caused(OSError(), ExceptionGroup("two addresses", [ConnectionRefusedError(), ConnectionRefusedError()])),
            True,
        ),
        (caused(OSError(), ExceptionGroup("two addresses", [TimeoutError(), ConnectionRefusedError()])), False),
    ],
)
def test_the_socket_s_own_error_decides(error: BaseException | None, *, refused: bool) -> None:
    """Through causes and groups."""
    assert was_refused(error) is refused


def test_an_error_that_was_raised_while_handling_another_counts() -> None:
    """The context is looked at where there is no cause."""
    with pytest.raises(OSError, match="later") as caught:
        try:
            raise ConnectionRefusedError
        except ConnectionRefusedError:
            raise OSError("later")  # noqa: B904
    assert was_refused(caught.value)
