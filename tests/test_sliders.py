"Laws of answers on a slider, people who are themselves, and chance that is a function of names."
import subprocess, sys
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from hmix_nb.softlabels.sliders import (SliderLaw, answer, beta_bins, join_keys, mean_product, name_keys, readiness, remaining,
                                        row_of, uniform)

AT = np.arange(101)/100

def laws(mu=(.2, .5, .7), phi=3., heaps=(.2, .1, .3)):
    "One law per mean, with heaps at 0, ½, 1."
    t = (1-sum(heaps))*beta_bins(np.array(mu), np.full(len(mu), phi))
    t[:, [0, 50, 100]] += heaps
    return SliderLaw(t)

@settings(max_examples=40, deadline=None)
@given(st.floats(.001, .999), st.floats(.01, 3000))
def test_bins_sum_to_one_and_keep_the_mean(mu, phi):
    p = beta_bins(np.array([mu]), np.array([phi]))[0]
    assert p.min() >= 0 and p.sum() == pytest.approx(1) and p @ AT == pytest.approx(mu, abs=.0051)
    np.testing.assert_allclose(p[::-1], beta_bins(np.array([1-mu]), np.array([phi]))[0], atol=1e-9)

def test_between_rows():
    law = laws()
    i, w = row_of(np.array([law.mean[0], law.mean[1:].mean(), -1, 2]), law.mean)
    np.testing.assert_allclose(law.at('mean', i, w), [law.mean[0], law.mean[1:].mean(), law.mean[0], law.mean[2]])
    np.testing.assert_allclose(law.at('table', i, w).sum(1), 1)
    assert law.loss(i[:1], w[:1], np.array([0])) == pytest.approx(-np.log(law.table[0, 0]))

@settings(max_examples=25, deadline=None)
@given(st.floats(0, .95), st.floats(0, .95), st.integers(0, 2))
def test_people_together_keep_the_law(s, t, row):
    law, g, n = laws(), np.random.default_rng(0), 60_000
    rows, (a, b) = np.full(n, row), g.normal(size=(2, n))
    k = answer(law, rows, g.random(n), readiness(law.end[rows], s, a), readiness(law.middle[rows], t, b))
    off = np.cumsum(np.bincount(k, minlength=101)/n) - np.cumsum(law.table[row])
    assert np.abs(off).max() < .012

def test_a_quantile_is_a_quantile_for_those_like_the_average():
    law, n = laws(), 20_001
    rows, u = np.full(n, 1), np.linspace(1e-6, 1-1e-6, n)
    k = answer(law, rows, u, law.end[rows], law.middle[rows])
    assert (np.diff(k) >= 0).all() and set(k) == set(range(101))
    np.testing.assert_allclose(np.bincount(k, minlength=101)/n, law.table[1], atol=2e-4)

@pytest.mark.parametrize('p', [1e-9, .03, .5, .97])
@pytest.mark.parametrize('share', [0., .3, .8])
def test_what_is_left_of_a_trait_is_standard_again(p, share):
    g = np.random.default_rng(3)
    trait, u = g.normal(size=(300_000)), g.random(300_000)
    assert readiness(p, share, trait).mean() == pytest.approx(p, abs=.004)
    yes = u < readiness(p, share, trait)
    left = remaining(trait, share, p, yes)
    for o in (left[yes], left[~yes]):
        if len(o) > 3000: assert (o.mean(), o.std()) == pytest.approx((0, 1), abs=.05)
    if share == 0: np.testing.assert_allclose(left, trait)

def test_mean_products_against_a_loop():
    g = np.random.default_rng(0)
    r, o, code, fine = g.normal(size=40), g.normal(size=40), g.integers(0, 6, 40), g.integers(0, 12, 40)
    fine = pd.factorize(code*100 + fine)[0]
    pairs = [(i, j) for i in range(40) for j in range(40) if i != j and code[i] == code[j]]
    assert mean_product(r, code) == pytest.approx(np.mean([r[i]*r[j] for i, j in pairs]))
    assert mean_product(r, code, other=o) == pytest.approx(np.mean([r[i]*o[j] for i, j in pairs]))
    assert mean_product(r, code, fine) == pytest.approx(np.mean([r[i]*r[j] for i, j in pairs if fine[i] != fine[j]]))
    assert np.isnan(mean_product(r, np.arange(40))) and np.isnan(mean_product(r, code, code))
    with pytest.raises(ValueError, match='code'): mean_product(r, code[:5])

def test_chance_is_the_same_on_every_machine():
    "So that a study can be had again; the numbers were written down once."
    u = uniform(name_keys(['cat', 'dog']), 'demo')
    assert u.tolist() == pytest.approx([0.3895953361338444, 0.18319498971627918], abs=1e-15)
    many = uniform(name_keys([f'{i}' for i in range(50_000)]), 'x')
    assert ((many > 0) & (many < 1)).all() and np.histogram(many, 20, (0, 1))[0].std() < 80
    a, b = (uniform(join_keys(name_keys([f'{i}' for i in range(20_000)]), np.arange(20_000) % k), 'x') for k in (2, 3))
    assert abs(np.corrcoef(a[1::6], b[1::6])[0, 1]) > .999 and abs(np.corrcoef(a[2::6], b[2::6])[0, 1]) < .06

def test_even_chance_is_even_over_those_who_occur():
    keys = name_keys(list('abcdabcd'))
    u = uniform(keys, 'x', even=True)
    assert sorted(set(u)) == [.125, .375, .625, .875] and (u[:4] == u[4:]).all()

def test_no_torch():
    code = "import sys, hmix_nb.softlabels.sliders; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
