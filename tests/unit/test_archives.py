"""Names and links in archives."""

from __future__ import annotations

import stat
from zipfile import ZipInfo

import pytest

from trimtab.archives import is_link, leads_out


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "//host/a", "..", "../a", "a/../../b", "C:/a", "./C:/a", "a\\..\\b", "a\0b"]
)
def test_a_name_that_leads_out_is_seen(name: str) -> None:
    assert leads_out(name)


@pytest.mark.parametrize("name", [".", "./a", "a", "a/b.txt", "a/..b", "a/10:30.txt"])
def test_other_names_are_let_in(name: str) -> None:
    assert not leads_out(name)


@pytest.mark.parametrize(("mode", "linked"), [(stat.S_IFLNK | 0o777, True), (stat.S_IFREG | 0o644, False), (0, False)])
def test_a_link_is_seen(mode: int, linked: bool) -> None:
    member = ZipInfo("a")
    member.external_attr = mode << 16
    assert is_link(member) is linked
