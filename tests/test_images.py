"Image sets and loaders: inside a real Learner, with partial batches, and the readers on small made files."
import json, random
import numpy as np, pytest, torch
import fastai.callback.progress # adds `no_bar`
from fastai.learner import Learner, load_learner
from hmix_nb.data.images import (ImageSet, SoftSet, as_floats, cifar10_test, cifar10h, cifar10s_split, digits, soft_dls, split)
from hmix_nb.labels import as_soft, soft_cross_entropy

class MadeHub:
    "A folder laid out as the hub's, with small made files."
    def __init__(self, root): self.root = root
    def path(self, name): return self.root/name
    def put(self, name, save, a):
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, a)

@pytest.fixture
def made(tmp_path):
    hub, g = MadeHub(tmp_path), np.random.default_rng(0)
    votes = g.integers(0, 9, (10, 10)) + np.eye(10, dtype=int)
    images = g.integers(0, 256, (10, 32, 32, 3)).astype(np.uint8)
    np.savez(tmp_path/'cifar10-test.npz', images=images, labels=np.arange(10, dtype=np.uint8),
             source='ten squares of noise')
    hub.put('cifar-10h/cifar10h-counts.npy', np.save, votes)
    hub.put('cifar-10h/cifar10h-probs.npy', np.save, votes/votes.sum(1, keepdims=True))
    hub.put('splits/train_indices.npy', np.save, np.arange(7))
    hub.put('splits/test_indices.npy', np.save, np.arange(7, 10))
    labels = {str(i): [] for i in (9, 3, 7, 1, 5, 0, 8)}
    hub.put('cifar-10s/human_soft_labels_data.json', lambda p, a: p.write_text(json.dumps(a)), labels)
    return hub

def tiny_dls(n=45, bs=10, **kw):
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(n, 3, 8, 8, generator=g), torch.rand(n, 4, generator=g).softmax(1)
    return soft_dls(x, y, x[:12], y[:12], bs=bs, device='cpu', **kw), x, y

def tiny_learner(dls):
    torch.manual_seed(0)
    return Learner(dls, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4)), loss_func=soft_cross_entropy)

def test_readers(made):
    ims = cifar10_test(made)
    assert ims.source == 'ten squares of noise' and ims.y.dtype == np.int64 and ims.x.shape == (10, 32, 32, 3)
    assert np.allclose(cifar10h(made).sum(1), 1) and cifar10h(made, counts=True).dtype.kind == 'i'
    train, held = split(made)
    assert list(train) == list(range(7)) and list(held) == [7, 8, 9]

def test_cifar10s_split_is_the_draw_from_the_sorted_ids(made):
    train, held = cifar10s_split(made, seed=3, n_held=2)
    assert list(held) == sorted(random.Random(3).sample([0, 1, 3, 5, 7, 8, 9], 2))
    assert sorted([*train, *held]) == [0, 1, 3, 5, 7, 8, 9]
    with pytest.raises(ValueError, match='n_held: found 7'): cifar10s_split(made, n_held=7)

def test_as_floats_is_the_stored_image_over_255():
    x = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3)).astype(np.uint8)
    out = as_floats(x, [4, 4, 0])
    assert out.shape == (3, 3, 6, 7) and out.is_contiguous() and out.dtype == torch.float32
    assert np.array_equal((out*255).round().numpy().astype(np.uint8), x[[4, 4, 0]].transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match='ids: found -1'): as_floats(x, [-1])
    with pytest.raises(ValueError, match='float'): as_floats(x/255)

def test_digits_keep_their_ink():
    from sklearn.datasets import load_digits
    d, raw = digits(), load_digits()
    small = d.x[..., 0].reshape(-1, 8, 4, 8, 4).mean((2, 4))/255*16
    assert np.abs(small - raw.images).mean() < 1.5 and np.array_equal(d.y, raw.target)
    assert d.classes == tuple('0123456789') and '8x8' in d.source
    assert digits(size=8).x.shape == (1797, 8, 8, 3)
    assert np.abs(digits(size=8).x[..., 0]/255*16 - raw.images).max() < .05

def test_every_image_once_per_epoch_in_a_new_order():
    dls, x, y = tiny_dls(generator=5)
    passes = [torch.cat([b for b, _ in dls.train]) for _ in range(2)]
    for p in passes: assert torch.equal(p.flatten(1).sum(1).sort()[0], x.flatten(1).sum(1).sort()[0])
    assert not torch.equal(*passes)
    assert [len(b) for b, _ in dls.train] == [10]*4 + [5]
    rows = torch.cat([r for _, r in dls.train])
    assert torch.equal(rows.sort(0)[0], y.sort(0)[0])

def test_images_and_rows_stay_together():
    dls, x, y = tiny_dls(generator=1)
    for xb, yb in dls.train:
        i = (xb[:, None] == x[None]).flatten(2).all(2).int().argmax(1)
        assert torch.equal(yb, y[i])

