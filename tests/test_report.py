"Reports: numbers as an independent calculation has them, and pages that say what is missing, failed, mixed or cut."
import json, re, shutil, subprocess, sys
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from hmix_nb.study import page as pg, report as rep, sections as sec, summary as su
from hmix_nb.study.recipe import FORMAT, STUDIES, Claim, demo, get_study, published, recipe_hash, reductions

def made(study, fail=(), lose=(), **over):
    "A row for each run, near what is printed."
    cells = rep.published_cells(study)
    for i, r in enumerate(study.recipes):
        a, g = study.arm_of(recipe_hash(r)), np.random.default_rng([i, r.seed])
        row = dict(recipe=recipe_hash(r), **asdict(r), version='0.1.0', source='original', format=FORMAT)
        if i in lose: continue
        if i in fail:
            yield row | dict(error=f'Diverged: the loss is nan & void <b>, run {i}', traceback='Traceback (most recent call last)')
            continue
        for b, m, c in rep.columns_of(study):
            t = cells[(cells.arm == a.name) & (cells.block == b) & (cells.metric == m)]['mean']
            row[c] = (t.iloc[0] if len(t) else 1.)*(1 + .1*np.sin(r.seed) + .01*g.normal())
        row |= dict(reliability=[[.55, .5, 100], [.95, .8, 200]], attack_curve=[[0, 1.], [4/255, 3. + r.seed]], seconds=9.)
        yield row | over

def rows_for(study, **kw): return pd.DataFrame(made(study, **kw))
def page_of(study, rows, about=None): return pg.report_html(study, rows, about, drawn={}) # figures take their time

@pytest.fixture
def no_figures(monkeypatch): monkeypatch.setattr(sec, 'draw_figures', lambda *_: {})

def text(html): return ' '.join(unescape(re.sub(r'<[^>]+>', ' ', re.sub(r'data:image[^"]+', '', html))).split())

# statistics

def holm_by_hand(p):
    order, out, most = np.argsort(p), np.empty(len(p)), 0.
    for k, i in enumerate(order):
        most = max(most, min(1., (len(p)-k)*p[i]))
        out[i] = most
    return out

@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_is_that_of_the_textbook(p): assert np.allclose(su.holm(p), holm_by_hand(np.array(p)))

def test_holm_does_not_count_what_was_not_tested():
    assert np.allclose(su.holm([.01, np.nan, .04]), [.02, np.nan, .04], equal_nan=True)

@settings(max_examples=30)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_interval_is_that_of_scipy(v):
    lo, hi = stats.t.interval(.95, len(v)-1, np.mean(v), stats.sem(v)) if np.ptp(v) > 1e-12 else (np.mean(v), np.mean(v))
    assert np.isclose(su.half_width(v), (hi - lo)/2, atol=1e-9)

def grid_rows(n=5, models='ab', arms=('x', 'y', 'z'), seed=0):
    g = np.random.default_rng(seed)
    return pd.DataFrame([dict(arm=a, model=m, seed=s, ce=g.normal(i) + s, calib=g.normal()) for i, a in enumerate(arms)
                         for m in models for s in range(n)])

def test_paired_is_scipys_in_any_order_and_without_runs_that_have_no_partner():
    rows = grid_rows().sample(frac=1, random_state=1)
    rows.loc[(rows.arm == 'y') & (rows.model == 'a') & (rows.seed == 2), 'ce'] = np.nan # failed
    rows.loc[(rows.arm == 'y') & (rows.model == 'b') & (rows.seed == 0), 'ce'] = np.inf # no score either
    rows = rows[~((rows.arm == 'x') & (rows.model == 'b') & (rows.seed == 4))] # never done
    t = su.paired(rows, 'x')
    key = ['model', 'seed']
    for (arm, m), o in t.iterrows():
        both = rows[rows.arm == arm].merge(rows[rows.arm == 'x'], on=key).replace(np.inf, np.nan).dropna(subset=[f'{m}_x', f'{m}_y'])
        assert len(both) == {'y': {'ce': 7, 'calib': 9}, 'z': {'ce': 9, 'calib': 9}}[arm][m]
        d = (both[f'{m}_x'] - both[f'{m}_y']).groupby(both.seed).mean() # over the models of a seed that both have
        ref = stats.ttest_1samp(d, 0)
        assert np.allclose(o[['difference', 'low', 'high', 'p']].astype(float), [d.mean(), *ref.confidence_interval(.95), ref.pvalue]) and o.pairs == 5
    assert np.allclose(t.p_holm, holm_by_hand(t.p.to_numpy(float)))

