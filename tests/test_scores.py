"Scores against slow references in plain Python, laws, and what a page should not show."
import math, random, warnings
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn
from scipy import stats as sps
from torchmetrics.functional.classification import multiclass_calibration_error
from hmix_nb.evaluation.scores import (SetScores, bin_sizes, calibration_bins, check_images, class_accuracy,
                                       cross_entropy, ece, entropy_correlation, eval_mode, predict, reliability_bins,
                                       reliability_diagram, rms_calibration, score, score_logits, soft_accuracy)

def slow_calibration(conf, correct, bin_size, drop_last):
    "The published procedure, one answer at a time; `sorted` is stable."
    order = sorted(range(len(conf)), key=lambda i: conf[i])
    bins = [order[i*bin_size:(i+1)*bin_size] for i in range(len(conf)//bin_size)]
    bins[-1] = order[(len(bins)-1)*bin_size:]
    total = 0.
    for b in bins[:-1] if drop_last else bins:
        mean_conf = math.fsum(conf[i] for i in b)/len(b)
        mean_correct = sum(bool(correct[i]) for i in b)/len(b)
        total += len(b)/len(conf)*(mean_conf-mean_correct)**2
    return math.sqrt(total)

def slow_cross_entropy(pred, targ):
    "One class at a time."
    out = []
    for logits, row in zip(pred.tolist(), targ.tolist()):
        m = max(logits)
        log_z = m+math.log(math.fsum(math.exp(z-m) for z in logits))
        out.append(math.fsum(-p*(z-log_z) for p, z in zip(row, logits) if p > 0))
    return out

@pytest.mark.parametrize('drop_last,want', [(True, 0.32794195511694735), (False, 0.33289415512820)])
@pytest.mark.parametrize('as_type', [np.asarray, lambda v: torch.from_numpy(np.array(v)), list])
def test_published_vector(drop_last, want, as_type):
    conf, correct = [(i+.5)/3000 for i in range(3000)], [i%3 != 0 for i in range(3000)]
    assert abs(rms_calibration(as_type(conf), as_type(correct), drop_last=drop_last)-want) < 1e-12

answers = st.tuples(st.floats(0, 1) | st.sampled_from([0., .5, 1.]), st.booleans())

@settings(max_examples=150, deadline=None)
@given(st.lists(answers, min_size=2, max_size=60), st.data())
def test_calibration_is_the_slow_one(answers, data):
    conf, correct = map(list, zip(*answers))
    bin_size = data.draw(st.integers(1, len(conf)//2))
    for drop_last in (True, False):
        got = rms_calibration(np.array(conf), np.array(correct), bin_size=bin_size, drop_last=drop_last)
        assert abs(got-slow_calibration(conf, correct, bin_size, drop_last)) < 1e-12
    bins = calibration_bins(conf, correct, bin_size)
    assert len(bins) == len(conf)//bin_size and int(bins.n.sum()) == len(conf)
    assert (bins.n[:-1] == bin_size).all() and bin_size <= bins.n[-1] < 2*bin_size
    assert (bins.conf.diff() >= -1e-12).all()

def test_bins_of_thousands_with_remainder():
    rng = random.Random(3)
    conf = [rng.random() for _ in range(3057)]
    correct = [rng.random() < c for c in conf]
    for drop_last in (True, False):
        got = rms_calibration(conf, correct, drop_last=drop_last)
        assert abs(got-slow_calibration(conf, correct, 100, drop_last)) < 1e-12
    assert calibration_bins(conf, correct).n.tolist() == [100]*29+[157]

def test_equal_confidences_keep_their_order():
    conf = [.5]*4
    assert rms_calibration(conf, [1, 1, 0, 0], bin_size=2, drop_last=False) == .5
    assert rms_calibration(conf, [1, 0, 1, 0], bin_size=2, drop_last=False) == 0
    mixed = torch.tensor([.9, .5, .5, .9])
    assert calibration_bins(mixed, [1, 1, 0, 0], bin_size=1).correct.tolist() == [1, 0, 1, 0]

def test_inputs_are_left_alone():
    conf, correct = torch.rand(50), torch.rand(50) < .5
    a, b = conf.clone(), correct.clone()
    rms_calibration(conf, correct, bin_size=7)
    assert torch.equal(conf, a) and torch.equal(correct, b)

@pytest.mark.parametrize('conf,correct,kw,message', [
    ([.5]*9, [1]*9, {}, 'bin_size: found 100'),
    ([.5]*9, [1]*9, dict(bin_size=0), 'bin_size: found 0'),
    ([.5]*9, [1]*9, dict(bin_size=2.5), 'bin_size: found 2.5'),
    ([.5]*9, [1]*9, dict(bin_size=5), 'would leave none'),
    ([], [], {}, 'empty'),
    ([.5]*9, [1]*8, dict(bin_size=2), 'conf has 9, correct has 8'),
    ([.5]*8+[1.01], [1]*9, dict(bin_size=2), 'conf: found 1.01 at position (8,)'),
    ([.5]*8+[-.01], [1]*9, dict(bin_size=2), 'conf: found -0.01'),
    ([.5]*8+[float('nan')], [1]*9, dict(bin_size=2), 'conf: found nan'),
    ([.5]*9, [1]*8+[2], dict(bin_size=2), 'correct: found 2'),
    ([.5]*9, [1]*8+[float('nan')], dict(bin_size=2), 'correct: found nan'),
    ([[.5, .5]], [[1, 1]], dict(bin_size=1), 'allowed is (N,)')])
def test_calibration_refuses(conf, correct, kw, message):
    with pytest.raises(ValueError) as e: rms_calibration(conf, correct, **kw)
    assert message in str(e.value)

@settings(max_examples=80, deadline=None)
@given(st.integers(1, 9), st.integers(2, 12), st.integers(0, 2**31-1), st.sampled_from([.1, 3., 60.]))
def test_cross_entropy_is_the_slow_one(n, k, seed, scale):
    g = torch.Generator().manual_seed(seed)
    pred, targ = scale*torch.randn(n, k, generator=g).double(), torch.rand(n, k, generator=g).double()
    targ = torch.where(targ < .3, 0., targ)+1e-9
    targ = targ/targ.sum(1, keepdim=True)
    slow = torch.tensor(slow_cross_entropy(pred, targ), dtype=torch.float64)
    torch.testing.assert_close(cross_entropy(pred, targ, reduction='none'), slow, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(cross_entropy(pred, targ), slow.mean(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(cross_entropy(pred, targ, reduction='sum'), slow.sum(), rtol=1e-10, atol=1e-10)

def slow_sizes(n, n_bins): return [len(o) for o in np.array_split(np.arange(n), n_bins)]

@settings(max_examples=100, deadline=None)
@given(st.lists(answers, min_size=2, max_size=60), st.data())
def test_a_number_of_bins_is_numpys_split(answers, data):
    conf, correct = map(list, zip(*answers))
    n, n_bins = len(conf), data.draw(st.integers(2, len(conf)))
    assert bin_sizes(n, n_bins=n_bins) == slow_sizes(n, n_bins)
    order = sorted(range(n), key=lambda i: conf[i])
    for drop_last in (True, False):
        total, at = 0., 0
        for b, size in enumerate(slow_sizes(n, n_bins)):
            ids, at = order[at:at+size], at+size
            if drop_last and b == n_bins-1: continue
            total += size/n*(math.fsum(conf[i] for i in ids)/size - sum(bool(correct[i]) for i in ids)/size)**2
        got = rms_calibration(np.array(conf), np.array(correct), drop_last=drop_last, n_bins=n_bins)
        assert abs(got-math.sqrt(total)) < 1e-12

def test_both_conventions_agree_on_the_3000_and_differ_elsewhere():
    g = torch.Generator().manual_seed(0)
    conf, correct = torch.rand(3050, generator=g), torch.rand(3050, generator=g) < .6
    assert rms_calibration(conf[:3000], correct[:3000]) == rms_calibration(conf[:3000], correct[:3000], n_bins=30)
    assert rms_calibration(conf, correct) != rms_calibration(conf, correct, n_bins=30)
    with pytest.raises(ValueError, match='n_bins: 1 makes one bin'): rms_calibration(conf, correct, n_bins=1)

@settings(max_examples=100, deadline=None)
@given(st.lists(answers, min_size=1, max_size=60), st.integers(1, 20))
def test_ece_is_the_slow_one(answers, n_bins):
    conf, correct = map(list, zip(*answers))
    edges = np.linspace(0, 1, n_bins+1)
    place = [min(sum(c >= e for e in edges)-1, n_bins-1) for c in conf]
    gaps = []
    for b in range(n_bins):
        ids = [i for i, o in enumerate(place) if o == b]
        if ids: gaps.append((len(ids)/len(conf), abs(np.mean([conf[i] for i in ids])-np.mean([correct[i] for i in ids]))))
    assert abs(ece(conf, correct, n_bins)-sum(w*g for w, g in gaps)) < 1e-9
    assert abs(ece(conf, correct, n_bins, 'l2')-math.sqrt(sum(w*g**2 for w, g in gaps))) < 1e-9
    assert abs(ece(conf, correct, n_bins, 'max')-max(g for _, g in gaps)) < 1e-9
    b = reliability_bins(conf, correct, n_bins)
    assert int(b.n.sum()) == len(conf) and len(b) == len(gaps)

def test_ece_is_torchmetrics_own():
    g = torch.Generator().manual_seed(1)
    pred, y = torch.randn(500, 7, generator=g), torch.randint(7, (500,), generator=g)
    p = pred.double().softmax(1)
    want = multiclass_calibration_error(p, y, 7)
    assert abs(ece(p.max(1).values, p.argmax(1) == y)-float(want)) < 1e-6

def test_reliability_diagram_draws_each_net():
    ax = reliability_diagram({k: (torch.rand(50), torch.rand(50) < .5) for k in 'ab'})
    assert [t.get_text()[:6] for t in ax.get_legend().get_texts()] == ['a, ECE', 'b, ECE'] and ax.get_xlabel() and ax.get_ylabel()

@pytest.mark.parametrize('k', [1, 2, 3])
def test_top_k_and_worst_class_are_the_slow_ones(k):
    g = torch.Generator().manual_seed(k)
    pred, targ = torch.randint(4, (60, 5), generator=g).float(), torch.rand(60, 5, generator=g).softmax(1)
    right = []
    for z, t in zip(pred.tolist(), targ.tolist()):
        first = sorted(range(5), key=lambda j: -z[j])[:k] # stable: ties in order
        right.append(t.index(max(t)) in first)
    assert soft_accuracy(pred, targ, k) == sum(right)/60
    if k == 1:
        y = targ.argmax(1).tolist()
        want = [np.mean([r for r, c in zip(right, y) if c == j]) for j in range(5)]
        assert np.allclose(class_accuracy(pred, targ), want)

def test_entropy_correlation_is_scipys_and_nan_where_nothing_varies():
    g = torch.Generator().manual_seed(0)
    pred, targ = torch.randn(80, 4, generator=g).double(), torch.rand(80, 4, generator=g).double().softmax(1)
    targ[:30] = torch.eye(4).double()[0] # ties, as in CIFAR-10H
    a, b = (sps.entropy(o.numpy(), axis=1) for o in (pred.softmax(1), targ))
    assert abs(entropy_correlation(pred, targ)-np.corrcoef(a, b)[0, 1]) < 1e-9
    assert abs(entropy_correlation(pred, targ, 'spearman')-sps.spearmanr(a, b).statistic) < 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert math.isnan(entropy_correlation(pred, targ.argmax(1)))

def test_cross_entropy_of_hard_labels_is_torchs():
    pred, y = torch.randn(20, 5), torch.randint(5, (20,))
    torch.testing.assert_close(cross_entropy(pred, y).float(), nn.functional.cross_entropy(pred, y))
    torch.testing.assert_close(cross_entropy(pred.numpy(), y.numpy().astype(np.uint8)), cross_entropy(pred, y))

def test_half_precision_logits_do_not_round_the_labels():
    pred, targ = torch.randn(50, 10), torch.rand(50, 10).softmax(1)
    low = pred.bfloat16()
    torch.testing.assert_close(cross_entropy(low, targ), cross_entropy(low.double(), targ.double()), rtol=0, atol=1e-12)

@pytest.mark.parametrize('targ,message', [
    (torch.full((4, 3), .5), 'targ: row 0'), (torch.tensor([[1.5, -.5, 0]]*4), 'targ: row 0'),
    (torch.tensor([[1., 0, 0]]*3+[[float('nan'), 0, 1]]), 'targ: row 3'), (torch.tensor([0, 1, 2, 3]), 'targ: found 3'),
    (torch.tensor([[1., 0]]*4), 'n_classes is 3'), (torch.ones(3, 3)/3, 'pred has 4, targ has 3'),
    (torch.ones(4), 'targ: found shape')])
def test_cross_entropy_refuses(targ, message):
    with pytest.raises(ValueError) as e: cross_entropy(torch.zeros(4, 3), targ)
    assert message in str(e.value)

def test_read_only_and_reversed_arrays_are_taken_quietly():
    rows = np.random.default_rng(0).dirichlet(np.ones(4), size=6)
    rows.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        a, b = cross_entropy(torch.zeros(6, 4), rows), soft_accuracy(np.log(rows)[::-1], rows[::-1])
    assert abs(float(a)-math.log(4)) < 1e-12 and b == 1

class Net(nn.Module):
    def __init__(self, k=10):
        super().__init__()
        self.bn, self.drop, self.head = nn.BatchNorm2d(3), nn.Dropout(.5), nn.Linear(3*8*8, k)
        self.seen = []
    def forward(self, x):
        self.seen.append((len(x), self.training, torch.is_grad_enabled()))
        return self.head(self.drop(self.bn(x)).flatten(1))

def test_predict_leaves_the_model_as_it_was():
    net, x = Net(), torch.rand(23, 3, 8, 8)
    net.bn.eval()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    pred = predict(net, x, bs=10)
    assert net.seen == [(10, False, False), (10, False, False), (3, False, False)]
    assert net.training and net.drop.training and not net.bn.training
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    torch.testing.assert_close(pred, predict(net, x, bs=1))

def test_modes_come_back_after_an_error():
    net = Net()
    with pytest.raises(ZeroDivisionError), eval_mode(net): 1/0
    with pytest.raises(RuntimeError): predict(net, torch.rand(2, 3, 9, 9))
    assert all(m.training for m in net.modules())

def test_predict_follows_the_precision_of_the_model():
    x = torch.rand(3, 3, 8, 8)
    assert predict(Net().double(), x).dtype == torch.float64
    assert predict(Net().bfloat16(), x).dtype == torch.bfloat16
    assert predict(nn.Flatten(), x.double()).dtype == torch.float64

@pytest.mark.parametrize('x,message', [
    (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 'floats in [0, 1]'), (torch.rand(3, 8, 8), 'found shape (3, 8, 8)'),
    (torch.zeros(0, 3, 8, 8), 'empty'), (torch.full((1, 3, 2, 2), -.1), 'x: found -0.1'),
    (torch.full((1, 3, 2, 2), float('nan')), 'x: found nan'), (255*torch.ones(1, 3, 2, 2), 'x: found 255')])
def test_images_refused(x, message):
    with pytest.raises(ValueError) as e: check_images(x)
    assert message in str(e.value)

def test_rounding_errors_in_pixels_pass():
    x = torch.tensor([-1e-6, 1+1e-6]).view(1, 1, 1, 2)
    assert check_images(x) is x

def test_score_counts_what_it_says():
    net, x = Net(4), torch.rand(40, 3, 8, 8)
    targ = torch.distributions.Dirichlet(torch.ones(4)).sample((40,))
    targ[0] = torch.tensor([.5, .5, 0, 0])
    y = torch.randint(4, (40,))
    s, pred = score(net, x, targ, y, bin_size=10, bs=16, source='noise'), predict(net, x)
    probs = pred.double().softmax(1)
    conf, first = probs.max(1)
    right = (first == targ.argmax(1)).tolist()
    assert isinstance(s, SetScores) and (s.n, s.ties, s.source) == (40, 1, 'noise')
    assert abs(s.ce-np.mean(slow_cross_entropy(pred.double(), targ.double()))) < 1e-9
    assert abs(s.calibration-slow_calibration(conf.tolist(), right, 10, True)) < 1e-9
    assert abs(s.calibration_all-slow_calibration(conf.tolist(), right, 10, False)) < 1e-9
    assert s.accuracy == sum(right)/40 and s.accuracy_hard == float((first == y).double().mean())
    assert s.asdict()['ce_floor'] == s.ce_floor <= s.ce
    assert 'noise' in s._repr_html_()

def test_score_refuses_a_net_that_diverged():
    with pytest.raises(ValueError, match='2 of 4 rows are not finite'):
        pred = torch.tensor([[0., 0], [float('nan'), 0], [0, float('inf')], [1, 1]])
        score_logits(pred, torch.full((4, 2), .5), bin_size=1)

def test_people_against_themselves(hub):
    from hmix_nb.data.images import cifar10h, split
    rows = torch.tensor(cifar10h(hub))[split(hub)[1]]
    assert abs(float(cross_entropy(rows.log(), rows))-.15137) < 1e-5
    assert soft_accuracy(rows, rows) == 1
