"Simulated annotators: labels from shapes, fits that are found again, pools, the 7,000 images, and people held out."
import json
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from scipy import stats
from hmix_nb.data.images import digits
from hmix_nb.data.pool import LabelPool
from hmix_nb.softlabels.construct import similarity
from hmix_nb.softlabels.pool import annotator_weights, total_seconds
from hmix_nb.softlabels.goodness import goodness, label_statistics, plot_goodness
from hmix_nb.softlabels.simulate import (VARIANTS, AnnotatorModel, _beta, _build, _cells, _histogram, _limits, _order, extend,
                                         fit_annotators, label_shapes, ship_annotators)

quick = settings(max_examples=60, deadline=None)

VOTES = np.vstack([np.eye(10)[3], np.eye(10)[3]*.6 + np.eye(10)[5]*.3 + np.eye(10)[0]*.1])

def shape(p1, p2, possible): return pd.DataFrame(dict(p1=[p1], p2=[p2], possible=[possible], different=[p2]))

@settings(max_examples=300, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 12), st.integers(0, 9), st.booleans(), st.booleans())
def test_any_draw_makes_a_distribution(p1, p2, possible, first, published, by_votes):
    order = _order(np.array([first]), similarity(), VOTES[1:] if by_votes else None)
    y = _build(shape(p1, p2, possible), order, published)[0]
    assert np.isfinite(y).all() and (y >= 0).all() and y.sum() == pytest.approx(1)
    assert order[0, 0] == first and sorted(order[0]) == list(range(10))
    assert (y > 0).sum() <= min(possible, 9) + 1 and (y[order[0, min(possible, 9)+1:]] == 0).all()
    if possible == 0: assert y[first] == 1

@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(.01, 1), min_size=2, max_size=10))
def test_a_clamp_label_is_built_again_from_its_shape(parts):
    "First, second, and an even rest: what T2-clamp makes of an answer."
    p = np.sort(np.array(parts))[::-1]/np.sum(parts)
    p[2:] = p[2:].mean() if len(p) > 2 else 0
    y = np.zeros(10)
    y[:len(p)] = p
    again = _build(label_shapes(y[None]), np.arange(10)[None])[0]
    np.testing.assert_allclose(again, y, atol=1e-9)

@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(2, 9))
def test_parts_become_shares_in_order(a, b, n):
    p1 = (1 + n*a)/(n+1)
    low, high = _limits(np.array(p1), n)
    p2 = low + b*(high-low)
    assert low <= high + 1e-12 and p1 + 1e-9 >= p2 >= (1-p1-p2)/(n-1) - 1e-9

def test_order_looks_at_votes_then_at_likeness_then_at_the_number():
    near = np.full((4, 4), .5) + .5*np.eye(4)
    assert _order(np.array([2]), near).tolist() == [[2, 0, 1, 3]]
    assert _order(np.array([2]), near, np.array([[0, .1, .2, .7]])).tolist() == [[2, 3, 1, 0]]
    assert _order(np.array([0]), np.array([[1., -.9, -.2], [0, 1, 0], [0, 0, 1]])).tolist() == [[0, 2, 1]]

@pytest.mark.parametrize('a, b', [(2., .3), (.3, 4.), (6., 1.), (.13, 4.)])
def test_a_censored_beta_is_found_again(a, b):
    x = np.random.default_rng(1).beta(a, b, 20_000)
    assert _beta(x, 'stable', 'x') == pytest.approx([a, b, 1], rel=.06)

@pytest.mark.parametrize('variant', ['joint', 'stable'])
def test_parameters_come_back_from_labels(variant):
    model, high = AnnotatorModel.shipped(variant), np.arange(30_000) % 2
    again = fit_annotators(model.sample(VOTES[high], 1, 7), VOTES[high], variant=variant).table
    columns = [c for c in again if c not in ('labels', 'cells')]
    np.testing.assert_allclose(again[columns], model.table[columns], rtol=.08)
    assert again.loc['high', columns].tolist() != again.loc['low', columns].tolist()