@pytest.mark.parametrize('pair', [('model', 'seed'), ('model', 'seed', 'place')])
def test_more_runs_of_a_seed_are_no_more_seeds(pair):
    "Copies of each run, as other nets or at other places of a curve, make no p smaller."
    one = grid_rows(n=6, models='a').assign(place=0)
    many = pd.concat([one.assign(**{pair[-1] if pair[-1] != 'seed' else 'model': k}) for k in (1, 2, 3, 4)])
    a, b = su.paired(one, 'x', pair=pair), su.paired(many, 'x', pair=pair)
    assert np.allclose(a.astype(float), b.astype(float)) and set(b.pairs) == {6}
    said = [('lower', 'y', 'x', 'ce'), ('alike', 'z', 'x', 'calib')]
    assert np.allclose(su.orderings(one, said, pair=pair).p, su.orderings(many, said, pair=pair).p)
    assert np.allclose(su.within(one, said, [1, 2], pair=pair).p, su.within(many, said, [1, 2], pair=pair).p)

def test_alike_is_two_one_sided_tests():
    rows = grid_rows(n=8, models='a')
    d = rows[rows.arm == 'y'].calib.to_numpy() - rows[rows.arm == 'x'].calib.to_numpy()
    for margin in (.2, 1., 3.):
        t = su.within(rows, [('alike', 'y', 'x', 'calib')], [margin]).iloc[0]
        low, high = stats.ttest_1samp(d, -margin, alternative='greater').pvalue, stats.ttest_1samp(d, margin, alternative='less').pvalue
        lo, hi = stats.ttest_1samp(d, 0).confidence_interval(.9) # the same, as an interval
        assert np.isclose(t.p, max(low, high)) and (t.verdict == 'alike') == (-margin < lo and hi < margin)
        t = su.within(rows, [('not lower', 'y', 'x', 'calib')], [margin], both=False).iloc[0]
        assert np.isclose(t.p, low) and (t.verdict == 'holds') == (lo > -margin) and np.isclose(t.p_zero, stats.ttest_1samp(d, 0).pvalue)

def test_a_test_that_finds_nothing_shows_nothing():
    noise = pd.DataFrame([dict(arm=a, model='n', seed=s, ce=v) for a, vs in dict(x=[1., 2, 3], y=[3., 1, 2.1]).items() for s, v in enumerate(vs)])
    for both in (True, False): assert su.within(noise, [('c', 'y', 'x', 'ce')], [.05], both=both).verdict.tolist() == ['undecided']
    same = pd.concat([noise[:3], noise[:3].assign(arm='y')])
    assert su.within(same, [('c', 'y', 'x', 'ce')], [.05]).verdict.tolist() == ['alike']
    assert su.within(same[same.seed == 0], [('c', 'y', 'x', 'ce')], [.05]).verdict.tolist() == ['not tested']
    away = noise[:3].assign(arm='y', ce=lambda o: o.ce - .2)
    for both, said in ((True, 'undecided'), (False, 'undecided')): # no spread, so no test against 0 either
        assert su.within(pd.concat([noise[:3], away]), [('c', 'y', 'x', 'ce')], [.1], both=both).verdict[0] == said
    p = su.within(grid_rows(n=9), [(str(i), 'y', 'x', m) for i, m in enumerate(('ce', 'calib', 'calib'))], [.5, .5, 9], both=False)
    assert np.allclose(p.p_holm, holm_by_hand(p.p.to_numpy()))

def test_nobody_is_ahead_by_luck():
    assert su.leader(grid_rows(n=10, arms=('low', 'middle', 'high')), 'ce') == 'low'
    assert su.leader(grid_rows(n=30, arms=('low', 'middle', 'high')), 'ce', higher=True) == 'high'
    assert su.leader(two := grid_rows(n=2).assign(ce=lambda o: o.arm.map(dict(x=1, y=2, z=3)) + o.seed*(.1 + .001*(o.arm == 'x'))), 'ce') is None
    assert (su.paired(two, 'x', ['ce']).p_holm < .05).all() and su.leader(two, 'ce', least=2) == 'x'
    assert su.leader(grid_rows(n=10), 'calib') is None and su.leader(grid_rows(n=1), 'ce') is None and su.leader(grid_rows(arms='x'), 'ce') is None
    twins = pd.concat([grid_rows(n=10, arms=('low', 'high')), grid_rows(n=10, arms=('low', 'high')).assign(arm=lambda o: o.arm + '2')])
    assert su.leader(twins, 'ce') is None # ahead of one, but not of its twin
    assert su.leader(grid_rows(n=30).assign(ce=lambda o: o.ce.where(o.arm != 'x')), 'ce') == 'y' # a failed arm competes with nobody

def test_a_shift_of_all_runs_of_a_seed_changes_no_difference():
    rows = grid_rows()
    moved = rows.assign(ce=rows.ce + 100*rows.seed)
    pd.testing.assert_frame_equal(su.paired(rows, 'x', ['ce']), su.paired(moved, 'x', ['ce']))

def test_nothing_to_compare_is_an_empty_table():
    assert len(su.paired(grid_rows(arms='x'), 'x', ['ce'])) == 0

