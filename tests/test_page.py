"""index.html: its markup read by html.parser, and the page itself used in a real browser where there is one."""
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import hand_made
import pytest
from PIL import Image

from lipfw.report import page
from lipfw.report.account import account
from lipfw.report.compare import compare
from lipfw.report.figure import draw_all
from lipfw.report.figure.table import Table
from lipfw.report.page.markup import interval, table
from lipfw.report.page.svg import inline
from lipfw.report.stats import group

CLAIMS = [{"say": "LIP above random", "better": "imp", "worse": "random", "from": 0.3},
          {"say": "LIP <b>matches</b> dense", "better": "imp", "worse": "dense"},
          {"say": "LIP above SNIP", "better": "imp", "worse": "snip"}]
FIGURES = [{"draw": "curves", "series": ["imp", "random", "snip"], "level": "dense", "shows": "Lines & bands."},
           {"draw": "pictures", "series": ["dense", "imp"], "sparsities": [0.36], "where": {"image.name": "bird"}},
           {"draw": "table", "series": ["imp", "random"], "sparsities": [0.36, 0.59], "title": "Numbers"}]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder with the page of one study of two pictures, whose figures lie beside it."""
    folder = tmp_path_factory.mktemp("study")
    study = hand_made.study(folder, files=True, claims=CLAIMS, figures=FIGURES, published=[
        {"series": "imp", "value": 31.13, "sparsity": 0.6, "source": "Table 4"}])
    page.write_report(folder / "report", [account(study)])
    return folder / "report"


@pytest.fixture(scope="module")
def html(out):
    return (out / "index.html").read_text()


class Elements(HTMLParser):
    """All start tags with their attributes, and the text outside of style and script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data


def test_the_markup_is_sound_and_nothing_is_loaded_from_elsewhere(html):
    read = Elements(html)
    assert not read.open
    ids = [a["id"] for _, a in read.tags if "id" in a]
    assert len(ids) == len(set(ids)) > 20
    for tag, a in read.tags:
        for key in ("src", "href", "xlink:href", "action", "poster"):
            value = a.get(key) or ""
            assert not re.match(r"(https?:)?//", value), (tag, value)
            if value.startswith("#"):
                assert value[1:] in ids
        assert tag != "img" or a["alt"].strip()
        assert tag != "svg" or a["role"] == "img" and a["aria-label"]
        assert tag != "script" or not a
    assert not re.search(r"url\((?!#)", html) and "@import" not in html
    assert all(f"id=\"{name}\"" in html for name in re.findall(r"url\(#([^)]+)\)", html))


def test_headings_are_in_order(html):
    levels = [int(tag[1]) for tag, _ in Elements(html).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels[:-1], levels[1:], strict=True))


def test_verdicts_are_told_by_word_and_symbol_before_all_figures(html):
    text = Elements(html).text
    for said in ("✓ holds", "✗ does not hold", "– not measured", "✓ 1 holds", "LIP above random", "Expected: They do.",
                 "difference +1.90 [+1.90, +1.90] dB, 3 pairs, above 0 at 3 of 3 sparsities"):
        assert said in text
    assert text.index("LIP above SNIP") < text.index("Lines & bands.")
    assert "no run of snip is done, of 4" in text
    assert "5 of 16 runs have no result yet" in text
    assert "LIP <b>matches</b> dense" in text and "Do lottery <image> priors exist?" in text     # escaped


def test_figures_are_beside_the_page_and_in_it(html, out):
    names = {f.name for f in (out / "figures").iterdir()}
    assert names == {"fig3-1-curves.png", "fig3-1-curves.svg", "fig3-2-pictures.png", "fig3-2-pictures.svg"}
    links = [a["href"] for tag, a in Elements(html).tags if tag == "a" and "download" in a]
    assert len(links) == 4 and all((out / link).is_file() for link in links)
    assert html.count('class="wide"') == html.count('class="narrow"') == 1
    assert "SNIP (not run)" in html and "31.13" in html


def test_a_figure_in_a_page_takes_its_colours_and_has_ids_of_its_own(out):
    svg = inline((out / "figures/fig3-1-curves.svg").read_text(), "x-", "what & why")
    assert "#0072b2" not in svg and "var(--s0)" in svg and "var(--ink)" in svg
    assert set(re.findall(r' id="(..)', svg)) == set(re.findall(r"url\(#(..)", svg)) == {"x-"}
    assert 'aria-label="what &amp; why"' in svg and "<style" not in svg and "<metadata" not in svg


