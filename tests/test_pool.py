"Laws of pools on generated ones; loaders inside a real Learner; weights and costs; the released labels where they are at hand."
import json, pickle, sys, warnings
import numpy as np, pandas as pd, pytest, torch
import fastai.callback.progress # adds `no_bar`
from fastai.learner import Learner, load_learner
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare, hypergeom
from torch.utils._python_dispatch import TorchDispatchMode
from hmix_nb.data.images import SoftSet, as_floats, cifar10h, digits
from hmix_nb.data.judgments import categorical
from hmix_nb.data.pool import LabelPool
from hmix_nb.labels import soft_cross_entropy
from hmix_nb.mixing.stimuli import KINDS, Stimuli, hmix_stimuli
from hmix_nb.softlabels.pool import DrawnSet, annotator_weights, pool_dls, total_seconds

quick = settings(max_examples=60, deadline=None)

def raw(counts, k=4, seed=0):
    "Rows, images and participants of a pool with `counts` rows per image, shuffled."
    g = np.random.default_rng(seed)
    image = g.permutation(np.repeat(np.arange(len(counts)), counts))
    who = np.array([f'p{i}' for i in g.integers(3, size=len(image))], dtype=object)
    return g.dirichlet(np.ones(k), size=len(image)), image, who

def made(counts, k=4, seed=0, **kw):
    rows, image, who = raw(counts, k, seed)
    return LabelPool(rows, image, who, names=[f'im{i}' for i in range(len(counts))], **kw)

counts = st.lists(st.integers(1, 6), min_size=1, max_size=8)
def gen(seed=0): return torch.Generator().manual_seed(seed)

@quick
@given(counts, st.integers(1, 5), st.integers(0, 99))
def test_rows_are_kept_sorted_by_image_and_the_mean_is_theirs(n, k, seed):
    rows, image, who = raw(n, k, seed)
    pool = LabelPool(rows, image, who, seconds=np.arange(len(image)))
    assert pool.count.tolist() == n and (np.diff(pool.image) >= 0).all()
    back = pool.seconds.astype(int) # the row each came from
    assert np.array_equal(pool.image, image[back]) and np.array_equal(pool.participant, who[back])
    assert np.array_equal(pool.rows.numpy(), rows[back].astype(np.float32))
    assert np.allclose(pool.mean(), [rows[image == i].mean(0) for i in range(len(n))], atol=1e-6)

@quick
@given(counts, st.booleans(), st.booleans(), st.integers(0, 99))
def test_a_draw_is_a_row_of_that_image_and_counts_for_something(n, votes, weights, seed):
    g = np.random.default_rng(seed)
    w = g.integers(0, 3, sum(n)).astype(float)
    rows, image, _ = raw(n, seed=seed)
    w[[np.flatnonzero(image == i)[0] for i in range(len(n))]] = 1. # each image has one row that counts
    pool = made(n, seed=seed, votes=g.integers(1, 9, sum(n)) if votes else None, weights=w if weights else None)
    idx = torch.as_tensor(g.integers(len(n), size=300))
    at = pool.pick(idx, gen(seed))
    assert np.array_equal(pool.image[at], idx) and (pool.row_weights[at] > 0).all()
    assert torch.equal(pool.draw(idx, gen(seed)), pool.rows[at])

@pytest.mark.parametrize('how', ['alike', 'votes', 'weights', 'both'])
def test_draws_follow_the_weights(how):
    pool = made([3, 1, 5], votes=None if how in ('alike', 'weights') else [5, 1, 2, 9, 3, 1, 1, 40, 7],
                weights=None if how in ('alike', 'votes') else [.5, 2, 1, 0, .25, 3, 1, 1, 1])
    n = 20_000
    at = pool.pick(torch.arange(3).repeat(n), gen(7)).numpy()
    w = pool.row_weights
    expected = w/np.bincount(pool.image, w)[pool.image]*n
    seen = np.bincount(at, minlength=9)
    assert not seen[expected == 0].any()
    assert chisquare(seen[expected > 0], expected[expected > 0], ddof=2).pvalue > 1e-4

@pytest.mark.parametrize('weighted', [False, True])
def test_over_many_epochs_the_mean_of_the_draws_is_the_mean_of_the_pool(weighted):
    pool, x = made([6, 7, 2, 1, 9]*20, weights=np.random.default_rng(1).random(500) + .1 if weighted else None), torch.rand(100, 3, 2, 2)
    dls = pool_dls(x, pool, x, pool, bs=32, generator=3, device='cpu')
    total, epochs = torch.zeros(100, 4, dtype=torch.float64), 1500
    order = {tuple(o.tolist()): i for i, o in enumerate(x.flatten(1))}
    for _ in range(epochs):
        for xb, yb in dls.train: total[[order[tuple(o)] for o in xb.flatten(1).tolist()]] += yb
    image, rows = torch.as_tensor(pool.image), pool.rows.double()
    mean = pool.mean().double()
    w = torch.as_tensor(pool.row_weights)
    var = torch.zeros(100, 4, dtype=torch.float64).index_add_(0, image, w[:, None]*(rows - mean[image])**2)
    var /= torch.zeros(100, dtype=torch.float64).index_add_(0, image, w)[:, None]
    z = ((total/epochs - mean)/(var/epochs).sqrt())[pool.count > 1]
    assert z.abs().max() < 5 and abs(z.std() - 1) < .15 and torch.allclose(total[pool.count == 1]/epochs, mean[pool.count == 1])