def test_one_pair_none_and_no_spread():
    rows = grid_rows(n=1, models='a')
    d = su.difference(rows, 'y', 'x', 'ce')
    assert d['pairs'] == 1 and np.isnan([d['p'], d['low']]).all() and np.isfinite(d['difference'])
    assert su.difference(rows, 'y', 'nobody', 'ce')['pairs'] == 0
    flat = grid_rows().assign(ce=lambda o: o.arm.map(dict(x=1., y=1.1, z=1.)))
    assert su.difference(flat, 'z', 'x', 'ce')['p'] == 1 and np.isnan(su.difference(flat, 'y', 'x', 'ce')['p'])
    with pytest.raises(ValueError, match="'x' has two runs of one model and seed"): su.difference(pd.concat([rows, rows]), 'y', 'x', 'ce')

def test_verdicts_are_two_sided():
    rows = grid_rows(n=10, arms=('low', 'high'))
    claims = [('a', 'low', 'high', 'ce'), ('b', 'high', 'low', 'ce'), ('c', 'low', 'high', 'calib')]
    assert su.orderings(rows, claims).verdict.tolist() == ['holds', 'reversed', 'not distinguishable']

def test_reliability_pools_bins_that_not_all_runs_have():
    lists = [[[.5, .4, 10], [.95, .9, 30]], [[.95, .7, 10]], None, json.dumps([[.5, .6, 30]])]
    r = su.reliability(pd.DataFrame(dict(arm='x', reliability=lists)))
    assert np.allclose(r.to_numpy(), [[.5, .55, 40], [.95, .85, 40]])
    sure = su.reliability(pd.DataFrame(dict(arm='x', reliability=[[[.95, .9, 10], [1., 1., 10]]])))
    assert np.allclose(sure.to_numpy(), [[.975, .95, 20]]) # 1 belongs to the last bin

# beside the paper

@pytest.mark.parametrize('name', [k for k in STUDIES])
def test_every_printed_number_of_a_study_stands_beside_an_arm(name):
    study = get_study(name)
    cells = rep.published_cells(study)
    for table in study.tables:
        printed = sorted(tuple(v) for row in published()[table]['rows'] for v in row.values() if isinstance(v, list))
        ours = cells[cells['table'] == table].drop_duplicates(['mean', 'half'])
        assert set(zip(ours['mean'], ours['half'])) == set(printed)
        shown = ' '.join(rep.score_table(study, rep.arm_rows(study, rows_for(study)), table, b).to_csv() for b in study.blocks)
        assert all(f'{m:g}' in re.sub(r'(\.\d*?)0+\b', r'\1', shown).replace('. ', ' ') or f'{m}' in shown for m, _ in printed)

DRAWN = 'thesis-3.1', 'thesis-3.5-figure', 'thesis-5.2' # blocks, a curve, corruptions

@pytest.mark.parametrize('name', [k for k in STUDIES])
def test_every_study_can_be_reported(name, recwarn):
    study = get_study(name, quick=True)
    page = (pg.report_html if name in DRAWN else page_of)(study, rows_for(study))
    assert study.title in unescape(page) and 'Every recipe' in page
    for c in (*study.orderings, *study.equals): assert c.text in text(page)
    assert not [w for w in recwarn if 'hmix' in str(w.filename) or 'matplotlib' in str(w.filename)]

def test_columns_and_blocks():
    study = get_study('thesis-3.1')
    assert rep.columns_of(study)[2] == ('CIFAR-10H', 'fgsm', 'fgsm') and rep.columns_of(study)[5] == ('CIFAR-10S', 'fgsm', 's_fgsm_soft')
    t = rep.score_table(study, rep.arm_rows(study, rows_for(study)), 'thesis_3.1', 'CIFAR-10S')
    assert t.loc['Hard Labels', 'FGSM, published'].startswith('15.782 ± 4.67')
    with pytest.raises(ValueError, match="Did you mean 'CIFAR-10S'"): rep.score_table(study, pd.DataFrame(), 'thesis_3.1', 'CIFAR-10s')
    few = get_study('thesis-3.3')
    t = rep.score_table(few, rep.arm_rows(few, rows_for(few)), 'thesis_3.3', 'CIFAR-10H')
    assert t['CE, published'].tolist() == ['1.71 ± 0.15', '1.49 ± 0.08', '2.17 ± 0.11', '1.58 ± 0.08']
    five = get_study('thesis-5.1')
    assert rep.score_table(five, rep.arm_rows(five, rows_for(five)), 'thesis_5.1').loc['mixup', 'CorruptCE, published'] == '1.606 ± 0.03'

def test_published_differences_are_those_of_one_table():
    study = get_study('uai-table2')
    d = rep.differences(study, rep.arm_rows(study, rows_for(study))).set_index(['arm', 'metric'])
    assert np.isclose(d.published['relabel', 'fgsm'], 11.69 - 10.62) and len(d) == 15

