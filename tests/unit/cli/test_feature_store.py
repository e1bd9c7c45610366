from __future__ import annotations

import pytest

from musicrec.cli.feature_store import feature_store
from musicrec.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which dataset"),
        (["apply"], "which dataset"),
        (["datset=mine", "apply"], "unknown setting 'datset' .did you mean 'dataset'"),
        (["dataset=mine", "show_secrets=yes"], "show_secrets=yes is neither true nor false"),
    ],
)
def test_settings_that_cannot_work_are_named(arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        feature_store(arguments)
