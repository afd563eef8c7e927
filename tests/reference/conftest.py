"""One thread, as for the contract tests."""

from tests.contract.conftest import _one_thread  # noqa: F401
