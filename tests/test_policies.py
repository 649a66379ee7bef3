"Laws of the label policies, on generated labels; classes that the fits do not know; other precisions and other devices' ways."
import copy, pickle, warnings
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from hmix_nb.core import CIFAR10
from hmix_nb.data.simulated import SimulatedParticipants, draw_stimuli
from hmix_nb.labels import confidence_weight, smooth
from hmix_nb.mixing.controls import Average, EndsShort, Permuted, Random, SharedSlope, Table, Uniform
from hmix_nb.mixing.fits import PairFits, fit_pairs
from hmix_nb.mixing.labels import (Confidence, LabelPolicy, Linear, PairLogistic, Smoothed, by_pairs, in_parts, swap_gap)
from hmix_nb.mixing.pairs import pair_table

quick = settings(max_examples=40, deadline=None)
lams = st.floats(0, 1, width=32)
FITS = PairFits.shipped()
NAMES = tuple('0123456789')

def judged(n=12, seed=0, people=30):
    return SimulatedParticipants(people, seed=seed).judge(draw_stimuli(np.arange(10).repeat(30), n, classes=NAMES), 3)

class Odd(LabelPolicy):
    "A policy of a user, the same for all pairs, that keeps the law."
    def weight(self, lam, ya, yb): return torch.sigmoid(9*(lam-.5))

class Whole(LabelPolicy):
    "A policy of a user, that says nothing of pairs."
    def apply(self, lam, ya, yb): return torch.lerp(yb, ya, lam[:, None]), None

def by_hand(lam, ya, yb): return torch.lerp(yb, ya, torch.as_tensor(lam).reshape(-1, 1))

DIGITS = {o: fit_pairs(judged(), form=o) for o in ('logistic', 'anchored')}
DIGITS['lapse'] = replace(DIGITS['logistic'], form='lapse', table=DIGITS['logistic'].table.assign(lapse=.07),
                          pooled=pd.concat([DIGITS['logistic'].pooled, pd.Series(dict(lapse=.07))])) # hard to fit to so few
HALF = [*CIFAR10[:4], 'emu', 'kiwi', *CIFAR10[4:8]]
POLICIES = {
    'linear': Linear(), 'people': PairLogistic(), 'sure': Smoothed(PairLogistic()), 'anchored': PairLogistic(DIGITS['anchored']),
    'lapse': PairLogistic(DIGITS['lapse']), 'linear, sure': Smoothed(Linear(), Confidence()),
    'by a number': Smoothed(PairLogistic(), .2), 'twice': Smoothed(Smoothed(PairLogistic()), .1),
    'one slope': SharedSlope(6), 'one slope, sure': Smoothed(SharedSlope(), Confidence()), 'permuted': Permuted(seed=3),
    'permuted, sure': Smoothed(Permuted(seed=3)), 'half known': Smoothed(PairLogistic(classes=HALF, unknown='pooled')),
    'average': Average(Linear(), PairLogistic(), weights=[1, 2]), 'odd': Odd(), 'odd, sure': Smoothed(Odd(), Confidence()),
    'whole, sure': Smoothed(Whole(), Confidence()), 'a function': Smoothed(by_hand, .1), 'ends short': EndsShort(.2),
    'average, sure': Smoothed(Average(Linear(), PairLogistic()), Confidence()), 'twice, sure': Smoothed(Smoothed(PairLogistic(), .1), Confidence()),
    'average of all': Smoothed(Average(Smoothed(PairLogistic()), Uniform(), Odd(), Smoothed(Permuted(), .2), weights=[1, 2, 3, 4]), Confidence(gamma=.3)),
    'average of few rows': Smoothed(Average(PairLogistic(classes=HALF, unknown='pooled'), Linear()), Confidence(unknown='pooled')),
    'nameless': PairLogistic(unknown='pooled'), 'nameless, sure': Smoothed(PairLogistic(unknown='pooled')),
    'given': PairLogistic(overrides={('dog', 'cat'): (9., .4)}), 'given, sure': Smoothed(PairLogistic(overrides={('dog', 'cat'): (9., .4)}))}

def rows(n, seed=0, k=10, hard=False):
    g = torch.Generator().manual_seed(seed)
    if hard: return F.one_hot(torch.randint(k, (n,), generator=g), k).float()
    y = torch.rand(n, k, generator=g).mul(6).softmax(1)
    y[0] = 0
    y[0, :2] = torch.tensor([.25, .75]) # rows with zeros too
    return y

def slow(policy, lam, ya, yb):
    "The label as a bit of every pair of classes, two loops over the classes."
    k, out = ya.shape[1], torch.zeros_like(ya)
    for i in range(k):
        for j in range(k):
            a, b = (F.one_hot(torch.full((len(ya),), o), k).float() for o in (i, j))
            out += (ya[:, i]*yb[:, j])[:, None]*policy(lam, a, b)
    return out

