"Whole soft labels: the released ones, made-up ones, and forms that are refused."
import json
import numpy as np, pandas as pd
import pytest
from hmix_nb.analysis.categorical import (against_votes, answer_summary, endpoint_correlation, off_endpoint_mass, plot_against_votes,
                                          plot_off_endpoint, released_labels, simulate_answers)
from hmix_nb.data.judgments import categorical

BLENDS = pd.DataFrame([[.6, .3, .1], [.4, .3, .3], [.2, .8, 0]], columns=['cat', 'dog', 'frog'],
                      index=pd.Index(['mixed_0.75_Cat_1_Dog_2']*2 + ['mixed_0.25_Cat_1_Dog_2'], name='stimulus'))

def test_mass_by_hand():
    t = off_endpoint_mass(BLENDS)
    np.testing.assert_allclose(t.off, [.2, 0], atol=1e-12)
    np.testing.assert_allclose(t[['mass_a', 'mass_b']], [[.5, .3], [.2, .8]])
    assert t.n.tolist() == [2, 1] and t.lam_f.tolist() == [.75, .25]

def test_correlation_is_numpys():
    t = off_endpoint_mass(BLENDS)
    want = np.corrcoef(np.r_[t.lam_f, 1-t.lam_f], np.r_[t.mass_a, t.mass_b])[0, 1]
    np.testing.assert_allclose(endpoint_correlation(t).estimate.item(), want)

def test_constant_mass_has_no_correlation():
    t = off_endpoint_mass(BLENDS.assign(cat=.5, dog=.5, frog=0.))
    assert endpoint_correlation(t).isna().loc['r', ['estimate', 'low', 'high']].all()

def test_votes_must_know_the_image():
    labels = pd.DataFrame([[1., 0]], index=[5], columns=['a', 'b'])
    with pytest.raises(ValueError, match='number of the image'): against_votes(labels, np.eye(2))
    with pytest.raises(ValueError, match='classes'): against_votes(labels.set_axis([0]), np.eye(3))
    for bad in (None, [1], 5, labels.a):
        with pytest.raises(ValueError, match='labels: found'): against_votes(bad, np.eye(2))
        with pytest.raises(ValueError, match='labels: found'): off_endpoint_mass(bad)

def test_simulated_answers_have_the_columns_of_the_reader(hub):
    made = simulate_answers(np.eye(10)[:3])
    assert set(made) == set(categorical(hub, 'cifar-10s'))
    assert (made['first'] == made.class_a).mean() > .9 # of images that are clear
    assert answer_summary(made).value['own_class'] > .9

def test_labels_are_checked(tmp_path):
    f = tmp_path/'l.json'
    f.write_text(json.dumps({'3': [[1.5, -.5]]}))
    with pytest.raises(ValueError, match='l.json: found 1.5'): released_labels(f, 'cifar-10s', classes=('a', 'b'))

def test_figures_say_what_they_found():
    assert 'not blended' in plot_off_endpoint(off_endpoint_mass(BLENDS)).get_title(loc='left')
    c = against_votes(pd.DataFrame([[.5, .5]], index=[0], columns=['a', 'b']), np.array([[1., 0]]))
    assert '100%' in plot_against_votes(c).get_title(loc='left').replace('\n', ' ')

def test_released(hub):
    labels = released_labels(hub, 'cifar-10s')
    assert len(labels) == 6723 and labels.index.nunique() == 1000
    c = against_votes(labels, np.load(hub.path('cifar-10h/cifar10h-probs.npy')))
    np.testing.assert_allclose(c.wasserstein[[2047, 861, 9681]], [.1291, .1235, .1136], atol=5e-5)
    said = answer_summary(categorical(hub)).value
    assert (said.participants, said.stimuli, said.answers, said.repeats) == (8, 100, 216, 16)

def test_a_blend_of_one_class_counts_it_once():
    same = pd.DataFrame([[.3, .7]], columns=['cat', 'dog'], index=['mixed_0.5_Cat_1_Cat_2'])
    assert off_endpoint_mass(same).off.tolist() == [.7]
