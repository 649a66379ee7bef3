"Networks against a plain second writing of them, and the loss inside a real `Learner`."
import copy, pickle, subprocess, sys
import pytest, torch
import torch.nn.functional as F
from fastai.callback.hook import model_sizes
from fastai.callback.mixup import MixUp
from fastai.callback.schedule import *
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam
from fastai.torch_core import TensorBase, TensorCategory
from torch import nn
from hmix_nb.data.images import soft_dls
from hmix_nb.evaluation.scores import predict
from hmix_nb.labels import smooth
from hmix_nb.train.losses import SoftCrossEntropy
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from hmix_nb.train.models import (MODELS, Normalize, mk_model, n_params, preact_resnet, preact_resnet18, preact_resnet34,
                                  preact_small, resnet34, resnet34a, resnet50, vgg11)

def settle(net):
    "Give batch norm something to do: random scales, shifts and running statistics."
    g = torch.Generator().manual_seed(0)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t, lo in ((m.weight.data, .5), (m.bias.data, -.5), (m.running_mean, -.5), (m.running_var, .5)):
                t.copy_(torch.rand(t.shape, generator=g)+lo)
    return net.eval()

def plain_preact(net, x, kuangliu, stem_stride=1):
    "The forward pass of a PreAct ResNet, written out from the description in functional form."
    w = iter(net.state_dict().items())
    def take(n): return [next(w)[1] for _ in range(n)]
    def bn(t):
        weight, bias, mean, var = (o.view(1, -1, 1, 1) for o in take(5)[:4])
        return (t-mean)/(var+1e-5).sqrt()*weight+bias
    mean, std = take(2)
    out = F.conv2d((x-mean)/std, *take(1), stride=stem_stride, padding=1)
    if not kuangliu: out = F.relu(bn(out))
    for i in range(1, 5):
        for block in getattr(net, f'stage{i}'):
            stride = 2 if i > 1 and block is getattr(net, f'stage{i}')[0] else 1
            pre = F.relu(bn(out))
            (kernel,), bn2, (kernel2,) = take(1), take(5), take(1)
            changes = stride > 1 or pre.shape[1] != kernel.shape[0]
            short = F.conv2d(pre, *take(1), stride=stride) if changes else out if kuangliu else pre
            h = F.conv2d(pre, kernel, stride=stride, padding=1)
            h = F.relu(F.batch_norm(h, bn2[2], bn2[3], bn2[0], bn2[1], False))
            out = F.conv2d(h, kernel2, padding=1)+short
    out = F.linear(F.avg_pool2d(out, 4).flatten(1), *take(2))
    assert next(w, None) is None # every weight was used
    return out

@pytest.mark.parametrize('variant', ['mixup', 'kuangliu'])
def test_preact_resnet18_is_the_plain_one(variant):
    torch.manual_seed(0)
    net, x = settle(preact_resnet18(width=8, variant=variant)).double(), torch.rand(2, 3, 32, 32).double()
    torch.testing.assert_close(net(x), plain_preact(net, x, variant == 'kuangliu'), rtol=1e-8, atol=1e-8)

def test_preact_resnet34_is_the_plain_one():
    torch.manual_seed(0)
    net, x = settle(preact_resnet34(width=4)).double(), torch.rand(2, 3, 32, 32).double()
    assert [len(getattr(net, f'stage{i}')) for i in range(1, 5)] == [3, 4, 6, 3]
    torch.testing.assert_close(net(x), plain_preact(net, x, False), rtol=1e-8, atol=1e-8)

@pytest.mark.parametrize('maker,block', [(resnet34, BasicBlock), (resnet50, Bottleneck)])
@pytest.mark.parametrize('size,dtype', [(32, torch.float32), (19, torch.float64)])
def test_post_activation_nets_are_torchvisions_with_a_small_stem(maker, block, size, dtype):
    torch.manual_seed(0)
    ours, theirs = settle(maker()).to(dtype), ResNet(block, [3, 4, 6, 3], num_classes=10).eval().to(dtype)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False).to(dtype), nn.Identity()
    mine = [v for k, v in ours.state_dict().items() if not k.startswith('normalize')]
    keys = list(theirs.state_dict())
    assert len(mine) == len(keys)
    theirs.load_state_dict(dict(zip(keys, mine)))
    x = torch.rand(2, 3, size, size, dtype=dtype)
    assert torch.equal(ours(x), theirs(ours.normalize(x)))

def test_resnet34a_is_the_plain_one():
    torch.manual_seed(0)
    net, x = settle(resnet34a(width=4)).double(), torch.rand(2, 3, 32, 32).double()
    w = iter([v for v in net.state_dict().values() if v.ndim])
    def take(n): return [next(w) for _ in range(n)]
    def conv(t, stride=1): return F.conv2d(t, *take(2), stride=stride, padding=1)
    def bn(t):
        weight, bias, mean, var = (o.view(1, -1, 1, 1) for o in take(4))
        return (t-mean)/(var+1e-5).sqrt()*weight+bias
    mean, std = take(2)
    out = F.relu(bn(conv((x-mean)/std)))
    for stage in range(3):
        for j in range(7):
            stride = 2 if stage and not j else 1
            short = F.max_pool2d(out, 1, stride)
            h = F.relu(bn(conv(out, stride)))
            h = bn(conv(h))
            if short.shape[1] < h.shape[1]: short = torch.cat([short, torch.zeros_like(short)], 1)
            out = F.relu(h+short)
    out = F.linear(F.avg_pool2d(out, 8).flatten(1), *take(2))
    assert next(w, None) is None
    torch.testing.assert_close(net(x), out, rtol=1e-8, atol=1e-8)