@pytest.mark.parametrize('name', POLICIES)
@quick
@given(st.integers(1, 7), lams, st.integers(0, 99), st.booleans())
def test_rows_sum_to_one_and_permute_with_the_batch(name, n, lam, seed, hard):
    g, ya, yb = POLICIES[name], rows(n, seed, hard=hard), rows(n, seed+1, hard=hard)
    many = torch.linspace(lam, 1-lam, n)
    for l in (lam, many):
        y = g(l, ya, yb)
        assert y.shape == ya.shape and y.dtype == torch.float32
        assert torch.allclose(y.sum(1), torch.ones(n), atol=2e-6) and y.min() >= -1e-6
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(g(many[order], ya[order], yb[order]), g(many, ya, yb)[order], atol=1e-6)
    assert torch.allclose(g(torch.full((n,), lam), ya, yb), torch.stack([g(lam, a[None], b[None])[0] for a, b in zip(ya, yb)]), atol=1e-6)

@pytest.mark.parametrize('name', POLICIES)
def test_swapping_the_images_and_lam_changes_nothing(name):
    assert swap_gap(POLICIES[name]) < 2e-6
    ya, yb, lam = rows(9), rows(9, 1), torch.rand(9)
    assert torch.allclose(POLICIES[name](lam, ya, yb), POLICIES[name](1-lam, yb, ya), atol=2e-6)

@pytest.mark.parametrize('name', [o for o in POLICIES if o != 'whole, sure']) # which says that it takes the mean weight
@pytest.mark.parametrize('lam', [.3, [.1, .5, 1., 0., .8]])
def test_soft_endpoints_are_a_bit_of_every_pair(name, lam):
    ya, yb = rows(5), rows(5, 1)
    assert torch.allclose(POLICIES[name](lam, ya, yb), slow(POLICIES[name], lam, ya, yb), atol=2e-6)

@pytest.mark.parametrize('name', POLICIES)
def test_indices_are_one_hot_rows_and_one_lam_is_many_alike(name):
    g, a, b = POLICIES[name], torch.arange(10).repeat(10), torch.arange(10).repeat_interleave(10)
    for lam in (.37, torch.rand(100)):
        hard = g(lam, a, b, n_classes=10)
        assert torch.allclose(hard, g(lam, F.one_hot(a, 10).float(), F.one_hot(b, 10).float()), atol=1e-6)
        nearly = .999999*F.one_hot(a, 10).float() + 1e-7 # too soft for the short way
        assert torch.allclose(hard, g(lam, nearly, F.one_hot(b, 10).float()), atol=1e-5)
    assert torch.equal(g(.37, a, b, n_classes=10), g([.37]*100, a, b, n_classes=10))

@pytest.mark.parametrize('name', ['linear', 'anchored'])
def test_ends_are_kept(name):
    ya, yb = rows(6), rows(6, 1)
    assert torch.allclose(POLICIES[name](1., ya, yb), ya, atol=1e-6) and torch.allclose(POLICIES[name](0., ya, yb), yb, atol=1e-6)

def test_logistic_curves_end_where_the_fits_say():
    a, b = torch.triu_indices(10, 10, 1)
    ends = [PairLogistic()(lam, a, b).gather(1, a[:, None])[:, 0].mean().item() for lam in (0., 1.)]
    assert ends == pytest.approx([.085, .897], abs=1e-3) # mean over the 45 pairs

@pytest.mark.parametrize('form', DIGITS)
@quick
@given(lams, st.integers(0, 9), st.integers(0, 9))
def test_the_weights_are_those_of_the_fits(form, lam, a, b):
    fits, t = DIGITS[form], torch.tensor
    for fits in (DIGITS[form], *([FITS] if form == 'logistic' else [])):
        classes = CIFAR10 if fits is FITS else NAMES
        w = float(fits.weight(np.float64(lam), a, b, classes=classes))
        y, given = PairLogistic(fits).apply(t([lam]), F.one_hot(t([a]), 10).float(), F.one_hot(t([b]), 10).float())
        assert y[0, a].item() == pytest.approx(1. if a == b else w, abs=2e-6)
        assert given().item() == pytest.approx(w, abs=2e-6)
        s = confidence_weight(float(fits.confidence(np.float64(lam), a, b, classes=classes)))
        y, given = Smoothed(PairLogistic(fits)).apply(t([lam]), F.one_hot(t([a]), 10).float(), F.one_hot(t([b]), 10).float())
        want = (F.one_hot(t([a]), 10)*w + F.one_hot(t([b]), 10)*(1-w)).float()
        assert torch.allclose(y, smooth(want, float(s)), atol=2e-6) and given().item() == pytest.approx(w, abs=1e-5)

def test_how_sure_people_are_of_airplane_and_dog():
    "The released example by hand: (1-s)*y + s/K with s = .005**ω."
    a, b, lam = 0, 5, .75
    k, x0, c0, c1, c2 = FITS.table.loc[('airplane', 'dog'), ['k', 'x0', 'c0', 'c1', 'c2']].astype(float)
    w, o = 1/(1+np.exp(-k*(lam-x0))), 1/(1+np.exp(-(c0 + c1*.5 + c2*.25)))
    s = .005**o
    y = Smoothed(PairLogistic())(lam, torch.tensor([a]), torch.tensor([b]))[0]
    assert y[[a, b, 1]].tolist() == pytest.approx([(1-s)*w + s/10, (1-s)*(1-w) + s/10, s/10], abs=1e-6)
    same = Smoothed(PairLogistic())(lam, torch.tensor([a]), torch.tensor([a]))[0]
    assert same[[0, 1]].tolist() == pytest.approx([.995 + .0005, .0005], abs=1e-6)

