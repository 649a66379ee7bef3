"Arrows against labels: nets trained together are those trained alone, pairs are pairs, folders survive, sentences say what tables say."
import json, subprocess, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from torch.nn import functional as F
from hmix_nb.cli import main
from hmix_nb.directions.command import (DIRECTIONS, Doer, about_direction, direction_of, job_path, jobs_of, made_on, pack, read_job,
                                        report_direction, rows_of, run_direction, unpack)
from hmix_nb.directions.findings import (SECONDS, SIGNS, beside_pilot, directions_html, findings_2d, findings_pairs, findings_sizes, minutes, pilot)
from hmix_nb.directions.loss import DirectionLoss
from hmix_nb.directions.many import ARROW_LOSSES, Arrows, Trial, arrow_loss, fit_many, logits, mk_nets, score_many, total_loss
from hmix_nb.directions.midpoints import IMAGE_ARMS, Tips, crossing, digit_images, image_row, image_rows, image_trials, midpoints, placed, tips_loss, train_net
from hmix_nb.directions.study import ARMS, FULL, POOL, SIZES, Cell, against, cell_rows, cells_2d, cells_sizes, edges, in_cells, problem, tally, told, trials_of

def draw(*size, seed=0): return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

@pytest.fixture
def arrows(): return Arrows(draw(2, 5, 2), F.normalize(draw(2, 5, 2, seed=1), dim=-1), draw(2, 5, seed=2).exp(),
                            (draw(2, 5, seed=3) > 0).double(), draw(2, 5, seed=4).sigmoid())

# many nets

@pytest.mark.parametrize('kind', ARROW_LOSSES)
def test_the_fast_loss_and_its_gradient_are_those_of_the_plain_one(arrows, kind):
    nets = mk_nets([0, 1], 2, 7, dtype=torch.float64)
    ps = [p.requires_grad_() for p in nets]
    for s in (0, 1):
        def two(x):
            z = torch.tanh(x @ nets.w1[0, s].T + nets.b1[0, s]) @ nets.w2[0, s] + nets.b2[0, s]
            return torch.stack([torch.zeros_like(z), z], -1)
        x, d, r, y, w = (o[s] for o in arrows)
        slow = DirectionLoss(kind, gamma=2.)(two, x, y.long(), 1 - y.long(), d, r, w)
        fast = arrow_loss(nets, arrows, kind, 2.)[0, s]
        assert abs(float((slow - fast).detach())) < 1e-6
        grads = (torch.autograd.grad(o, ps, allow_unused=True, materialize_grads=True) for o in (slow, fast)) # a slope has no offset
        for a, b in zip(*grads): assert torch.allclose(a, b, atol=1e-6)

@pytest.mark.parametrize('kind', ARROW_LOSSES)
def test_laws_of_the_losses(arrows, kind):
    nets = mk_nets([0, 1], 2, 7, dtype=torch.float64)
    one = arrow_loss(nets, arrows, kind, 2.)
    assert torch.allclose(arrow_loss(nets, Arrows(*(torch.cat([o, o], 1) for o in arrows)), kind, 2.), one)
    flipped = nets._replace(w2=-nets.w2, b2=-nets.b2)
    assert torch.allclose(arrow_loss(flipped, arrows._replace(y=1 - arrows.y), kind, 2.), one) # classes swapped
    if kind != 'tip':
        back = arrows._replace(y=1 - arrows.y, d=-arrows.d) # label and arrow turned: the same demand
        assert torch.allclose(arrow_loss(nets, back, kind, 2.), one)
    assert (arrow_loss(nets, arrows._replace(w=0*arrows.w), kind, 2.) == 0).all()
    zero = arrows._replace(d=0*arrows.d)
    assert torch.isfinite(arrow_loss(nets, zero, kind, 2.)).all()

def test_no_arrows_are_exactly_the_cross_entropy(arrows):
    x, y, nets = draw(2, 6, 2), (draw(2, 6) > 0).double(), mk_nets([0, 1], 2, 4, dtype=torch.float64)
    none = arrows._replace(w=0*arrows.w)
    assert torch.equal(total_loss(nets, x, y, [Trial(alpha=.6)], none, 'cosine'), total_loss(nets, x, y, [Trial()]))