def test_a_model_of_other_numbers_is_found_as_such():
    base = AnnotatorModel.shipped('stable')
    strata = {'high': dict(base.strata['high'], p1=[5., 2., 1.], p2=[1., 3., 1.], possible=[0, 0, 0, 1.] + [0]*6)}
    again = fit_annotators(replace(base, strata=strata).sample(VOTES[[1]*20_000], 1), VOTES[[1]*20_000], variant='stable').strata['high']
    assert again['p1'] == pytest.approx([5, 2, 1], rel=.05) and again['p2'] == pytest.approx([1, 3, 1], rel=.05)
    assert again['possible'][3] == 1

@pytest.mark.parametrize('variant', VARIANTS)
def test_sampling_needs_no_data_and_repeats_itself(variant, tmp_path, monkeypatch):
    monkeypatch.setenv('HMIX_DATA', str(tmp_path))
    model = AnnotatorModel.shipped(variant)
    a, b, c = (model.sample(VOTES, 50, generator=s) for s in (1, 1, 2))
    assert torch.equal(a.rows, b.rows) and not torch.equal(a.rows, c.rows)
    assert len(a) == 2 and len(a.rows) == 100 and torch.allclose(a.rows.sum(1), torch.ones(100)) and a.rows.min() >= 0

def test_generators_of_numpy_and_torch():
    model = AnnotatorModel.shipped()
    for make in (lambda: np.random.default_rng(3), lambda: torch.Generator().manual_seed(3)):
        one, two = (model.sample(VOTES, 20, generator=make()) for _ in range(2))
        assert torch.equal(one.rows, two.rows)
        g = make()
        assert not torch.equal(model.sample(VOTES, 20, generator=g).rows, model.sample(VOTES, 20, generator=g).rows)

def test_first_classes_follow_the_votes():
    model = AnnotatorModel({'high': dict(n=1, cells=[[1, 0, 0, 1]])}, similarity(), 'joint')
    got = model.sample(VOTES[1:], 20_000).mean()[0].numpy()
    np.testing.assert_allclose(got, VOTES[1], atol=.012)

def test_what_may_be_asked_about():
    model, images = AnnotatorModel.shipped('joint'), digits()
    assert len(model.sample(images, 1)) == 1797
    hard, rows = model.sample([3, 5], 4, 9), model.sample(np.eye(10)[[3, 5]], 4, 9)
    assert torch.equal(hard.rows, rows.rows)
    assert torch.equal(hard.rows, model.sample(torch.tensor([3, 5]), 4, 9).rows)
    assert torch.equal(rows.rows, model.sample(torch.eye(10)[[3, 5]], 4, 9).rows)
    pool = model.sample(LabelPool(VOTES, [0, 1], names=['x', 'y']), [2, 5])
    assert pool.names == ['x', 'y'] and pool.count.tolist() == [2, 5]
    unclear = model.sample([3]*500, 1, high=np.ones(500, bool))
    assert unclear.rows.max(1).values.mean() < model.sample([3]*500, 1).rows.max(1).values.mean() - .05

@pytest.mark.parametrize('wrong, says', [
    (lambda m: m.sample([3, 10]), 'y: found 10'), (lambda m: m.sample([[.5, .6] + [0.]*8]), 'y: row 0'),
    (lambda m: m.sample([[.5, .5]]), '2 classes'), (lambda m: m.sample([1], 0), 'n_annotators: found 0'),
    (lambda m: m.sample([1], 1.5), 'n_annotators: found 1.5'), (lambda m: m.sample([1], [1, 2]), 'n_annotators has 2'),
    (lambda m: m.sample([1], generator=None), 'generator: found None'), (lambda m: m.sample([1], generator='a'), "generator: found 'a'"),
    (lambda m: m.sample(LabelPool(VOTES, [0, 1], names=['x', 'y', 'tom'])), "no label for 'tom'"), (lambda m: m.sample([1, 2], high=[True]), 'lengths differ'),
    (lambda m: m.sample([[np.nan]*10]), 'y: row 0'), (lambda m: AnnotatorModel.shipped('beta'), 'Allowed: stable, joint, published'),
    (lambda m: fit_annotators(VOTES, VOTES, [0, 2]), 'image: found 2'), (lambda m: fit_annotators(VOTES, VOTES), 'image'),
    (lambda m: fit_annotators(VOTES, [[.5, .6]], [0, 0]), 'probs: row 0'),
    (lambda m: fit_annotators(VOTES, VOTES, [0, 1], variant='stable'), 'a Beta needs them to differ'),
    (lambda m: extend(LabelPool(VOTES, [0, 1], names=['a', 'b']), VOTES, [0]), "names such as 'a'"),
    (lambda m: extend(LabelPool(VOTES, [0, 1]), VOTES, [0, 0]), 'there twice'),
    (lambda m: extend(LabelPool(VOTES, [0, 1]), VOTES, [2]), 'ids: found 2')])
