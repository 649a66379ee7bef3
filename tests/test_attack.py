"FGSM against one written by hand, and what an attack must leave alone."
import subprocess, sys
import pytest, torch
from torch import nn
import torch.nn.functional as F
import torchattacks
from hmix_nb.evaluation.attack import auto_attack, fgsm, fgsm_loss, own_seed, pgd, pgd_loss, subset
from hmix_nb.labels import as_soft

def by_hand(model, x, y, eps):
    "One image at a time, from the gradient of its own loss."
    out, model = [], model.eval()
    for xi, yi in zip(x, y):
        xi = xi[None].clone().requires_grad_()
        loss = -(yi*model(xi).log_softmax(1)[0]).sum()
        step, = torch.autograd.grad(loss, xi)
        out.append(torch.minimum(torch.maximum(xi+eps*step.sign(), torch.zeros(())), torch.ones(()))[0].detach())
    return torch.stack(out)

def mk_net(k=5):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3, padding=1)
    net = nn.Sequential(conv, nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout(), nn.Flatten(), nn.Linear(8*6*6, k)).double()
    net(torch.rand(64, 3, 6, 6).double())
    return net

@pytest.fixture
def data():
    g = torch.Generator().manual_seed(1)
    return torch.rand(23, 3, 6, 6, generator=g).double(), torch.randint(5, (23,), generator=g)

@pytest.mark.parametrize('eps', [0, 1/255, 4/255, .3, 1])
@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('bs', [500, 10, 1])
def test_fgsm_is_the_one_by_hand(data, eps, soft, bs):
    net, (x, y) = mk_net(), data
    rows = torch.distributions.Dirichlet(torch.ones(5)).sample((23,)) if soft else as_soft(y, 5)
    want = by_hand(net, x, rows.double(), eps)
    got = fgsm(net.train(), x, rows if soft else y, eps, bs=bs)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    loss = -(rows.double()*net.eval()(want).log_softmax(1)).sum(1).detach()
    each, mean = (fgsm_loss(net, x, rows if soft else y, eps, bs=bs, reduction=o) for o in ('none', 'mean'))
    torch.testing.assert_close(each, loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mean, loss.mean(), rtol=1e-6, atol=1e-6)

def test_default_is_four_grey_levels(data):
    net, (x, y) = mk_net(), data
    assert torch.equal(fgsm(net, x, y), fgsm(net, x, y, 4/255))
    assert abs(float((fgsm(net, x, y)-x).abs().max())-4/255) < 1e-12

def test_it_attacks_the_net_in_eval_mode_and_leaves_it_as_it_was(data):
    net, (x, y) = mk_net(), data
    net[1].eval()
    net[0].weight.requires_grad_(False)
    net[5].weight.grad = torch.ones_like(net[5].weight)
    state, modes = {k: v.clone() for k, v in net.state_dict().items()}, [m.training for m in net.modules()]
    a, b = fgsm(net, x, y), fgsm(net, x, y)
    assert torch.equal(a, b) # dropout is off
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes
    assert not net[0].weight.requires_grad and net[1].weight.requires_grad
    assert (net[5].weight.grad == 1).all() and net[1].weight.grad is None
    assert not a.requires_grad and not x.requires_grad