def test_of_many_figures_each_has_its_ids_and_refers_to_no_other(tmp_path):
    # pictures that stand twice in a figure, lines of one name in each of its panels, and all that in two studies
    figures = [{"draw": "pictures", "series": ["dense", "imp"], "sparsities": [0.36]},
               {"draw": "layers", "series": ["imp"]}]
    a = account(hand_made.study(tmp_path, files=True, figures=figures))
    drawn = draw_all(a.study, tmp_path)
    made = page.page([page.StudyReport(a, drawn), page.StudyReport(a, drawn)])
    ids = [i for _, attributes in Elements(made).tags if (i := attributes.get("id"))]
    assert len(ids) == len(set(ids))
    inlined = re.findall(r"<svg[^>]*xmlns:xlink.*?</svg>", made, re.DOTALL)
    assert len(inlined) == 2 * (1 + 2)      # of layers one for phones, too
    for svg in inlined:
        tags = [attributes for _, attributes in Elements(svg).tags]
        own = {a["id"] for a in tags if "id" in a}
        used = {name for a in tags for value in a.values() for name in re.findall(r"url\(#([^)]+)\)", value or "")}
        used |= {value[1:] for a in tags for key in ("href", "xlink:href") if (value := a.get(key, "")).startswith("#")}
        assert used and used <= own
    for d in drawn:
        ids = re.findall(r' id="([^"]+)"', d.svg.read_text())
        assert len(ids) == len(set(ids)) > 1


def test_a_table_escapes_its_texts_and_marks_the_best():
    made = table(["", "a"], [["<i>", "**1.5**"]], "n > 1")
    assert "&lt;i&gt;" in made and "<b>1.5</b>" in made and "n &gt; 1" in made
    assert made.count('class="words"') == 2


def test_the_interval_stands_where_its_numbers_are(out):
    v = account(hand_made.study(out, claims=CLAIMS[:1])).verdicts[0]
    drawn = interval(replace(v, mean=0.5, low=0.0, high=1.0, margin=0.0))
    bar = re.search(r'x1="([\d.]+)" x2="([\d.]+)" y1="14" y2="14" stroke="var\(--ink', drawn)
    ends = [float(x) for x in bar.groups()]
    assert float(re.search(r'cx="([\d.]+)"', drawn)[1]) == pytest.approx(sum(ends) / 2)
    assert f'x1="{ends[0]:.1f}" x2="{ends[0]:.1f}" y1="3"' in drawn      # the margin is the low end
    assert interval(replace(v, low=None, high=None)) == ""


def test_several_studies_have_an_index(tmp_path):
    a = account(hand_made.study(tmp_path, claims=CLAIMS))
    b = replace(a, study=replace(a.study, name="fig7", figure="Fig 7"))
    made = page.page([page.StudyReport(a), page.StudyReport(b, tables=[Table(["x"], [["1"]], "", "More")])])
    read = Elements(made)
    assert '<a href="#study-1">Fig 7</a>' in made and 'id="study-1"' in made
    assert re.findall(r"\n<tr><td><a href=\"#study-\d\">(fig\d)</a></td><td[^>]*>(Fig \d)</td>", made) == [
        ("fig3", "Fig 3"), ("fig7", "Fig 7")]
    assert [tag for tag, _ in read.tags].count("h1") == 1 and ">More</h3>" in made


def test_runs_without_a_study_have_a_page_too(tmp_path):
    runs = [hand_made.run(tmp_path, series, "bird", s, files=True)[0].run
            for series in ("imp", "random") for s in (0, 1)]
    groups, _ = group(runs)
    page.write_report(tmp_path / "out", [], groups, compare(groups))
    made = (tmp_path / "out/index.html").read_text()
    text = Elements(made).text
    for said in ("Runs of lottery image priors", "All runs", "denoise-bird-skip-imp", "PSNR at the picked step over"):
        assert said in text
    assert f"{hand_made.psnr('imp', 'bird', 0.5, 1) - 0.3:.2f} ± 0.18" in text    # of two seeds 0.25 dB apart
    assert sorted(f.name for f in (tmp_path / "out/figures").glob("*.svg")) == [
        "runs-1-1-curves.svg", "runs-1-2-pictures.svg"]
    page.write_report(tmp_path / "one", [], groups[:1], [])         # nothing to compare: the rounds of the one
    assert "runs-1-1-curves.svg" in (tmp_path / "one/index.html").read_text()