# classes

def test_classes_that_the_fits_do_not_know():
    with pytest.raises(ValueError, match=r"classes: the fits do not know 'emu', 'Ship'\. .*unknown='pooled' goes on"):
        PairLogistic(classes=['cat', 'emu', 'Ship'])
    with pytest.raises(ValueError, match="do not know 'Ship'. Did you mean 'ship'"): PairLogistic().bind(['cat', 'Ship'])
    with pytest.raises(ValueError, match='classes: found .*different names'): PairLogistic(classes=['cat', 'cat'])
    with pytest.raises(ValueError, match="unknown: 'pool' is unknown. Did you mean 'pooled'"): PairLogistic(unknown='pool')
    with pytest.raises(ValueError, match=r"40 in all\)"): PairLogistic(classes=[f'c{i}' for i in range(40)])

def test_pairs_without_a_curve_are_named():
    df = judged()
    df = df[~((df.class_a == '0') & (df.class_b == '1'))]
    with pytest.raises(ValueError, match="fits: no curve for '0-1': no judgments of this pair"): PairLogistic(fit_pairs(df))
    g = PairLogistic(fit_pairs(df), NAMES, unknown='pooled')
    assert not torch.allclose(g.table(torch.tensor(.5))[2:4, 5:7], torch.tensor(.5), atol=1e-3) # only where there is none
    assert g(.5, torch.tensor([0]), torch.tensor([1]))[0, 0].item() == pytest.approx(.5) # neither side is favoured
    df.loc[(df.class_a == '2') & (df.class_b == '3'), 'lam_f'] = .5
    with pytest.raises(ValueError, match="'0-1', '2-3'"): PairLogistic(fit_pairs(df))
    silent = fit_pairs(judged().drop(columns='confidence'))
    with pytest.raises(ValueError, match='fits: found no confidence'): Smoothed(PairLogistic(silent))

@pytest.mark.parametrize('g', [PairLogistic(), Smoothed(PairLogistic()), Smoothed(Linear(), Confidence())], ids=str)
def test_rows_of_other_classes_are_refused(g):
    with pytest.raises(ValueError, match=r'ya: rows have 7 classes; .* has 10 \(airplane'): g(.5, torch.eye(7), torch.eye(7))
    with pytest.raises(ValueError, match='found 12'): g(.5, torch.tensor([12]), torch.tensor([1]))

def test_bind():
    assert Uniform().bind('ab')(.5, torch.eye(2), torch.eye(2)).shape == (2, 2)
    order = CIFAR10[::-1]
    for g in (PairLogistic(), Smoothed(PairLogistic()), Smoothed(Linear(), Confidence()), Average(Linear(), PairLogistic()),
              Smoothed(Smoothed(PairLogistic()), .1)):
        a, b = g(.3, torch.tensor([3]), torch.tensor([5])), g.bind(order)(.3, torch.tensor([6]), torch.tensor([4]))
        assert torch.allclose(a, b.flip(1), atol=1e-6), g
    told = PairLogistic(classes=CIFAR10) # names that the user gave are compared with those of the data
    assert told.bind(order).classes == Smoothed(told).bind(order).classes == order
    for g in (told, Smoothed(told), Average(Linear(), told), Smoothed(Linear(), Confidence(classes=CIFAR10))):
        for other in (NAMES, NAMES[:4], CIFAR10[:4], [*CIFAR10[:9], 'lorry'], [*CIFAR10[:9], 'cat']):
            with pytest.raises(ValueError, match=r"the data has .* was told 'airplane', .*groups="): g.bind(other)
    mine = [f'my {o}' for o in order]
    g = Smoothed(PairLogistic(groups={f'my {o}': o for o in CIFAR10}))
    assert g.open and torch.allclose(g.bind(mine)(.3, torch.tensor([6]), torch.tensor([4])), Smoothed(PairLogistic(classes=order))(.3, torch.tensor([6]), torch.tensor([4])), atol=1e-6)
    with pytest.raises(ValueError, match="groups: 'my airplane' is not among the classes"): g(.3, torch.eye(10), torch.eye(10))
    with pytest.raises(ValueError, match='do not know'): PairLogistic().bind(NAMES)
    assert PairLogistic(DIGITS['logistic']).bind(range(10)).classes == NAMES # fastai's vocab may hold numbers

def thousand(**kw):
    return [*CIFAR10, *(f'breed {i}' for i in range(990))], {f'breed {i}': 'dog' for i in range(500)}

