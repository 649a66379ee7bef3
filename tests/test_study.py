"A run: equal recipes give equal rows, each field reaches what it is for, and what goes wrong is named."
import json
from dataclasses import asdict, replace
import pytest
import torch
from hmix_nb.core import seed_for
from hmix_nb.data.images import as_floats
from hmix_nb.evaluation.attack import fgsm_loss
from hmix_nb.evaluation.scores import ece, predict, score
from hmix_nb.study import run as study_run
from hmix_nb.study.folder import run_rows
from hmix_nb.study.recipe import FORMAT, Recipe, demo, get_study, grid, recipe_hash
from hmix_nb.study.run import attack_curve, fed, material, objective_of, policy_of, run, source_of, train
from hmix_nb.train.loop import Diverged
from hmix_nb.train.models import mk_model

TINY = replace(demo().recipes[0], epochs=1, n_train=100, labelling='relabel', n_blends=45, pool=5)
SCORES = ['ce', 'ce_floor', 'calib', 'calib_all', 'ece', 'fgsm', 'fgsm_1000', 'fgsm_soft', 'fgsm_soft_1000', 'accuracy', 'accuracy_hard',
          'top2', 'worst_class', 'entropy_pearson', 'entropy_spearman']
ABOUT = ['recipe', 'n_eval', 'seconds', 'train_seconds', 'images_per_s', 'device', 'gpu', 'form', 'n_clean', 'n_blended', 'source', 'version',
         'commit', 'torch', 'python', 'cpu', 'cores', 'reliability', 'attack_curve']
def scores(row): return {k: row[k] for k in SCORES}
def flat(net): return torch.cat([p.detach().flatten() for p in net.parameters()])

def test_a_run_repeats_its_row_on_any_number_of_threads_and_leaves_them():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run(TINY, device='cpu')
        torch.set_num_threads(2)
        torch.rand(3) # what happened before makes no difference
        assert scores(run(TINY, device='cpu')) == scores(one) and torch.get_num_threads() == 2
    finally: torch.set_num_threads(before)

def test_a_row_is_flat_json_with_all_that_a_reader_needs():
    row = run(replace(TINY, attack_steps=(0., 2/255), corruptions=1), device='cpu')
    assert json.loads(json.dumps(row, allow_nan=False)) == json.loads(json.dumps(row))
    assert not [k for k, v in row.items() if not isinstance(v, (str, int, float, bool, list, tuple, type(None)))]
    assert set(SCORES + ABOUT) | set(asdict(TINY)) | {'c_ce', 'c_n_eval', 'corruption_source'} <= set(row)
    assert row['recipe'] == recipe_hash(replace(TINY, attack_steps=(0., 2/255), corruptions=1)) and row['device'] == 'cpu' and row['gpu'] is None
    assert (row['n_clean'], row['n_blended'], row['n_eval']) == (100, 45, 1697) and 'simulated' in row['source'] and 'stand-in' in row['corruption_source']
    assert row['seconds'] >= row['train_seconds'] > 0 and row['images_per_s'] > 0
    assert [e for e, _ in row['attack_curve']] == [0, 2/255] and row['c_ce'] > 0 and 's_ce' not in row

def test_scores_are_those_of_the_lower_rooms():
    m = material(TINY)
    row = run(replace(TINY, attack_steps=(4/255,)), device='cpu')
    with study_run.one_thread('cpu'):
        net, _ = train(TINY, m)
        main = m.sets[0]
        x = as_floats(main.x)
        s = score(net, x, main.targ)
        assert row['ce'] == pytest.approx(s.ce, rel=1e-6) and row['calib'] == pytest.approx(s.calibration, rel=1e-6)
        assert row['calib_all'] == pytest.approx(s.calibration_all, rel=1e-6) and row['accuracy'] == pytest.approx(s.accuracy)
        want = float(fgsm_loss(net, x, main.y_hard, eps=4/255))
        assert row['fgsm'] == pytest.approx(want, rel=1e-5) and row['attack_curve'][0][1] == pytest.approx(want, rel=1e-5)
        assert row['fgsm_soft'] == pytest.approx(float(fgsm_loss(net, x, main.targ, eps=4/255)), rel=1e-5) and row['fgsm'] > row['ce']
        p = predict(net, x).softmax(1)
    conf, right = p.max(1).values, p.argmax(1) == main.targ.argmax(1)
    assert len(row['reliability']) == 15 and all(0 <= i/15 - 1e-9 <= c + 1e-9 <= (i+1)/15 + 2e-9 for i, (c, _, n) in enumerate(row['reliability']) if n)
    assert all(o == [None, None, 0] for o in row['reliability'] if not o[2])
    bins = [o for o in row['reliability'] if o[2]]
    assert sum(n for *_, n in bins) == row['n_eval'] == len(main)
    assert sum(abs(c-a)*n for c, a, n in bins)/len(main) == pytest.approx(ece(conf, right), abs=1e-5) == pytest.approx(row['ece'], abs=1e-5)

