"""Test collections: documents, queries, and how relevant which is to which."""

import csv
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TAG = re.compile(r"<[^>]+>")
_TOPIC = re.compile(r"<DOCNO>\s*(\d+)\s*</DOCNO>(.*?)</DOC>", re.DOTALL)
LOOKALIKE = Path(__file__).with_name("lookalike.csv")  # see LOOKALIKE.md


@dataclass(frozen=True)
class Collection:
    """`gains`: for each query, the gain of every relevant document by its number."""

    name: str
    documents: Sequence[str]
    queries: Sequence[str]
    gains: Sequence[Mapping[int, float]]


def found(data: Path | None) -> list[Collection]:
    """The collections in a folder of data; where there are none, the one that is shipped."""
    readers = {"cranfield": cranfield, "cacm": cacm}
    made = [read(data / "ir" / name) for name, read in readers.items() if data and (data / "ir" / name).is_dir()]
    return made or [lookalike()]


def cranfield(folder: Path) -> Collection:
    """Cranfield: 1,400 abstracts on aerodynamics, 225 queries, graded judgements.

    `cranqrel` counts the queries from 1 in the order of the file; the numbers in `cran.qry` are others. Its codes run
    from 1, the most relevant, to 4: the gain is 5 - code. One judgement has the code -1, which is taken for 1.
    """
    documents = [_joined(record.get("W", "")) for record in _records(folder / "cran.all.1400")]
    queries = [_joined(record["W"]) for record in _records(folder / "cran.qry") if "W" in record]
    gains: list[dict[int, float]] = [{} for _ in queries]
    for line in (folder / "cranqrel").read_text().splitlines():
        query, document, code = map(int, line.split())
        gains[query - 1][document - 1] = 5.0 - max(code, 1)
    return Collection("cranfield", documents, queries, gains)


def cacm(folder: Path) -> Collection:
    """CACM: 3,204 titles, most with an abstract, of Communications of the ACM; 52 of the 64 queries were judged.

    The judgements write `CACM-756` where the file is called `CACM-0756.html`.
    """
    documents: list[str] = []
    numbers: dict[int, int] = {}
    with tarfile.open(folder / "cacm.tar.gz") as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            if (file := archive.extractfile(member)) is not None:
                numbers[_number(Path(member.name).stem)] = len(documents)
                # After the text come its date, its authors, the date of its entry ("CA" and a number), references.
                text = _TAG.sub(" ", file.read().decode("latin-1")).split("\n\nCA")[0]
                documents.append(_joined(text))
    judged: dict[str, dict[int, float]] = {}
    for line in (folder / "qrels.cacm.txt").read_text().splitlines():
        query, _, document, gain = line.split()
        judged.setdefault(query, {})[numbers[_number(document)]] = float(gain)
    topics = _TOPIC.findall((folder / "topics.cacm.txt").read_text())
    kept = [(number, _joined(text)) for number, text in topics if number in judged]
    return Collection("cacm", documents, [text for _, text in kept], [judged[number] for number, _ in kept])


def lookalike(path: Path = LOOKALIKE) -> Collection:
    """Questions of bank customers: the last of each intent is a query, the others of its intent are relevant to it."""
    documents: list[str] = []
    queries: list[str] = []
    gains: list[dict[int, float]] = []
    with path.open(encoding="utf-8", newline="") as file:
        by_intent: dict[str, list[str]] = {}
        for intent, text in csv.reader(file):
            by_intent.setdefault(intent, []).append(text)
    for texts in by_intent.values():
        *relevant, query = texts
        queries.append(query)
        gains.append({len(documents) + number: 1.0 for number in range(len(relevant))})
        documents += relevant
    return Collection("lookalike", documents, queries, gains)


def _records(path: Path) -> Iterator[dict[str, str]]:
    """Records of SMART's format: `.I` begins one, each further line that is a dot and a letter a field of it."""
    record: dict[str, str] | None = None
    field = ""
    for line in path.read_text(encoding="latin-1").splitlines():
        if mark := re.fullmatch(r"\.([ITABW])( .*)?", line):
            field = mark[1]
            if field == "I":
                if record is not None:
                    yield record
                record = {}
        elif record is not None:
            record[field] = f"{record.get(field, '')} {line}"
    if record:
        yield record


def _number(name: str) -> int:
    return int(name.removeprefix("CACM-"))


def _joined(text: str) -> str:
    return " ".join(text.split())