def test_uniform_numbers_at_their_ends_stay_inside_the_image(monkeypatch):
    plain, votes = made([3, 1, 63, 7]), made([3, 1, 63, 7], votes=np.arange(1, 75))
    w = np.tile([0., 1.], 37)
    w[3] = 1 # the only row of its image
    weights = LabelPool(np.ones((74, 1)), np.repeat(range(4), [3, 1, 63, 7]), weights=w)
    for u in (0., 1 - 2**-24, *np.random.default_rng(0).random(500, np.float32)): # the smallest and the largest that torch draws
        monkeypatch.setattr(torch, 'rand', lambda *size, u=u, **kw: torch.full(size, float(u)))
        at = plain.pick([0, 1, 2, 3])
        if u in (0, 1 - 2**-24): assert at.tolist() == (plain.start if u == 0 else plain.start + plain.count - 1).tolist()
        for pool in (votes, weights): # never a row of weight 0
            at = pool.pick([0, 1, 2, 3]).numpy()
            assert pool.image[at].tolist() == [0, 1, 2, 3] and (pool.row_weights[at] > 0).all()

def shares(pool): # with which chance the rows of each image are drawn
    stay, other = pool._stay.double().numpy(), pool._other.numpy()
    return (stay + np.bincount(other, 1 - stay, len(stay)))/pool.count.numpy()[pool.image]

@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.sampled_from([0., 1e-9, .1, .2, .3, 1/3, 1., 1., 2., 7., 1e6]), min_size=1, max_size=40), min_size=1, max_size=8))
def test_the_chances_of_rows_are_their_weights(images):
    w, image = np.concatenate(images), np.repeat(np.arange(len(images)), [len(o) for o in images])
    pool = LabelPool(np.ones((len(w), 1)), image, weights=w)
    if pool._stay is None: return # all weigh 1
    total = np.bincount(image, w)[image]
    there = total > 0
    assert np.allclose(shares(pool)[there], (w/np.where(there, total, 1))[there], atol=1e-6, rtol=0)
    assert np.array_equal(image[pool._other.numpy()], image) and ((pool._stay >= 0) & (pool._stay <= 1)).all()
    assert not (shares(pool)[there & (w == 0)]).any()

def test_wide_pools_of_weighted_rows_need_no_table_as_wide_as_they_are():
    g = np.random.default_rng(1)
    count = np.r_[10_000, np.full(5000, 3)]
    w = g.random(count.sum())*g.choice([0, 1, 100], count.sum())
    first = np.cumsum(count) - count
    w[first] += .01
    pool = LabelPool(np.ones((len(w), 1)), np.repeat(np.arange(len(count)), count), weights=w)
    held = sum(v.nelement() for v in vars(pool).values() if torch.is_tensor(v))
    assert held < 5*len(w) # a padded table would have 50 million
    assert np.allclose(shares(pool), w/np.bincount(pool.image, w)[pool.image], atol=1e-7)
    many = pool.pick(torch.zeros(200_000, dtype=torch.long), gen(3)).numpy()
    top = np.argsort(-w[:10_000])[:3000]
    seen, expected = np.isin(many, top).mean(), w[top].sum()/w[:10_000].sum()
    assert abs(seen - expected) < 5*(expected*(1-expected)/200_000)**.5

def test_the_mean_of_many_rows_is_exact_and_made_in_parts():
    rows, image, _ = raw([1, 70_000, 3], k=30)
    w = np.random.default_rng(0).random(70_004)
    pool = LabelPool(rows, image, weights=w)
    order = np.argsort(image, kind='stable')
    want = [np.average(rows[order][pool.image == i].astype(np.float32).astype(float), axis=0, weights=w[order][pool.image == i]) for i in range(3)]
    assert np.abs(pool.mean().numpy() - want).max() < 1e-7

def test_rows_of_an_image_keep_their_order():
    image = np.random.default_rng(0).integers(3, size=3000)
    pool = LabelPool(torch.ones(3000, 1), image, seconds=np.arange(3000))
    for i in range(3): assert np.array_equal(pool.seconds[pool.image == i], np.flatnonzero(image == i))

def test_the_seed_alone_decides_and_the_state_can_be_put_back():
    pool, idx = made([5]*50), torch.arange(50)
    torch.manual_seed(0)
    a = pool.draw(idx, gen(1))
    torch.manual_seed(1)
    assert torch.equal(pool.draw(idx, gen(1)), a) and not torch.equal(pool.draw(idx, gen(2)), a)
    g = gen(1)
    pool.draw(idx, g)
    state = g.get_state()
    b = [pool.draw(idx, g) for _ in range(3)]
    g.set_state(state)
    assert all(torch.equal(pool.draw(idx, g), o) for o in b) and not torch.equal(b[0], b[1])
    again = pickle.loads(pickle.dumps(pool))
    assert torch.equal(again.draw(idx, gen(1)), a) and again.names == pool.names

