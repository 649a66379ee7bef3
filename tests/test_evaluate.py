"One evaluation: equal to its parts, one copy to the host, and a bootstrap that resamples what it says."
import sys
from contextlib import contextmanager
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from scipy import stats
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from hmix_nb.evaluation.attack import auto_attack, fgsm_loss, pgd_loss, subset
from hmix_nb.evaluation.evaluate import ATTACKS, EvalSet, Scores, evaluate, _summary, _weighted
from hmix_nb.evaluation.scores import predict, score

def mk_net(seed=0, k=5):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(54, k))
    net(torch.rand(64, 3, 8, 8))
    return net

def mk_set(n=60, k=5, seed=1, **kw):
    g = torch.Generator().manual_seed(seed)
    x, targ = torch.rand(n, 3, 8, 8, generator=g), torch.rand(n, k, generator=g).mul(3).double().softmax(1)
    targ[: n//4] = torch.eye(k).double()[torch.arange(n//4) % k] # ties in entropy
    return EvalSet(**dict(name='made', x=x, targ=targ, y_hard=targ.argmax(1), source='noise', bin_size=10) | kw)

def test_it_is_the_sum_of_its_parts():
    net, s = mk_net(), mk_set()
    r = evaluate(net, s, attacks=ATTACKS, n_auto=20)
    t, want = r.table.loc['made'], score(net, s.x, s.targ, s.y_hard, bin_size=10).asdict()
    want.pop('source')
    for k, v in want.items(): assert abs(t[k]-v) < 1e-6, k
    assert abs(t.fgsm-fgsm_loss(net, s.x, s.y_hard)) < 1e-6 and abs(t.fgsm_soft-fgsm_loss(net, s.x, s.targ)) < 1e-6
    assert abs(t.pgd-pgd_loss(net, s.x, s.y_hard)) < 1e-6 and abs(t.pgd_soft-pgd_loss(net, s.x, s.targ)) < 1e-6
    assert t.autoattack == auto_attack(net, s.x, s.y_hard, n=20).accuracy and t.autoattack_n == 20
    df = r.images['made']
    np.testing.assert_allclose(df.fgsm, fgsm_loss(net, s.x, s.y_hard, reduction='none'), atol=1e-6)
    assert len(df) == 60 and df.autoattack.notna().sum() == 20

def test_uint8_images_are_the_same_floats():
    g = torch.Generator().manual_seed(0)
    x = torch.randint(256, (60, 8, 8, 3), generator=g, dtype=torch.uint8)
    net, s = mk_net(), mk_set()
    a = evaluate(net, replace(s, x=x))
    b = evaluate(net, replace(s, x=x.permute(0, 3, 1, 2)/255))
    pd.testing.assert_frame_equal(a.table, b.table, check_exact=True)

def test_batch_size_does_not_matter_and_the_net_is_left_alone():
    net, s = mk_net(), mk_set()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    a, b = evaluate(net, s, bs=7), evaluate(net, s, bs=60)
    pd.testing.assert_frame_equal(a.table, b.table, rtol=1e-5)
    assert all(m.training for m in net.modules()) and all(torch.equal(v, state[k]) for k, v in net.state_dict().items())

class CountLooks(TorchDispatchMode):
    "How often a value is asked for, which makes a GPU wait."
    def __init__(self): super().__init__(); self.n = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **kwargs or {})

def test_nobody_looks_at_a_value_before_the_end(monkeypatch):
    import hmix_nb.evaluation.evaluate as room
    net, sets = mk_net(), [mk_set(), mk_set(seed=2, name='second')]
    seen = []
    def to_host(names, columns): seen.append(count.n); return real(names, columns)
    real = room._to_host
    monkeypatch.setattr(room, '_to_host', to_host)
    with CountLooks() as count: evaluate(net, sets, bs=5, attacks=('fgsm', 'fgsm_soft', 'pgd'))
    assert seen == [0]

def test_the_1000_are_a_part_of_the_3000():
    s = mk_set(1500, bin_size=100)
    r = evaluate(mk_net(), s)
    t, each = r.table.loc['made'], r.images['made'].fgsm.to_numpy()
    assert abs(t.fgsm_1000-each[subset(1500).numpy()].mean()) < 1e-12 and abs(t.fgsm-each.mean()) < 1e-12
    assert 'fgsm_1000' not in evaluate(mk_net(), mk_set()).table