@pytest.mark.parametrize('pooled', [False, True])
def test_a_thousand_classes(pooled):
    zoo, groups = thousand()
    groups = {} if pooled else groups
    g = Smoothed(PairLogistic(classes=zoo, unknown='pooled', groups=groups, overrides={('breed 1', 'breed 600'): (8., .4)}),
                 Confidence(classes=zoo, unknown='pooled', groups=groups))
    assert g.policy.types.n < 20 and g.types.n < 20
    ya, yb = torch.zeros(2, 6, 1000)
    for y, s in ((ya, 0), (yb, 1)):
        for r in range(6): y[r, torch.randperm(1000, generator=torch.Generator().manual_seed(7*r+s))[:3]] = torch.tensor([.5, .3, .2])
    ya[0], yb[0] = 0, 0
    ya[0, [3, 11, 12]], yb[0, [5, 12, 610]] = torch.tensor([.5, .3, .2]), torch.tensor([.2, .5, .3]) # a class on both sides
    dense = Smoothed(PairLogistic(classes=zoo, unknown='pooled', groups=groups, overrides={('breed 1', 'breed 600'): (8., .4)}), g.weight_by)
    for lam in (.3, torch.rand(6)):
        y = g(lam, ya, yb)
        assert torch.allclose(y.sum(1), torch.ones(6), atol=1e-5)
        assert torch.allclose(g(1-torch.as_tensor(lam), yb, ya), y, atol=1e-6)
        for r in range(6): # a bit of each pair of the few classes that are there
            l, want = lam if isinstance(lam, float) else lam[r].item(), torch.zeros(1000)
            for i in ya[r].nonzero()[:, 0]:
                for j in yb[r].nonzero()[:, 0]: want += ya[r, i]*yb[r, j]*g(l, i[None], j[None])[0]
            assert torch.allclose(y[r], want, atol=2e-6)
    one = lambda a, b, lam=.4: g.policy(lam, torch.tensor([zoo.index(a)]), torch.tensor([zoo.index(b)]))[0, zoo.index(a)].item()
    assert one('cat', 'dog') == pytest.approx(float(FITS.weight(.4, 3, 5)), abs=1e-6)
    assert one('breed 600', 'breed 1') == pytest.approx(1/(1+np.exp(-8*(.4-.6))), abs=1e-6)
    even = 1/(1+np.exp(-FITS.pooled.k*(.4-.5)))
    assert one('breed 7', 'breed 8') == one('breed 700', 'breed 8') == pytest.approx(even, abs=1e-6)
    assert one('breed 7', 'cat') == pytest.approx(even if pooled else float(FITS.weight(.4, 5, 3)), abs=1e-6)

def test_tables_of_few_and_of_many_rows_agree():
    names, groups = [*CIFAR10, *'abcdef'], dict(a='cat', b='cat', c='dog')
    for params in (('k', 'x0'), ('c0', 'c1', 'c2')):
        full, t = pair_table(FITS, params, names, 'pooled', groups)
        short, s = pair_table(FITS, params, names, 'pooled', groups, few=0)
        assert t.trivial and not s.trivial and s.n == 13
        off = ~np.eye(16, dtype=bool)
        assert np.allclose(full[:, off], short[:, s.of][:, :, s.of][:, off])

def test_large_batches_in_parts():
    g, lam, ya, yb = PairLogistic(), torch.rand(20), rows(20), rows(20, 1)
    y, w = in_parts(g, lambda *o: by_pairs(g, *o), lam, ya, yb, most=300)
    assert torch.allclose(y, g(lam, ya, yb), atol=1e-6) and torch.allclose(w(), g.apply(lam, ya, yb)[1](), atol=1e-6)

@pytest.mark.parametrize('name', [o for o in POLICIES if POLICIES[o].types is not None and POLICIES[o].by_pair and 'average' not in o])
def test_the_weight_is_the_mean_of_those_of_the_pairs(name):
    "λ_g by a double loop; where people are surer of some pairs, these count for more."
    g, ya, yb = POLICIES[name], rows(5), rows(5, 1)
    k = [F.one_hot(torch.tensor([i]), 10).float() for i in range(10)]
    for lam in (torch.tensor(.3).expand(5), torch.rand(5)):
        kept, given = torch.zeros(2, 5)
        for r in range(5):
            for i in range(10):
                for j in range(10):
                    y, w = g.apply(lam[r:r+1], k[i], k[j])
                    left = (y - y.min()).sum() if isinstance(g, Smoothed) else 1.
                    kept[r] += ya[r, i]*yb[r, j]*left
                    given[r] += ya[r, i]*yb[r, j]*left*w()[0]
        assert torch.allclose(g.apply(lam, ya, yb)[1](), given/kept, atol=2e-6)

# precision, devices, copies

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('name', POLICIES)
def test_other_precisions(name, dtype):
    ya, yb = rows(6), rows(6, 1)
    for lam in (.123, torch.rand(6)):
        y = POLICIES[name](lam, ya.to(dtype), yb.to(dtype))
        assert y.dtype == dtype
        assert torch.allclose(y.float(), POLICIES[name](lam, ya, yb), atol=2*torch.finfo(dtype).eps + 1e-6)

@pytest.mark.parametrize('name', POLICIES)
def test_autocast_does_not_round_labels(name):
    ya, yb = rows(6), rows(6, 1)
    for lam in (.3, torch.rand(6)):
        y = POLICIES[name](lam, ya, yb)
        with torch.autocast('cpu', torch.bfloat16): assert torch.equal(POLICIES[name](lam, ya, yb), y)