def test_bad_input(wrong, says):
    with pytest.raises(ValueError) as e: wrong(AnnotatorModel.shipped())
    assert says in str(e.value)

TWO = np.array([[.9, .1], [.7, .3], [.6, .4], [.55, .45]]*10)

@pytest.mark.parametrize('f, says', [
    (lambda m: label_shapes([[.5, .5], [2., 3.]]), 'rows: row 1 is [2.0, 3.0]'), (lambda m: label_shapes([[.5, .5], [np.nan, 1]]), 'rows: row 1'),
    (lambda m: label_shapes([[1.5, -.5]]), 'rows: row 0'), (lambda m: label_shapes([[1.]]), 'K of 2 or more'), (lambda m: label_shapes([[.5, .5], [1.]]), 'rows: no table'),
    (lambda m: fit_annotators(TWO*2, [[.5, .5]], [0]*40, variant='joint', similarity=np.eye(2)), 'labels: row 0'),
    (lambda m: fit_annotators(TWO, VOTES, [0]*40), 'labels: rows have 2 classes'), (lambda m: fit_annotators(VOTES, [[np.nan]*10], [0, 0]), 'probs: row 0'),
    (lambda m: fit_annotators(label_shapes(VOTES).assign(p1=2.), VOTES, [0, 1], variant='joint'), 'p1 of labels: found 2'),
    (lambda m: fit_annotators(label_shapes(VOTES).assign(possible=10), VOTES, [0, 1], variant='joint'), 'possible of labels: found 10'),
    (lambda m: fit_annotators(VOTES, VOTES, [0, .5]), 'image: found 0.5'), (lambda m: fit_annotators(VOTES, VOTES, [0, 1], least=1.5), 'least: found 1.5'),
    *[(lambda m, t=t: fit_annotators(VOTES, VOTES, [0, 1], variant='joint', threshold=t), f'threshold: found {t!r}') for t in (np.nan, 'a', '.3', None, -1)],
    (lambda m: extend(LabelPool(VOTES, [0, 1]), VOTES, [.5, 1]), 'ids: found 0.5'), (lambda m: extend(LabelPool(VOTES, [0, 1]), VOTES, [True, True]), 'ids: found [True, True]'),
    (lambda m: m.sample([1, 2], n_annotators='2'), "n_annotators: found '2'"), (lambda m: m.sample([1, 2], n_annotators=[[1, 2]]), 'n_annotators: found shape'),
    (lambda m: m.sample([1, 2], names=['a']), 'names has 1'), (lambda m: m.sample([]), 'empty'), (lambda m: m.sample(None), 'y: found None'),
    (lambda m: m.sample([1, 2], high='a'), "high: found 'a'"), (lambda m: m.sample([1, 2], high=[.3, 0]), 'high: found 0.3'),
    (lambda m: goodness(m.sample(VOTES, 4), VOTES, n_splits=0), 'n_splits: found 0'), (lambda m: goodness(m.sample(VOTES, 4), VOTES, []), 'variants: ')])
def test_raw_and_silent_errors_have_become_named_ones(f, says):
    with pytest.raises(ValueError) as e: f(AnnotatorModel.shipped())
    assert says in str(e.value)

def test_equal_seeds_are_equal_draws():
    m = AnnotatorModel.shipped('joint')
    pool, probs = LabelPool(VOTES, [0, 1], names=[7, 2]), np.tile(VOTES, (6, 1))
    assert torch.equal(extend(pool, probs, range(12), seed=np.int64(3)).rows, extend(pool, probs, range(12), seed=3).rows)
    crowd = m.sample(probs, 6)
    a, b = (goodness(crowd, probs, ['joint'], n_splits=1, seed=o).table for o in (3, np.uint8(3)))
    pd.testing.assert_frame_equal(a, b)

