"""`POST /rerank`: what comes back for what was sent."""

import math
import unicodedata

import pytest

from tests.service.running import InProcess

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


def test_a_text_that_is_too_long_is_cut_or_refused_as_the_request_says(service: InProcess) -> None:
    long = "abcde " * 100  # 500 tokens; the model reads 128
    assert service.rerank("cut", ["short", long]).status_code == 200
    for _ in range(2):  # a cached score must not hide that the text was cut
        refused = service.rerank("cut", ["short", long], truncate=False)
        assert refused.status_code == 422
        assert "texts[1]" in refused.json()["error"]
        assert "128 tokens" in refused.json()["error"]
    assert service.rerank("cut", ["short"], truncate=False).status_code == 200
    in_query = service.rerank(long, ["short"], truncate=False, model="cosine")
    assert in_query.status_code == 422
    assert "the query" in in_query.json()["error"]


def test_an_answer_says_where_its_time_went(service: InProcess) -> None:
    steps = [part.split(";")[0].strip() for part in service.rerank("timing", ["x"]).headers["Server-Timing"].split(",")]
    assert steps == ["cache", "tokenise", "queue", "score"]


def test_the_openapi_document_describes_the_body(service: InProcess) -> None:
    document = service.client.get("/openapi.json").json()
    body = document["paths"]["/rerank"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/RerankRequest"}
    assert {"RerankRequest", "Document", "Rank", "Problem"} <= set(document["components"]["schemas"])
    assert service.client.post("/rerank", json=body["example"]).status_code == 200
