"Studies: rows survive an interrupt, do not depend on how many runs go side by side, and reports are self-contained."
import json, os, re, signal, subprocess, sys, time
from dataclasses import replace
import pandas as pd
import pytest
import torch
from hmix_nb.cli import main
from hmix_nb.data.simulated import SimulatedParticipants
from hmix_nb.evaluation.attack import fgsm_loss
from hmix_nb.evaluation.scores import score
from hmix_nb.study import run as study_run
from hmix_nb.study.recipe import LABELLINGS, demo, get_study, grid, published, recipe_hash, reductions
from hmix_nb.study.report import paired, report_html, run_study, score_table, scores_text, summarise
from hmix_nb.study.run import digit_material, finished, material, run, run_rows, train, training_set

TINY = replace(demo().recipes[0], epochs=1, n_train=100, n_blends=45, pool=5)
SCORES = ['ce', 'fgsm', 'calib', 'calib_all', 'accuracy']

def test_rows_do_not_depend_on_the_number_of_jobs(tmp_path):
    recipes = grid(TINY, labelling=('mixup', 'relabel'))
    one = run_rows(recipes, tmp_path/'1', n_jobs=1, device='cpu', progress=False)
    two = run_rows(recipes, tmp_path/'2', n_jobs=2, device='cpu', progress=False)
    pd.testing.assert_frame_equal(one[SCORES], two[SCORES], check_exact=True)

