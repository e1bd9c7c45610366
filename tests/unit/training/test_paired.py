from dataclasses import replace

import pytest
import torch

from bundles import bundle_of
from musicrec.errors import ConfigError
from musicrec.interactions.catalogue import Catalogue
from musicrec.metrics.ranking import NEVER
from musicrec.models.sasrec import SASRec
from musicrec.training.paired import Examination, paired, scores_of
from snapshots import cycles, snapshot_of


@pytest.fixture
def snapshot(tmp_path):
    return snapshot_of(cycles(40, 12, 30), tmp_path / "snapshot")


@pytest.fixture
def bundle(snapshot):
    return bundle_of(snapshot)


def examination(snapshot, bundle):
    return Examination(snapshot, bundle.metrics["protocol"])


def renumbered(bundle, order):
    """The same model, its tracks under other numbers; those not in ``order`` it never knew."""
    index = torch.tensor([0, *(place + 1 for place in order)])
    architecture = bundle.architecture | {"catalogue_size": len(order), "transitions": 0}
    model = SASRec(**architecture).eval()
    weights = dict(bundle.model.state_dict())
    for name, weight in weights.items():
        if weight.ndim and weight.shape[0] == bundle.model.catalogue_size + 1:
            weights[name] = weight[index]
    model.load_state_dict(weights)
    names = bundle.catalogue
    catalogue = Catalogue(
        [names.track_ids[place] for place in order],
        [None] * len(order),
        [None] * len(order),
        names.play_counts[order],
    )
    return replace(bundle, model=model, catalogue=catalogue, architecture=architecture)


def test_who_has_counted_what_follows_what_beats_who_knows_nothing(snapshot, bundle):
    asked = examination(snapshot, bundle)
    good, bad = asked.judge(bundle), asked.judge(bundle_of(snapshot, is_good=False))
    ndcg = paired(good, bad)[0]
    assert ndcg.metric == "NDCG@10"
    assert ndcg.first > ndcg.second
    assert ndcg.difference.low > 0
    assert ndcg.difference.mean == pytest.approx(ndcg.first - ndcg.second)


def test_the_numbers_that_a_bundle_gives_its_tracks_do_not_matter(snapshot):
    bundle = bundle_of(snapshot, is_good=False)
    other = renumbered(bundle, list(reversed(range(30))))
    asked = examination(snapshot, bundle)
    assert torch.equal(asked.judge(bundle).ranks, asked.judge(other).ranks)


def test_a_target_that_a_bundle_does_not_know_is_a_miss(snapshot):
    bundle = bundle_of(snapshot, is_good=False)
    target = int(examination(snapshot, bundle).split.test.items(snapshot.sequences)[0])
    other = renumbered(bundle, [place for place in range(30) if place + 1 != target])
    asked = examination(snapshot, bundle)
    ranks, num_unknown = asked.judge(other).ranks, asked.num_unknown(other)
    assert num_unknown > 0
    assert int((ranks == NEVER).sum()) == num_unknown
    assert asked.num_unknown(bundle) == 0


def test_what_a_bundle_does_not_know_of_a_history_is_left_out(snapshot):
    bundle = bundle_of(snapshot, is_good=False)
    known = [0, 1, 2]
    other = renumbered(bundle, known)
    asked = examination(snapshot, bundle)._questions()[0]
    score = scores_of(other, snapshot.catalogue())(asked)
    for row in range(len(asked.lengths)):
        history = asked.history[asked.row == row].tolist()
        heard = [item for item in history if item - 1 in known]
        if heard:
            newest = torch.tensor(heard[-other.model.max_length :])
            own = other.model.scores(other.model.encode_last(newest, torch.tensor([len(newest)])))
            assert torch.allclose(score[row, 1:4], own[0, 1:], atol=1e-5)
        else:
            assert score[row].isneginf().all()
    assert score[:, 4:].isneginf().all()


def test_parts_of_the_targets_hold_each_target_once(snapshot, bundle):
    asked = examination(snapshot, bundle)
    slices = asked.slices(asked.judge(bundle))
    for group in ("all", "heard before", "listener's plays before", "target's plays in training"):
        parts = [each.num_targets for each in slices if each.group == group]
        assert sum(parts) == asked.num_targets, group
    (everything,) = (each for each in slices if each.group == "all")
    assert everything.ndcg.low <= everything.ndcg.mean <= everything.ndcg.high


def test_a_track_that_no_training_held_is_a_cold_one(tmp_path):
    snapshot = snapshot_of([[1, 2, 3, 1, 2, 4], [1, 2, 3, 1, 2, 3]], tmp_path / "snapshot")
    bundle = bundle_of(snapshot)
    asked = examination(snapshot, bundle)
    cold = [each for each in asked.slices(asked.judge(bundle)) if each.name == "none (cold)"]
    assert [(each.group, each.num_targets) for each in cold] == [("target's plays in training", 1)]


def test_a_split_is_taken_by_its_name_and_never_by_what_a_bundle_says_to_call(snapshot, bundle):
    with pytest.raises(ConfigError, match=r"split=os\.system"):
        Examination(snapshot, bundle.metrics["protocol"] | {"split": "os.system"})