def test_a_net_among_many_is_the_net_alone(arrows):
    x, y = draw(2, 6, 2), (draw(2, 6) > 0).double()
    trials = [Trial(.01, .01, .3, 1.), Trial(.03, 0., .6, 3.)]
    many = fit_many(x, y, [5, 6], trials, arrows, 'softplus', hidden=4, steps=30)
    alone = fit_many(x[1:], y[1:], [6], trials[1:], Arrows(*(o[1:] for o in arrows)), 'softplus', hidden=4, steps=30)
    for a, b in zip(many, alone): assert torch.allclose(a[1, 1], b[0, 0], atol=1e-12)

def test_nan_is_named(arrows):
    with pytest.raises(FloatingPointError, match='1 of 2 nets'):
        bad = arrows.d.clone()
        bad[0] = float('nan')
        fit_many(draw(2, 6, 2), torch.zeros(2, 6, dtype=torch.float64), [0, 1], [Trial(alpha=.3)], arrows._replace(d=bad), 'cosine', steps=2, hidden=3)

def test_scores_are_those_of_sklearn():
    from sklearn.metrics import accuracy_score, log_loss
    nets, x, y = mk_nets([0], 2, 4, dtype=torch.float64), draw(1, 50, 2), (draw(1, 50, seed=9) > 0).double()
    acc, nll = score_many(nets, x, y)
    p = torch.sigmoid(logits(nets, x))[0, 0]
    assert float(acc) == pytest.approx(accuracy_score(y[0], p > .5)) and float(nll) == pytest.approx(log_loss(y[0], p))

# the 2-D study

def test_cells_cover_what_the_protocol_asks_for():
    cells = cells_2d()
    assert len(cells) == len(set(cells)) == 152
    assert {(c.pool, c.set) for c in cells} == {(p, s) for p in ('i.i.d.', 'biased') for s in ('moons', 'circles', 'xor', 'blobs')}
    assert {c.oracle for c in cells if ARMS[c.arm].kind == 'tip' and not ARMS[c.arm].random} == {'clean', 'noisy'}
    assert {len(trials_of(a)) for a in ARMS.values()} == {64}
    assert {a.kind for a in ARMS.values() if a.random} == {'softplus', 'cosine', 'tip'}

@pytest.mark.parametrize('how, said', [
    (dict(pool='bias', set='moons', arm='tip'), "Did you mean 'biased'"), (dict(pool='biased', set='xors', arm='tip'), "Did you mean 'xor'"),
    (dict(pool='biased', set='xor', arm='tips'), "Did you mean 'tip'"), (dict(pool='biased', set='xor', arm='tip', oracle='none'), 'oracle'),
    (dict(pool='biased', set='xor', arm=POOL), 'oracle'), (dict(pool='biased', set='xor', arm='tip', k=0), 'k')])
def test_a_cell_that_cannot_be_is_refused(how, said):
    with pytest.raises(ValueError, match=said): Cell(**how)

def test_arms_of_a_seed_are_a_pair():
    names = ['n labels', POOL, FULL, 'tip', 'tips as labels', 'tip, random']
    made = {a: problem(Cell('biased', 'xor', a, 'clean' if ARMS[a].arrows else 'none'), [3, 4], held=50) for a in names}
    for p in made.values(): assert torch.equal(p.x[:, :12], made['tip'].x[:, :12])
    nets = mk_nets([3, 4], 2, 8)
    assert all(torch.equal(p.score(nets)['accuracy'], made['tip'].score(nets)['accuracy']) for p in made.values()) # one set of test points
    assert not torch.equal(made[POOL].x[:, 12:], made[FULL].x[:, 12:])
    assert not torch.equal(made['tip'].arrows.d, made['tip, random'].arrows.d) and torch.equal(made['tip'].arrows.r, made['tip, random'].arrows.r)