def test_curves_have_a_row_for_each_place_and_are_paired_there():
    study = get_study('thesis-3.6-figure', quick=True)
    runs = rep.arm_rows(study, rows_for(study))
    assert len(rep.score_table(study, runs)) == 2*len({r.n_soft for r in study.recipes})
    assert rep.tested_claims(study, runs).pairs.tolist() == [2]*len(study.orderings) # seeds, of eight pairs
    full = get_study('thesis-3.6-figure')
    t = rep.tested_claims(full, all_of := rep.arm_rows(full, rows_for(full)))
    one = all_of.groupby(['arm', 'seed']).ce.mean().unstack('arm')
    ref = stats.ttest_rel(one['Ours (T2, Clamp)'], one['CIFAR-10H'])
    assert t.pairs.tolist() == [10]*3 and np.isclose(t.p[0], ref.pvalue) and 'over 10 seeds' in text(page_of(full, rows_for(full)))
    seconds = get_study('thesis-3.5-figure', quick=True)
    points = rep.curve_points(seconds, rep.arm_rows(seconds, rows_for(seconds)))
    assert {a: a_.index.get_level_values('x').min() for a, a_ in points.groupby('arm')} == {a.name: a.unit for a in seconds.arms}

# the page

def test_a_page_needs_no_other_file_and_runs_nothing():
    study = get_study('uai-table2', quick=True)
    page = pg.report_html(study, rows_for(study, fail=[0]))
    assert not re.findall(r'(?:src|href)="(?!data:)', page) and '<script' not in page and '<b>' not in page
    assert 'url(' not in page and '@import' not in page

def test_claims_that_are_none_are_none():
    assert len(su.orderings(grid_rows(), [])) == 0

def test_the_verdict_comes_first_and_reductions_are_said():
    study = get_study('uai-table2', quick=True)
    said = text(page_of(study, rows_for(study)))
    order = ['not comparable with the published ones', 'Verdict', 'Our scores beside UAI 2023 Table 2', "The paper's orderings", 'Figures',
             'runs done, 0 failed', 'Each field in which', 'Where the paper leaves a choice', 'Details']
    assert sorted(order, key=said.index) == order
    for k in reductions(study).index: assert k in said
    assert 'agree with the published ones' not in said # levels are only compared in full
    full = get_study('uai-table2')
    assert 'means agree with the published ones' in (said := text(page_of(full, rows_for(full)))) and 'not comparable' not in said

def test_missing_and_failed_runs_are_named_and_the_rest_is_used():
    study = get_study('uai-table2', seeds=3)
    assert 'no number' not in text(page_of(study, rows_for(study, fail=[0], lose=[7, 8])))
    said = text(page_of(study, rows_for(study, fail=[0], lose=[7, 8])))
    assert 'Incomplete: 2 runs missing and 1 run failed' in said and 'nan & void <b>, run 0' in said
    assert '33 of 36 runs done, 1 failed, 2 missing' in said and 'Traceback (most recent call last)' in said
    assert 'paired t tests over 2 to 3 seeds' in said

@pytest.mark.parametrize('kw', [dict(fail=range(99)), dict(lose=range(99))])
def test_a_study_without_scores_has_a_page(kw):
    study = get_study('thesis-5.2', quick=True)
    rows = rows_for(study, **kw)
    said = text(page_of(study, rows if len(rows) else pd.DataFrame(dict(recipe=[]))))
    assert 'No run has scores' in said and f'0 of {len(study)} runs done' in said

def test_one_seed_has_no_intervals_and_no_tests():
    study = get_study('thesis-4.1', seeds=1)
    runs = rep.arm_rows(study, rows_for(study))
    assert '±' not in rep.score_table(study, runs)['CE'].str.cat() and set(rep.tested_claims(study, runs).verdict) == {'not tested'}
    assert 'What the paper says is lower could not be tested (13 claims): a test takes two seeds' in text(page_of(study, rows_for(study)))

def test_scores_that_are_no_numbers_are_left_out():
    study = get_study('thesis-4.1', seeds=3)
    rows = rows_for(study)
    rows.loc[0, 'ce'], rows.loc[1, 'ce'], rows['calib'] = np.nan, np.inf, np.nan
    t = rep.score_table(study, rep.arm_rows(study, rows), 'thesis_4.1')
    assert set(t['Calib']) == {'–'} and t.runs.tolist() == [3]*5 and 'nan' not in t.to_csv() and 'inf' not in t.to_csv()
    page = text(page_of(study, rows))
    assert ' nan' not in page.split('Every run')[0] and 'not tested' in page
    assert 'Of 15 runs that ended well, a score is missing or no number' in page

def test_what_is_mixed_or_a_stand_in_is_said_at_the_top():
    study = get_study('thesis-5.1', seeds=2)
    rows = rows_for(study, corruption_source='stand-in corruptions 3: 15 kinds')
    rows['version'] = ['0.1.0']*(len(rows)-1) + ['0.2.0']
    rows['source'] = 'JPEG copy of the CIFAR-10 test set'
    top = text(page_of(study, rows)).split('Verdict')[0]
    assert 'hmix_nb: mixed: 0.1.0' in top and 'Stand-in data, not the original images: JPEG copy' in top and 'Stand-in corruptions' in top