def test_the_attack_curve_takes_one_gradient(monkeypatch):
    m, calls = material(TINY), []
    net, _ = train(TINY, m)
    real = study_run.fgsm
    monkeypatch.setattr(study_run, 'fgsm', lambda *a, **k: (calls.append(a), real(*a, **k))[1])
    eps = (0., 1/255, 4/255, .2, 1.)
    got = attack_curve(net, m.sets[0], eps)
    assert len(calls) == 1 and attack_curve(net, m.sets[0], ()) == [] and len(calls) == 1
    x, y = as_floats(m.sets[0].x), m.sets[0].y_hard
    for e, loss in got: assert loss == pytest.approx(float(fgsm_loss(net, x, y, eps=e)), rel=1e-5)

def test_a_run_is_the_plain_loop_of_the_papers():
    r = replace(TINY, epochs=3, schedule='step', drops=(2,), clip=1., batch_size=32, weight_decay=1e-3)
    m = material(r)
    with study_run.one_thread('cpu'):
        net, history = train(r, m)
        twin = mk_model(r.model, seed=seed_for(r.seed, 'weights'), width=r.width, n_classes=10, normalize=m.mean_std)
        opt = torch.optim.SGD(twin.parameters(), r.lr, r.momentum, weight_decay=r.weight_decay)
        x, y = torch.cat([as_floats(m.x), m.blends_x]), torch.cat([m.y, m.blends_y])
        order = torch.Generator().manual_seed(seed_for(r.seed, 'order'))
        for epoch in range(3):
            for g in opt.param_groups: g['lr'] = r.lr/(10 if epoch >= 2 else 1)
            for i in torch.randperm(145, generator=order).split(32):
                opt.zero_grad()
                (-(y[i]*twin(x[i]).log_softmax(1)).sum(1)).mean().backward()
                torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.)
                opt.step()
    torch.testing.assert_close(flat(net), flat(twin), rtol=1e-4, atol=1e-5)
    assert len(history.losses) == 3

def test_pairs_share_weights_order_draws_and_mixing(monkeypatch):
    seen = []
    class Stop(Exception): pass
    def stop(net, data, objective, **how):
        seen.append(dict(weights=flat(net), order=how['generator'], mixing=how['mixing'], draws=data.draws.initial_seed(), n=len(data)))
        raise Stop
    monkeypatch.setattr(study_run, 'fit', stop)
    others = [dict(), dict(labelling='mixup'), dict(labelling='none'), dict(labels='cifar-10s', draw='one'), dict(mixing='mixup'), dict(seed=1)]
    for o in others:
        with pytest.raises(Stop): train(replace(TINY, **o), material(replace(TINY, **o)))
    first, *same, other = seen
    for o in same: assert torch.equal(o['weights'], first['weights']) and all(o[k] == first[k] for k in ('order', 'mixing', 'draws'))
    assert not torch.equal(other['weights'], first['weights']) and not {other[k] for k in ('order', 'mixing', 'draws')} & {first[k] for k in ('order', 'mixing', 'draws')}
    assert len({first['order'], first['mixing'], first['draws']}) == 3

def test_all_of_the_recipe_reaches_training(monkeypatch):
    seen = {}
    def stop(net, data, objective, **how): raise seen.update(how, objective=repr(objective)) or StopIteration
    monkeypatch.setattr(study_run, 'fit', stop)
    r = replace(TINY, epochs=7, batch_size=9, lr=.3, momentum=.5, weight_decay=.01, schedule='step', drops=(2, 5), clip=2., mixing='ent-wc', alpha=.2,
                per='sample', kappa=.5, detach=True)
    with pytest.raises(StopIteration): train(r, material(r))
    for k in ('epochs', 'batch_size', 'lr', 'momentum', 'weight_decay', 'schedule', 'drops', 'clip', 'form'): assert seen[k] == getattr(r, k)
    for o in ('ent_wc', 'alpha=0.2', "per='sample'", 'kappa=0.5', 'detach=True'): assert o in seen['objective']
    def text(**k): return repr(objective_of(replace(TINY, **k), material(TINY)))
    assert 'coef=3' in text(mixing='mix-maxent', coef=3., towards='uniform', alpha=10.) and "towards='uniform'" in text(mixing='mix-maxent', towards='uniform')
    assert 'regmixup' in text(mixing='regmixup', coef=2.) and 'coef=2' in text(mixing='regmixup', coef=2.) and text() == 'plain()'

