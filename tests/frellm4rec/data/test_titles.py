import gzip
import json
import re

import pytest

from frellm4rec.data.parsing.titles import clean_title


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (" Amazon eGift Card - Happy Mother&#39;s Day (Roses)", "Amazon eGift Card - Happy Mother's Day (Roses)"),
        ("Noodles &amp; Company", "Noodles & Company"),
        ("twice &amp;amp; escaped &amp;#39;s", "twice & escaped 's"),
        ("Feliz Cumplea&ntilde;os", "Feliz Cumpleaños"),
        ("AMC Theatre  Gift\tCards,\nMultipack&nbsp;of 3", "AMC Theatre Gift Cards, Multipack of 3"),
        ('<span class="a-size-medium">Jojoba <b>Oil</b></span>', "Jojoba Oil"),
        ("&lt;b&gt;Bold&lt;/b&gt;", "Bold"),
        ('Duct Tape,3M,90128-00001" />', "Duct Tape,3M,90128-00001"),
        ("Bits < 5 mm and > 3 mm", "Bits < 5 mm and > 3 mm"),
        ('1/2" pipe', '1/2" pipe'),
        ('Industrial & Scientific" />', ""),
        ("Cafe\u0301", "Café"),
        ("Accuracy: Â± 0.05 mm, Ã˜ 1.75", "Accuracy: ± 0.05 mm, Ø 1.75"),
        ("BAFX ProductsÂ - Meter", "BAFX Products - Meter"),
        ("ÂNGELA Ã É", "ÂNGELA Ã É"),
        ("zero\u200bwidth \ud800 half", "zero width half"),
        ("var aPageStart = (new Date()).getTime();", ""),
        ("  ", ""),
        ("", ""),
        (None, ""),
        (12, ""),
        (["Title"], ""),
    ],
)
def test_clean_title(raw, clean):
    assert clean_title(raw, category="Industrial_and_Scientific") == clean
    assert clean_title(clean, category="Industrial_and_Scientific") == clean


def test_the_category_is_a_title_elsewhere():
    assert clean_title("Gift Cards", category="Gift_Cards") == ""
    assert clean_title("Gift Cards", category="Books") == "Gift Cards"
    assert clean_title("Gift Cards") == "Gift Cards"


def is_clean(title):
    entity = re.search(r"&(#\d+|#x[0-9a-f]+|[a-z]{2,8}\d?);", title, re.IGNORECASE)
    return title == " ".join(title.split()) and not entity and not re.search(r"</?[a-z][^<>]*>|/>$|\xa0", title)


@pytest.mark.shared
def test_gift_cards(shared_dir):
    path = shared_dir / "data" / "Gift_Cards" / "meta_Gift_Cards.json.gz"
    raw = [json.loads(line)["title"] for line in gzip.decompress(path.read_bytes()).splitlines()]
    clean = [clean_title(title, category="Gift_Cards") for title in raw]
    assert len(clean) == 1547
    assert sum(not is_clean(title) for title in raw) > 200
    assert all(map(is_clean, clean))
    assert all(clean)
    assert "Starbucks Digital Gift Card (No Plastic Card – Enclosed Code Only)" in clean


@pytest.mark.shared
def test_industrial_and_scientific(shared_dir):
    folder = shared_dir / "data" / "Industrial_and_Scientific"
    items = json.loads(gzip.decompress((folder / "Industrial_and_Scientific.item.json.gz").read_bytes()))
    raw = [item["title"] for item in items.values()]
    clean = [clean_title(title, category="Industrial_and_Scientific") for title in raw]
    assert len(clean) == 3686
    assert all(map(is_clean, clean))
    # 27 pages gave up nothing but the name of the shop's department; five more ended in the tail of a tag.
    assert sum(title == 'Industrial & Scientific" />' for title in raw) == sum(not title for title in clean) == 27
    assert sum(title.endswith('" />') for title in raw) == 32
    unchanged = sum(a == b for a, b in zip(raw, clean, strict=True))
    assert 0.9 * len(raw) < unchanged < len(raw)