def test_where_runs_were_made_is_said():
    study = get_study('thesis-4.1', seeds=2)
    said = text(page_of(study, rows_for(study, device='cpu', cpu='AMD EPYC', cores=2, train_seconds=6., images_per_s=1234)))
    assert 'device cpu; CPU AMD EPYC; CPU cores 2' in said and 'A run took 9 s (median), 6 s of it training at 1,234 images/s' in said

def test_what_is_said_not_to_be_better_is_tested_as_that():
    study = get_study('thesis-3.1')
    t = rep.tested_claims(study, runs := rep.arm_rows(study, rows_for(study)), 'not_lower')
    assert set(t.lower) == {'Ours (T2, Clamp)'} and set(t.other) == {'CIFAR-10H'} and len(t) == 6 and set(t.verdict) == {'holds'}
    assert np.allclose(t.margin, [.05*o for o in (1.325, 2.558, .201, .313, 8.75, 8.416)])
    better = runs.assign(ce=runs.ce - .3*(runs.arm == 'Ours (T2, Clamp)')) # a world where it is better
    t = rep.tested_claims(study, better, 'not_lower')
    assert t.verdict[0] == 'reversed' and t.p[0] > .5 and t.p_zero[0] < .01
    said = text(page_of(study, rows_for(study)))
    assert 'What is said not to be better' in said and 'margin is 5 % of the score that is printed for the second arm' in said
    assert '6 tests of what the paper says is not lower: holds in 6 (one-sided paired t tests, margin 5 % of the printed score, over 5 seeds' in said

def test_a_title_names_only_who_is_ahead():
    def titles(axs): return ' '.join(ax.get_title(loc='left') + ax.get_title() for ax in np.ravel(axs)).replace('\n', ' ')
    for study, one in ((get_study('uai-table2', quick=True), False), (get_study('uai-table2'), True)):
        rows = rows_for(study)
        clear = rows.labelling == 'mixup'
        rows.loc[clear, 'calib'] = .8*rows.calib[clear]/1.21 # .15, where the next has .19
        runs = rep.arm_rows(study, rows)
        told = titles(rep.plot_scores(study, runs))
        assert ('lowest with mixup' in told) == one and told.count('none is ahead of all') >= (0 if one else 3)
        attack = runs.assign(attack_curve=[[[0, 1.], [.01, 2. + s + (a == 'mixup') + .01*i]] for i, (s, a) in enumerate(zip(runs.seed, runs.arm))])
        assert 'no loss is lower than all others' in titles([rep.plot_attack(attack)])
    bins = pd.DataFrame(dict(arm=['fits', 'sure'], reliability=[[[.5, .504, 10]], [[.5, .49, 10]]]))
    assert 'fits: no gap on average' in (told := titles(rep.plot_reliability(bins))) and 'sure: too sure by 0.01' in told

def test_what_was_selected_again_is_said():
    study = demo(quick=True)
    said = text(page_of(study, rows_for(study), json.loads(pg.study_json(study, tuned={'relabel+omega:gamma': .05}))))
    assert 'Selected again on a validation set' in said and 'relabel+omega:gamma 0.05' in said

# the folder

def written(tmp_path, study, **kw):
    pg.write_report(tmp_path, study, rows_for(study, **kw), command='hmix run this')
    return tmp_path

@pytest.mark.parametrize('name', ['uai-table2', 'thesis-3.1', 'thesis-3.5-figure', 'thesis-c.1'])
def test_a_folder_tells_all_that_a_report_needs(tmp_path, name, no_figures):
    study = get_study(name, quick=True)
    first = (written(tmp_path, study, fail=[1])/'report.html').read_text(encoding='utf-8')
    again, about = pg.read_study(tmp_path)
    assert replace(again, full=study.full) == study and about['command'] == 'hmix run this'
    (tmp_path/'report.html').unlink()
    second = pg.report_dir(tmp_path).read_text(encoding='utf-8') # from rows.csv, which has no tracebacks
    assert '<summary>Tracebacks' in first
    assert second == re.sub('<details><summary>Tracebacks</summary>.*?</details>', '', first, flags=re.S)
    assert list(pd.read_csv(tmp_path/'rows.csv').recipe) == [recipe_hash(r) for r in study.recipes]

def test_rows_on_disk_come_before_the_csv_and_those_of_others_are_left_out(tmp_path, no_figures):
    study = demo(quick=True)
    written(tmp_path, study)
    (tmp_path/'rows').mkdir()
    rows = list(made(study, lose=[0]))
    for o in [*rows, rows[0] | dict(recipe='0123456789')]: (tmp_path/'rows'/f"{o['recipe']}.json").write_text(json.dumps(o))
    (tmp_path/'rows'/f'{recipe_hash(study.recipes[3])}.json').write_text('{"rec') # cut
    with pytest.warns(UserWarning, match='damaged'): got = pg.rows_of(study, tmp_path)
    assert got.recipe.tolist() == [recipe_hash(r) for i, r in enumerate(study.recipes) if i not in (0, 3)]
    with pytest.warns(UserWarning, match='damaged'): said = text(pg.report_dir(tmp_path).read_text(encoding='utf-8'))
    assert '2 more rows in the folder are left out' in said and '10 of 12 runs done, 0 failed, 2 missing' in said