def test_noise_changes_arrows_and_nothing_else():
    clean, noisy = (problem(Cell('biased', 'moons', 'tip', o), range(6), held=50) for o in ('clean', 'noisy'))
    assert torch.equal(clean.x, noisy.x)
    both = (clean.arrows.w*noisy.arrows.w) > 0
    cos = (clean.arrows.d*noisy.arrows.d).sum(-1)[both]
    assert .5 < float(cos.median()) < 1 and not torch.equal(clean.arrows.r, noisy.arrows.r)

def test_a_point_without_an_arrow_adds_no_label_of_the_other_class():
    p = problem(Cell('biased', 'circles', 'tips as labels', 'noisy'), range(10), held=50)
    a = problem(Cell('biased', 'circles', 'tip', 'noisy'), range(10), held=50).arrows
    assert torch.equal(p.y[:, 12:], torch.where(a.w > 0, 1 - a.y, a.y))
    gone = a.w == 0
    assert torch.allclose(p.x[:, 12:][gone], a.x[gone])

def test_rows_repeat_and_tips_win_where_they_must():
    tip = cell_rows(Cell('biased', 'xor', 'tip'), seeds=range(6), tune=range(90, 93), steps=200)
    assert tip == cell_rows(Cell('biased', 'xor', 'tip'), seeds=range(6), tune=range(90, 93), steps=200)
    labels = cell_rows(Cell('biased', 'xor', POOL, 'none'), seeds=range(6), tune=range(90, 93), steps=200)
    d = against(pd.DataFrame(tip + labels)).iloc[0]
    assert d.low > 5 and d.pairs == 6

SETTINGS = dict(lr=.01, decay=.001, alpha=.3, gamma=0.)

def rows_made(gain, seeds=8, pools=('biased',)):
    g = np.random.default_rng(0)
    return pd.DataFrame([dict(pool=p, set=s, oracle='clean' if ARMS[a].arrows else 'none', arm=a, seed=i, n=12, k=12, accuracy=.8 + v + .002*g.normal(),
                              nll=.4 - v, hidden=32, **SETTINGS, drawn=12) for p in pools for s in ('moons', 'xor') for a, v in gain.items() for i in range(seeds)])

def test_differences_are_paired_and_a_missing_arm_is_left_out():
    rows = rows_made({'tip': .1, 'sign': -.1, POOL: 0.}, pools=('biased', 'i.i.d.'))
    t = against(rows[~((rows.set == 'xor') & (rows.arm == POOL))])
    assert set(t.index.get_level_values('set')) == {'moons'} and (t.pairs == 8).all()
    assert tally(t).loc[('clean', 'tip')].tolist() == [2, 0, 0, 2] and tally(t).loc[('clean', 'sign'), 'lost'] == 2
    assert tally(against(rows, metric='nll'), lower=True).loc[('clean', 'tip'), 'won'] == 4
    assert in_cells(t).shape == (2, 2)

@pytest.mark.parametrize('won, lost, cells, words', [(4, 0, 4, 'better in 4 of 4 cells'), (1, 2, 8, 'better in 1, worse in 2 of 8 cells'),
                                                    (0, 0, 3, 'not distinguishable in any of 3 cells'), (0, 1, 1, 'worse in 1 of 1 cell')])
def test_counts_in_words(won, lost, cells, words): assert told(pd.Series(dict(won=won, lost=lost, cells=cells))) == words

def test_the_end_of_a_grid_is_told():
    rows = rows_made({'tip': 0., 'sign': 0., POOL: 0.})
    assert not len(edges(rows[rows.arm != POOL].assign(lr=.02)))
    assert not len(edges(rows[rows.arm == POOL].assign(alpha=.9))) # labels had no share to choose
    wide = edges(rows[rows.arm == POOL].assign(lr=1., decay=.3))
    assert len(wide) == 4 and set(wide.setting) == {'lr', 'decay'} and set(wide.end) == {'largest'}
    with pytest.raises(ValueError, match='alpha'): edges(rows.drop(columns='alpha'))

