"Made-up studies on known curves: means, variation, design, and how often intervals have the truth inside."
import subprocess, sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
import numpy as np, pandas as pd, pytest
from scipy.special import expit
from hmix_nb.analysis.recovery import INTERVALS, _intervals, components, coverage, hmix_design, plot_coverage, simulate_study
from hmix_nb.mixing.fits import PairFits, fit_pairs
from hmix_nb.softlabels.blends import Variation

PAIRS = list(combinations('abcdefghij', 2))
STILL = Variation(end=-30., middle=-30., focus=9., focus_gain=0., stray=-30.) # everybody alike, nothing rounded to a heap

@pytest.fixture(scope='module')
def truth():
    g = np.random.default_rng(0)
    return pd.DataFrame(dict(k=g.normal(4.7, .6, 45), x0=g.normal(.52, .05, 45)), index=pd.MultiIndex.from_tuples(PAIRS))

@pytest.fixture(scope='module')
def design(): return hmix_design(PAIRS)

def test_without_variation_answers_are_the_curve(truth, design):
    df = simulate_study(truth, design, STILL)
    t = truth.loc[list(zip(df.class_a, df.class_b))]
    assert (df.lam_h - expit(t.k.to_numpy()*(df.lam_f - t.x0.to_numpy()))).abs().max() <= .05
    assert (fit_pairs(df).table[['k', 'x0']] - truth).abs().max().tolist() == pytest.approx([0, 0], abs=.15)

def test_the_design_is_that_of_hmix(design):
    main = design[~design['repeat']]
    assert (design.participant.nunique(), design.stimulus.nunique(), design['repeat'].sum()) == (81, 2070, 162)
    assert (main.groupby(['class_a', 'class_b']).stimulus.nunique() == 46).all()
    assert set(main.groupby('stimulus').size()) == {2, 3} and not main.duplicated(['participant', 'stimulus']).any()
    assert design.groupby('participant').size().between(58, 62).all()
    again = design[design['repeat']].merge(main, on=['participant', 'stimulus'])
    assert len(again) == 162 and set(again.position_y) == {15, 20}
    assert len(design[['class_a', 'id_a', 'class_b', 'id_b']].drop_duplicates()) == 1530
    pd.testing.assert_frame_equal(design, hmix_design(PAIRS))
    assert not design.equals(hmix_design(PAIRS, seed=1))

def test_people_and_blends_return_as_they_were(truth, design):
    "With one source of variation at a time, what shares it is alike and the rest is not."
    none = dict(image=0., blend=0., view=0.)
    for source, same in dict(image=['class_a', 'id_a', 'class_b'], blend=['stimulus'], view=['participant', 'stimulus']).items():
        v = Variation(end_person=0., middle_person=0., **none | {source: 1.})
        df = simulate_study(truth.assign(k=0., x0=.5), design, v, seed=3)
        values = df.lam_h.groupby([df[c] for c in same])
        assert values.agg(np.ptp).max() <= .011 and df.lam_h.std() > .1
        assert (values.size() > 1).sum() > 100

def test_people_return_as_they_were(truth, design):
    for trait, heaps in dict(end_person=(0, 1), middle_person=(.5,)).items():
        v = Variation(**dict(end_person=0., middle_person=0., image=0., blend=0., view=0.) | {trait: .95})
        often = [simulate_study(truth, design, o, seed=3).lam_h.isin(heaps).groupby(design.participant).mean().std() for o in (v, replace(v, **{trait: 0.}))]
        assert often[0] > 2*often[1] > .04

def test_seeds(truth, design):
    a, b, c = (simulate_study(truth, design, seed=i).lam_h for i in (1, 1, 2))
    assert a.equals(b) and not a.equals(c)

def test_any_table_is_a_design(truth):
    few = pd.DataFrame(dict(participant=['p', 'q']*6, stimulus=np.repeat(list('uvwxyz'), 2), class_a='a', class_b='b',
                            lam_f=np.repeat([.2, .5, .8, .2, .5, .8], 2)), index=range(100, 112))
    df = simulate_study(truth, few)
    assert df.index.equals(few.index) and df.lam_h.between(0, 1).all()
    for wrong, says in ((few.assign(class_a='b', class_b='a'), "no curve for .'b', 'a'., in this order"),
                        (few.drop(columns='lam_f'), 'lam_f'), (few.assign(lam_f=1.2), 'lam_f')):
        with pytest.raises(ValueError, match=says): simulate_study(truth, wrong)