def test_a_folder_that_is_none_of_a_study_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='is no folder; allowed is one that `hmix run` has made'): pg.report_dir(tmp_path/'no')
    with pytest.raises(FileNotFoundError, match='no folder of a study, as it has no study.json'): pg.report_dir(tmp_path)
    (tmp_path/'rows').mkdir()
    with pytest.raises(FileNotFoundError, match='It has rows of a version that left none'): pg.report_dir(tmp_path)
    for bad in ('', '[]', '{}', '3', '{"format": 1}'):
        (tmp_path/'study.json').write_text(bad)
        with pytest.raises(ValueError, match='study.json'): pg.report_dir(tmp_path)
    assert not (tmp_path/'report.html').exists()

def test_another_version_is_read_or_refused_with_the_reason(tmp_path, no_figures):
    written(tmp_path, study := demo(quick=True))
    d = json.loads((tmp_path/'study.json').read_text())
    def write(**kw): (tmp_path/'study.json').write_text(json.dumps(d | kw))
    write(version='0.0.7')
    assert pg.read_study(tmp_path)[1]['version'] == '0.0.7' # read
    write(version='9.0', format=FORMAT+1)
    with pytest.raises(ValueError, match=fr'cannot be read: recipes of format {FORMAT+1}; this version has format {FORMAT} \(by hmix_nb 9.0; this is hmix_nb'):
        pg.report_dir(tmp_path)
    first = next(iter(d['recipes']))
    write(version='9.0', recipes=d['recipes'] | {first: {'tempo': 3}})
    with pytest.raises(ValueError, match="cannot be read: unknown field 'tempo'.*by hmix_nb 9.0"): pg.report_dir(tmp_path)
    write(recipes=d['recipes'] | {first: {'epochs': 77}})
    with pytest.raises(ValueError, match='is another one here'): pg.report_dir(tmp_path)

def test_an_earlier_figure_does_not_stay(tmp_path):
    study = get_study('thesis-4.1', quick=True)
    assert (written(tmp_path, study)/'figures'/'forest.svg').exists()
    pg.write_report(tmp_path, study, rows_for(study, fail=range(99)))
    assert not list((tmp_path/'figures').glob('*.svg'))

def test_a_report_is_written_without_torch(tmp_path):
    written(tmp_path, get_study('thesis-4.1', quick=True))
    code = f"import sys; from hmix_nb.study.page import report_dir; report_dir({str(tmp_path)!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

def test_rows_of_another_format_are_refused_before_anything_is_written(tmp_path, no_figures):
    study, (row, *_) = demo(quick=True), made(demo(quick=True))
    (tmp_path/'rows').mkdir()
    (tmp_path/'rows'/f"{row['recipe']}.json").write_text(json.dumps(row | dict(format=FORMAT+1)))
    def never(*a, **k): raise AssertionError
    with pytest.raises(ValueError, match='another recipe format'): pg.run_study(study, tmp_path, n_jobs=1, device='cpu', progress=False, run=never)
    assert sorted(o.name for o in tmp_path.rglob('*')) == [f"{row['recipe']}.json", 'rows']

def test_a_commit_that_looks_like_a_number_stays_text(tmp_path, no_figures):
    study = demo(quick=True)
    pg.write_report(tmp_path, study, rows_for(study, commit='12345e6', cores=2))
    assert set(pg.rows_of(study, tmp_path).commit) == {'12345e6'}
    assert 'commit 12345e6' in text(pg.report_dir(tmp_path).read_text(encoding='utf-8'))

def test_a_curve_shows_its_last_places_alone_and_claims_nothing():
    "Figure 3.5 has one to 51 people: nets on one label and on 51 are not to be pooled."
    study = get_study('thesis-3.5-figure', quick=True)
    rows = rows_for(study)
    rows = rows.assign(attack_curve=[[[0, 1.], [4/255, float(m)]] for m in rows.annotators], s_reliability=rows.reliability)
    runs = rep.arm_rows(study, rows)
    drawn = sec.draw_figures(study, runs)
    ax, = drawn['attack'][0].axes
    names = ['CIFAR-10H, annotators 51', 'Ours (T2, Clamp), annotators 6']
    assert [o.get_text() for o in ax.get_legend().get_texts()] == names
    assert [o[0].get_ydata()[-1] for o in ax.containers] == [51, 6] # not 16.3 and 3.5, the means over all places
    shown = [' '.join(o.get_title(loc='left').split()) for o in drawn['reliability'][0].axes]
    assert [o.split(':')[0] for o in shown if o] == names and all('last place alone' in drawn[k][1] for k in ('attack', 'reliability', 'reliability_s'))
    assert sec.findings(study, runs) == [('The paper prints a figure without numbers, so no claim is tested: see the curves.', [])]
    other = get_study('uai-table2', quick=True)
    assert 'last place' not in sec.draw_figures(other, rep.arm_rows(other, rows_for(other)))['attack'][1]