@pytest.mark.parametrize('seed', [np.random.default_rng(0), torch.Generator(), None, .5, True])
def test_what_is_no_seed_is_refused(seed):
    pool = LabelPool(VOTES, [0, 1], ['a', 'b'])
    for f in (lambda: extend(pool, VOTES, [0, 1], seed=seed), lambda: goodness(pool, VOTES, seed=seed)):
        with pytest.raises(ValueError, match='seed: found'): f()

def test_two_classes_have_no_second_to_choose():
    m = fit_annotators(TWO, [[.5, .5]], [0]*40, similarity=np.eye(2))
    assert m.strata['high']['p2'] is None and m.strata['high']['p1'] is not None
    made = m.sample([[.5, .5]], 20_000)
    assert abs(made.rows.max(1).values.mean() - TWO.max(1).mean()) < .02
    wide = extend(LabelPool(TWO[:1], [0]), [[.5, .5]]*300, range(300), m)
    assert abs(wide.rows[1:].max(1).values.mean() - TWO.max(1).mean()) < .03
    again = fit_annotators(made, [[.5, .5]], similarity=np.eye(2))
    np.testing.assert_allclose(again.strata['high']['p1'], m.strata['high']['p1'], rtol=.06)
    json.dumps(m.strata)
    assert 'nan' in m._repr_html_().lower()
    people = LabelPool(TWO, [0]*40, participant=[f'p{i%8}' for i in range(40)])
    assert np.isfinite(goodness(people, [[.5, .5]], ['stable', 'joint'], n_splits=1, similarity=np.eye(2)).table.ks).all()

@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('least', [1, 10])
def test_where_all_are_sure_all_stay_sure(variant, least):
    sure = fit_annotators(np.eye(10)[[3]*30], VOTES[:1], [0]*30, variant=variant, least=least)
    assert (sure.sample([3]*200, 5).rows.max(1).values == 1).all()
    pool = LabelPool(VOTES[:1], [0], names=[99])
    assert (extend(pool, np.tile(VOTES[:1], (100, 1)), range(99), sure).rows.max(1).values == 1).all()

def test_who_leaves_one_other_open_has_no_second():
    y = np.zeros((60, 10))
    y[:, 3] = np.linspace(.5, 1, 60)
    y[:, 5] = 1 - y[:, 3]
    m = fit_annotators(y, VOTES[1:], [0]*60, least=60) # whose bins are so coarse that two others can be drawn
    assert m.strata['high']['p2'] is None and m.strata['high']['possible'][5] > 0
    made = label_shapes(m.sample(VOTES[1:], 2000).rows)
    many = made[made.possible > 1]
    np.testing.assert_allclose(many.p2, (1 - many.p1)/many.possible, atol=1e-6) # the others share alike

def test_extend_keeps_people_and_adds_others():
    probs, model = np.tile(VOTES, (6, 1)), AnnotatorModel.shipped()
    people = LabelPool(np.eye(10)[[1, 2, 3]], [0, 0, 1], participant=['ann', 'bob', 'ann'], names=[7, 2])
    pool = extend(people, probs, [2, 5, 7, 0], model, n_annotators=3, seed=4)
    assert pool.names == [2, 5, 7, 0] and pool.count.tolist() == [1, 3, 2, 3]
    assert pool.participant[pool.image == 2].tolist() == ['ann', 'bob'] and set(pool.participant[pool.image == 1]) == {f'sim-00{i}' for i in range(3)}
    turned = extend(people, probs, [0, 7, 5, 2], model, n_annotators=3, seed=4)
    assert torch.equal(turned.rows[turned.image == 2], pool.rows[pool.image == 1])
    assert not torch.equal(extend(people, probs, [5], model, seed=5).rows, extend(people, probs, [5], model, seed=6).rows)
    assert torch.equal(extend(people, probs, [7, 2], model).rows, people.rows) # nobody to simulate