@pytest.mark.parametrize('votes', [None, np.arange(1, 31)])
def test_random_numbers_come_from_the_generator_wherever_the_pool_is(votes):
    pool, a, b = made([30//6]*6, votes=votes), gen(4), gen(4)
    there = pool.to('meta')
    assert there.draw([0, 5, 5], a).device.type == 'meta' and there.draw(torch.tensor([1]), a).shape == (1, 4)
    pool.draw([0, 5, 5], b), pool.draw([1], b)
    assert torch.equal(a.get_state(), b.get_state()) # as many, and on the CPU: so the draws are the same
    assert torch.equal(pool.to('cpu').draw([0, 5], gen(1)), pool.draw([0, 5], gen(1)))

class Copies(TorchDispatchMode):
    "Keeps how tensors are copied from one device to another."
    def __init__(self):
        super().__init__()
        self.seen = []
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if '_to_copy' in str(func) and 'device' in (kwargs or {}): self.seen.append((kwargs['device'].type, kwargs.get('non_blocking', False)))
        return func(*args, **(kwargs or {}))

def test_only_copies_to_a_gpu_are_not_waited_for():
    pool = made([5]*6).to('meta')
    with Copies() as c: pool.draw(torch.tensor([1, 2], device='meta'), gen())
    assert c.seen == [('meta', False)]

class CountOps(TorchDispatchMode):
    "Counts what torch is asked to do."
    def __init__(self):
        super().__init__()
        self.n = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += 1
        return func(*args, **(kwargs or {}))

@pytest.mark.parametrize('votes', [None, np.arange(1, 201)])
def test_a_draw_takes_as_many_steps_for_one_image_as_for_many(votes):
    def steps(b, n):
        pool = made([200//n]*n, votes=votes)
        with CountOps() as c: pool.draw(torch.zeros(b, dtype=torch.long), gen())
        return c.n
    assert steps(1, 2) == steps(512, 2) == steps(512, 100) < 14

@quick
@given(counts, st.data())
def test_selecting_takes_all_rows_of_the_images_in_that_order(n, data):
    pool = made(n)
    idx = data.draw(st.lists(st.integers(0, len(n)-1), max_size=9, unique=True))
    some = pool.select(idx)
    assert some.names == [pool.names[i] for i in idx] and some.count.tolist() == [n[i] for i in idx]
    for j, i in enumerate(idx):
        assert torch.equal(some.rows[some.image == j], pool.rows[pool.image == i])
        assert np.array_equal(some.participant[some.image == j], pool.participant[pool.image == i])
    mask = np.isin(np.arange(len(n)), idx)
    assert pool.select(mask).names == [o for o, m in zip(pool.names, mask) if m]

@quick
@given(counts, st.integers(1, 4), st.integers(0, 99))
@pytest.mark.filterwarnings('ignore')
def test_subsampling_takes_m_annotators_with_all_they_said_and_is_nested(n, m, seed):
    pool = made(n, seed=seed)
    def pairs(p): return set(zip(p.image, p.participant))
    some, more = pool.subsample(m, seed), pool.subsample(m+1, seed)
    for i in range(len(n)):
        have = {w for j, w in pairs(pool) if j == i}
        assert len({w for j, w in pairs(some) if j == i}) == min(m, len(have))
    assert pairs(some) <= pairs(more) <= pairs(pool)
    assert len(some.rows) == sum((j, w) in pairs(some) for j, w in zip(pool.image, pool.participant)) # repeats stay
    assert torch.equal(pool.subsample(m, seed).rows, some.rows) and some.names == pool.names

def test_subsampled_votes_are_drawn_without_replacement():
    pool = LabelPool.from_counts([[45, 6, 0]]*4000)
    some = pool.subsample(5, seed=2)
    assert (np.bincount(some.image, some.votes) == 5).all() and some.n_answers == 20_000
    second = np.bincount(some.image, some.votes*(some.rows[:, 1] == 1).numpy(), minlength=4000).astype(int)
    p = hypergeom(51, 6, 5).pmf(np.arange(4))
    seen = np.bincount(np.minimum(second, 3), minlength=4)
    assert chisquare(seen, np.r_[p[:3], 1-p[:3].sum()]*4000).pvalue > 1e-4
    assert torch.equal(pool.subsample(51).mean(), pool.mean())

@quick
@given(st.lists(st.integers(2, 6), min_size=1, max_size=6), st.integers(0, 99), st.booleans())
@pytest.mark.filterwarnings('ignore')
def test_a_subsample_has_a_label_for_each_image_that_had_one(n, seed, votes):
    w = np.random.default_rng(seed).choice([0., 1.], sum(n))
    pool = made(n, seed=seed, weights=w, votes=np.arange(1, sum(n)+1) if votes else None)
    for m in (1, 2):
        some = pool.subsample(m, seed)
        assert some.unlabelled.tolist() == pool.unlabelled.tolist() and (some.row_weights > 0).all()

def test_fewer_annotators_than_asked_for_are_said():
    pool = LabelPool([[1., 0.]]*5, [0, 0, 0, 1, 1])
    with pytest.warns(UserWarning, match='1 of 2 images have fewer than 3 annotators, the fewest 2; all stay'): pool.subsample(3)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert pool.subsample(2).count.tolist() == [2, 2]
    assert any(not np.array_equal(made([6]*9).subsample(1, s).participant, made([6]*9).subsample(1, 0).participant) for s in (1, 2, 3))

def test_images_without_labels_are_named_and_can_be_filled():
    pool = LabelPool([[.5, .5], [1., 0.]], [0, 2], ['a', 'b'], [3., 5.], names=['x', 'y', 'z', 'w'])
    for f in (pool.mean, lambda: pool.draw([0]), lambda: pool_dls(torch.rand(4, 3, 2, 2), pool, torch.rand(2, 3, 2, 2), [0, 1])):
        with pytest.raises(ValueError, match=r"no label for 'y', 'w' \(2 of 4 images\)"): f()
    with pytest.raises(ValueError, match="no label for 'z'"): pool.select([0, 2]).weighted({'a': 1, 'b': 0}).draw([0])
    with pytest.raises(ValueError, match="no label for 'y'"): pool.select([1]).draw([0])
    full = pool.fill([1, 1, 1, 0])
    assert full.mean().tolist() == [[.5, .5], [0, 1], [1, 0], [1, 0]]
    assert full.n_answers == 2 and total_seconds(full) == 8. and total_seconds(full.select([1]), 9.) == 0
    assert torch.equal(full.weighted({'a': 1, 'b': 2}).mean(), full.mean()) # those that nobody gave count one
    assert full.draw([1, 3]).tolist() == [[0, 1], [1, 0]]

def test_bad_input_is_refused_by_name():
    rows = [[.5, .5]]*3
    for bad, kw, told in [([[.5, .6]]*3, {}, 'rows: row 0'), (rows, dict(participant=['a']), 'participant has 1'),
                          (rows, dict(votes=[1, 2, 0]), r'votes: found 0.*\(2,\)'), (rows, dict(votes=[1, 2, 1.5]), 'whole numbers'),
                          (rows, dict(weights=[1, -1, 0]), 'weights: found -1'), (rows, dict(names=['a', 'a']), "names: 'a' is there twice"),
                          (rows, dict(names=['a']), 'image: found 1')]:
        with pytest.raises(ValueError, match=told): LabelPool(bad, [0, 0, 1], **kw)
    for image in ([0, 0, -1], [0, 0, 1.5]):
        with pytest.raises(ValueError, match='image: '): LabelPool(rows, image)
    pool = made([2, 3])
    for f, told in [(lambda: pool.select([2]), 'idx: found 2'), (lambda: pool.subsample(0), 'm: found 0'),
                    (lambda: pool.select([True]), 'pool has 2, idx has 1'), (lambda: pool.fill([0]), 'y has 1'),
                    (lambda: pool.weighted({'p0': 1}), 'weights: none for p'), (lambda: pool.weighted([1.]), 'weights has 1'),
                    (lambda: LabelPool(rows, [0, 0, 1]).weighted({'a': 1}), 'nobody knows'),
                    (lambda: LabelPool.from_counts([[1, -1]]), 'counts: found -1'),
                    (lambda: LabelPool.from_lists({'a': rows}, names=['b']), 'none is among')]:
        with pytest.raises(ValueError, match=told): f()
    for bad in ([2], [-1]):
        with pytest.raises(IndexError): pool.draw(bad)

@pytest.mark.parametrize('bad', [1.5, 2., '2', None])
def test_subsampling_takes_whole_numbers_only(bad):
    with pytest.raises(ValueError, match='m: found'): made([3, 3]).subsample(bad)
    assert made([3, 3]).subsample(np.int64(2)).count.tolist() == made([3, 3]).subsample(2).count.tolist()

@pytest.mark.parametrize('known', [True, False])
def test_who_is_kept_depends_neither_on_the_order_of_rows_nor_on_other_images(known):
    g = np.random.default_rng(3)
    rows, image, who = g.dirichlet(np.ones(4), size=120), np.repeat(np.arange(20), 6), np.tile(list('abcdef'), 20)
    def pool(o): return LabelPool(rows[o], image[o], who[o] if known else None, names=[f'im{i}' for i in range(20)])
    def kept(p): return sorted((p.names[i], *map(float, r)) for i, r in zip(p.image, p.rows))
    plain = pool(np.arange(120))
    assert kept(plain.subsample(2, 5)) == kept(pool(g.permutation(120)).subsample(2, 5))
    back = plain.select(np.arange(20)[::-1])
    assert kept(back.subsample(2, 5)) == kept(plain.subsample(2, 5))
    assert kept(plain.select([4, 9]).subsample(2, 5)) == kept(plain.subsample(2, 5).select([4, 9]))
    assert kept(plain.subsample(2, 5)) != kept(plain.subsample(2, 6))

def test_the_unknown_are_not_one_person():
    pool = LabelPool(np.eye(3)[[0, 1, 2, 0, 0]], [0]*5, [None, None, 'a', 'a', np.nan])
    one = [pool.subsample(1, s) for s in range(40)]
    assert {len(p.rows) for p in one} == {1, 2} and all((p.participant == 'a').all() for p in one if len(p.rows) == 2)
    assert len(pool.subsample(4).rows) == 5

def test_only_filled_rows_are_exempt_from_weights():
    pool = LabelPool(np.eye(2)[[0, 1]], [0, 0], ['a', None], names=['x', 'y'])
    with pytest.raises(ValueError, match='weights: none for None'): pool.weighted({'a': 1})
    known = LabelPool(np.eye(2)[[0, 1]], [0, 0], ['a', 'b'], names=['x', 'y']).fill([0, 1])
    assert known.weighted({'a': 2, 'b': 3}).weights.tolist() == [2, 3, 1]
    assert annotator_weights(pool.fill([0, 1]), y=[0, 0]).index.tolist() == ['a']

def test_no_image_is_selected_twice():
    with pytest.raises(ValueError, match="idx: 'im0' is there twice"): made([2, 3]).select([0, 0])

@pytest.mark.parametrize('kind', [torch.uint8, torch.int16, torch.int32, torch.long])
def test_positions_may_be_any_integers(kind):
    pool, i = made([2, 3]), torch.tensor([1, 0, 1])
    assert torch.equal(pool.draw(i.to(kind), gen(2)), pool.draw(i, gen(2)))
    for nothing in ([], torch.tensor([], dtype=kind), np.array([], dtype=int)): assert pool.draw(nothing).shape == (0, 4)

@pytest.mark.parametrize('idx, kw, told', [([.5], {}, 'idx: found'), ([True, False], {}, 'idx: found'), (0, {}, 'idx: found'),
                                           (['a'], {}, 'idx: found'), ([0], dict(generator=3), 'generator: found 3')])
def test_bad_arguments_of_a_draw_are_named(idx, kw, told):
    pool = made([2, 3])
    for f in (pool.draw, pool.pick):
        with pytest.raises(ValueError, match=told): f(idx, **kw)
        with pytest.raises(IndexError, match='idx: found 7'): f([0, 7])

def kept(pool): return sorted((str(pool.names[i]), *r) for i, r in zip(pool.image, pool.rows.tolist()))

@pytest.mark.parametrize('kind', [np.int64, np.uint8, np.int32])
def test_equal_seeds_keep_the_same_people(kind):
    pool = made([5]*20)
    assert kept(pool.subsample(2, seed=kind(1))) == kept(pool.subsample(2, seed=1)) != kept(pool.subsample(2, seed=2))

@pytest.mark.parametrize('seed', [np.random.default_rng(0), gen(), None, 1.5, True])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(ValueError, match='seed: found'): made([5]*3).subsample(2, seed=seed)

@pytest.mark.parametrize('w', [[1e308, 1e308, 1e308], [1e308, 5e307, 0], [5e-324, 5e-324, 0], [1e308, 1e-308, 2e-308]])
def test_only_how_weights_compare_matters(w):
    rows, image = np.eye(3), [0, 0, 1] if w[2] else [0, 0, 0]
    pool, n = LabelPool(rows, image, weights=w), 1 + max(image)
    part = np.array(w)/np.array([max(w[i] for i in range(3) if image[i] == j) for j in range(n)])[image]
    plain = LabelPool(rows, image, weights=part)
    assert torch.isfinite(pool.mean()).all() and torch.allclose(pool.mean(), plain.mean(), atol=1e-6)
    idx = torch.randint(n, (500,), generator=gen())
    assert torch.equal(pool.draw(idx, gen(1)), plain.draw(idx, gen(1)))
    votes = LabelPool(rows, image, votes=[51, 3, 1], weights=np.minimum(w, 1e300)) # a vote times a weight, too
    assert torch.isfinite(votes.mean()).all() and torch.allclose(votes.mean().sum(1), torch.ones(n))

def test_scaled_weights_change_no_draw():
    g = np.random.default_rng(0)
    rows, image, _ = raw([4]*50)
    w = g.random(200)
    a, b = LabelPool(rows, image, weights=w), LabelPool(rows, image, weights=w*2**9)
    for o in ('_stay', '_other'): assert torch.equal(getattr(a, o), getattr(b, o))
    assert torch.equal(a.mean(), b.mean())

@pytest.mark.parametrize('f, told', [
    (lambda p: p.select([.5, 1]), r'idx: found 0\.5 at position \(0,\); allowed are whole'), (lambda p: p.select(0), r'idx: found shape \(\); allowed is a list'),
    (lambda p: p.select(slice(0, 1)), r'idx: found slice'), (lambda p: p.select(['im0']), "idx: found \\['im0'\\]"), (lambda p: p.select([[0, 1]]), r'idx: found shape \(1, 2\)'),
    (lambda p: p.weighted(2), r'weights: found shape \(\)'), (lambda p: p.weighted([[1.]*5]), r'weights: found shape \(1, 5\)'), (lambda p: p.mean(2), r'weights: found shape'),
    (lambda p: p.subsample(True), 'm: found True'), (lambda p: p.subsample([1, 2]), 'm: found'),
    (lambda p: LabelPool.from_lists({}), 'lists: no rows in any of 0'), (lambda p: LabelPool.from_lists({'a': [], 'b': []}), 'lists: no rows in any of 2'),
    (lambda p: LabelPool.from_lists({'a': [[.5, .5], [1.]]}), "lists: 'a' has .*1.0.*rows of 2"),
    (lambda p: LabelPool.from_lists({'1': [[.5, .5]], '2': [], '3': [[.2, .3, .5]]}), 'lists: 3 has .*rows of 2'),
    (lambda p: LabelPool.from_lists({'a': [.5, .5]}), "lists: 'a' has 0.5"), (lambda p: LabelPool.from_counts([[0, 0]]), 'counts: no vote for any of 1 images')])
def test_raw_errors_have_become_named_ones(f, told):
    with pytest.raises(ValueError, match=told): f(made([2, 3]))

# ---- loaders

def loaders(deaggregated=True, n=1200, seed=0, **kw):
    d = digits(size=8)
    g = np.random.default_rng(0)
    rows = np.stack([g.dirichlet(.3 + 3*np.eye(10)[k], size=4) for k in d.y]).reshape(-1, 10)
    pool = LabelPool(rows, np.repeat(np.arange(len(d)), 4), np.tile(list('abcd'), len(d)))
    return pool_dls(as_floats(d.x[:n]), pool.select(range(n)), d.x[n:], pool.select(range(n, len(d))), deaggregated=deaggregated,
                    generator=seed, device='cpu', **kw)

def learner(dls):
    torch.manual_seed(0)
    return Learner(dls, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)), loss_func=soft_cross_entropy)

@pytest.mark.parametrize('deaggregated', [True, False])
def test_a_learner_trains_two_epochs_and_exports(tmp_path, deaggregated):
    learn = learner(loaders(deaggregated))
    learn.path = tmp_path
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2)
    assert learn.recorder.values[1][1] < learn.recorder.values[0][1] < 2.3
    with learn.no_bar(): pred, targ = learn.get_preds(act=torch.nn.Identity())
    assert torch.equal(targ, learn.dls.valid_ds.y) and len(pred) == 597
    learn.export('m.pkl')
    assert (tmp_path/'m.pkl').stat().st_size < 40_000 # the weights, and no data
    back = load_learner(tmp_path/'m.pkl')
    assert torch.equal(back.model(learn.dls.valid_ds.x), learn.model(learn.dls.valid_ds.x)) and back.dls.train_ds.c == 10

def test_both_ways_see_the_same_images_and_targets_of_the_same_mean():
    drawn, mean = loaders(), loaders(False)
    a, b = list(drawn.train), list(mean.train)
    assert all(torch.equal(p[0], q[0]) for p, q in zip(a, b)) and sum(len(x) for x, _ in a) == 1200
    assert not torch.equal(a[0][1], b[0][1])
    assert torch.equal(drawn.train_ds.y, mean.train_ds.y) # which is the mean of the pool
    for i, (x, y) in enumerate(a[:2]): # a drawn row is one of the four of that image
        at = (x.flatten(1)[:, None] == drawn.train_ds.x.flatten(1)[None]).all(2).int().argmax(1)
        of = drawn.train_ds.pool.rows.view(-1, 4, 10)[at]
        assert (of == y[:, None]).all(2).any(1).all()

def test_order_and_draws_come_from_the_seed_and_can_be_resumed():
    def labels(dls): return torch.cat([y for _, y in dls.train])
    one = loaders()
    assert one.train.generator.initial_seed() == 0 != one.train_ds.generator.initial_seed() # streams of their own
    first = labels(one)
    states = one.train.generator.get_state(), one.train_ds.generator.get_state()
    second = labels(one)
    torch.rand(9)
    two = loaders()
    assert torch.equal(labels(two), first) and torch.equal(labels(two), second) and not torch.equal(first, second)
    fresh = loaders()
    for g, s in zip((fresh.train.generator, fresh.train_ds.generator), states): g.set_state(s)
    assert torch.equal(labels(fresh), second)
    assert not torch.equal(labels(loaders(seed=1)), first)
    other = loaders(draws=5)
    assert not torch.equal(labels(other), first) and torch.equal(other.train.generator.get_state(), states[0]) # the order as before

def test_loaders_pickle_with_their_data_and_their_place_in_the_draws():
    dls = loaders()
    dls.one_batch()
    again = pickle.loads(pickle.dumps(dls.train_ds))
    i = torch.arange(40)
    assert torch.equal(again[i][1], dls.train_ds[i][1]) and torch.equal(again[i][0], dls.train_ds[i][0])

def test_one_draw_per_batch_and_global_randomness(monkeypatch):
    dls, asked = loaders(bs=100), []
    draw = LabelPool.draw
    monkeypatch.setattr(LabelPool, 'draw', lambda self, idx, generator=None: asked.append(len(idx)) or draw(self, idx, generator))
    assert len(list(dls.train)) == 12 and asked == [100]*12
    d, pool = torch.rand(9, 3, 2, 2), made([4]*9)
    free = pool_dls(d, pool, d, pool, device='cpu')
    torch.manual_seed(3)
    a = free.one_batch()[1]
    torch.manual_seed(3)
    assert torch.equal(free.one_batch()[1], a)

INDICES = [2, -1, slice(1, 4), slice(None, None, 2), slice(5, 9), [0, 0], [-1, 0], [], ..., None, np.int64(3), np.array([1]), np.array([[1, -5]]),
           torch.tensor([4, 1]), torch.tensor([-1, 0, -5]), torch.tensor(3), torch.tensor(-2), torch.tensor([[0, 1], [-1, 2]]),
           torch.zeros(2, 0, dtype=torch.long), torch.tensor([], dtype=torch.long), torch.tensor([4, -1], dtype=torch.int32),
           torch.tensor([[[3]]]), torch.tensor([True, False, True, False, False]), [True, False, False, False, True]]

@pytest.mark.parametrize('i', INDICES, ids=str)
def test_a_drawn_set_takes_what_a_set_takes(i):
    one_hot = torch.eye(5).repeat_interleave(3, 0) # the three labels of an image are the same, so a draw tells which image it was
    pool, x = LabelPool(one_hot, np.repeat(np.arange(5), 3)), torch.rand(5, 3, 2, 2)
    s, plain = DrawnSet(x, pool, gen()), SoftSet(x, torch.eye(5))
    for got, want in zip(s[i], plain[i]): assert got.shape == want.shape and torch.equal(got, want)
    assert len(s.new_empty()) == 0 and len(s) == 5

@pytest.mark.parametrize('i', [5, -6, torch.tensor([5]), torch.tensor([0, -6]), torch.tensor([[0, 5]]), [7], [True], torch.tensor([True])], ids=str)
def test_a_drawn_set_refuses_what_a_set_refuses(i):
    s = DrawnSet(torch.rand(5, 3, 2, 2), made([3]*5), gen())
    with pytest.raises(IndexError): SoftSet(s.x, s.y)[i]
    with pytest.raises(IndexError): s[i]

def test_workers_cannot_draw():
    s = DrawnSet(torch.rand(6, 3, 2, 2), made([3]*6), gen())
    with pytest.raises(RuntimeError, match='num_workers=0'): list(torch.utils.data.DataLoader(s, num_workers=1))
    assert len(list(torch.utils.data.DataLoader(s))) == 6

def test_seeds_of_numpy_are_seeds():
    def first(**kw): return pool_dls(x, pool, x, pool, device='cpu', **kw).one_batch()[1]
    x, pool = torch.rand(40, 3, 2, 2), made([5]*40)
    assert torch.equal(first(generator=np.int64(3)), first(generator=3))
    assert torch.equal(first(generator=3, draws=np.int32(4)), first(generator=3, draws=4))
    for arg in ('generator', 'draws'):
        with pytest.raises(ValueError, match=f'{arg}: found 1.5'): first(**{arg: 1.5})

@pytest.mark.parametrize('deaggregated', [True, False])
def test_the_mean_is_computed_once(monkeypatch, deaggregated):
    x, pool, asked, mean = torch.rand(9, 3, 2, 2), made([5]*9), [], LabelPool.mean
    monkeypatch.setattr(LabelPool, 'mean', lambda self, *a: asked.append(1) or mean(self, *a))
    dls = pool_dls(x, pool, x, mean(pool), device='cpu', deaggregated=deaggregated)
    for _ in range(3): assert torch.equal(dls.train_ds.y, mean(pool))
    assert len(asked) == 1
    alone = DrawnSet(x, pool)
    for _ in range(3): assert torch.equal(alone.y, mean(pool))
    assert len(asked) == 2

# ---- weights and costs

def crowd(n=200, seed=0):
    "Answers of four people who look and one who guesses, the first 20 images twice; as a table and as a pool."
    g = np.random.default_rng(seed)
    y = g.integers(10, size=n)
    rows = [(p, i, pos) for p in ('a', 'b', 'c', 'd', 'guesser') for pos, i in enumerate([*range(n), *range(20)])]
    df = pd.DataFrame(rows, columns=['participant', 'id_a', 'position'])
    good = (df.participant != 'guesser') & (g.random(len(df)) < .9)
    named = np.where(good, y[df.id_a], g.integers(10, size=len(df)))
    df = df.assign(stimulus=[f'im{i}' for i in df.id_a], repeat=df.position >= n, class_a=[str(k) for k in y[df.id_a]],
                   first=[str(k) for k in named], rt_s=10.)
    return df, LabelPool.from_answers(df, np.eye(10)[named], names=[f'im{i}' for i in range(n)]), y

@pytest.mark.parametrize('how', ['accuracy', 'consistency'])
def test_weights_from_a_table_and_from_its_pool_agree(how):
    df, pool, y = crowd()
    a, b = annotator_weights(df, how), annotator_weights(pool, how, y)
    pd.testing.assert_series_equal(a, b)
    assert a.index.tolist() == ['a', 'b', 'c', 'd', 'guesser'] and a['guesser'] < .4 < .75 < a.drop('guesser').min()
    if how == 'accuracy':
        raw = (df['first'] == df.class_a).groupby(df.participant).mean()
        assert np.allclose(annotator_weights(df, prior=0), raw)
        assert np.allclose(a, (220*raw + raw.mean())/221)
    weighted = pool.weighted(a)
    assert weighted.mean()[range(len(y)), y].mean() > pool.mean()[range(len(y)), y].mean() + .05
    assert torch.allclose(pool.mean(a), weighted.mean())

def test_consistency_of_soft_rows_and_of_those_who_repeat_nothing():
    pool = LabelPool([[1., 0.], [.75, .25], [.5, .5], [0., 1.]], [0, 0, 0, 1], ['a', 'a', 'b', 'b'])
    w = annotator_weights(pool, 'consistency', prior=0)
    assert w['a'] == pytest.approx(.75) and np.isnan(w['b'])
    assert annotator_weights(pool, 'consistency')['b'] == pytest.approx(.75) # the crowd's mean
    with pytest.raises(ValueError, match='weights: none for b'): pool.weighted(w)
    df, *_ = crowd()
    assert annotator_weights(df[(df.participant != 'a') | ~df.repeat], 'consistency').notna().all()

def test_weights_refuse_what_they_cannot_use():
    df, pool, y = crowd(40)
    for f, told in [(lambda: annotator_weights(pool), 'y: the accuracy'), (lambda: annotator_weights(pool, y=y[:3]), 'y has 3'),
                    (lambda: annotator_weights(pool, y=np.array(['cat']*len(pool))), r"y: found \['cat'"), (lambda: annotator_weights(pool, y=np.full(len(pool), 1.5)), 'y: found 1.5 .*whole'),
                    (lambda: annotator_weights(pool, y=np.eye(pool.n_classes)[y]), r'y: found shape'), (lambda: annotator_weights(pool, y=np.full(len(pool), 99)), 'y: found 99'),
                    (lambda: annotator_weights(df, 'skill'), "how: 'skill'"), (lambda: annotator_weights(df, prior=-1), 'prior'),
                    (lambda: annotator_weights(df.drop(columns='first')), "no column 'first'"),
                    (lambda: annotator_weights(LabelPool([[1.]], [0])), 'nobody knows')]:
        with pytest.raises(ValueError, match=told): f()

def test_without_crowd_kit_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'crowdkit.aggregation', None)
    with pytest.raises(ImportError, match='pip install crowd-kit'): annotator_weights(crowd(40)[0], 'dawid-skene')