@pytest.mark.parametrize('name', POLICIES)
def test_gradients_inputs_and_copies(name):
    g, ya, yb, lam = POLICIES[name], rows(5), rows(5, 1), torch.rand(5)
    before = ya.clone(), yb.clone(), lam.clone()
    y = g(lam, ya, yb)
    for o, b in zip((ya, yb, lam), before): assert torch.equal(o, b)
    for twin in (copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert repr(twin) == repr(g) and torch.equal(twin(lam, ya, yb), y)
    for one in (False, True):
        l = (lam[:1] if one else lam).double().clone().requires_grad_()
        leaf = ya.double().clone().requires_grad_()
        f = lambda l, a: (g.apply((l.expand(5) if one else l).float(), a.float(), yb)[0].double()**2).sum()
        got = torch.autograd.grad(f(l, leaf), (l, leaf))
        assert all(torch.isfinite(o).all() for o in got)
        eps = 1e-3
        step = torch.zeros_like(l)
        step[0] = eps
        assert got[0][0].item() == pytest.approx(((f(l+step, leaf) - f(l-step, leaf))/(2*eps)).item(), abs=2e-2)

def test_values_are_not_looked_at_where_one_may_not():
    "On `meta`, as on a GPU, a look at a value is an error, here a plain one; there it would stall the device."
    for name, g in POLICIES.items():
        for lam in (torch.empty(1, device='meta').expand(6), torch.empty(6, device='meta')):
            y, _ = g.apply(lam, torch.empty(6, 10, device='meta'), torch.empty(6, 10, device='meta'))
            assert y.shape == (6, 10) and y.device.type == 'meta', name

@pytest.mark.parametrize('warm', [False, True])
def test_compiled_by_dynamo(warm):
    g, ya, yb = Smoothed(PairLogistic()), rows(5), rows(5, 1)
    for lam in (torch.rand(5), torch.rand(1).expand(5)):
        if warm: g.apply(lam, ya, yb)
        f = torch.compile(lambda l, a, b: g.apply(l, a, b)[0], backend='eager')
        assert torch.allclose(f(lam, ya, yb), Smoothed(PairLogistic())(lam, ya, yb), atol=1e-6)

def test_a_policy_that_was_first_used_without_gradients():
    g, ya, yb = Smoothed(PairLogistic(classes=HALF, unknown='pooled'), Confidence(gamma=.0123, classes=HALF, unknown='pooled')), rows(5), rows(5, 1)
    with torch.inference_mode(): g(.3, ya, yb)
    lam = torch.rand(5, requires_grad=True)
    g.apply(lam, ya, yb)[0].square().sum().backward()
    assert torch.isfinite(lam.grad).all() and lam.grad.abs().sum() > 0

# single ones

def test_uniform_and_random():
    ya = torch.eye(4)
    assert torch.equal(Uniform()(.3, ya, ya), torch.full((4, 4), .25)) and Uniform()(.3, ya.half(), ya.half()).dtype == torch.half
    a, b = (Random(torch.Generator().manual_seed(5))(.3, ya, ya) for _ in range(2))
    assert torch.equal(a, b) and torch.allclose(a.sum(1), torch.ones(4)) and a.std() > .05
    big = Random()(.3, torch.eye(2).repeat(2000, 1), torch.eye(2).repeat(2000, 1))
    assert abs(big[:, 0].mean() - .5) < .02 # u/(u+v) is symmetric

def test_readable():
    assert repr(Smoothed(PairLogistic())) == 'Smoothed(PairLogistic(45 pairs, 10 classes), Confidence(45 pairs, 10 classes, gamma=0.005))'
    assert repr(Smoothed(Smoothed(Linear(), .1), Confidence(gamma=.01))) == \
        'Smoothed(Smoothed(Linear(), 0.1), Confidence(45 pairs, 10 classes, gamma=0.01))'
    assert repr(Permuted(seed=4)) == 'Permuted(45 pairs, 10 classes, seed=4)' and repr(SharedSlope(5)) == 'SharedSlope(k=5)'

@pytest.mark.parametrize('make, message', [
    (lambda: Smoothed(Linear(), 1.5), 'weight: found 1.5'), (lambda: Smoothed(Linear(), float('nan')), 'weight: found nan'),
    (lambda: Confidence(gamma=1.1), 'gamma: found 1.1'), (lambda: SharedSlope(-1), 'k: found -1'),
    (lambda: Linear()(.5, torch.rand(3), torch.rand(3)), r'ya: found shape \(3,\) of torch.float32'),
    (lambda: Linear()(2, torch.eye(3), torch.eye(3)), 'lam: found 2'), (lambda: Linear()(.5, [0], [1]), 'ya: class indices need n_classes'),
    (lambda: Linear()(.5, torch.eye(3), torch.eye(3)[:2]), 'lengths differ: ya has 3, yb has 2'),
    (lambda: Smoothed(PairLogistic(), Confidence(classes=CIFAR10[:5])), r"the data has 'airplane', 'automobile', 'bird', … \(10 in all\)"),
    (lambda: Average(Linear(), weights=[1, 2]), r'weights: found \[1, 2\]')])
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message): make()

def test_permuted_keeps_each_curve_whole():
    a, b = FITS.table, Permuted(seed=2).fits.table
    assert list(a.index) == list(b.index) and sorted(map(tuple, a[['k', 'x0', 'c0']].to_numpy())) == sorted(map(tuple, b[['k', 'x0', 'c0']].to_numpy()))
    assert all((Permuted(seed=s).fits.table.k != a.k).all() for s in range(30)) and not Permuted(seed=3).fits.table.k.equals(b.k) and (FITS.table.k == PairFits.shipped().table.k).all()