def test_order_comes_from_the_seed_alone():
    def order(generator, noise=0):
        torch.manual_seed(noise)
        dls = tiny_dls(generator=generator)[0]
        return torch.cat([yb for _ in range(2) for _, yb in dls.train])
    assert torch.equal(order(0), order(0, noise=1)) and not torch.equal(order(0), order(1))
    assert torch.equal(order(torch.Generator().manual_seed(0)), order(0))

def test_a_learner_trains_predicts_and_exports(tmp_path):
    dls, x, y = tiny_dls(generator=0)
    learn = tiny_learner(dls)
    learn.path = tmp_path
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2)
    assert learn.recorder.values[1][0] < learn.recorder.values[0][0]
    with learn.no_bar(): pred, targ = learn.get_preds(act=torch.nn.Identity())
    assert torch.equal(targ, y[:12]) and torch.allclose(pred, learn.model(x[:12]), atol=1e-6)
    with learn.no_bar(): pred, targ = learn.get_preds(ds_idx=0, act=torch.nn.Identity())
    assert torch.equal(targ, y) and torch.allclose(pred, learn.model(x), atol=1e-6) # all 45, back in order
    with learn.no_bar(): assert abs(learn.validate()[0] - soft_cross_entropy(learn.model(x[:12]), y[:12]).item()) < 1e-5
    learn.export('m.pkl')
    assert (tmp_path/'m.pkl').stat().st_size < 40_000 # the weights, and no data
    assert torch.allclose(load_learner(tmp_path/'m.pkl').model(x), learn.model(x))

def test_the_learning_rate_finder_runs(tmp_path):
    import fastai.callback.schedule # adds `lr_find`
    import matplotlib
    matplotlib.use('Agg')
    learn = tiny_learner(tiny_dls()[0])
    learn.path = tmp_path
    with learn.no_bar(): assert learn.lr_find(num_it=12, show_plot=False).valley > 0

def test_drop_last_and_one_batch():
    dls, *_ = tiny_dls()
    assert sum(len(b) for b, _ in dls.train.new(drop_last=True)) == 40 == 10*len(dls.train.new(drop_last=True))
    assert dls.one_batch()[0].shape == (10, 3, 8, 8) and dls.device == torch.device('cpu')
    one = soft_dls(torch.rand(1, 3, 8, 8), torch.ones(1, 1), torch.rand(1, 3, 8, 8), torch.ones(1, 1), device='cpu')
    assert len(list(one.train)) == 1

def test_bad_input_is_refused_by_name():
    x, y = torch.rand(4, 3, 8, 8), torch.full((4, 2), .5)
    with pytest.raises(ValueError, match='x has 4, y has 3'): soft_dls(x, y[:3], x, y)
    with pytest.raises(ValueError, match='x_valid: found 2'): soft_dls(x, y, x*0 + 2, y)
    with pytest.raises(ValueError, match='y_valid: row 0'): soft_dls(x, y, x, y*2)
    with pytest.raises(ValueError, match='y_valid: rows have 3 classes; y has 2'):
        soft_dls(x, y, x, torch.full((4, 3), 1/3))
    with pytest.raises(ValueError, match='bs: found 0'): soft_dls(x, y, x, y, bs=0)
    with pytest.raises(ValueError, match='empty'): soft_dls(x[:0], y[:0], x, y)
    with pytest.raises(ValueError, match='x: found torch.int64'): soft_dls((x*255).long(), y, x, y)
    with pytest.raises(ValueError, match='empty'): ImageSet(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, int))

def test_a_pass_takes_one_step_per_batch(monkeypatch):
    x, y = torch.rand(20_000, 1, 2, 2), as_soft(torch.zeros(20_000, dtype=torch.long), 2)
    dls = soft_dls(x, y, x, y, bs=500, device='cpu')
    asked, get = [], SoftSet.__getitem__
    monkeypatch.setattr(SoftSet, '__getitem__', lambda self, i: asked.append(len(i)) or get(self, i))
    assert len(list(dls.train)) == 40 and asked == [500]*40 # no Python step per image

def test_the_released_data(hub):
    ims, (train, held) = cifar10_test(hub), split(hub)
    assert ims.x.shape == (10000, 32, 32, 3) and ims.source and np.array_equal(np.bincount(ims.y), [1000]*10)
    assert (cifar10h(hub).argmax(1) == ims.y).mean() == pytest.approx(.9921)
    p = cifar10h(hub)[held]
    assert -(p*np.log(np.where(p > 0, p, 1))).sum(1).mean() == pytest.approx(.15137, abs=1e-5)
    soft, out = cifar10s_split(hub, seed=0)
    assert len(soft) == 900 and len(out) == 100 and not set(held) & {*soft, *out}