def test_a_run_repeats_its_row_on_any_number_of_threads_and_leaves_them(tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run(TINY, device='cpu')
        torch.set_num_threads(2)
        assert run(TINY, device='cpu')['ce'] == one['ce'] and torch.get_num_threads() == 2
    finally: torch.set_num_threads(before)

def test_pairs_share_weights_order_and_people(monkeypatch):
    seen = []
    class Stop(Exception): pass
    def learner(dls, net, **kwargs):
        seen.append((torch.cat([p.flatten() for p in net.parameters()]), dls.train.generator.initial_seed(), kwargs))
        raise Stop
    monkeypatch.setattr(study_run, 'Learner', learner)
    for o in (TINY, replace(TINY, labelling='mixup'), replace(TINY, labelling='none'), replace(TINY, seed=1)):
        with pytest.raises(Stop): train(o, material(o), device='cpu')
    assert torch.equal(seen[0][0], seen[1][0]) and torch.equal(seen[0][0], seen[2][0]) and not torch.equal(seen[0][0], seen[3][0])
    assert seen[0][1] == seen[1][1] == seen[2][1] != seen[3][1]
    assert seen[0][2]['wd'] == TINY.weight_decay and seen[0][2]['opt_func'].keywords['opt'].keywords == {'momentum': TINY.momentum}

def test_recipe_reaches_labels_and_scores():
    m = material(TINY)
    labels = lambda **kw: training_set(replace(TINY, **dict(labelling='relabel+omega') | kw), m)[1][-45:]
    assert not torch.equal(labels(gamma=.5), labels())
    assert not torch.equal(labels(labelling='random'), labels(labelling='random', seed=1))
    lam = torch.tensor(m.stimuli.table.lam_f.tolist())
    assert torch.allclose(labels(labelling='mixup').max(1).values, torch.maximum(lam, 1-lam))
    row = run(TINY, device='cpu')
    with study_run.one_thread('cpu'):
        net = train(TINY, m, device='cpu').model
        s = score(net, m.x_eval, m.people)
        assert (row['calib'], row['calib_all'], row['ce']) == (s.calibration, s.calibration_all, s.ce)
        assert row['fgsm'] == float(fgsm_loss(net, m.x_eval, m.y_eval, eps=4/255)) > float(fgsm_loss(net, m.x_eval, m.y_eval, eps=0))

def test_a_run_that_diverges_is_named_and_does_not_stop_the_others(tmp_path):
    study = replace(demo(), recipes=(replace(TINY, lr=1e30, epochs=2), *grid(TINY, labelling=('mixup', 'relabel'))))
    html = run_study(study, tmp_path, n_jobs=1, device='cpu', progress=False).read_text(encoding='utf-8')
    assert 'Failed: none, preact_small, seed 0' in html
    rows = pd.read_csv(tmp_path/'rows.csv')
    assert rows.error.notna().tolist() == [True, False, False] and rows.ce.notna().tolist() == [False, True, True]

def test_a_damaged_row_is_named_and_run_again(tmp_path):
    path = tmp_path/'rows'/f'{recipe_hash(TINY)}.json'
    run_rows([TINY], tmp_path, n_jobs=1, device='cpu', progress=False)
    whole = path.read_text()
    for text in (whole[:300], '{"a": 1}', '[]'):
        path.write_text(text)
        with pytest.warns(UserWarning, match=path.name): rows = run_rows([TINY], tmp_path, n_jobs=1, device='cpu', progress=False)
        assert rows.ce[0] == json.loads(whole)['ce']

def test_jobs_and_models_are_checked_before_any_work(tmp_path):
    with pytest.raises(ValueError, match='n_jobs: found -1'): run_rows([TINY], tmp_path, n_jobs=-1)
    with pytest.raises(ValueError, match="Did you mean 'vgg11'"): run_rows([replace(TINY, model='vgg12')], tmp_path)

def made_rows(seeds=4, **shift):
    wobble = lambda l, s: .02*(-1)**s*(1 if l == 'mixup' else -1) # differences alternate around the shift
    return pd.DataFrame([dict(labelling=l, model=m, seed=s, ce=1 + s/10 + shift.get(l, 0) + wobble(l, s), fgsm=3., calib=.1, calib_all=.2, accuracy=.5)
                         for l in ('mixup', 'relabel+omega', 'mine') for m in ('a', 'b') for s in range(seeds)])

@pytest.mark.parametrize('by, word', [(-.05, 'is lower than'), (.05, 'is higher than'), (0, 'is not distinguishable from')])
def test_the_verdict_has_the_right_sign(by, word):
    rows = made_rows(**{'relabel+omega': by}).assign(n_clean=1, n_blended=1, n_eval=1, source='x', seconds=1., device='cpu', version='0',
                                                       commit='c', torch='2', recipe='r')
    assert f'relabel+omega {word} that with mixup' in report_html(demo(), rows)

def made_folder(rows, path):
    rows.assign(source='a stand-in').to_csv(path/'rows.csv', index=False)
    return path

def test_unknown_labellings_and_more_axes_stay_in_the_tables(tmp_path):
    rows = made_rows(mine=.3)
    assert summarise(rows).index.tolist() == ['mixup', 'relabel+omega', 'mine']
    both = pd.concat([rows.assign(epochs=1), rows.assign(epochs=2)])
    d = paired(both).loc[('mine', 'ce')]
    assert d.pairs == 16 and abs(d.difference - .3) < .05
    assert scores_text(replace(demo(), table=None), made_folder(rows, tmp_path)).endswith('Measured on: a stand-in')
    with pytest.raises(ValueError, match='table: '): score_table(summarise(rows), 'uai_9')

def test_published_cells_stand_in_their_own_rows():
    labels = dict(zip(LABELLINGS, published()['uai_2']['rows']))
    rows = pd.DataFrame([dict(labelling=l, seed=s, model='a', ce=1., fgsm=1., calib=1., calib_all=1., accuracy=1.) for l in LABELLINGS for s in (0, 1)])
    t = score_table(summarise(rows), 'uai_2')
    for l, o in labels.items(): assert t.loc[l, 'CE, published'] == f"{o['CE'][0]:.2f} ± {o['CE'][1]:.2f}"

def test_a_part_of_a_study_says_so(capsys, tmp_path):
    part = get_study('uai-table2', seeds=1, labellings=['none'])
    assert part.name == 'uai-table2-part' and {'seed', 'labelling', 'runs'} <= set(reductions(part).index)
    assert main(['run', 'uai-table2', '--quick', '--root', str(tmp_path), '--out', str(tmp_path/'o')]) == 2
    out = capsys.readouterr()
    assert 'Reduced: epochs is 10, in the full recipe 200' in out.out and 'cifar10-test.npz' in out.err

def test_all_labellings_train(tmp_path):
    rows = run_rows(grid(TINY, labelling=LABELLINGS), tmp_path, n_jobs=1, device='cpu', progress=False)
    assert rows.labelling.tolist() == list(LABELLINGS) and rows[SCORES].notna().all(axis=None)
    assert rows.ce.nunique() == 6
    assert rows.n_blended.tolist() == [0] + [45]*5

def test_held_out_pool_is_not_the_training_panel(monkeypatch):
    asked = []
    class Noted(SimulatedParticipants):
        def judge(self, stimuli, *args, **kwargs):
            answers = super().judge(stimuli, *args, **kwargs)
            asked.append(answers)
            return answers
    monkeypatch.setattr(study_run, 'SimulatedParticipants', Noted)
    m = digit_material(TINY)
    training, held_out = asked
    assert not set(training.participant) & set(held_out.participant) and held_out.participant.nunique() == TINY.pool
    assert not (set(training.id_a) | set(training.id_b)) & set(held_out.id_a) # no blend of a held-out digit
    assert (m.people.sum(1) - 1).abs().max() < 1e-5
    assert (m.people.argmax(1) == m.y_eval).float().mean() > .9
    assert not (material(replace(TINY, seed=1)).people[:50] == m.people[:50]).all()

def test_interrupt_keeps_finished_rows_and_the_next_start_goes_on(tmp_path):
    # a shell that runs the tests in the background has its children ignore SIGINT; somebody at a keyboard has not
    code = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from dataclasses import replace; from hmix_nb.study.recipe import *; from hmix_nb.study.run import run_rows; "
            f"run_rows(grid(replace(demo().recipes[0], epochs=3, n_train=100, n_blends=45, pool=5), seed=range(40)), {str(tmp_path)!r}, n_jobs=2, device='cpu')")
    p = subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.DEVNULL, start_new_session=True)
    rows, limit = tmp_path/'rows', time.monotonic() + 120
    while len(list(rows.glob('*.json'))) < 2 and time.monotonic() < limit and p.poll() is None: time.sleep(.1)
    os.killpg(p.pid, signal.SIGINT)
    assert p.wait(timeout=60) != 0
    kept = {o.name: o.stat().st_mtime_ns for o in rows.glob('*.json')}
    assert 2 <= len(kept) < 40
    for o in kept: assert json.loads((rows/o).read_text())['recipe'] == o.removesuffix('.json')
    recipes = [r for r in grid(replace(TINY, epochs=3), seed=range(40)) if f'{recipe_hash(r)}.json' in kept]
    assert len(recipes) == len(kept)
    more = (*recipes, replace(TINY, seed=99))
    assert len(run_rows(more, tmp_path, n_jobs=1, device='cpu', progress=False)) == len(kept) + 1
    assert {k: (rows/k).stat().st_mtime_ns for k in kept} == kept # nothing was run again