def test_vgg_takes_sizes_that_are_no_powers_of_two_and_is_the_original_at_32():
    net, x = settle(vgg11(width=4)), torch.rand(2, 3, 32, 32)
    want, floor = net(x), copy.deepcopy(net)
    for m in floor.modules():
        if isinstance(m, nn.MaxPool2d): m.ceil_mode = False
    assert torch.equal(floor(x), want)
    assert net(torch.rand(2, 3, 28, 28)).shape == (2, 10)

def test_variants_differ():
    a, b = preact_resnet18(width=4).eval(), preact_resnet18(width=4, variant='kuangliu').eval()
    b.load_state_dict({k: v for k, v in a.state_dict().items() if not k.startswith('stem_bn')})
    x = torch.rand(2, 3, 32, 32)
    assert not torch.allclose(a(x), b(x))

@pytest.mark.parametrize('maker,kw,n', [
    (preact_resnet18, {}, 11_171_274), (preact_resnet18, dict(variant='kuangliu'), 11_171_146), (vgg11, {}, 9_231_114),
    (preact_resnet18, dict(normalize=None), 11_171_274), (preact_small, {}, 77_754), (preact_resnet34, {}, 21_279_434),
    (resnet34a, {}, 660_170), (resnet34, {}, 21_282_122), (resnet50, {}, 23_520_842)])
def test_parameter_counts(maker, kw, n):
    assert n_params(maker(**kw)) == n == sum(p.numel() for p in maker(**kw).parameters())

def test_shapes_on_the_way():
    def sizes(net): return [tuple(s[1:]) for s in model_sizes(net, size=(32, 32))]
    assert sizes(preact_resnet18())[4:9] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 1, 1)]
    assert sizes(preact_small())[4:8] == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (64, 1, 1)]
    assert sizes(vgg11())[1:5] == [(64, 16, 16), (128, 8, 8), (256, 8, 8), (256, 4, 4)]
    assert sizes(vgg11())[5:9] == [(512, 4, 4), (512, 2, 2), (512, 2, 2), (512, 1, 1)]

@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('n_classes,in_channels', [(10, 3), (4, 1)])
def test_every_model_takes_pixels_and_gives_logits(name, n_classes, in_channels):
    kw = dict(width=4, n_classes=n_classes, in_channels=in_channels)
    net = mk_model(name, **kw, normalize=((.5,)*in_channels, (.25,)*in_channels))
    raw = mk_model(name, **kw, normalize=None)
    x = torch.rand(5, in_channels, 32, 32)
    assert net.training and net(x).shape == (5, n_classes)
    raw.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith('normalize')})
    torch.testing.assert_close(net.eval()(x), raw.eval()((x-.5)/.25), rtol=1e-4, atol=1e-3)
    assert predict(net, x[:1]).shape == (1, n_classes)

@pytest.mark.parametrize('name', MODELS)
def test_a_batch_can_be_learnt_by_heart(name):
    torch.manual_seed(0)
    net, x, y = mk_model(name, width=8, seed=0), torch.rand(16, 3, 16, 16), torch.randint(10, (16,))
    opt = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(100):
        loss = F.cross_entropy(net(x), y)
        if loss < .1: break
        opt.zero_grad()
        loss.backward()
        opt.step()
    assert loss < .1

def test_seed_decides_and_leaves_torch_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    a, b, c = (mk_model('preact_small', seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.head.weight, c.head.weight)
    torch.manual_seed(1)
    assert torch.equal(mk_model('preact_small').head.weight, a.head.weight)

@pytest.mark.parametrize('call,message', [
    (lambda: mk_model('vgg12'), "Did you mean 'vgg11'"), (lambda: mk_model('vgg11', stem_stride=2), 'option of vgg11'),
    (lambda: mk_model('preact_small', n_class=3), "Did you mean 'n_classes'"),
    (lambda: mk_model('preact_resnet18', blocks=(1,)), 'option of preact_resnet18'),
    (lambda: preact_resnet(variant='mix'), "Did you mean 'mixup'"), (lambda: preact_resnet(blocks=()), 'numbers >= 1'),
    (lambda: preact_resnet(width=0), 'width: found 0'), (lambda: vgg11(width=0), 'numbers >= 1'),
    (lambda: Normalize((.5,), (1., 1.)), 'one of each per channel'),
    (lambda: vgg11(in_channels=1), 'in_channels is 1')])
def test_bad_options(call, message):
    with pytest.raises(ValueError) as e: call()
    assert message in str(e.value)

@pytest.fixture
def dls():
    g = torch.Generator().manual_seed(0)
    y = torch.distributions.Dirichlet(torch.ones(4)).sample((60,))
    x = torch.rand(81, 3, 8, 8, generator=g)
    return soft_dls(x[:60], y, x[60:], y[:21], bs=16, generator=0, device='cpu')

def mk_learner(dls, loss=None, **kw):
    learn = Learner(dls, preact_small(width=4, n_classes=4), loss_func=loss or SoftCrossEntropy(), opt_func=Adam, **kw)
    learn.create_mbar = False
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == 'ProgressCallback'])
    return learn

