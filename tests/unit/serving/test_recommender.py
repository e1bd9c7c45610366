import numpy as np
import pytest
import torch

import musicrec
from musicrec.errors import ConfigError, DataError
from musicrec.interactions.catalogue import Catalogue
from musicrec.models.sasrec import SASRec
from musicrec.registry import bundle as bundles

IDS = [f"track-{number}" for number in range(1, 21)]


@pytest.fixture(scope="module")
def recommender(tmp_path_factory):
    torch.manual_seed(0)
    architecture = {"catalogue_size": 20, "max_length": 4, "dim": 8, "blocks": 1, "heads": 2}
    path = tmp_path_factory.mktemp("bundle") / "model.pt"
    bundle = bundles.new_bundle(
        SASRec(**architecture),
        Catalogue(IDS, [f"Title {i}" for i in IDS], ["<Artist>"] * 20, np.arange(20)),
        architecture=architecture,
        config={},
        metrics={"protocol": {"seen": "keep"}},
        data_fingerprint="",
    )
    bundles.save(bundle, path)
    return musicrec.Recommender.load(str(path))


def ids(answer) -> list[str]:
    return [track.track_id for track in answer]


def test_it_answers_with_outside_ids_names_and_falling_scores(recommender):
    answer = recommender.recommend(IDS[:3], k=5)
    assert len(answer) == 5
    assert answer[0].title == f"Title {answer[0].track_id}"
    scores = [track.score for track in answer]
    assert scores == sorted(scores, reverse=True)


def test_unknown_ids_are_named_and_change_nothing(recommender):
    answer = recommender.recommend(["new", IDS[0], "newer"], k=5)
    assert answer.unknown == ("new", "newer")
    assert ids(answer) == ids(recommender.recommend([IDS[0]], k=5))


def test_a_history_without_one_known_id_is_an_error(recommender):
    with pytest.raises(DataError, match=r"none of the 2 tracks .* 'new'"):
        recommender.recommend(["new", "newer"])


def test_an_empty_history_is_an_error(recommender):
    with pytest.raises(DataError, match="at least one track"):
        recommender.recommend([])


def test_drop_never_recommends_a_heard_track(recommender):
    assert not set(ids(recommender.recommend(IDS[:5], k=20, seen="drop"))) & set(IDS[:5])


def test_keep_is_the_protocol_of_this_bundle(recommender):
    assert set(ids(recommender.recommend(IDS[:5], k=20))) == set(IDS)


def test_excluded_tracks_do_not_appear(recommender):
    answer = recommender.recommend(IDS[:2], k=20, exclude=[IDS[7], "unheard of"])
    assert set(ids(answer)) == set(IDS) - {IDS[7]}


def test_only_the_newest_interactions_count_up_to_max_length(recommender):
    assert ids(recommender.recommend(IDS[:9])) == ids(recommender.recommend(IDS[5:9]))


def test_a_text_is_no_history(recommender):
    with pytest.raises(ConfigError, match="list of track ids"):
        recommender.recommend(IDS[0])


@pytest.mark.parametrize(("wrong", "said"), [({"k": 0}, "k=0"), ({"seen": "x"}, "seen='x'")])
def test_wrong_arguments_are_named(recommender, wrong, said):
    with pytest.raises(ConfigError, match=said):
        recommender.recommend(IDS[:1], **wrong)


def test_names_are_escaped_in_a_notebook(recommender):
    html = recommender.recommend(IDS[:1])._repr_html_()
    assert "<Artist>" not in html
    assert "&lt;Artist&gt;" in html
