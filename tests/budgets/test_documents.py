"""Kubernetes documents: values that know their lines, and mistakes that are told with theirs."""

from __future__ import annotations

import contextlib
from datetime import datetime
from textwrap import dedent

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets import documents
from meshaware.budgets.documents import Document, Fields, read_documents
from meshaware.errors import ManifestError


def load(text: str, file: str = "routes.yaml") -> list[Fields]:
    return [document.load() for document in read_documents(dedent(text), file) if not document.is_empty]


def test_a_file_has_documents_and_empty_ones_count() -> None:
    """So that the number in a message is the one a person counts."""
    text = "a: 1\n---\n---\n# nothing\n---\nb: 2\n--- ~\n"
    found = list(read_documents(text, "routes.yaml"))
    assert [document.place for document in found] == [f"routes.yaml, document {number}" for number in range(1, 6)]
    assert [document.is_empty for document in found] == [False, True, True, False, True]
    assert found[3].line == 6
    assert list(read_documents("", "routes.yaml")) == []
    assert list(read_documents("# only a comment\n", "routes.yaml")) == []


def test_each_mapping_knows_its_lines() -> None:
    """The line where it begins, and that of each key."""
    (fields,) = load("""
        spec:
          http:
          - name: a
            timeout: 1s
    """)
    rule = fields["spec"]["http"][0]
    assert rule == {"name": "a", "timeout": "1s"}
    assert fields.lines == {"spec": 2}
    assert (rule.line, rule.lines) == (4, {"name": 4, "timeout": 5})


def test_values_are_those_of_yaml() -> None:
    """With its traps: typed reading comes afterwards."""
    (fields,) = load("""
        a: on
        b: 1:30
        c: 012
        d: ~
        e: 1.5
        f: 2024-01-02T03:04:05Z
        g: 'on'
        h: [1, {x: y}]
    """)
    assert {key: fields[key] for key in "abcdegh"} == {
        "a": True, "b": 90, "c": 10, "d": None, "e": 1.5, "g": "on", "h": [1, {"x": "y"}],
    }  # fmt: skip
    assert isinstance(fields["f"], datetime)


def test_json_is_yaml_even_when_it_is_indented_with_tabs() -> None:
    """Which YAML alone would refuse."""
    text = '{\n\t"a": {"b": [1, true, null, "x\\ty\\u00e9"]},\n\t"c":2}\n'
    (fields,) = load(text, "routes.json")
    assert fields == {"a": {"b": [1, True, None, "x\tyé"]}, "c": 2}
    assert fields.lines == {"a": 2, "c": 3}


def test_anchors_and_merges_are_followed() -> None:
    """A key beside a merge wins over it."""
    (fields,) = load("""
        base: &base {timeout: 1s, name: base}
        rule: {<<: *base, name: own}
        same: *base
    """)
    assert fields["rule"] == {"timeout": "1s", "name": "own"}
    assert fields["same"] is fields["base"]


def test_aliases_do_not_multiply() -> None:
    """A text of a kilobyte cannot become a gigabyte."""
    text = "a0: &a0 {x: y}\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    (fields,) = load(text)
    assert fields["a29"][0] is fields["a28"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1\n", r"^routes.yaml, document 1, line 3: is not YAML: "),
        ("a: 1\n---\nb:\n\t- 1\n", r"^routes.yaml, document \d, line 4: is not YAML: .*character"),
        (
            "a: {{ .Values.timeout }}\n",
            r"line 1: has a mapping or a list as a key; render a template before it is read$",
        ),
        ("a: b: c\n", r"line 1: is not YAML: mapping values are not allowed"),
        ("a: *nowhere\n", r"line 1: is not YAML: found undefined alias"),
        ("a: '\x01'\n", r"^routes.yaml, document 1(, line 1)?: is not YAML: "),
        (
            "- 1\n- 2\n",
            r"^routes.yaml, document 1, line 1: is a list: must be a mapping, such as a Kubernetes resource$",
        ),
        ("a text\n", r"^routes.yaml, document 1, line 1: is a text: must be a mapping"),
        ("a: 1\n---\na: 1\nb: 2\na: 3\n", r"^routes.yaml, document 2, line 5: has the key 'a' twice, first in line 3$"),
        ("on: 1\n", r"line 1: has the key 'on', which YAML reads as yes or no: put it in quotes$"),
        ("1: 1\n", r"has the key '1', which YAML reads as a number"),
        ("~: 1\n", r"has the key '~', which YAML reads as nothing"),
        ("2024-01-02: 1\n", r"has the key '2024-01-02', which YAML reads as a date"),
        ("a: !secret b\n", r"line 1: has a value that YAML cannot make out: could not determine a constructor"),
        ("a: 2024-13-45\n", r"line 1: has a value that YAML cannot make out: month must be in"),
        ("a: &a [*a]\n", r"line 1: nests too deeply, or in itself$"),
    ],
)
def test_a_mistake_is_told_with_file_document_and_line(text: str, message: str) -> None:
    """In the first sentence, before what is wrong."""
    with pytest.raises(ManifestError, match=message):
        load(text)


def test_what_nests_without_end_is_refused() -> None:
    """Whichever part of the reader meets its limit first."""
    with pytest.raises(ManifestError, match="nests too deeply"):
        load("a: " + "[" * 200 + "]" * 200)
    with pytest.raises(ManifestError, match=r"nests too deeply|is not YAML"):
        load("a: " + "[" * 20_000 + "]" * 20_000)


def test_only_what_is_asked_for_is_looked_into() -> None:
    """A document of another kind may have what YAML cannot make out."""
    (document,) = read_documents("kind: Template\nx: !Ref y\nitems: 3\nkinds: [a]\n", "routes.yaml")
    assert document.text("kind") == "Template"
    assert document.text("apiVersion") == ""
    assert document.text("kinds") == ""
    assert list(document.items()) == []


def test_the_items_of_a_list_are_documents() -> None:
    """With their number in the list, and their own line."""
    (listed,) = read_documents("kind: List\nitems:\n- kind: A\n- kind: B\n", "routes.yaml")
    items = list(listed.items())
    assert [item.text("kind") for item in items] == ["A", "B"]
    assert [item.place for item in items] == [f"routes.yaml, document 1, items[{number}]" for number in (0, 1)]
    assert [item.line for item in items] == [3, 4]
    assert items[1].load() == {"kind": "B"}


def test_a_document_without_a_node_is_empty() -> None:
    """It cannot be loaded as a mapping."""
    document = Document(None, None, "routes.yaml, document 1")
    assert document.is_empty
    assert document.line == 1
    with pytest.raises(ManifestError, match="is nothing: must be a mapping"):
        document.text("kind")


def test_it_works_without_libyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only slower."""
    monkeypatch.setattr(documents, "_Loader", yaml.SafeLoader)
    assert load("a: {b: [1, 2]}\n---\nc: 3\n") == [{"a": {"b": [1, 2]}}, {"c": 3}]
    with pytest.raises(ManifestError, match="document 1, line 2: is not YAML: "):
        load("a: [1\n")
    with pytest.raises(ManifestError, match="nests too deeply"):
        load("a: " + "[" * 5000 + "]" * 5000)


@given(st.text(max_size=40) | st.text(st.sampled_from("ab:-[]{}&*!|>'\"#%@`,? \n\t0~<="), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but documents or a ManifestError comes out."""
    with contextlib.suppress(ManifestError):
        for document in read_documents(text, "routes.yaml"):
            document.load()