CHANGES = [dict(labelling='mixup'), dict(labelling='random'), dict(labelling='relabel+omega'), dict(labelling='relabel+omega', gamma=.5), dict(separate=True),
           dict(labelling='none'), dict(labels='uniform'), dict(labels='random'), dict(labels='cifar-10h'), dict(labels='cifar-10s'),
           dict(labels='cifar-10s', draw='one'), dict(labels='cifar-10s', annotators=2), dict(labels='cifar-10s', variety='T1'),
           dict(labels='cifar-10s', spread='semantic'), dict(labels='cifar-10s', label_gamma=.4), dict(labels='cifar-10s', label_rule='h-mix'),
           dict(smoothing=.1), dict(smoothing=.1, smoothing_form='added'), dict(endpoints='soft', endpoint_draw='one'), dict(train_on='soft', n_soft=40),
           dict(held='carved'), *(dict(mixing=o, alpha=.7) for o in ('mixup', 'mix-maxent', 'ent-wc', 'regmixup')), dict(mixing='mixup', per='sample'),
           dict(seed=1), dict(clip=.1)]

@pytest.mark.parametrize('change', CHANGES, ids=lambda c: ','.join(f'{k}={v}' for k, v in c.items()))
def test_each_choice_makes_another_net(change):
    with study_run.one_thread('cpu'): nets = [flat(train(r, material(r))[0]) for r in (TINY, replace(TINY, **change))]
    assert nets[1].isfinite().all() and not torch.equal(*nets)

def test_choices_of_scoring_change_scores_alone():
    base, step, bins = (run(replace(TINY, **k), device='cpu') for k in ({}, dict(eps=8/255), dict(bin_size=50)))
    assert base['ce'] == step['ce'] == bins['ce'] and step['fgsm'] > base['fgsm'] and bins['calib'] != base['calib']
    assert len(material(replace(TINY, pool=6)).sets[0]) == 1697 and not torch.equal(material(replace(TINY, pool=6)).sets[0].targ, material(TINY).sets[0].targ)

@pytest.mark.parametrize('policy', ['linear', 'logistic', 'logistic+omega', 'shared-slope', 'permuted', 'ends-short'])
def test_policies_keep_their_law_and_train(policy):
    r = replace(TINY, n_blends=450, mixing='mixup', policy=policy)
    g, lam = policy_of(r, material(r)), torch.linspace(0, 1, 5)
    a, b = torch.tensor([2]*5), torch.tensor([7]*5)
    torch.testing.assert_close(g(lam, a, b, 10), g(1-lam, b, a, 10), rtol=0, atol=1e-5)
    assert flat(train(r, material(r))[0]).isfinite().all()
    if policy == 'logistic': # from what these people said
        assert g.fits.meta['n'] == len(material(r).stimuli.answers)

def test_buggy_smoothing_is_a_larger_step_of_another_smoothing():
    def loss(**how):
        r = replace(TINY, labelling='none', lr=0., **how)
        return train(r, material(r))[1].losses[0]
    bug, right = loss(smoothing=.05, smoothing_form='added'), loss(smoothing=.5/1.45, smoothing_form='mixed')
    assert bug == pytest.approx(1.45*right, rel=1e-5)
    m = material(replace(TINY, smoothing=.05, smoothing_form='added'))
    _, y = fed(m).fetch(torch.arange(145))
    torch.testing.assert_close(y[:100], m.y) and torch.testing.assert_close(y[100:], m.blends_y)
    with pytest.raises(ValueError, match="smoothing_form: found 'added' with mixing='mixup'"): # at once, not after others have run
        replace(TINY, smoothing=.05, smoothing_form='added', mixing='mixup')

def test_labels_are_made_anew_in_each_epoch(monkeypatch):
    m, epochs, seen = replace_again(material(TINY)), [], []
    def again(epoch):
        epochs.append(epoch)
        return m.y.flip(1) if epoch == 1 else m.y
    m.again = again
    real = study_run.fed
    monkeypatch.setattr(study_run, 'fed', lambda *a: seen.append(real(*a)) or seen[0])
    progress = []
    train(replace(TINY, epochs=3), m, progress=lambda e, h: progress.append((e, seen[0].y[:100].clone())))
    assert epochs == [1, 2] and [e for e, _ in progress] == [0, 1, 2]
    assert torch.equal(progress[0][1], m.y.flip(1)) and torch.equal(progress[1][1], m.y) # for the epoch that comes

def replace_again(m): return study_run.Material(**vars(m))

def test_a_loss_that_is_no_number_stops_the_run_and_says_where():
    with pytest.raises(Diverged, match='epoch 1.*batch') as e: run(replace(TINY, lr=1e30, epochs=3), device='cpu')
    assert e.value.epoch == 1 and e.value.batch >= 1