@pytest.mark.parametrize('seed', range(3))
def test_two_curves_change_places(seed):
    two = fit_pairs(judged().query("class_a in ('0', '1') and class_b in ('1', '2') and class_a != class_b"))
    a = two.table.k.dropna()
    few = replace(two, table=two.table[two.table.k.notna()].iloc[:2])
    assert len(a) >= 2 and Permuted(few, seed, unknown='pooled', classes='012').fits.table.k.tolist() == few.table.k.tolist()[::-1]

# what users give

@pytest.mark.parametrize('kw, message', [
    (dict(overrides={('cat', 'dog'): (-3, .5)}), r"overrides: k of \('cat', 'dog'\): found -3"),
    (dict(overrides={('cat', 'dog'): (3, 5.)}), r"overrides: x0 of \('cat', 'dog'\): found 5"),
    (dict(overrides={('cat', 'dog'): (3, float('nan'))}), 'found nan'), (dict(overrides={('cat', 'dog'): 3}), 'needed are k, x0'),
    (dict(overrides={('cat', 'dog'): (3, .5, .1)}), 'needed are k, x0'), (dict(overrides={'cat': (3, .5)}), 'is no pair of two classes'),
    (dict(overrides={('cat', 'cat'): (3, .5)}), 'is no pair of two classes'),
    (dict(overrides={('cat', 'dog'): (3, .5), ('dog', 'cat'): (3, .4)}), 'in both orders'),
    (dict(overrides={('cats', 'dog'): (3, .5)}, classes=CIFAR10), "'cats' is not among the classes. Did you mean 'cat'"),
    (dict(overrides={('cats', 'dog'): (3, .5)}, classes=[*CIFAR10, *map(str, range(200))], unknown='pooled'), "'cats' is not among the classes"),
    (dict(groups={'tabby': 'catt'}), "groups: 'tabby' is in 'catt', which the fits do not know. Did you mean 'cat'"),
    (dict(groups={'tabby': 'cat'}, classes=CIFAR10), "groups: 'tabby' is not among the classes")])
def test_overrides_and_groups_are_checked(kw, message):
    with pytest.raises(ValueError, match=message): PairLogistic(**kw)

def test_names_beyond_the_fits_wait_for_the_classes():
    g = PairLogistic(overrides={('fox', 'dog'): (3, .5)}, unknown='pooled')
    assert repr(g) == 'PairLogistic(45 pairs, classes not told, 1 overrides)'
    with pytest.raises(ValueError, match="overrides: 'dog' is not among the classes"): g(.5, torch.eye(10), torch.eye(10))
    assert g.bind(['dog', 'fox', 'cat'])(.1, torch.tensor([0]), torch.tensor([1]))[0, 1].item() == pytest.approx(1/(1+np.exp(3*-.4)))

def test_an_override_keeps_how_sure_people_are():
    at = .4, torch.tensor([3]), torch.tensor([5])
    g, plain = Smoothed(PairLogistic(overrides={('cat', 'dog'): (8., .5)})), Smoothed(PairLogistic())
    assert g(*at)[0, 0] == plain(*at)[0, 0] and abs(g(*at)[0, 3] - plain(*at)[0, 3]) > .01

@pytest.mark.parametrize('k', [7, 10, 200])
def test_nameless_classes_are_all_alike(k):
    y = torch.randint(k, (20,), generator=torch.Generator().manual_seed(k))
    ya, yb = F.one_hot(y, k).float(), F.one_hot(y.roll(1), k).float()
    w = 1/(1+np.exp(-FITS.pooled.k*(.3-.5)))
    for g in (PairLogistic(unknown='pooled'), Average(PairLogistic(unknown='pooled'))):
        assert torch.allclose(g(.3, ya, yb), w*ya + (1-w)*yb, atol=1e-6)
    sure = Smoothed(PairLogistic(unknown='pooled'))(.3, torch.eye(k), torch.eye(k).roll(1, 0)) # no two of one class
    assert torch.allclose(sure, torch.stack([sure[0].roll(i) for i in range(k)]), atol=1e-6)