@pytest.mark.parametrize('n_bins', [None, 7])
def test_weights_are_repeats(n_bins):
    s = mk_set(1203, bin_size=100, n_bins=n_bins)
    r = evaluate(mk_net(), s, attacks=('fgsm', 'fgsm_soft'))
    df, info = r.images['made'], r.sets['made']
    w = np.random.default_rng(0).multinomial(1203, np.full(1203, 1/1203), size=5)
    ones, fast = _weighted(df, np.ones((1, 1203), int), info), _weighted(df, w, info)
    for k, v in ones.items(): assert abs(v[0]-r.table.loc['made', k]) < 1e-9, k
    for b in range(5):
        slow = _summary(df.loc[np.repeat(np.arange(1203), w[b])].reset_index(drop=True), 100, n_bins)
        for k, v in fast.items():
            if not k.endswith('_1000'): assert abs(v[b]-slow[k]) < 1e-9, k # which images are among the 1,000 shifts with repeats

def test_the_interval_of_a_mean_is_the_one_of_the_t_test():
    s = mk_set(400)
    a, b = (evaluate(mk_net(i), s) for i in (0, 1))
    c = a.compare(b, n_boot=2000).loc['made']
    for k in ('ce', 'fgsm', 'fgsm_soft'):
        d = a.images['made'][k]-b.images['made'][k]
        t = stats.t.interval(.95, 399, d.mean(), d.sem())
        assert abs(c.difference[k]-d.mean()) < 1e-9
        np.testing.assert_allclose([c.low[k], c.high[k]], t, atol=.15*(t[1]-t[0]))

def test_comparison_is_antisymmetric_seeded_and_zero_with_itself():
    s = mk_set(200)
    a, b = (evaluate(mk_net(i), s) for i in (0, 1))
    there, back = a.compare(b, n_boot=200), b.compare(a, n_boot=200)
    pd.testing.assert_series_equal(there.difference, -back.difference)
    np.testing.assert_allclose(there.low, -back.high, atol=1e-12)
    assert back.better.map({'this': 'other', 'other': 'this', '': ''}).equals(there.better)
    pd.testing.assert_frame_equal(there, a.compare(b, n_boot=200))
    assert not a.compare(b, n_boot=200, seed=1).equals(there)
    with pytest.raises(ValueError, match='other: found 3; allowed are the `Scores` of another net'): a.compare(3)
    same = a.compare(a, n_boot=50)
    assert (same[['difference', 'low', 'high']] == 0).all(axis=None) and (same.better == '').all()

def test_better_knows_the_direction():
    s = mk_set(300)
    good = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    for p in good.parameters(): nn.init.zeros_(p)
    class Knows(nn.Module):
        def __init__(self): super().__init__(); self.p, self.at = nn.Parameter(torch.zeros(1)), 0
        def forward(self, x): return s.targ.float().log().clamp(min=-9)+self.p
    a, b = evaluate(Knows(), s, attacks=(), bs=300), evaluate(good, s, attacks=())
    c = a.compare(b, n_boot=100).loc['made']
    assert c.better['ce'] == c.better['accuracy'] == c.better['top2'] == 'this' and c.difference['ce'] < 0 < c.difference['accuracy']

def test_a_group_is_a_mean():
    s = mk_set()
    parts = [replace(s, name=n, x=s.x*f, group='dark', attack=False) for n, f in (('a', .5), ('b', .2))]
    r, o = (evaluate(mk_net(i), [s, *parts]) for i in (0, 1))
    assert r.table.index.tolist() == ['made', 'dark'] and r.table.sets.tolist() == [1, 2]
    assert abs(r.table.ce['dark']-r.all_sets.ce[['a', 'b']].mean()) < 1e-12 and np.isnan(r.table.fgsm['dark'])
    c, each = r.compare(o, n_boot=100), [evaluate(mk_net(i), parts[0]) for i in (0, 1)]
    assert abs(c.difference['dark', 'ce']-(r.table.ce-o.table.ce)['dark']) < 1e-12
    assert 'dark.ce' in r.row() and 'dark.fgsm' not in r.row()
    assert len(evaluate(mk_net(), parts[0]).table) == 1

def test_other_sets_are_refused():
    s = mk_set()
    a = evaluate(mk_net(), s)
    for other in (mk_set(seed=3), replace(s, targ=s.targ.flip(0)), replace(s, bin_size=20), replace(s, x=s.x.flip(0))):
        with pytest.raises(ValueError, match='other: '): a.compare(evaluate(mk_net(1), other))
    with pytest.raises(ValueError, match='none of made'): a.compare(evaluate(mk_net(1), replace(s, name='x')))

def test_it_says_what_it_stands_on():
    r = evaluate(mk_net(), mk_set(source='<noise>'), eps=8/255)
    assert {'device', 'eps', 'torch', 'torchattacks', 'torchmetrics', 'hmix_nb'} <= set(r.made) and r.made['eps'] == 8/255
    assert '60 images' in repr(r) and '<noise>' in repr(r) and '&lt;noise&gt;' in r._repr_html_()
    assert r.sets['made']['source'] == '<noise>' and r.table.n['made'] == 60