@pytest.mark.parametrize('order', [[0, 1, 2], [2, 0, 1]])
def test_a_pool_finds_its_votes_by_the_numbers_of_its_images(order):
    probs = np.tile(VOTES[:1], (50, 1))
    probs[[41, 7]] = VOTES[1] # of 50 images only these are unclear
    pool = LabelPool(np.eye(10)[[1, 2, 3, 4]], np.array([0, 0, 1, 2]), names=[41, 3, 7]).select(order)
    assert {k: s['n'] for k, s in fit_annotators(pool, probs, variant='joint').strata.items()} == dict(low=1, high=3)
    own = fit_annotators(pool, probs[pool.names], variant='joint') # as many rows as images: in the order of the pool
    assert {k: s['n'] for k, s in own.strata.items()} == dict(low=1, high=3)

def test_a_pool_without_votes_of_its_own_is_refused():
    rows = np.eye(10)[[1, 2, 3]]
    for names, n, told in [([0, 1, 2], 2, 'probs: has 2 rows; the pool has 3 images'), (list('abc'), 5, "names such as 'a'"),
                           ([0, 1, 9], 5, 'names of the images in labels: found 9')]:
        with pytest.raises(ValueError) as e: fit_annotators(LabelPool(rows, [0, 1, 2], names=names), VOTES[[0]*n])
        assert told in str(e.value)

def test_labels_do_not_depend_on_what_else_is_asked_for():
    probs, people = np.tile(VOTES, (6, 1)), LabelPool(np.eye(10)[[1]], [0], names=[7])
    wide, some = extend(people, probs, [1, 2, 3, 7], n_annotators=4), extend(people, probs, [2, 3], n_annotators=4)
    assert torch.equal(wide.rows[4:12], some.rows) and not torch.equal(wide.rows[:4], wide.rows[8:12])
    assert torch.equal(extend(people, np.tile(VOTES, (9, 1)), [3], n_annotators=4).rows, some.rows[4:])

@pytest.mark.parametrize('variant', VARIANTS)
def test_extend_asks_the_same_people_as_sample(variant):
    model, probs, nobody = AnnotatorModel.shipped(variant), np.tile(VOTES, (2000, 1)), LabelPool(np.eye(10)[[0]], [0], names=[0])
    made, other = extend(nobody, probs, np.arange(2, 4000), model, n_annotators=5), model.sample(VOTES, 10_000)
    for i in (0, 1):
        a, b = (label_shapes(o.rows[o.image % 2 == i]) for o in (made, other))
        for c in ('p1', 'p2', 'possible'): assert stats.ks_2samp(a[c], b[c]).statistic < .03
        assert np.allclose(made.rows[made.image % 2 == i].mean(0), other.rows[other.image == i].mean(0), atol=.015)

def test_extend_keeps_the_votes():
    pool = LabelPool.from_counts(np.array([[40, 10, 1] + [0]*7, [0, 0, 51] + [0]*7]), names=[4, 1])
    wide = extend(pool, np.tile(VOTES, (3, 1)), [1, 0, 4])
    assert torch.equal(wide.mean()[[2, 0]], pool.mean()) and wide.n_answers == pool.n_answers == 102
    assert wide.votes.tolist() == [51, 1, 40, 10, 1] and wide.given.tolist() == [False, True, False, False, False]
    assert total_seconds(wide, 2.5) == 2.5*102

def test_extend_keeps_weights_seconds_and_what_was_filled():
    rows = np.eye(10)[[0, 1, 2]]
    pool = LabelPool(rows, [0, 0, 1], ['ann', 'bob', 'ann'], [4., 6., 5.], names=[4, 1, 2], weights=[3, 1, 2]).fill([0, 0, 0])
    wide = extend(pool, np.tile(VOTES, (3, 1)), [0, 1, 2, 4], n_annotators=2)
    assert wide.weights.tolist() == [1, 1, 2, 1, 3, 1] and torch.equal(wide.mean()[[3, 1, 2]], pool.mean())
    assert wide.given.tolist() == [True, True, False, True, False, False]
    assert total_seconds(wide) == total_seconds(pool) == 15
    by = wide.weighted({'ann': 0, 'bob': 2}) # simulated people need no weight
    assert by.weights.tolist() == [1, 1, 0, 1, 0, 2]
    assert annotator_weights(wide, y=[0]*4).index.tolist() == ['ann', 'bob']
    unweighted = extend(LabelPool(rows, [0, 0, 1], names=[4, 1], weights=[0, 1, 0]), np.tile(VOTES, (3, 1)), [1, 4])
    assert unweighted.count.tolist() == [2, 2] and not len(unweighted.unlabelled) # nobody is believed about image 1