@pytest.mark.parametrize('v, word', [(.1, 'better'), (-.1, 'worse'), (0., 'not distinguishable')])
def test_sentences_of_sizes_name_sets(v, word):
    rows = rows_made({'tip': v, POOL: 0.})
    said = findings_sizes(pd.concat([rows, rows.assign(k=4, hidden=8)]))
    assert len(said) == 2 and said[1].startswith('tip against labels of a biased pool, n = 12, k = 4, 8 units: ') and f'{word} on ' in said[1]
    with pytest.raises(ValueError, match='hidden'): findings_sizes(rows.drop(columns='hidden'))

def test_cells_of_sizes():
    cells = cells_sizes(['moons'])
    assert len(cells) == 20 and {(c.n, c.k, h) for c, h in cells} == set(SIZES) and {c.pool for c, _ in cells} == {'biased'}

def test_controls_of_midpoints_copy_settings():
    d, how = digit_images(100, 40), dict(seeds=[0], tune=[9], epochs=1, n_held=10)
    got = {a: image_rows(d, a, **how)[0] for a in IMAGE_ARMS}
    for a in IMAGE_ARMS.values():
        if a.like: assert all(got[a.name][k] == got[a.like][k] for k in ('alpha', 'lr', 'decay'))
    assert got['no tips']['alpha'] == 0 and got['human midpoints']['alpha'] > 0

def test_sentences_follow_the_numbers():
    good, bad = (findings_2d(rows_made({'tip': v, POOL: 0., 'tip, random': -.05})) for v in (.1, -.1))
    assert 'tip is better in 2 of 2 cells' in good[0] and 'tip is worse in 2 of 2 cells' in bad[0]
    assert any('Control: tip with random arrows' in o and 'worse in 2' in o for o in good)
    assert 'not: tip on moons' in bad[-1] and '2 of 4 differences have the same sign; not: tip, random on moons' in good[-1]

def test_signs_beside_the_pilot():
    b = beside_pilot(against(rows_made({'tip': -.1, 'sign': -.1, 'cosine': 0., POOL: 0.})))
    assert b.loc[('biased', 'moons', 'tip'), 'sign'] == SIGNS[1] and b.loc[('biased', 'xor', 'sign'), 'sign'] == SIGNS[0]
    assert len(pilot()) == 40 and b.loc[('biased', 'moons', 'tip'), 'pilot'] == 17.6
    rows = rows_made({'tip': .1, 'tip, random': -.1, POOL: 0., FULL: .2})
    b = beside_pilot(against(rows, FULL), 'everywhere')
    assert set(b.sign) == {SIGNS[1], SIGNS[2]} and b.loc[('biased', 'moons', 'tip'), 'pilot'] == 8.5
    clean, everywhere = findings_2d(rows)[-2:] # no noisy ones were run
    assert 'tip, random on xor (biased)' in clean and '0 of ' in everywhere and 'tip on moons (biased)' in everywhere
    with pytest.raises(ValueError, match="which: 'nosy' is unknown.*noisy"): pilot('nosy')

def test_words_for_scores_where_less_is_better():
    rows = rows_made({'tip': .1, POOL: 0.}).query("set == 'xor'").drop(columns=['pool', 'set', 'oracle'])
    said = findings_pairs(rows, {POOL: 'labels'}, dict(nll=('NLL', True)))
    assert len(said) == 1 and 'better: tip (-0.100' in said[0]

def test_prices():
    assert minutes(ARMS['n labels'], 10, 5, dict(label=6, arrow=60)) == 1 and minutes(ARMS['tip'], 10, 5, dict(label=6, arrow=60)) == 6
    assert minutes(ARMS['tips as labels']) == minutes(ARMS['tip']) and SECONDS['arrow'] == 2*SECONDS['label']

def test_the_page_shows_every_arm_and_no_script():
    page = directions_html('direction-2d', 'A & B', rows_made({'tip': .1, 'sign': -.1, POOL: 0., 'tip, random': 0.}), notes=['<b>'])
    for k in ('tip', 'sign', 'tip, random'): assert k in page
    assert '<script' not in page and 'A &amp; B' in page and '&lt;b&gt;' in page and 'may not be said' in page

