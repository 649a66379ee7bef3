"Laws of the intervals, and tables of judgments that are refused."
import numpy as np, pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from statsmodels.regression.linear_model import OLS
from hmix_nb.core import check_table
from hmix_nb.stats import bootstrap, crossed_weights, two_way, weighted_quantile

def answers(seed=0, n_people=12, n_stimuli=30, each=10):
    g = np.random.default_rng(seed)
    return pd.DataFrame(dict(participant=np.repeat([f'p{i}' for i in range(n_people)], each),
                             stimulus=g.integers(0, n_stimuli, n_people*each), x=g.normal(size=n_people*each),
                             y=g.normal(size=n_people*each)))

def test_one_way_is_statsmodels_own():
    d = answers()
    ours = two_way(d, 'y', 'x', by='participant')
    fit = OLS(d.y.to_numpy(), np.column_stack([np.ones(len(d)), d.x])).fit(
        cov_type='cluster', cov_kwds=dict(groups=pd.factorize(d.participant)[0]), use_t=True)
    np.testing.assert_allclose(ours.se, fit.bse)
    np.testing.assert_allclose(ours[['low', 'high']], fit.conf_int())
    np.testing.assert_allclose(ours.p, fit.pvalues)

def test_two_way_is_never_narrower_than_one_way():
    for seed in range(20):
        d = answers(seed)
        both = two_way(d, 'y', 'x').se
        for by in ('participant', 'stimulus'): assert (both >= two_way(d, 'y', 'x', by=by).se - 1e-12).all()

def test_duplicated_people_do_not_make_it_surer():
    "Every answer written down twice is no new evidence."
    d = answers()
    np.testing.assert_allclose(two_way(pd.concat([d, d]), 'y').se, two_way(d, 'y').se, rtol=1e-3)

def test_row_order_and_labels_do_not_matter():
    d = answers()
    s = d.sample(frac=1, random_state=3).assign(participant=lambda t: 'x' + t.participant)
    pd.testing.assert_frame_equal(two_way(d, 'y', 'x'), two_way(s, 'y', 'x'))

@pytest.mark.parametrize('by', [[], ['participant', 'stimulus', 'x']])
def test_number_of_groupings(by):
    with pytest.raises(ValueError, match='by: '): two_way(answers(), 'y', by=by)

def test_level_and_missing_values():
    d = answers()
    assert (two_way(d, 'y', level=.5).se == two_way(d, 'y').se).all()
    assert two_way(d, 'y', level=.5).high.iloc[0] < two_way(d, 'y').high.iloc[0]
    with pytest.raises(ValueError, match='level'): two_way(d, 'y', level=2)
    with pytest.raises(ValueError, match="'y' has nan in row 3"): two_way(d.assign(y=d.y.where(d.index != 3)), 'y')

@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(0, 4)), min_size=1, max_size=30), st.floats(0, 1))
def test_weighted_quantile_repeats(rows, q):
    v, w = zip(*rows)
    got = weighted_quantile(v, w, q)
    if sum(w): np.testing.assert_allclose(got, np.quantile(np.repeat(np.array(v, float), w), q), atol=1e-9)
    else: assert np.isnan(got)

def test_weights_multiply():
    d = answers()
    w = crossed_weights(d, 5, seed=3)
    for row in w: # the weights of one person's answers are its own times those of the stimuli
        share = pd.Series(row).groupby(d.stimulus).max()
        assert set(d.stimulus[row > 0]) == set(share.index[share > 0])
    assert (crossed_weights(d, 5, seed=4) != w).any()
    one = crossed_weights(d, 5, by='participant', seed=1)
    assert (pd.DataFrame(one.T).groupby(d.participant).nunique() == 1).all().all() and one.sum(1).tolist() == [len(d)]*5

def test_bootstrap_of_a_series_and_of_one_person():
    d = answers()
    got = bootstrap(d, lambda w: pd.Series(dict(mean=np.average(d.y, weights=w), most=d.y[w > 0].max())), n_boot=50)
    assert list(got.index) == ['mean', 'most'] and (got.low <= got.estimate).all() and (got.n_boot == 50).all()
    alone = d[d.participant == 'p0']
    got = bootstrap(alone, lambda w: np.average(alone.y, weights=w), n_boot=20)
    assert got.low.isna().all() and got.estimate.notna().all()

good = pd.DataFrame(dict(participant=['a', 'b'], lam_h=[0, 1.], lam_raw=[.30000000000000004, 1+1e-12], repeat=[True, False]))

@pytest.mark.parametrize('change, message', [
    (dict(lam_h=[0, 1.01]), r"column 'lam_h' has 1.01 in row 1 \(1 of 2 rows\); allowed is a number in \[0, 1\]"),
    (dict(lam_h=['x', None]), r"'x' in row 0, 1 \(2 of 2 rows\)"),
    (dict(lam_h=[np.inf, 0]), 'inf in row 0'),
    (dict(participant=['a', None]), 'any value but a missing one'),
    (dict(repeat=['yes', True]), "column 'repeat' has 'yes'"), (dict(repeat=['True', 'False']), "column 'repeat' has 'True'")])
def test_table_is_refused(change, message):
    with pytest.raises(ValueError, match=message): check_table(good.assign(**change), *good)

def test_table_is_taken():
    assert check_table(good, *good) is good
    for kind, column in (('object', 'lam_h'), ('category', 'lam_h'), ('object', 'repeat')):
        with pytest.raises(ValueError, match=f'column {column!r} is of type {kind}'): check_table(good.astype({column: kind}), column)
    for nothing in (None, [1], 'df'):
        with pytest.raises(ValueError, match='allowed is a DataFrame'): check_table(nothing, 'lam_h')
    assert check_table(good.assign(lam_h=pd.array([.5, None], 'Float64')), 'lam_h', nan=['lam_h']) is not None
    with pytest.raises(ValueError, match='empty'): check_table(good[:0], 'lam_h')
    with pytest.raises(ValueError, match="no column 'lam_f'.*Did you mean"): check_table(good, 'lam_f')

@pytest.mark.parametrize('values', [['.5', '.6'], [True, False], [1j, 0], [.5, 'x'], pd.array(['.5', '.6'], 'string')])
def test_what_is_no_number_is_no_share(values):
    with pytest.raises(ValueError, match="column 'lam_h'"): check_table(pd.DataFrame(dict(lam_h=values)), 'lam_h')

@pytest.mark.parametrize('values', [[0, 1], pd.array([0, 1], 'Int64'), pd.array([.5, 1], 'Float64'), np.array([.5, 1], np.float32)])
def test_any_kind_of_number_is_a_share(values): check_table(pd.DataFrame(dict(lam_h=values)), 'lam_h')