def test_extend_stays_where_the_pool_is():
    pool = LabelPool(np.eye(10)[[0, 1]], [0, 0], names=[4]).to('meta')
    assert extend(pool, np.tile(VOTES, (3, 1)), [0, 4]).device.type == 'meta'

def test_extend_keeps_unknown_people_unknown():
    pool = LabelPool(np.eye(10)[[0, 1, 2, 3]], [0, 0, 1, 1], names=[4, 1])
    assert extend(pool, np.tile(VOTES, (3, 1)), [4, 1]).participant is None
    wide = extend(pool, np.tile(VOTES, (3, 1)), [4, 0, 1], n_annotators=3)
    assert wide.participant.tolist() == [None, None, 'sim-000', 'sim-001', 'sim-002', None, None]
    assert wide.subsample(1).count.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match='nobody knows'): annotator_weights(wide, y=[0]*3)

def test_statistics_of_labels():
    s = label_statistics([[.5, .5, 0], [1, 0, 0]], [0, 0], [[0, 0, 1.]], eps=.03)
    assert s['entropy'] == pytest.approx([np.log(2), 0]) and s['possible'].tolist() == [1, 0]
    assert s['ce'] == pytest.approx([-np.log(.01)]*2) and s['mean ce'] == pytest.approx([-np.log(.01)])
    assert s['mean entropy'] == pytest.approx([stats.entropy([.75, .25])])

def test_goodness_tells_who_is_not_like_people():
    votes = np.random.default_rng(0).dirichlet([.6]*10, 80)
    crowd = AnnotatorModel.shipped('joint').sample(votes, 12)
    table = goodness(crowd, votes, n_splits=8).table.ks
    assert table['joint', 'entropy'] < .08 and table['published', 'entropy'] > table['joint', 'entropy'] + .1
    report = goodness(crowd, votes, ['joint'], n_splits=1, seed=3)
    pd.testing.assert_frame_equal(report.table, goodness(crowd, votes, ['joint'], n_splits=1, seed=3).table)
    plot_goodness(report, 'joint')[0, 0].figure.canvas.draw()
    more = extend(crowd.select(range(70)), votes, range(80), AnnotatorModel.shipped('joint')) # ten images that no person labelled
    same = goodness(more, votes, ['joint'], n_splits=1)
    pd.testing.assert_frame_equal(same.table, goodness(crowd.select(range(70)), votes[:70], ['joint'], n_splits=1).table)
    for who, told in [([None, 'a'], 'does not know its participants'), (['a', 'a'], 'labels of 1 person')]:
        with pytest.raises(ValueError, match=told): goodness(LabelPool(VOTES, [0, 1], who), VOTES)

def test_labels_that_no_person_gave_are_not_fitted_and_votes_count_each():
    people = AnnotatorModel.shipped().sample(VOTES, 200, generator=1)
    probs = np.vstack([VOTES, VOTES])
    plain, more = fit_annotators(people, VOTES), fit_annotators(extend(people, probs, range(4), n_annotators=50), probs)
    assert plain.strata == more.strata
    rows = np.array([[.9, .1, 0], [.6, .3, .1], [.5, .3, .2]])
    alike = np.eye(3)
    voted = fit_annotators(LabelPool(rows, [0, 0, 0], votes=[3, 1, 2]), [[1., 0, 0]], similarity=alike)
    assert voted.strata == fit_annotators(LabelPool(rows[[0, 0, 0, 1, 2, 2]], [0]*6), [[1., 0, 0]], similarity=alike).strata