# people's midpoints

def test_midpoints_leave_repeats_out():
    t = pd.DataFrame([dict(class_a='cat', id_a=1, class_b='dog', id_b=2, lam_h=v, repeat=r) for v, r in ((.4, False), (.6, False), (1., True))])
    assert midpoints(t, t).iloc[0][['lam', 'answers']].tolist() == [.5, 4]
    with pytest.raises(ValueError, match='lam_h'): midpoints(t.assign(lam_h=np.nan))
    with pytest.raises(ValueError, match='repeat'): midpoints(t.drop(columns='repeat'))

def test_a_tip_is_met_where_both_classes_are_equal():
    t = Tips(torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2), torch.ones(3).long(), torch.zeros(3).long(), torch.tensor([.2, .5, .7]))
    def net(x): # class 1 above a mean of .5
        z = 9*(x.mean((1, 2, 3)) - .5)
        return torch.stack([torch.zeros_like(z), z], 1)
    at = crossing(net, t)
    assert torch.allclose(at, torch.full((3,), .5), atol=1e-4)
    met, off = tips_loss(net, placed(t, 'half')), tips_loss(net, t)
    assert float(met) == pytest.approx(np.log(2)) and float(off) > float(met)

def test_places_of_midpoints():
    t = Tips(*[torch.zeros(40, 1)]*2, *[torch.zeros(40)]*2, torch.linspace(.1, .9, 40))
    assert (placed(t, 'half').lam == .5).all() and torch.equal(placed(t, 'human').lam, t.lam)
    mixed = placed(t, 'shuffled', 1).lam
    assert torch.equal(mixed.sort()[0], t.lam) and not torch.equal(mixed, t.lam)
    with pytest.raises(ValueError, match="Did you mean 'human'"): placed(t, 'humans')

def test_arms_of_an_image_seed_share_weights_order_and_held_out_pairs():
    d = digit_images(100, 40)
    (a, held), (b, same) = (train_net(d, IMAGE_ARMS[k], 1, alpha=0., epochs=1, n_held=10) for k in ('no tips', 'human midpoints'))
    assert torch.equal(held, same) # with alpha = 0, an arm with tips is the arm without
    for p, q in zip(a.parameters(), b.parameters()): assert torch.allclose(p, q, atol=1e-6)
    assert {len(image_trials(o)) for o in IMAGE_ARMS.values()} == {24}
    state = torch.get_rng_state()
    assert image_row(d, 'no tips', 1, epochs=1, n_held=10) == image_row(d, 'no tips', 1, epochs=1, n_held=10)
    assert torch.equal(torch.get_rng_state(), state) # nobody else's draws are touched

# folders and the command line

@pytest.fixture
def tiny(monkeypatch):
    def jobs(quick, seeds): return [dict(arm=a, seeds=seeds) for a in (POOL, 'tip', 'sign')]
    def rows(job, root):
        return [dict(pool='biased', set=s, oracle='clean' if ARMS[job['arm']].arrows else 'none', arm=job['arm'], n=12, k=12, seed=i,
                     accuracy=.5 + .1*(job['arm'] == 'tip') + .01*i + .001*(i % 2)*(job['arm'] == 'tip'), nll=1., hidden=32, **SETTINGS, drawn=12)
                for s in ('moons', 'xor') for i in range(job['seeds'])]
    monkeypatch.setitem(DIRECTIONS, 'direction-2d', replace(DIRECTIONS['direction-2d'], jobs=jobs, rows=rows, seeds=(4, 3), size=(3, 3)))
    return DIRECTIONS['direction-2d']