# --- in a browser

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
# used as a reader would: clicks, keys that set a value, what is seen then
PROBE = """<script>
addEventListener("load", () => {
  const said = {};
  const head = [...document.querySelectorAll("h2")].find((h) => h.textContent === "Numbers");
  const table = head.parentElement.querySelector("table");
  const column = () => [...table.tBodies[0].rows].map((r) => r.cells[1].textContent.split(" ")[0]).join(" ");
  const button = table.tHead.rows[0].cells[1].querySelector("button");
  button.click(); said.up = column() + " " + table.tHead.rows[0].cells[1].getAttribute("aria-sort");
  button.click(); said.down = column() + " " + table.tHead.rows[0].cells[1].getAttribute("aria-sort");
  const viewer = document.querySelector(".viewer"), stage = viewer.querySelector(".stage");
  const set = (input, value) => { input.value = value; input.dispatchEvent(new Event("input", { bubbles: true })); };
  const seen = () => [...stage.querySelectorAll("figure")].filter((f) => f.getClientRects().length)
    .map((f) => f.querySelector("figcaption").textContent).join(" | ");
  said.before = seen();
  set(viewer.querySelector(".line"), 25);
  said.clip = getComputedStyle(stage.querySelector(".under")).clipPath;
  set(viewer.querySelector(".round"), 3);
  viewer.querySelector("[value=clean]").click();
  said.after = seen();
  said.told = [...viewer.querySelectorAll("output")].map((o) => o.textContent).join(" | ");
  const box = stage.getBoundingClientRect();
  stage.dispatchEvent(new PointerEvent("pointerdown",
    { clientX: box.left + box.width * 0.75, isPrimary: true, button: 0, pointerId: 1 }));
  said.drag = viewer.querySelector(".line").value;
  said.labels = [...document.querySelectorAll("input")].every((i) => i.labels.length === 1);
  said.overflow = document.scrollingElement.scrollWidth - innerWidth;
  said.paper = getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  said.dark = getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  said.light = getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  document.title = JSON.stringify(said);
});
addEventListener("error", (e) => { document.title = "error: " + e.message; });
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH")
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_works_in_a_browser(out, html, tmp_path, width, scheme):
    probed = tmp_path / "index.html"
    # setPointerCapture knows no pointer that a script makes up
    probed.write_text(html.replace("</body>", PROBE + "</body>").replace(
        "stage.setPointerCapture(event.pointerId); ", ""))
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    ran = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--hide-scrollbars",
         "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}", *dark,
         f"--window-size={width},1500", f"--screenshot={tmp_path / 'page.png'}", "--dump-dom", probed.as_uri()],
        capture_output=True, text=True, timeout=120)
    title = re.search("<title>(.*?)</title>", ran.stdout, re.DOTALL)[1]
    assert title.startswith("{"), title
    said = json.loads(title.replace("&amp;", "&"))
    rows = [f"{v:.2f}" for v in _means()]
    assert said["up"] == " ".join(sorted(rows)) + " ascending"
    assert said["down"] == " ".join(sorted(rows, reverse=True)) + " descending"
    assert said["before"] == "degraded, 20.50 dB | 36 % removed, 25.10 dB"
    assert said["clip"] == "inset(0px 75% 0px 0px)"
    assert said["after"] == "89 % removed, 24.30 dB | clean"
    assert said["told"] == "clean | 89 % removed, 24.30 dB"
    assert float(said["drag"]) == pytest.approx(75, abs=1)
    assert said["labels"] and said["overflow"] <= 0
    bright, deep = "rgb(254, 254, 254)", "rgb(20, 22, 26)"
    assert (said["paper"], said["dark"], said["light"]) == ({"light": bright, "dark": deep}[scheme], deep, bright)
    assert "CONSOLE" not in ran.stderr      # no error of a script, nothing refused, nothing not found
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == (width, 1500)
        assert image.convert("RGB").getpixel((2, 1400)) == ((254,) * 3 if scheme == "light" else (20, 22, 26))


def _means():
    """What the table says of imp and random at 36 %: the mean over the pictures, of random only seed 0 has all."""
    return [sum(hand_made.psnr(s, p, seed, 1) for p in ("bird", "woman") for seed in seeds) / (2 * len(seeds))
            for s, seeds in (("imp", (0, 1)), ("random", (0,)))]