def test_levels_are_said_as_agreement():
    study = get_study('thesis-4.1', seeds=3)
    rows = rows_for(study)
    rows.loc[rows.labelling == 'uniform', 'ce'] += 5.
    (told, off), = sec.level_lines(study, rep.arm_rows(study, rows), rows)
    n, k, m = map(int, re.fullmatch(r'(\d+) of (\d+) means agree with the published ones, within both intervals; (\d+) do not.', told).groups())
    assert k == 15 and n == k - m and m == len(off) and any(o.startswith('uniform, CE') for o in off)

def test_a_page_tells_the_clock_and_the_sum_apart(tmp_path, no_figures):
    study, rows = demo(quick=True), {o['recipe']: o for o in made(demo(quick=True))}
    def one(r, root=None, device=None): return rows[recipe_hash(r)]
    part = replace(study, arms=study.arms[:2], baseline=None)
    for s in (part, study, study): page = pg.run_study(s, tmp_path, n_jobs=1, device='cpu', progress=False, run=one)
    starts = pg.read_study(tmp_path)[1]['starts']
    assert [(o['runs'], o['jobs']) for o in starts] == [(4, 1), (8, 1)] # the third had nothing to do
    said = text(page.read_text(encoding='utf-8'))
    assert 'summed over runs, that is 0:01:48' in said and re.search(r'By the clock: 4 runs in \S+, 1 side by side; 8 runs in \S+, 1 side by side\. ', said)
    next((tmp_path/'rows').glob('*.json')).unlink()
    d = json.loads((tmp_path/'study.json').read_text())
    (tmp_path/'study.json').write_text(json.dumps(d | dict(starts=[dict(runs=2, jobs=2, seconds=61.2)]))) # and one that was killed
    assert 'By the clock: 2 runs in 0:01:01, 2 side by side. 9 runs more, of starts that were cut off.' in text(pg.report_dir(tmp_path).read_text(encoding='utf-8'))
    pg.run_study(study, tmp_path, n_jobs=1, device='cpu', progress=False, run=one, fresh=True)
    assert [o['runs'] for o in pg.read_study(tmp_path)[1]['starts']] == [12]

SAVED = sorted(o.name for o in (Path(__file__).parent.parent/'nbs'/'tutorials'/'rows').iterdir() if not o.name.startswith('direction-'))

@pytest.mark.parametrize('name', SAVED)
def test_saved_rows_are_whole_and_say_what_their_study_says_now(name):
    "Else `python tools/save_rows.py` writes them anew."
    folder = Path(__file__).parent.parent/'nbs'/'tutorials'/'rows'/name
    study, about = pg.read_study(folder)
    now = get_study(name, quick=study.name.endswith('-quick'))
    assert replace(study, full=now.full) == now and about['command'].startswith(f'hmix run {name}')
    rows = pg.rows_of(study, folder)
    assert list(rows.recipe) == [recipe_hash(r) for r in now.recipes] and np.isfinite(rows[[c for *_, c in rep.columns_of(now)]].astype(float)).all(axis=None)
    assert {'device', 'cpu', 'cores', 'torch', 'commit'} <= set(rows) and rows.commit.notna().all() and not rows.commit.str.contains('dirty').any()

@pytest.mark.parametrize('name', [k for k in STUDIES if k != 'demo'])
def test_a_quick_study_takes_at_most_15_minutes(name):
    "By the rows that are saved, which say how long each run took on two cores, one after another."
    folder = Path(__file__).parent.parent/'nbs'/'tutorials'/'rows'/name
    study, about = pg.read_study(folder)
    rows = pg.rows_of(study, folder)
    assert about['command'].endswith('--quick --jobs 1') and set(rows.cores) == {2} and set(rows.recipe) == {recipe_hash(r) for r in get_study(name, quick=True).recipes}
    assert 0 < rows.seconds.sum() <= 15*60

def test_a_short_report_says_what_a_page_needs(tmp_path, no_figures):
    assert 'No rows of thesis-3.1 are saved here' in text(pg.short_report(tmp_path/'thesis-3.1'))
    study = get_study('thesis-3.1', quick=True)
    pg.write_report(tmp_path/'a', study, rows_for(study, fail=[0]), command='hmix run thesis-3.1 --quick')
    said = text(pg.short_report(tmp_path/'a'))
    for o in ('hmix run thesis-3.1 --quick : 10 of 10 runs, reduced in seed, model, epochs', 'Incomplete: 1 run failed', 'thesis Table 3.1, on CIFAR-10S',
              '2.026 ± 0.18', 'Of 24 printed differences to Hard Labels, 2'): assert o in said, o
    for name in ('thesis-3.5-figure', 'demo'): # a curve, and a study that stands beside nothing
        pg.write_report(tmp_path/name, s := get_study(name, quick=True), rows_for(s))
        assert f'{len(s)} of {len(s)} runs' in (said := text(pg.short_report(tmp_path/name))) and 'printed differences' not in said

