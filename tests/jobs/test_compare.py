"""Two receipts by the command line: as text, as a page, and by the folders of their runs."""

from __future__ import annotations

import pytest

from tests.jobs.test_machine import call
from tests.report import receipts


@pytest.fixture
def runs(tmp_path):
    for name, receipt in (("old", receipts.linear(90, 0.1)), ("new", receipts.linear(30, 0.25))):
        (tmp_path / name).mkdir()
        receipt.save(tmp_path / name / "receipt.json")
    return tmp_path


@pytest.mark.parametrize("ending", ["", "receipt.json"], ids=["folders", "files"])
def test_text_and_page(runs, ending, capsys):
    page = runs / "out.html"
    page.write_text("an older page")
    code, out, err = call(capsys, "compare", runs / "old" / ending, runs / "new" / ending, "--html", page)
    assert (code, err) == (0, "")
    assert "new/receipt, compared with old/receipt: total time the same; bytes sent 2.94x less" in out
    assert page.read_text().count("<figure>") == 4
    assert "2.94x less" in page.read_text()
    assert "://" not in page.read_text()


def test_a_network_and_a_linear_model(runs, capsys):
    receipts.deep().save(runs / "deep.json")
    code, out, _ = call(capsys, "compare", runs / "old", runs / "deep.json")
    assert (code, "only costs compare" in out) == (0, True)
