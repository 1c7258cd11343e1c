"""`POST /rerank`: what comes back for what was sent."""

import math
import unicodedata

import pytest

from rag_service.engine.passages import windows
from tests.service.running import InProcess, until

TEXTS = ["we ship within two days", "open the settings and choose reset password", "refunds take a week"]


def test_every_document_comes_back_once_best_first(service: InProcess) -> None:
    ranks = service.rerank("reset password", TEXTS).json()
    assert sorted(rank["index"] for rank in ranks) == [0, 1, 2]
    assert [rank["score"] for rank in ranks] == sorted((rank["score"] for rank in ranks), reverse=True)
    assert all(set(rank) == {"index", "score"} for rank in ranks)


def test_scores_are_probabilities_unless_raw_ones_are_asked_for(service: InProcess) -> None:
    raw = service.rerank("reset", TEXTS, raw_scores=True).json()
    activated = service.rerank("reset", TEXTS).json()
    assert [rank["index"] for rank in raw] == [rank["index"] for rank in activated]
    assert [1 / (1 + math.exp(-rank["score"])) for rank in raw] == pytest.approx([rank["score"] for rank in activated])


def test_a_bi_encoder_gives_cosines_either_way(service: InProcess) -> None:
    scores = service.scores("reset password", [*TEXTS, "reset password"], model="cosine")
    assert all(-1 <= score <= 1 for score in scores)
    assert scores[-1] == pytest.approx(1, abs=1e-6)
    activated = service.rerank("reset password", TEXTS, model="cosine").json()
    assert sorted(rank["score"] for rank in activated) == sorted(scores[:-1])


def test_ids_and_metadata_come_back_as_they_were(service: InProcess) -> None:
    metadata = {
        "page": 3,
        "none": None,
        "deep": [{"a": [1.5, -0.0, True, "é"]}],
        "big": 12345678901234567890123,
        "": {},
    }
    texts = [{"id": "faq-7", "text": "a b c", "metadata": metadata}, "plain", {"text": "only text"}]
    ranks = {rank["index"]: rank for rank in service.rerank("a", texts, return_text=True).json()}
    assert {key: ranks[0][key] for key in ("id", "metadata", "text")} == {
        "id": "faq-7",
        "metadata": metadata,
        "text": "a b c",
    }
    assert set(ranks[1]) == {"index", "score", "text"}
    assert set(ranks[2]) == {"index", "score", "text"}


@pytest.mark.parametrize("top_n", [1, 2, 3, 1000])
def test_top_n_cuts_the_same_ranking(service: InProcess, top_n: int) -> None:
    whole = service.rerank("reset", TEXTS).json()
    assert service.rerank("reset", TEXTS, top_n=top_n).json() == whole[:top_n]


def test_the_first_model_answers_unless_another_is_named(service: InProcess) -> None:
    default = service.rerank("reset", TEXTS)
    named = service.rerank("reset", TEXTS, model="best")
    other = service.rerank("reset", TEXTS, model="light")
    assert default.json() == named.json() != other.json()
    assert [answer.headers["X-Model"] for answer in (default, named, other)] == ["best", "best", "light"]


def test_equal_documents_get_equal_scores_in_their_order(service: InProcess) -> None:
    ranks = service.rerank("reset", ["twice", "once", "twice", {"id": "x", "text": "twice"}]).json()
    twice = [rank for rank in ranks if rank["index"] != 1]
    assert len({rank["score"] for rank in twice}) == 1
    assert [rank["index"] for rank in twice] == [0, 2, 3]


def test_two_spellings_of_one_character_are_one_text(service: InProcess) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café naïveté") for form in ("NFC", "NFD"))
    assert composed != decomposed
    first = service.scores("spelling", [composed])
    answer = service.rerank(unicodedata.normalize("NFD", "spelling"), [decomposed], raw_scores=True, return_text=True)
    assert answer.headers["X-Cache"].startswith("hit")
    assert answer.json() == [{"index": 0, "score": first[0], "text": decomposed}]


LONG = "abcde " * 100  # 500 tokens; the models read 128


@pytest.mark.parametrize("model", ["best", "cosine"])
@pytest.mark.parametrize("forbid", [{"truncate": False}, {"long_documents": "reject"}])
def test_a_text_that_is_too_long_is_cut_or_refused_as_the_request_says(
    service: InProcess, model: str, forbid: dict[str, object]
) -> None:
    query = f"cut {next(iter(forbid)).replace('_', '')}"
    for _ in range(2):  # the second time from the cache
        answer = service.rerank(query, ["short", LONG], model=model)
        assert answer.headers["X-Truncated"] == "1"
        assert {rank["index"]: rank.get("truncated") for rank in answer.json()} == {0: None, 1: True}
        refused = service.rerank(query, ["short", LONG, "new", LONG], model=model, **forbid)
        assert refused.status_code == 422
        assert "texts[1], texts[3] would have to be cut" in refused.json()["error"]
        assert "128 tokens" in refused.json()["error"]
        fits = service.rerank(query, ["short"], model=model, **forbid)
        assert fits.status_code == 200
        assert "X-Truncated" not in fits.headers
        until(lambda: service.rerank(query, ["short", LONG], model=model).headers["X-Cache"].startswith("hit"))