def test_a_folder_goes_on_where_it_was(tiny, tmp_path):
    jobs = jobs_of(tiny)
    (tmp_path/'rows').mkdir()
    assert Doer(tmp_path, tiny.name)(jobs[1])
    path = job_path(tmp_path, tiny.name, jobs[1])
    stamp = path.stat().st_mtime_ns
    for o in jobs: assert Doer(tmp_path, tiny.name)(o)
    assert path.stat().st_mtime_ns == stamp and len(list((tmp_path/'rows').glob('*.json'))) == 3
    path.write_text('{"rows": [')
    with pytest.warns(UserWarning, match='damaged'): assert read_job(path) is None
    with pytest.warns(UserWarning, match='damaged'): Doer(tmp_path, tiny.name)(jobs[1])
    assert len(read_job(path)) == 8

def test_two_runners_do_a_job_once(tiny, tmp_path):
    (tmp_path/'rows').mkdir()
    job = jobs_of(tiny)[0]
    with FileLock(job_path(tmp_path, tiny.name, job).with_suffix('.lock')): assert Doer(tmp_path, tiny.name)(job) is False
    assert Doer(tmp_path, tiny.name)(job) is True

def test_the_command_runs_reports_and_goes_on(tiny, tmp_path, capsys):
    out = tmp_path/'o'
    assert main(['run', 'Direction_2D', '--jobs', '1', '--out', str(out)]) == 0
    said = capsys.readouterr().out
    assert 'tip is better in 2 of 2 cells' in said and 'report.html' in said
    files = {p.name: p.stat().st_mtime_ns for p in (out/'rows').glob('*.json')}
    assert main(['report', str(out)]) == 0 and 'Open' in capsys.readouterr().out
    assert len(pd.read_csv(out/'rows.csv')) == 24 and 'Reduced' not in (out/'report.html').read_text()
    assert main(['run', 'direction-2d', '--jobs', '1', '--out', str(out)]) == 0
    assert {p.name: p.stat().st_mtime_ns for p in (out/'rows').glob('*.json')} == files
    assert main(['run', 'direction-2d', '--jobs', '1', '--fresh', '--out', str(out)]) == 0
    assert len(list((out/'old').iterdir())) == 3
    assert main(['run', 'direction-2d', '--quick', '--jobs', '1', '--out', str(tmp_path/'q')]) == 0
    assert 'Reduced: 3 jobs with 3 seeds' in capsys.readouterr().out

def test_packed_rows_make_the_same_report(tiny, tmp_path):
    page = run_direction(tiny.name, tmp_path/'o', n_jobs=1, progress=False)
    rows = pd.read_csv(tmp_path/'o'/'rows.csv')
    other = tmp_path/'p'
    other.mkdir()
    (other/'study.json').write_text((tmp_path/'o'/'study.json').read_text())
    (other/'rows.csv').write_text(pack(rows).to_csv(index=False))
    pd.testing.assert_frame_equal(unpack(pack(rows)), rows[unpack(pack(rows)).columns], check_dtype=False)
    assert report_direction(other).read_text().count('tip is better in 2 of 2') == page.read_text().count('tip is better in 2 of 2') == 1

SAVED = Path(__file__).parent.parent/'nbs'/'tutorials'/'rows'

@pytest.mark.parametrize('name', sorted(DIRECTIONS))
def test_saved_rows_are_whole_and_name_command_commit_and_machine(name):
    about = about_direction(SAVED/name)
    rows, notes = rows_of(SAVED/name, about)
    assert not notes and about['command'].startswith(f'hmix run {name}') and not about['quick']
    assert rows.groupby([k for k in rows if k in ('pool', 'set', 'oracle', 'n', 'k', 'hidden', 'head', 'arm')]).seed.nunique().eq(DIRECTIONS[name].seeds[0]).all()
    made = made_on(SAVED/name, about)
    assert sum(o['jobs'] for o in made) == DIRECTIONS[name].size[0] and all(o['seconds'] > 0 for o in made)
    for o in made: assert o['commit'] and 'dirty' not in o['commit'] and o['cpu'] and o['cores'] and o['torch'] and o['python']