def test_rows_are_saved_whole_or_not_at_all(tmp_path):
    study, tool = get_study('thesis-b.2', quick=True), Path(__file__).parent.parent/'tools'/'save_rows.py'
    def saved(): return subprocess.run([sys.executable, tool, tmp_path, 'thesis-b.2', '--to', tmp_path/'to'], capture_output=True, text=True)
    (tmp_path/'thesis-b.2'/'rows').mkdir(parents=True)
    for o in made(study, fail=[0], lose=[3]): (tmp_path/'thesis-b.2'/'rows'/f"{o['recipe']}.json").write_text(json.dumps(o))
    assert saved().returncode == 1 and 'thesis-b.2: 3 of 4 runs, 1 failed; not saved' in saved().stdout and not (tmp_path/'to').exists()
    for o in made(study): (tmp_path/'thesis-b.2'/'rows'/f"{o['recipe']}.json").write_text(json.dumps(o))
    assert saved().returncode == 0
    (tmp_path/'thesis-b.2'/'study.json').write_text(pg.study_json(study, "hmix run thesis-b.2 --quick --out '/my own/x' --jobs 1", starts=[dict(runs=4, jobs=1, seconds=9.)]))
    assert saved().returncode == 0
    again, about = pg.read_study(tmp_path/'to'/'thesis-b.2')
    assert about['command'] == 'hmix run thesis-b.2 --quick --jobs 1' and about['starts'] == [dict(runs=4, jobs=1, seconds=9.)] # no folder of that machine
    assert replace(again, full=study.full) == study and len(pg.rows_of(again, tmp_path/'to'/'thesis-b.2')) == 4

def test_run_study_leaves_a_study_that_can_be_reported_before_it_is_done(tmp_path, no_figures):
    study, rows = demo(quick=True), {o['recipe']: o for o in made(demo(quick=True))}
    def one(r, root=None, device=None):
        assert (tmp_path/'study.json').exists()
        if r.labelling == 'random': raise ValueError('no luck')
        return rows[recipe_hash(r)]
    page = pg.run_study(study, tmp_path, n_jobs=1, device='cpu', progress=False, run=one, command='hmix run demo --quick')
    said = text(page.read_text(encoding='utf-8'))
    assert '10 of 12 runs done, 2 failed, 0 missing' in said and 'random, preact_small, seed 1: ValueError: no luck' in said
    assert 'mixup' in (out := pg.scores_text(study, tmp_path)) and 'Measured on: original' in out and 'Of 15 differences to mixup' in out

# LaTeX

def rows_of_tabular(tex):
    for body in re.findall(r'\\begin\{tabular\}\{(l?r*)\}(.*?)\\end\{tabular\}', tex, re.S):
        for line in [l for l in body[1].splitlines() if l.endswith(r'\\')]:
            spans = sum(int(n)-1 for n in re.findall(r'\\multicolumn\{(\d+)\}', line))
            yield len(body[0]), len(re.split(r'(?<!\\)&', line)) + spans

@pytest.mark.parametrize('name', ['uai-table2', 'thesis-3.1', 'thesis-4.3', 'demo'])
def test_latex_is_whole(tmp_path, name):
    study = get_study(name, quick=True)
    study = replace(study, title=study.title + ' ω_m & 5 % #1 {x} \\y ~^')
    tex = pg.latex(study, rows_for(study, fail=[0]))
    ends = re.findall(r'\\(begin|end)\{(\w+)\}', tex)
    stack = []
    for kind, env in ends: stack.append(env) if kind == 'begin' else None if stack.pop() == env else pytest.fail(env)
    assert not stack and tex.isascii() and tex.count(r'\toprule') == len(study.blocks)*max(1, len(study.tables))
    widths = list(rows_of_tabular(tex))
    assert len(widths) >= len(study.arms) and all(a == b for a, b in widths)
    assert 'What was run' not in tex and (f'runs: {len(study)} (in full {len(study.full)})' in tex or name == 'demo')
    assert not re.search(r'(?<!\\)[#_]', tex.split(r'\begin{document}')[1]) and 'Incomplete: 1 run failed' in tex
    if not shutil.which('pdflatex'): return
    (tmp_path/'t.tex').write_text(tex)
    done = subprocess.run(['pdflatex', '-interaction=nonstopmode', '-halt-on-error', 't.tex'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-800:]

def test_tex_escapes():
    assert su.tex('a_b & 50 % ± ω < λ_h^m') == r'a\_b \& 50 \% $\pm$ $\omega$ $<$ $\lambda$\_h\^{}m'
    assert su.tex('日本 José ≥ ½ Δ ο ά ‑ ’') == "日本 José $\\ge$ ½ Δ ο ά ‑~’".replace('’', "'").replace('‑', '-') # nothing becomes a question mark
    assert su.tex('[a]') == '{[}a{]}' and su.tex('ς ϵ') == 'ς ϵ'