@pytest.mark.parametrize('per', ['batch', 'sample'])
def test_many_overrides_stand_apart(per):
    zoo, groups = thousand()
    r = np.random.default_rng(0)
    overrides = {(f'breed {i}', f'breed {j}'): (r.uniform(2, 9), r.uniform()) for i, j in zip(r.permutation(400)[:200], 400+r.permutation(400)[:200])}
    overrides |= {('cat', 'breed 3'): (5., .2), ('breed 4', 'dog'): (6., .9), ('cat', 'dog'): (9., .1), ('frog', 'ship'): (9., .8)}
    g = PairLogistic(classes=zoo, unknown='pooled', groups=groups, overrides=overrides)
    sure = Smoothed(Average(Smoothed(g), Linear(), weights=[3, 1]), Confidence(classes=zoo, unknown='pooled', groups=groups))
    assert g.types.n < 20 and sure.types.n < 20
    ya, yb = (torch.rand(8, 1000, generator=torch.Generator().manual_seed(s)).pow(30) for s in (0, 1))
    ya[:, [3, 13, 14, 5]] += 3. # overridden ones have much
    yb[:, [5, 14, 3, 13]] += 3.
    ya, yb = ya/ya.sum(1, keepdim=True), yb/yb.sum(1, keepdim=True)
    lam = torch.tensor(.3) if per == 'batch' else torch.rand(8)
    at = torch.cartesian_prod(torch.arange(1000), torch.arange(1000)).T
    for policy in (g, sure):
        y = policy(lam, ya, yb)
        assert torch.allclose(y.sum(1), torch.ones(8), atol=1e-5) and torch.allclose(policy(1-lam, yb, ya), y, atol=1e-6)
        l, want = lam.expand(8)[0], torch.zeros(1000)
        first, second = (o.view(1000, 1000).clone() for o in policy.shares(l, (at[0][None], at[1][None]), ya[:1], yb[:1]))
        same = [o.item() for o in policy.same(l, ya[:1], yb[:1])]
        for t, s in zip((first, second), same): t.fill_diagonal_(s)
        want = ya[0]*(first @ yb[0]) + yb[0]*(ya[0] @ second)
        assert torch.allclose(y[0], want + (1-want.sum())/1000, atol=2e-6)
        for (a, b), (k, x0) in list(overrides.items())[::40]:
            i, j = torch.tensor([zoo.index(a)]), torch.tensor([zoo.index(b)])
            assert torch.allclose(policy(.4, i, j), policy(torch.tensor([.4, .3]), i.repeat(2), j.repeat(2))[:1], atol=1e-6)
            if policy is g: assert g(.4, i, j)[0, i].item() == pytest.approx(1/(1+np.exp(-k*(.4-x0))), abs=1e-5)

@pytest.mark.parametrize('make, message', [
    (lambda: Smoothed(None), 'policy: found None'), (lambda: Smoothed(Linear), 'policy: found the class Linear itself'),
    (lambda: Average(Linear(), 3), 'policies: found 3'), (lambda: Average(PairLogistic), 'policies: found the class'),
    (lambda: Smoothed(Linear(), torch.tensor([.1, .2])), r'weight: found shape \(2,\)'), (lambda: Smoothed(Linear(), '0.1'), "weight: found '0.1'"),
    (lambda: Smoothed(Linear(), Confidence), 'weight: found <class'), (lambda: Smoothed(Linear(), torch.tensor(2.)), 'weight: found 2'),
    (lambda: Table(pd.DataFrame(dict(id_a=[1], id_b=[2], lam_f=[.5])), torch.eye(2)[:1], otherwise=Linear), 'otherwise: found the class'),
    (lambda: Average(PairLogistic(), PairLogistic(classes=NAMES)), 'the fits do not know')])
def test_what_is_no_policy(make, message):
    with pytest.raises(ValueError, match=message): make()

def test_functions_and_nets_as_policies():
    ya, yb = rows(4), rows(4, 1)
    class Net(torch.nn.Module):
        def forward(self, lam, ya, yb): return ya
    for fn in (Net(), by_hand):
        assert torch.allclose(Average(fn, Linear())(.3, ya, yb), (fn(.3, ya, yb) + Linear()(.3, ya, yb))/2)
        assert torch.allclose(Smoothed(fn, .1)(.3, ya, yb), .9*fn(.3, ya, yb) + .01, atol=1e-6)
        assert torch.allclose(Smoothed(fn, Confidence())(.3, ya, yb).sum(1), torch.ones(4), atol=1e-6)
    for bad in (lambda lam, a, b: 3*a, lambda lam, a, b: a-b, lambda lam, a, b: a*float('nan'), lambda lam, a, b: [a]):
        with pytest.raises(ValueError, match='g: .*returned'): Average(bad)(.3, ya, yb)
    assert repr(Smoothed(by_hand, .1)) == 'Smoothed(by_hand, 0.1)'

@pytest.mark.parametrize('name', POLICIES)
@quick
@given(st.integers(1, 7), lams, st.integers(0, 99), st.booleans())
def test_one_lam_for_few_classes_is_as_with_tensors(name, n, lam, seed, hard):
    g, ya, yb = POLICIES[name], rows(n, seed, hard=hard), rows(n, seed+1, hard=hard)
    a, b = ya.clone().requires_grad_(), yb.clone() # NumPy would lose the gradient
    y = g(lam, a, b)
    assert torch.allclose(g(lam, ya, yb), y.detach(), atol=5e-7) and torch.equal(ya, a) and torch.equal(yb, b)
    assert y.requires_grad and torch.allclose(g(lam, ya.T.contiguous().T, yb.double().float()), y.detach(), atol=5e-7)
    apply = lambda *o: (lambda y, w: w() if callable(w) else w)(*getattr(g, '_nameless', {}).get(10, g).apply(torch.full((1,), lam).expand(n), *o))
    if (w := apply(ya, yb)) is not None: assert torch.allclose(w.expand(n), apply(a, b).detach().expand(n), atol=1e-6)

