"""Numbers as Prometheus reads them."""

from __future__ import annotations

import re

from trimtab.backbones import Backbone
from trimtab.serving.counters import SECONDS, Counters
from trimtab.serving.service import Service

LINE = re.compile(r'trimtab_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+]+')


def test_every_line_is_one_of_the_format_and_every_number_has_its_head(causal: Backbone) -> None:
    service, counters = Service(causal), Counters()
    counters.count("/classify", 200, 0.02)
    counters.count("/classify", 200, 99.0)
    counters.count('/a"b\\c\n', 404, 0.001)
    text = counters.text(service)
    service.close(2.0)
    assert text.endswith("\n")
    lines = text.splitlines()
    told = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert told == {line.split()[2] for line in lines if line.startswith("# HELP")}
    for line in lines:
        if not line.startswith("#"):
            assert LINE.fullmatch(line.replace('\\"', "").replace("\\\\", "").replace("\\n", "")), line
            name = re.split(r"[ {]", line)[0]
            assert name in told or re.sub("_(bucket|sum|count)$", "", name) in told
    assert 'trimtab_requests_total{route="/classify",status="200"} 2' in lines
    assert 'trimtab_requests_total{route="/a\\"b\\\\c\\n",status="404"} 1' in lines


def test_seconds_are_counted_in_classes_that_hold_each_other(causal: Backbone) -> None:
    service, counters = Service(causal), Counters()
    for seconds in (0.02, 99.0, 0.3):
        counters.count("/x", 200, seconds)
    lines = counters.text(service).splitlines()
    service.close(2.0)
    counts = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("trimtab_request_seconds_bucket")]
    assert len(counts) == len(SECONDS) + 1
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 3)
    assert 'trimtab_request_seconds_sum{route="/x"} 99.320000' in lines
    assert 'trimtab_request_seconds_count{route="/x"} 3' in lines