def test_row_of_another_version_or_source_does_not_count(tmp_path):
    row = dict(recipe='r', version='another', source='x')
    (tmp_path/'rows').mkdir()
    path = tmp_path/'rows'/f'{recipe_hash(TINY)}.json'
    path.write_text(json.dumps(row))
    assert finished(tmp_path, TINY) is None
    from hmix_nb import __version__
    path.write_text(json.dumps(row | dict(version=__version__)))
    assert finished(tmp_path, TINY, 'x') and finished(tmp_path, TINY, 'y') is None

def test_report_is_self_contained(tmp_path):
    study = replace(demo(quick=True), recipes=grid(TINY, seed=range(2), labelling=('mixup', 'relabel+omega')))
    html = run_study(study, tmp_path, n_jobs=1, device='cpu', progress=False).read_text(encoding='utf-8')
    assert 'participants of this run are simulated' in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html) and '<script' not in html
    assert pd.read_csv(tmp_path/'rows.csv').labelling.tolist() == ['mixup', 'relabel+omega']*2

def test_cli_says_what_is_wrong(capsys, tmp_path):
    assert main(['run', 'uai-tabel2']) == 2
    assert "Did you mean 'uai-table2'" in capsys.readouterr().err
    assert main(['run', 'demo', '--labelling', 'relable']) == 2
    assert "Did you mean 'relabel'" in capsys.readouterr().err
    assert main(['run', 'demo', '--seeds', '0']) == 2
    assert 'seeds: found 0' in capsys.readouterr().err
    assert main(['run']) == 0
    assert 'uai-table2' in capsys.readouterr().out

def test_cli_lists_data(capsys, tmp_path):
    assert main(['data', '--root', str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert 'h-mix/hmix_infer_mixing_factor.csv' in out and 'CC BY-NC-SA 4.0' in out

def test_real_path_trains_on_9070_images_and_names_a_stand_in(hub):
    recipe = replace(get_study('uai-table2', quick=True).recipes[-1], epochs=1)
    m = material(recipe)
    x, y = training_set(recipe, m)
    assert x.shape == (9070, 3, 32, 32) and y.shape == (9070, 10) and m.people.shape == (3000, 10)
    row = run(recipe, device='cpu')
    assert (row['n_clean'], row['n_blended'], row['n_eval']) == (7000, 2070, 3000)
    assert row['source'] == m.source and row['ce'] < 2.5