def answers(n=300, classes=('pear', 'plum', 'quince'), seed=0):
    g = np.random.default_rng(seed)
    p = np.sort(g.dirichlet(np.ones(3), size=n))[:, ::-1].round(2)
    ticks = [tuple(classes[2:]) if o else () for o in g.random(n) < .5]
    return pd.DataFrame(dict(participant=g.choice(list('abcdefghijklmnop'), n), id_a=g.integers(4, size=n), first=classes[0],
                             first_prob=p[:, 0], second=classes[1], second_prob=p[:, 1], impossible=ticks))

def test_other_classes_have_their_own_names_and_similarity():
    names, df = ('pear', 'plum', 'quince'), answers()
    probs = np.array([[1., 0, 0], [0, 1, 0], [.5, .5, 0], [.4, .3, .3]])
    alike = np.array([[1., .2, .6], [.2, 1, .1], [.6, .1, 1]])
    model = fit_annotators(df, probs, classes=names, similarity=alike)
    assert list(model.strata) == ['low', 'high'] and model.meta['classes'] == list(names)
    pool = model.sample(probs, 50)
    assert pool.n_classes == 3 and torch.allclose(pool.rows.sum(1), torch.ones(200))
    pear = pool.rows[:50]
    assert (pear[:, 2] >= pear[:, 1]).all() # quince is nearer
    shared = fit_annotators(answers(classes=('cat', 'dog', 'frog')), probs, classes=('cat', 'dog', 'frog'))
    np.testing.assert_allclose(shared.similarity, similarity(classes=('cat', 'dog', 'frog')))
    for f, told in [(lambda: fit_annotators(df, probs, classes=names), "class 'pear'"), (lambda: fit_annotators(df, probs), 'pear'),
                    (lambda: fit_annotators(df, probs, similarity=alike), 'pear'), (lambda: fit_annotators(df, probs, classes=names[:2], similarity=alike), 'classes: 2 names'),
                    (lambda: fit_annotators(df.drop(columns='id_a'), probs, classes=names, similarity=alike), "labels: no column 'id_a'"),
                    (lambda: fit_annotators(df.drop(columns='second'), probs, classes=names, similarity=alike), "no column 'second'"),
                    (lambda: fit_annotators(df.assign(id_b=1), probs, classes=names, similarity=alike), 'image: needed')]:
        with pytest.raises(ValueError, match=told): f()
    both = fit_annotators(df.assign(id_b=1), probs, df.id_a, classes=names, similarity=alike)
    assert both.strata == model.strata

@quick
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 99))
def test_no_number_stands_on_fewer_people_than_asked_for(least, n_people, seed):
    g = np.random.default_rng(seed)
    rows, who = g.dirichlet([2, 1, .5, .2], size=200).round(2), g.integers(n_people, size=200)
    rows[:, 0] += 1 - rows.sum(1)
    rows[g.random(200) < .3] = np.eye(4)[0]
    s = label_shapes(rows)
    p1, p2, n = (s[c].to_numpy() for c in ('p1', 'p2', 'possible'))
    cells = np.array(_cells(p1, p2, n, who, least))
    assert cells[:, 3].sum() == 200 and (cells[:, 3] >= min(least, len(set(who)))).all()
    np.testing.assert_allclose((cells[:, :2]*cells[:, 3:]).sum(0)/200, [p1.mean(), p2.mean()], atol=.006)
    assert set(cells[cells[:, 2] == 0, 0]) <= {1} or len(set(who)) < least # those who left nothing open stay apart
    bins = _histogram(n, who, 4, least)
    assert bins.sum() == pytest.approx(1) and (bins >= 0).all()
    if least == 1: assert bins.tolist() == (np.bincount(n, minlength=4)/200).tolist() and len(cells) == len(s.round(2).drop_duplicates(['p1', 'p2', 'possible']))

def test_one_person_with_many_answers_is_one_person():
    rows = np.repeat([[.9, .1, 0], [.8, .1, .1]], [50, 50], axis=0)
    who = ['ann']*50 + [f'p{i}' for i in range(50)]
    pool = LabelPool(rows, np.zeros(100, int), who)
    cells = fit_annotators(pool, [[1., 0, 0]], similarity=np.eye(3), variant='joint', least=10).strata['low']['cells']
    assert cells == [[.85, .1, 2, 100]] # not a cell of what Ann alone says
    unknown = fit_annotators(LabelPool(rows, np.zeros(100, int)), [[1., 0, 0]], similarity=np.eye(3), variant='joint', least=10)
    assert len(unknown.strata['low']['cells']) == 2