def test_dawid_skene_finds_the_guesser_without_knowing_the_classes():
    pytest.importorskip('crowdkit', reason='crowd-kit is not installed')
    df, pool, y = crowd()
    a, b = annotator_weights(df, 'dawid-skene'), annotator_weights(pool, 'dawid-skene')
    pd.testing.assert_series_equal(a, b)
    assert np.allclose(a, annotator_weights(df), atol=.05)

def test_what_labels_cost():
    df, pool, _ = crowd()
    assert total_seconds(pool) == 10*1100 and total_seconds(pool, 32.) == 32*1100
    assert total_seconds(LabelPool.from_counts([[45, 6], [0, 51]]), 2.5) == 2.5*102
    with pytest.raises(ValueError, match='per_answer: needed'): total_seconds(LabelPool([[1.]], [0]))
    with pytest.raises(ValueError, match='per_answer: found -1'): total_seconds(pool, -1)

# ---- blends

def test_blends_have_a_row_per_answer_with_its_own_confidence():
    df = pd.DataFrame([('ann', .4, .3, 5.), ('bob', .6, .46, 6.), ('ann', .75, .7, 7.)], columns=['participant', 'lam_h', 'confidence', 'rt_s'])
    df = df.assign(stimulus='mixed_0.75_0_0_4_4', class_a='0', id_a=0, class_b='4', id_b=4, lam_f=.75)
    stim = Stimuli(df, digits())
    pool = stim.labels('relabel+omega', gamma=.01, separate=True)
    assert pool.participant.tolist() == ['ann', 'bob', 'ann'] and pool.seconds.tolist() == [5, 6, 7] and pool.names == stim.names
    for row, lam, omega in zip(pool.rows, df.lam_h, df.confidence):
        s = .01**omega
        assert row[[0, 4, 9]].tolist() == pytest.approx([(1-s)*lam + s/10, (1-s)*(1-lam) + s/10, s/10], abs=1e-6)
    for kind in KINDS:
        p = stim.labels(kind, separate=True)
        assert p.count.tolist() == ([3] if 'relabel' in kind else [1])
        if kind != 'relabel+omega': assert torch.allclose(p.mean(), stim.labels(kind), atol=1e-6)
    assert torch.equal(stim.labels('random', seed=3, separate=True).rows, stim.labels('random', seed=3))
    with pytest.raises(ValueError, match="Did you mean 'relabel'"): stim.labels('relable', separate=True)