def test_bad_truths(truth, design):
    with pytest.raises(ValueError, match='truth: k'): simulate_study(truth.assign(k=np.nan), design)
    with pytest.raises(ValueError, match="truth: no column 'x0'"): simulate_study(truth[['k']], design)
    with pytest.raises(ValueError, match="found 'b' before 'a'"): simulate_study(truth.swaplevel(), design)

@pytest.mark.parametrize('name', INTERVALS)
def test_what_is_counted_is_the_band_that_is_stated(truth, design, name):
    (pooling, robust), lam = INTERVALS[name], np.linspace(0, 1, 7)
    fits = fit_pairs(simulate_study(truth, design), pooling=pooling)
    _, _, low, high = _intervals(fits, truth.index, robust, lam, .9)
    for i, (a, b) in enumerate(truth.index[::9]):
        stated = fits.curve(a, b, lam, level=.9, robust=robust)
        np.testing.assert_allclose(np.stack([low[9*i], high[9*i]]), stated[['low', 'high']].to_numpy().T, rtol=1e-6)

def test_coverage_of_twenty_studies(truth):
    r = coverage(20, truth)
    band = r.table.covered[:, 'band']
    assert list(r.table.index.levels[0]) and set(band.index) == set(INTERVALS)
    assert .9 <= band['two-way robust'] <= .98 and band['curve_fit'] < .9
    np.testing.assert_allclose(r.studies.mean(), r.table.covered)
    assert (r.table.low <= r.table.covered).all() and (r.table.covered <= r.table.high).all()
    pd.testing.assert_frame_equal(r.table, coverage(20, truth).table)
    assert '20 studies' in repr(r) and '<table' in r._repr_html_()
    plot_coverage(r).figure.canvas.draw()

def test_answers_that_are_news_are_covered_by_all(truth, design):
    "Where nobody and nothing returns, the plain interval keeps its promise, so what fails it above is what returns."
    alone = design.assign(participant=np.arange(len(design)), stimulus=[f's{i}' for i in range(len(design))],
                          id_a=np.arange(len(design)), id_b=np.arange(len(design)))
    band = coverage(20, truth, design=alone).table.covered
    assert .92 <= band['curve_fit', 'band'] <= .97 and .92 <= band['two-way robust', 'band'] <= .97

def test_a_pair_that_cannot_be_fitted_is_not_covered(truth, design):
    one = design[(design.class_a != 'a') | (design.class_b != 'b') | (design.lam_f == .5)]
    full, less = (coverage(2, truth, design=d).table.covered for d in (design, one))
    assert less['two-way robust', 'band'] <= 44/45 and np.isfinite(less).all()

def test_bench_runs(tmp_path):
    script = Path(__file__).resolve().parent.parent/'bench'/'coverage.py'
    out = subprocess.run([sys.executable, script, '--studies', '4'], cwd=tmp_path, capture_output=True, text=True)
    assert '4 studies, intervals of 95%' in out.stdout and out.returncode in (0, 1) and not out.stderr, out.stderr

def test_no_torch():
    code = "import sys, hmix_nb.analysis.recovery, hmix_nb.analysis.prediction; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

def test_simulated_people_vary_as_those_of_hmix(hub):
    from hmix_nb.data.judgments import coefficient
    real = coefficient(hub)
    fits = fit_pairs(real)
    sim = pd.concat([components(simulate_study(fits, real, seed=i)) for i in range(8)], axis=1).mean(axis=1)
    diff = sim - components(real)
    assert diff[[o for o in diff.index if o.startswith('share')]].abs().max() < .05
    assert diff[['standard deviation', 'distance of a repeat', 'at 0', 'at ½', 'at 1']].abs().max() < .05
    assert diff[['correlation with a repeat', 'at ½ where λ is ½']].abs().max() < .05
    assert diff[['spread between people at 0 or 1', 'spread between people at ½']].abs().max() < .03
