"""Numbers on the page."""

from __future__ import annotations

import pytest

from toolkit.report import numbers


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (numbers.error, None, "—"),
        (numbers.error, 0.0, "0"),
        (numbers.error, 3.214e-7, "3.21e-07"),
        (numbers.ratio, None, "—"),
        (numbers.ratio, 1.257, "1.26 ×"),
        (numbers.ratio, 12345.6, "12,346 ×"),
        (numbers.count, 1234567, "1,234,567"),
        (numbers.percent, 0.0, "0 %"),
        (numbers.percent, 0.004, "< 1 %"),
        (numbers.percent, 0.19, "19 %"),
        (numbers.percent, 15.2, "15 ×"),
        (numbers.size, 12, "12 B"),
        (numbers.size, 1830021, "1.8 MB"),
        (numbers.size, 5 * 10**12, "5000.0 GB"),
        (numbers.dims, {"batch": 4, "sequence": 16}, "batch 4, sequence 16"),
    ],
)
def test_numbers_read_well(function, value, text):
    assert function(value).replace("\N{NARROW NO-BREAK SPACE}", " ") == text


def test_a_share_is_a_hundred_only_when_all_agree():
    assert numbers.share(0, 0) == "—"
    assert numbers.share(3, 3) == "100\N{NARROW NO-BREAK SPACE}%"
    assert numbers.share(10**9 - 1, 10**9) == "99.99\N{NARROW NO-BREAK SPACE}%"


def test_one_is_singular():
    assert [numbers.many(n, "case") for n in (0, 1, 1200)] == ["0 cases", "1 case", "1,200 cases"]


def test_a_sentence_is_escaped_and_its_numbers_stay_whole():
    assert numbers.unbroken("<b> is 1.00e-04's") == (
        '&lt;b&gt; is <span class="unbroken">1.00e-04</span>&#39;s'
    )