def test_a_full_gpu_says_what_to_lower(monkeypatch):
    def full(*a, **k): raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.\nmore')
    monkeypatch.setattr(study_run, 'fit', full)
    with pytest.raises(torch.cuda.OutOfMemoryError, match=r'batch_size 64 of preact_small.*--jobs.*2.00 GiB'): run(TINY, device='cpu')

@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU is there')
@pytest.mark.parametrize('device', ['cuda', 'cuda:3'])
def test_a_gpu_that_is_not_there_is_an_error(device):
    with pytest.raises(ValueError, match=f"device: found '{device}'"): run(TINY, device=device)

def test_runs_of_a_grid_do_not_rebuild_data(monkeypatch):
    study_run._material.cache_clear()
    made = []
    real = study_run.digit_material
    monkeypatch.setattr(study_run, 'digit_material', lambda **k: made.append(k) or real(**k))
    for r in (TINY, replace(TINY, model='vgg11'), replace(TINY, lr=.3, epochs=4), replace(TINY, mixing='mixup'), replace(TINY, eps=.1)): material(r)
    assert len(made) == 1
    material(replace(TINY, seed=1))
    assert len(made) == 2

def test_all_labellings_train():
    rows = [run(r, device='cpu') for r in grid(TINY, labelling=('none', 'random', 'relabel+omega'))]
    assert [r['n_blended'] for r in rows] == [0, 45, 45] and len({r['ce'] for r in rows}) == 3

def test_missing_data_is_said_before_any_work(tmp_path):
    assert source_of(TINY) == run(TINY, device='cpu')['source']
    with pytest.raises(OSError, match='cifar10-test.npz'): source_of(Recipe(data='h-mix'), str(tmp_path))

# on the released data

QUICK = Recipe(data='h-mix', epochs=1, schedule='one-cycle', width=8)

def test_uai_table2_trains_on_9070_images_and_names_a_stand_in(hub):
    r = next(o for o in get_study('uai-table2', quick=True).recipes if o.labelling == 'relabel+omega')
    row = run(replace(r, epochs=1), device='cpu')
    assert (row['n_clean'], row['n_blended'], row['n_eval'], row['blends_left_out']) == (7000, 2070, 3000, 0)
    assert row['source'] == source_of(r) and row['ce'] < 2.5 and row['ce_floor'] == pytest.approx(.15137, abs=5e-6)

def test_chapter_3_is_scored_on_both_sets(hub):
    row = run(replace(QUICK, train_on='split', labels='cifar-10s', draw='one', score_s=True, seed=2), device='cpu')
    assert (row['n_clean'], row['n_eval'], row['s_n_eval']) == (6900, 3000, 100)
    assert {'s_ce', 's_calib', 's_fgsm', 's_fgsm_soft'} <= set(row) and row['s_ce_floor'] > row['ce_floor'] # unclear images

def test_chapter_5_mixes_soft_endpoints(hub):
    row = run(replace(QUICK, mixing='ent-wc', policy='logistic', alpha=.2, endpoints='soft', resimulate=True, epochs=2), device='cpu')
    assert row['n_clean'] == 7000 and row['ce'] < 2.5

def test_settings_are_chosen_on_the_carved_images(hub):
    row = run(replace(QUICK, labelling='mixup', held='carved'), device='cpu')
    assert (row['n_clean'], row['n_blended'], row['n_eval'], row['ce_floor'], row['entropy_pearson']) == (6000, 2070, 1000, 0, None)
    with pytest.raises(FileNotFoundError, match="held='carved'"):
        if hub.has('cifar10-train.npz'): pytest.skip('the training images are at hand')
        source_of(replace(QUICK, held='train-15000'))

def test_rows_on_stand_in_corruptions_do_not_count_once_the_real_ones_are_there(tmp_path, monkeypatch):
    r = replace(Recipe(data='h-mix'), corruptions=3)
    made = dict(format=FORMAT, version='0', source='there', corruption_source='stand-in corruptions 3: 8 kinds, drawn', recipe=recipe_hash(r), **asdict(r))
    def stands_in(recipe, root=None, device=None): return made
    run_rows([r], tmp_path, run=stands_in, n_jobs=1, progress=False)
    monkeypatch.setattr('hmix_nb.study.run.source_of', lambda r, root=None: 'there')
    monkeypatch.setattr('hmix_nb.study.run.run', lambda *a, **k: made | dict(corruption_source='CIFAR-10-C 3: 15 kinds'))
    for folder, kinds in ((None, 'stand-in corruptions 3: 8 kinds, drawn'), (tmp_path, 'CIFAR-10-C 3: 15 kinds')):
        monkeypatch.setattr('hmix_nb.study.run.find_cifar10c', lambda hub: folder)
        assert run_rows([r], tmp_path, n_jobs=1, device='cpu', progress=False).corruption_source.tolist() == [kinds]
    assert len(list((tmp_path/'old').iterdir())) == 1
