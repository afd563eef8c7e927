"""Records of examples of several tasks."""

from __future__ import annotations

from trimtab.predictions import OfTask, Prediction


def test_a_record_of_one_of_several_tasks_says_so() -> None:
    found = OfTask("sst2", Prediction("7", "good", {"good": 1.0}, "good"))
    assert found.id == "7"
    assert list(found.as_json().items())[:3] == [("id", "7"), ("task", "sst2"), ("label", "good")]