def test_learner_scores_as_by_hand(dls, capsys):
    learn = mk_learner(dls)
    learn.fit(1, 1e-3)
    probs, targ, losses = learn.get_preds(with_loss=True)
    pred = predict(learn.model, dls.valid.dataset.x)
    want = -(dls.valid.dataset.y*pred.log_softmax(1)).sum(1)
    assert losses.shape == (21,) and learn.loss_func.reduction == 'mean'
    torch.testing.assert_close(torch.as_tensor(losses), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.as_tensor(probs), pred.softmax(1), rtol=1e-4, atol=1e-5)
    assert abs(learn.validate()[0]-float(want.mean())) < 1e-4
    classes = learn.get_preds(with_decoded=True)[2]
    assert torch.equal(torch.as_tensor(classes), pred.argmax(1))

def test_lr_find_one_cycle_and_fastais_mixup(dls, tmp_path, capsys):
    learn = mk_learner(dls, path=tmp_path)
    learn.lr_find(num_it=8, show_plot=False)
    assert isinstance(learn.loss_func, SoftCrossEntropy)
    learn.fit_one_cycle(2, 1e-3, cbs=MixUp())
    assert isinstance(learn.loss_func, SoftCrossEntropy) and torch.isfinite(torch.tensor(learn.recorder.losses)).all()

@pytest.mark.parametrize('loss', [SoftCrossEntropy(), SoftCrossEntropy(reduction='sum', label_smoothing=.2)])
def test_the_loss_is_saved_with_the_learner(dls, tmp_path, loss):
    learn = mk_learner(dls, loss, path=tmp_path)
    learn.export('learner.pkl')
    again = load_learner(tmp_path/'learner.pkl').loss_func
    assert repr(again) == repr(loss) and isinstance(again, SoftCrossEntropy)
    pred, targ = torch.randn(6, 4), torch.rand(6, 4).softmax(1)
    for o in (again, pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert torch.equal(o(pred, targ), loss(pred, targ))

@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('smoothing', [0., .3])
def test_loss_is_the_formula(reduction, smoothing):
    pred, targ = torch.randn(7, 5, dtype=torch.float64), torch.rand(7, 5, dtype=torch.float64).softmax(1)
    each = -(smooth(targ, smoothing)*pred.log_softmax(1)).sum(1)
    want = dict(none=each, mean=each.sum()/7, sum=each.sum())[reduction]
    torch.testing.assert_close(SoftCrossEntropy(reduction=reduction, label_smoothing=smoothing)(pred, targ), want)

@pytest.mark.parametrize('dtype', [torch.uint8, torch.int32, torch.int64])
def test_hard_targets_are_fastais(dtype):
    pred, y = TensorBase(torch.randn(7, 5)), TensorCategory(torch.randint(5, (7,)).to(dtype))
    want = CrossEntropyLossFlat()(pred, y.long()).as_subclass(torch.Tensor)
    torch.testing.assert_close(SoftCrossEntropy()(pred, y), want)

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_low_precision_keeps_the_labels_whole(dtype):
    pred, targ = torch.randn(64, 10, dtype=dtype, requires_grad=True), torch.rand(64, 10).softmax(1)
    loss = SoftCrossEntropy()(pred, targ)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, -(targ*pred.float().log_softmax(1)).sum(1).mean())
    loss.backward()
    assert pred.grad.dtype == dtype
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(SoftCrossEntropy()(pred, targ), loss, rtol=1e-5, atol=1e-6)

@pytest.mark.parametrize('targ,message', [
    (torch.rand(3, 5), 'pred has 4, targ has 3'), (torch.rand(4, 6), 'found shape (4, 6)'),
    (torch.rand(4), 'found shape (4,)'), (torch.ones(4, 5).long(), '(4, 5) float rows or (4,) integers'),
    (torch.ones(4).bool(), 'torch.bool'), (torch.rand(4, 5, 1), 'found shape')])
def test_loss_refuses(targ, message):
    with pytest.raises(ValueError) as e: SoftCrossEntropy()(torch.randn(4, 5), targ)
    assert message in str(e.value)


def test_small_nets_survive_odd_batches_on_several_threads():
    # channels_last with fewer than 16 channels made oneDNN write out of bounds: a crash, so it is tried in a process of its own
    code = """import torch, torch.nn.functional as F
from hmix_nb.train.models import preact_small
torch.set_num_threads(2)
for width in (4, 8, 16):
    net = preact_small(width)
    for bs in (1, 3, 17, 46): F.cross_entropy(net(torch.rand(bs, 3, 32, 32)), torch.zeros(bs, dtype=torch.long)).backward()
"""
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