def test_rows_are_saved_with_where_they_come_from_or_not_at_all(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent/'tools')
    from save_rows import save_direction
    where = dict(cpu='a chip', cores=2, torch='2', python='3', commit='abc1234')
    monkeypatch.setattr('hmix_nb.study.run.made_where', lambda: where)
    out, to = tmp_path/'runs'/tiny.name, tmp_path/'to'
    jobs = jobs_of(tiny)
    run_direction(tiny.name, out, n_jobs=1, progress=False, command=f'hmix run {tiny.name} --jobs 1 --out {out} --root /x', backend='loky')
    assert made_on(out, about_direction(out))[0]['jobs'] == 3
    path = job_path(out, tiny.name, jobs[0])
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole) | dict(made_on=where | dict(commit='abc1234-dirty'))))
    assert 'made at no commit' in save_direction(tmp_path/'runs', tiny.name, to) and not to.exists()
    path.unlink()
    assert '1 of 3 jobs are missing' in save_direction(tmp_path/'runs', tiny.name, to) and not to.exists()
    path.write_text(whole)
    assert save_direction(tmp_path/'runs', tiny.name, to) == f'{tiny.name}: 24 rows saved'
    about = about_direction(to/tiny.name)
    assert about['command'] == f'hmix run {tiny.name} --jobs 1' and made_on(to/tiny.name, about) == about['made_on']
    assert {k: about['made_on'][0][k] for k in where} == where and about['made_on'][0]['jobs'] == 3
    assert 'a chip, 2 cores; PyTorch 2, Python 3, commit abc1234' in report_direction(to/tiny.name).read_text()
    assert save_direction(to, tiny.name, to) == f'{tiny.name}: 24 rows saved' and ',score,' in (to/tiny.name/'rows.csv').read_text() # packed again
    (to/tiny.name/'study.json').write_text(json.dumps({k: v for k, v in about.items() if k != 'made_on'}))
    assert 'made at no commit' in save_direction(to, tiny.name, tmp_path/'other') and not (tmp_path/'other').exists()

@pytest.mark.parametrize('argv, said', [
    ('run direction-3d', "Did you mean 'direction-2d'"), ('run directiontext', "Did you mean 'direction-text'"),
    ('run direction-2d --set epochs=3', '--set: direction-2d has no recipes'), ('run direction-2d --tune', '--tune: direction-2d'),
    ('run direction-2d --arms tip', '--arms: direction-2d'), ('run direction-2d --seeds 1', 'seeds'),
    ('run direction-2d --device cuda', "allowed is 'cpu'"), ('run direction-2d --jobs 0', 'n_jobs: found 0')])
def test_a_bad_value_ends_in_one_line(capsys, monkeypatch, tmp_path, argv, said):
    monkeypatch.chdir(tmp_path)
    assert main(argv.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith('hmix: ') and err.count('\n') == 1 and said in err

def test_missing_data_is_said_before_any_work(capsys, monkeypatch, tmp_path):
    for name, file in (('direction-text', 'cad/train_paired.tsv'), ('direction-image', 'h-mix/hmix_construct_midpoint.csv')):
        monkeypatch.setattr('pooch.HTTPDownloader.__call__', lambda *a, **k: (_ for _ in ()).throw(ConnectionError('no network')))
        assert main(['run', name, '--quick', '--root', str(tmp_path/'d'), '--out', str(tmp_path/name)]) == 2
        assert file in capsys.readouterr().err and not (tmp_path/name).exists()

def test_a_folder_of_another_kind_is_left_to_its_own_report(tmp_path):
    assert about_direction(tmp_path) is None and direction_of('uai-table2') is None
    (tmp_path/'study.json').write_text(json.dumps(dict(study=dict(name='demo'))))
    assert about_direction(tmp_path) is None

def test_the_list_has_them_without_torch():
    code = 'import sys; from hmix_nb.cli import main; main(["run"]); print("torch" in sys.modules, "pandas" in sys.modules)'
    said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert said.endswith('False False\n') and all(k in said for k in DIRECTIONS)

def test_sizes_are_those_of_the_jobs():
    for s in DIRECTIONS.values(): assert s.size == (len(jobs_of(s)), len(jobs_of(s, quick=True)))
