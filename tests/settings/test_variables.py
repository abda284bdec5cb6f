"""The table of variables."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from meshaware.settings import MeshSettings, Workload
from meshaware.settings.variables import ELSEWHERE, RESOURCE_ATTRIBUTES, VARIABLES


def _fields() -> set[str]:
    own = set(MeshSettings.model_fields) - {"workload"}
    facts = {f"workload.{name}" for name in Workload.model_fields if name != "origins"}
    return own | facts


def test_every_field_has_one_variable() -> None:
    """And every variable fills a field."""
    assert sorted(variable.field for variable in VARIABLES) == sorted(_fields())


def test_every_field_is_an_argument_of_the_same_name() -> None:
    """Keyword-only."""
    parameters = inspect.signature(MeshSettings).parameters
    assert set(parameters) == set(MeshSettings.model_fields)
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_no_name_stands_for_two_fields() -> None:
    """Neither meshaware's own nor a conventional one."""
    names = [name for variable in VARIABLES for name in (variable.name, *variable.conventional)]
    assert len(names) == len(set(names))


def test_no_variable_is_read_that_the_table_does_not_know() -> None:
    """Whoever reads one elsewhere must not have it reported as misspelled."""
    source = Path(inspect.getfile(MeshSettings)).parents[1]
    literals = {name for file in source.rglob("*.py") for name in re.findall(r'"(MESHAWARE_\w+)"', file.read_text())}
    assert literals <= {variable.name for variable in VARIABLES} | set(ELSEWHERE)
    assert set(ELSEWHERE) <= literals


def test_the_name_of_a_variable_follows_from_the_field() -> None:
    """A fact of the workload has two underscores, as pydantic-settings writes nested fields."""
    names = {variable.field: variable.name for variable in VARIABLES}
    assert names["per_try_timeout"] == "MESHAWARE_PER_TRY_TIMEOUT"
    assert names["workload.namespace"] == "MESHAWARE_WORKLOAD__NAMESPACE"


def test_resource_attributes_fill_facts_that_exist() -> None:
    """No attribute leads nowhere."""
    assert {field for _, field in RESOURCE_ATTRIBUTES} <= _fields()