def test_a_query_that_is_too_long_is_named(service: InProcess) -> None:
    for more in ({"truncate": False}, {"long_documents": "max_passage"}):
        refused = service.rerank(LONG, ["short"], model="cosine", **more)
        assert refused.status_code == 422
        assert "the query" in refused.json()["error"]
    assert "the query" in service.rerank("aaaa " * 27, [LONG], long_documents="max_passage").json()["error"]
    assert service.rerank("aaaa " * 27, ["short"], long_documents="max_passage").status_code == 200
    assert service.rerank(LONG, ["short"], model="cosine").headers["X-Truncated"] == "1"


@pytest.mark.parametrize("model", ["best", "cosine"])
def test_a_long_document_is_as_relevant_as_its_best_passage(service: InProcess, model: str) -> None:
    words = [letter * 3 for letter in "abcdefghijklmnopqrstuvwxyz"]
    document = " ".join(words[number * 7 % 26] for number in range(100))  # 300 tokens
    query = "the best passage"
    answer = service.rerank(query, ["short", document], model=model, long_documents="max_passage", raw_scores=True)
    assert "X-Truncated" not in answer.headers
    found = {rank["index"]: rank["score"] for rank in answer.json()}
    room = 126 if model == "cosine" else 125 - len(query.replace(" ", ""))
    tokens = [number for number in range(100) for _ in range(3)]
    passages = [
        " ".join(document.split()[tokens[start] : tokens[end - 1] + 1]) for start, end in windows(tokens, room, 99)
    ]
    assert len(passages) >= 3
    alone = service.scores(query, passages, model=model)
    assert found[1] == max(alone) != alone[0]
    assert found[0] == service.scores(query, ["short"], model=model)[0]


def test_scores_of_passages_and_of_cut_documents_are_kept_apart(service: InProcess) -> None:
    text = "qrstu " * 60 + "abcde " * 60

    def ask(**more: object) -> tuple[dict[str, object], str]:
        answer = service.rerank("kept apart", [text], raw_scores=True, **more)
        return answer.json()[0], answer.headers["X-Cache"].split(";")[0]

    cut, passages = ask()[0], ask(long_documents="max_passage")[0]
    assert cut["score"] != passages["score"]
    assert cut["truncated"]
    assert "truncated" not in passages
    until(lambda: ask(long_documents="truncate") == (cut, "hit"))
    until(lambda: ask(long_documents="max_passage") == (passages, "hit"))


def test_of_a_document_without_end_so_many_passages_are_read(service: InProcess) -> None:
    for _ in range(2):
        answer = service.rerank("endless", ["short", "abcde " * 3000], long_documents="max_passage")
        assert answer.headers["X-Truncated"] == "1"
        assert [rank["index"] for rank in answer.json() if rank.get("truncated")] == [1]


@pytest.mark.parametrize(
    ("truncate", "long_documents", "status"),
    [
        (True, "truncate", 200),
        (True, "max_passage", 200),
        (True, "reject", 422),
        (False, "reject", 200),
        (False, "truncate", 422),
        (False, "max_passage", 422),
    ],
)
def test_a_request_says_one_thing_about_long_documents(
    service: InProcess, truncate: bool, long_documents: str, status: int
) -> None:
    answer = service.rerank("one thing", ["a"], truncate=truncate, long_documents=long_documents)
    assert answer.status_code == status
    if status == 422:
        assert "contradicts" in answer.json()["error"]


def test_an_answer_says_where_its_time_went(service: InProcess) -> None:
    steps = [part.split(";")[0].strip() for part in service.rerank("timing", ["x"]).headers["Server-Timing"].split(",")]
    assert steps == ["cache", "tokenise", "queue", "score"]


def test_the_openapi_document_describes_the_body(service: InProcess) -> None:
    document = service.client.get("/openapi.json").json()
    body = document["paths"]["/rerank"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/RerankRequest"}
    assert document["paths"]["/rerank"]["post"]["parameters"][0]["name"] == "X-Request-Timeout"
    assert {"RerankRequest", "Document", "Rank", "Problem"} <= set(document["components"]["schemas"])
    assert service.client.post("/rerank", json=body["example"]).status_code == 200