def test_numpy_is_asked_for_what_it_knows_alone(monkeypatch):
    import hmix_nb.mixing.pairs as pairs
    seen, one = [], pairs.at_once
    monkeypatch.setattr(pairs, 'at_once', lambda *o: seen.append(o[0]) or one(*o))
    ya, yb, people = rows(4), rows(4, 1), PairLogistic()
    for g in (people, Smoothed(people), Smoothed(people, .1), Permuted(), PairLogistic(DIGITS['lapse'])): g(.3, ya, yb)
    assert len(seen) == 5
    class Mine(PairLogistic):
        def shares(self, lam, at, ya, yb): return super().shares(1-lam, at, ya, yb)
    turned = PairLogistic()(.7, ya, yb)
    seen.clear()
    assert torch.allclose(Mine()(.3, ya, yb), turned, atol=1e-6) and torch.allclose(Smoothed(Mine(), .1)(.3, ya, yb), smooth(turned, .1), atol=1e-6)
    assert not torch.allclose(Smoothed(Mine())(.3, ya, yb), Smoothed(people)(.3, ya, yb), atol=1e-3)
    class Odder(Confidence):
        def table(self, lam, at=None): return .5*super().table(lam, at)
    class Turned(Smoothed):
        def _by_pairs(self, lam, ya, yb): return super()._by_pairs(lam, yb, ya)
    for g in (Smoothed(people, Odder()), Turned(people)):
        assert torch.allclose(g(.3, ya, yb), g(.3, ya.clone().requires_grad_(), yb).detach(), atol=1e-6)
    people(torch.tensor([.1, .2, .3, .4]), ya, yb)
    many = PairLogistic(unknown='pooled').bind(range(33))
    many(.3, rows(4, k=33), rows(4, 1, k=33))
    PairLogistic(classes=HALF, unknown='pooled')(.3, ya, yb)
    assert len(seen) == 2 # 'people' under confidence, and the last one

def test_what_watches_tensors_sees_tensors():
    from torch.autograd import forward_ad
    ya, yb, g = rows(4), rows(4, 1), Smoothed(PairLogistic())
    labels = g(.3, ya, yb)
    apply = lambda a, b: g.apply(torch.full((1,), .3).expand(len(a)), a, b)[0]
    with forward_ad.dual_level(): # labels are linear in those of the first images
        out = forward_ad.unpack_dual(apply(forward_ad.make_dual(ya, yb-ya), yb))
        assert torch.allclose(out.primal, labels, atol=1e-6) and torch.allclose(out.tangent, apply(yb, yb) - labels, atol=1e-5)
    assert torch.allclose(torch.vmap(apply)(ya[:, None], yb[:, None])[:, 0], labels, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        traced = torch.jit.trace(apply, (ya, yb), check_trace=False)
    assert torch.allclose(traced(yb, ya), apply(yb, ya), atol=1e-6)

def test_an_export_leaves_nothing_of_its_own_behind():
    g = Smoothed(PairLogistic())
    g(.3, rows(4), rows(4, 1)) # by NumPy: no table is on the device as yet
    class Net(torch.nn.Module):
        def forward(self, lam, a, b): return g.apply(lam, a, b)[0]
    lam = torch.full((4,), .3)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        made = torch.export.export(Net(), (lam, rows(4), rows(4, 1)))
    assert torch.allclose(made.module()(lam, rows(4), rows(4, 1)), g(.3, rows(4), rows(4, 1)), atol=1e-6)
    assert type(g(torch.rand(4), rows(4), rows(4, 1))) is type(PairLogistic()(torch.rand(4), rows(4), rows(4, 1))) is torch.Tensor

def test_averages_of_other_orders_and_a_subclass_of_its_own():
    ya, yb = rows(4), rows(4, 1)
    mixed = Average(PairLogistic(), PairLogistic(classes=CIFAR10[::-1]))
    assert torch.allclose(mixed(.3, ya, yb), PairLogistic()(.3, ya, yb), atol=1e-6)
    class Mine(PairLogistic):
        def apply(self, lam, ya, yb): return ya, None
    y = Smoothed(Mine())(.3, ya, yb)
    assert torch.allclose(y - y.min(1, keepdim=True).values, (ya - ya.min(1, keepdim=True).values)*(y.max(1, keepdim=True).values - y.min(1, keepdim=True).values)
                          / (ya.max(1, keepdim=True).values - ya.min(1, keepdim=True).values), atol=1e-6) # `apply` is not passed over

def test_tables_have_to_know_images_and_columns():
    t = Table(pd.DataFrame(dict(id_a=[1], id_b=[2], lam_f=[.5])), torch.tensor([[.6, .4]]))
    named = Table(pd.DataFrame(dict(id_a=[1], id_b=[2], lam_f=[.5])), torch.tensor([[.6, .4]]), classes='ab')
    for g in (t, named, Smoothed(t, .1), Average(t, Linear())):
        with pytest.raises(ValueError, match='ids: found none.*AugmentingSet'): g.bind('ab')
        y = g.at([1], [2])(.5, torch.eye(2)[:1], torch.eye(2)[1:])
        assert y.sum() == pytest.approx(1) and y[0, 0] > .5
    assert named.at([1], [2]).bind('ba').rows.tolist() == [pytest.approx([.4, .6])]
    for g, match in ((t, 'does not know the names'), (named, r"the table has \('a', 'b'\)")):
        with pytest.raises(ValueError, match=match): g.at([1], [2]).bind('bc')
    with pytest.raises(ValueError, match='classes has 3, columns has 2'):
        Table(pd.DataFrame(dict(id_a=[1], id_b=[2], lam_f=[.5])), torch.tensor([[.6, .4]]), classes='abc')