@pytest.mark.parametrize('context', [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(data, context):
    net, (x, y) = mk_net(), data
    want = fgsm_loss(net, x, y)
    with context(): got = fgsm_loss(net, x.clone(), y.clone())
    assert torch.equal(got, want)

def test_modes_come_back_after_an_error(data):
    net, (x, y) = mk_net(), data
    with pytest.raises(RuntimeError): fgsm(net, x[:, :2], y)
    assert all(m.training for m in net.modules())

def test_single_precision_images_and_a_frozen_net(data):
    net, (x, y) = mk_net().float().requires_grad_(False), data
    adv = fgsm(net, x, y.numpy())
    assert adv.dtype == torch.float32 and fgsm_loss(net, x, y) > fgsm_loss(net, x, y, 0)

@pytest.mark.parametrize('eps', [-.01, 1.01, 4, float('nan'), float('inf')])
def test_eps_out_of_range(data, eps):
    with pytest.raises(ValueError, match='eps: found .*4/255'): fgsm_loss(mk_net(), *data, eps=eps)

@pytest.mark.parametrize('change,message', [
    (lambda x, y: (x*255, y), 'x: found'), (lambda x, y: ((x*255).byte(), y), 'floats in'),
    (lambda x, y: (x[:0], y[:0]), 'empty'), (lambda x, y: (x, y[:4]), 'x has 23, y has 4'),
    (lambda x, y: (x, y+1), 'y: found 5'), (lambda x, y: (x, y-1), 'y: found -1'),
    (lambda x, y: (x, torch.ones(23, 5)), 'y: row 0'), (lambda x, y: (x, torch.ones(23, 4)/4), 'n_classes is 5'),
    (lambda x, y: (x, y.float()), 'y: found shape')])
def test_bad_input(data, change, message):
    with pytest.raises(ValueError) as e: fgsm_loss(mk_net(), *change(*data))
    assert message in str(e.value)

def test_torchattacks_is_loaded_late():
    code = "import sys, hmix_nb.evaluation.attack; assert 'torchattacks' not in sys.modules"
    subprocess.run([sys.executable, '-c', code], check=True)

@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('eps', [1/255, 4/255, .1])
def test_images_are_torchattacks(data, soft, eps):
    net, (x, y) = mk_net().float().eval(), data
    x = x.float()
    y = torch.distributions.Dirichlet(torch.ones(5)).sample((23,)) if soft else y
    assert torch.equal(fgsm(net, x, y, eps), torchattacks.FGSM(net, eps=eps)(x, y))
    with own_seed(3): want = torchattacks.PGD(net, eps=eps, alpha=2/255, steps=4)(x, y)
    assert torch.equal(pgd(net, x, y, eps, steps=4, seed=3), want)
    assert eps < .1 or not torch.equal(pgd(net, x, y, eps, steps=4, seed=4), want) # a small box has only its corners

def test_one_large_step_without_a_random_start_is_fgsm(data):
    net, (x, y) = mk_net(), data
    a = pgd(net, x, y, 4/255, alpha=4/255, steps=1, random_start=False)
    torch.testing.assert_close(a, fgsm(net, x, y), rtol=0, atol=1e-12)
    assert pgd_loss(net, x, y, .1, alpha=.03) >= fgsm_loss(net, x, y, 0)

@pytest.mark.parametrize('attack', [pgd, lambda *a: auto_attack(*a, version='rand', n=6)])
def test_random_attacks_leave_the_generator_and_the_net_alone(data, attack):
    net, (x, y) = mk_net().float(), data
    state, before = torch.get_rng_state(), {k: v.clone() for k, v in net.state_dict().items()}
    attack(net, x.float(), y)
    assert torch.equal(torch.get_rng_state(), state) and all(m.training for m in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())

def test_auto_attack_says_its_n_and_only_takes_from_the_right():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), torch.rand(40, 3, 2, 2)
    y = net(x).argmax(1)
    y[:10] = (y[:10]+1) % 4 # wrong from the start
    r = auto_attack(net, x, y, .02, n=30, version='rand')
    assert r.n == len(r.right) == 30 and 'n = 30' in repr(r) and torch.equal(r.ids, subset(40, 30))
    assert not r.right[r.ids < 10].any() and r.accuracy <= 20/30
    assert auto_attack(net, x, y, 0., n=1000, version='rand').accuracy == .75
    assert torch.equal(r.right, auto_attack(net, x, y, .02, n=30, version='rand').right)

def test_auto_attack_refuses_what_it_cannot_do():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(ValueError, match='has 3 classes'): auto_attack(net, torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]))

def test_subset_is_fixed_sorted_and_within():
    assert subset(3000).tolist() == subset(3000).tolist() == sorted(set(subset(3000).tolist()))
    assert len(subset(3000)) == 1000 and subset(3).tolist() == [0, 1, 2] and not torch.equal(subset(3000, seed=8), subset(3000))
    with pytest.raises(ValueError, match='m, n'): subset(0)