def test_the_released_labels(hub):
    lists = json.loads(hub.path('cifar-10s/cifar10s_t2clamp_redist10.json').read_text())
    ten_s, ten_h = LabelPool.from_lists(lists), LabelPool.from_counts(cifar10h(hub, counts=True))
    assert (len(ten_s), len(ten_s.rows), len(ten_h), ten_h.n_answers) == (1000, 6723, 10000, 511000)
    assert np.bincount(ten_s.count).tolist()[6:] == [459, 391, 124, 21, 4, 1]
    assert np.abs(ten_h.mean().numpy() - cifar10h(hub)).max() < 1e-6
    k = next(iter(lists))
    assert np.allclose(ten_s.mean()[0], np.mean(lists[k], axis=0), atol=1e-6) and ten_s.names[0] == int(k)
    blends = hmix_stimuli(hub)
    pool = blends.labels('relabel', separate=True)
    assert len(pool.rows) == 4950 and pd.Series(pool.participant).nunique() == 81
    assert torch.allclose(pool.mean(), blends.labels('relabel'), atol=1e-6)
    forms = categorical(hub, 'cifar-10s')
    who = LabelPool.from_answers(forms, np.full((len(forms), 10), .1))
    assert sorted(pd.Series(who.participant).groupby(who.image).nunique().value_counts().items()) == [(6, 800), (7, 200)]
    assert (who.subsample(6).count.numpy() >= 6).all() and round(total_seconds(who)/6723, 2) == 31.96