def test_nobody_can_be_read_back_from_what_is_shipped():
    strata = [s for v in VARIANTS for s in AnnotatorModel.shipped(v).strata.values()]
    assert AnnotatorModel.shipped().variant == 'stable' and AnnotatorModel.shipped().meta['least'] == 10
    for s in strata:
        if 'cells' in s: assert min(c[3] for c in s['cells']) >= 10 and sum(c[3] for c in s['cells']) == s['n']
        else: assert sum(s['possible']) == pytest.approx(1) and min(s['possible'])*s['n'] > 8 # bins that share have ten people together

@pytest.mark.parametrize('variant, most', [('stable', [.03, .06, .03]), ('joint', [.02, .06, .01]), ('published', [.18, .5, .06])])
def test_ten_thousand_simulated_answers_are_like_the_real_ones(variant, most):
    high, n = np.arange(10_000) < 10_000*5957/6723, np.arange(10_000)
    s = label_statistics(AnnotatorModel.shipped(variant).sample([3]*10_000, 1, 8, high=high).rows, n, np.eye(10)[[3]*10_000])
    off = [abs(s[k].mean() - real) for k, real in dict(entropy=.431, possible=1.673, top1=.833).items()]
    assert (np.array(off) < most).all()

def test_the_draws_of_the_published_betas_are_found_again():
    model = AnnotatorModel.shipped('published')
    for name, s in model.strata.items():
        drawn = model.draw(np.full(30_000, name == 'high'), 4)
        for c in ('p1', 'p2'): assert _beta(drawn[c].to_numpy(), 'stable', c)[:2] == pytest.approx(s[c][:2], rel=.06)
        np.testing.assert_allclose(np.bincount(drawn.possible, minlength=10)/30_000, s['possible'], atol=.01)

def test_the_shipped_numbers_are_those_of_the_data(hub, tmp_path):
    a = json.loads(ship_annotators(hub, tmp_path/'a.json').read_text())
    for v in VARIANTS: assert {k: s['n'] for k, s in AnnotatorModel.shipped(v).strata.items()} == dict(low=766, high=5957)
    assert a['strata']['joint'] == AnnotatorModel.shipped('joint').strata
    assert {k: a['meta'][k] for k in ('licence', 'least')} == dict(licence='none stated', least=10) and len(a['meta']['sha256']) == 64
    for k in ('low', 'high'):
        assert a['strata']['stable'][k]['p1'] == pytest.approx(AnnotatorModel.shipped('stable').strata[k]['p1'], rel=.02)
    published = a['strata']['published'] # the thesis's notebook, and a second fit of ours
    assert published['low']['p1'] == pytest.approx([10.3546, .8787, .99], rel=.1)
    assert published['high']['p1'] == pytest.approx([2.10, .508, .990], abs=.005)
    assert published['high']['p2'] == pytest.approx([.212, .986, .498], abs=.005)
    assert published['low']['p2'] == pytest.approx([.150, 2.53, .584], rel=.01)

def test_like_people_who_were_held_out(hub):
    from hmix_nb.data.images import cifar10h, split
    from hmix_nb.data.judgments import categorical
    from hmix_nb.softlabels.construct import soft_labels
    df, probs = categorical(hub, 'cifar-10s'), cifar10h(hub)
    ids = np.unique(df.id_a)
    pool = LabelPool(soft_labels(df).astype(np.float32), np.searchsorted(ids, df.id_a), df.participant, names=ids)
    t = goodness(pool, probs[ids], ['joint', 'stable'], n_splits=3, least=10).table
    single = ['entropy', 'possible', 'top1', 'ce']
    assert (t.ks['joint'][single] < t.ks_people['joint'][single] + .025).all()
    assert (t.ks['stable'][single] < .11).all()
    seven = extend(pool, probs, split(hub)[0])
    assert len(seven) == 7000 and len(seven.rows) == 6723 + 6000 and not len(seven.unlabelled)