def test_a_net_that_diverged_is_refused():
    net = mk_net()
    nn.init.constant_(net[-1].bias, float('nan'))
    with pytest.raises(ValueError, match='made: the answers to 60 of 60 images are not finite'): evaluate(net, mk_set())

def test_low_precision_is_close_and_said():
    s = mk_set()
    a, b = evaluate(mk_net(), s), evaluate(mk_net(), s, amp=True)
    assert abs(a.table.ce.iloc[0]-b.table.ce.iloc[0]) < .02 and b.made['precision'] == 'bfloat16'
    assert a.table.fgsm.equals(b.table.fgsm)

@pytest.mark.parametrize('kw,message', [
    (dict(x=torch.rand(60, 3, 8, 8)*2), 'x: found'), (dict(x=torch.rand(9, 3, 8, 8)), 'x has 9, targ has 60'),
    (dict(targ=torch.ones(60, 5)), 'targ: row 0'), (dict(targ=torch.zeros(60).long()), 'targ: found shape'),
    (dict(y_hard=torch.full((60,), 5)), 'y_hard: found 5'), (dict(y_hard=torch.ones(60, 5)), 'y_hard: found shape'),
    (dict(bin_size=61), 'bin_size: found 61'), (dict(bin_size=31), 'makes one bin'), (dict(n_bins=61), 'n_bins: found 61'),
    (dict(x=torch.zeros(60, 3, 8, 8, dtype=torch.uint8)), '(N, H, W, C)')])
def test_bad_sets(kw, message):
    with pytest.raises(ValueError) as e: mk_set(**kw)
    assert message in str(e.value)

def test_one_channel_numpy_and_the_real_sets_size():
    s = EvalSet('np', np.zeros((20, 8, 8, 1), np.uint8), np.full((20, 4), .25), bin_size=5)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    assert evaluate(net, s, attacks='fgsm_soft').table.n['np'] == 20

def test_paper_sets(hub):
    from hmix_nb.data.images import cifar10s_split, cifar10h, split
    from hmix_nb.evaluation.sets import cifar10h_set, cifar10s_set, paper_sets
    from hmix_nb.evaluation.scores import cross_entropy
    sets = {s.name: s for s in paper_sets(hub, seed=3)}
    held, second = sets['CIFAR-10H'], sets['CIFAR-10S']
    assert len(held) == 3000 and held.bin_size == 100 and abs(float(cross_entropy(held.targ.log(), held.targ))-.15137) < 1e-5
    assert len(second) == 100 and second.bin_size == 10 and second.fingerprint == cifar10s_set(hub, 3).fingerprint
    train, ids = cifar10s_split(hub, 3)
    assert not set(ids) & {*train, *split(hub)[1]}
    assert (second.targ.sum(1)-1).abs().max() < 1e-5
    others = [s for k, s in sets.items() if k not in ('CIFAR-10H', 'CIFAR-10S')]
    assert all(s.targ.equal(held.targ) and s.group and not s.attack for s in others) and len(others) >= 8
    assert all('tand-in' in s.source or 'CIFAR-10-C' in s.source for s in others)

def test_cifar10c_joins_people_of_the_same_image(hub, tmp_path):
    from hmix_nb.data.images import cifar10_test, cifar10h, split
    from hmix_nb.evaluation.sets import cifar10c_sets
    images = cifar10_test(hub)
    x = np.zeros((50_000, 32, 32, 3), np.uint8)
    x[20_000:30_000] = 255-images.x # severity 3
    np.save(tmp_path/'fog.npy', x)
    np.save(tmp_path/'labels.npy', np.tile(images.y, 5).astype(np.uint8))
    s, = cifar10c_sets(hub, 'fog', folder=tmp_path)
    ids = split(hub)[1]
    assert np.array_equal(255-s.x.numpy(), images.x[ids]) and np.array_equal(s.targ.numpy(), cifar10h(hub)[ids])
    assert s.group == 'CIFAR-10-C 3' and 'severity 3' in s.source
    with pytest.raises(FileNotFoundError): cifar10c_sets(hub, 'snow', folder=tmp_path)

def test_scores_are_exact_on_whatever_device(monkeypatch):
    asked = []
    @contextmanager
    def told(device, exact):
        asked.append((torch.device(device).type, exact))
        yield
    monkeypatch.setattr('hmix_nb.evaluation.evaluate.precise', told)
    x = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    evaluate(net, EvalSet('noise', x, torch.eye(3)[torch.arange(20) % 3], torch.arange(20) % 3, 'noise', bin_size=5))
    assert asked == [('cpu', True)]
