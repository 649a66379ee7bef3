"What labels hold: built from answers, beside votes, by variety, and by person."
import subprocess, sys
import numpy as np, pandas as pd, pytest
from hmix_nb.analysis.categorical import (against_votes, answer_classes, build_labels, example_blends, off_endpoint_mass, plot_blends,
                                          released_labels, simulate_answers, stimulus_image)
from hmix_nb.analysis.labels import (annotator_summary, annotators, pick_examples, plot_annotators, plot_entropies, plot_examples,
                                     plot_varieties, telling_answer, varieties)
from hmix_nb.core import CIFAR10, Stimulus
from hmix_nb.data.images import ImageSet
from hmix_nb.data.judgments import categorical
from hmix_nb.softlabels.construct import match_labels, soft_labels

def title(ax): return ax.figure.get_suptitle() or ax.get_title(loc='left')

@pytest.fixture(scope='module')
def single():
    p = np.random.default_rng(0).dirichlet(np.full(10, .2), 50)
    return simulate_answers(p, n_people=5), p, ImageSet(np.zeros((50, 8, 8, 3), np.uint8), p.argmax(1))

@pytest.fixture(scope='module')
def blends():
    g, rows = np.random.default_rng(1), []
    for k in range(20):
        a, b = sorted(g.choice(10, 2, replace=False))
        rows.append((Stimulus(g.choice([.25, .5, .75]), CIFAR10[a], k, CIFAR10[b], k+20), a, b))
    p = np.stack([s.lam_f*np.eye(10)[a] + (1-s.lam_f)*np.eye(10)[b] for s, a, b in rows])*.8 + .02
    parts = pd.DataFrame([dict(stimulus=str(s), **vars(s)) for s, *_ in rows])
    return simulate_answers(p, index=parts.stimulus).drop(columns=['class_a', 'id_a']).merge(parts, on='stimulus')

def test_labels_built_in_the_order_of_the_answers(single, blends):
    df = single[0]
    y = build_labels(df, variety='T1', spread='uniform')
    assert y.index.tolist() == df.id_a.tolist() and list(y) == list(CIFAR10)
    np.testing.assert_array_equal(y, soft_labels(df, 'T1', 'uniform'))
    assert build_labels(blends).index.tolist() == blends.stimulus.tolist()

def test_labels_of_the_answers_that_can_be_read(single, blends):
    for df, key in ((single[0], 'id_a'), (blends, 'stimulus')):
        bad = df.assign(first=['kat', *df['first'][1:]], second_prob=[*df.second_prob[:-1], 2.])
        with pytest.raises(ValueError, match="row 0: first: 'kat' is unknown"): build_labels(bad, CIFAR10)
        with pytest.raises(ValueError, match="classes: needed with errors='collect'"): build_labels(bad, errors='collect')
        built = build_labels(bad, CIFAR10, errors='collect', rule='clean')
        labels, left_out = built
        assert labels.index.tolist() == df[key][1:-1].tolist() and left_out.index.tolist() == [0, len(df)-1]
        assert built.kept.tolist() == list(range(1, len(df)-1))
        pd.testing.assert_frame_equal(labels, build_labels(df, rule='clean')[1:-1])
    for bad, told in [(None, 'df: found NoneType'), (df.drop(columns='stimulus'), "no column 'stimulus'"),
                      (df.assign(stimulus=[None, *df.stimulus[1:]]), "column 'stimulus' has"),
                      (df.assign(impossible='ship'), "'impossible' has 'ship'")]:
        with pytest.raises(ValueError, match=told): build_labels(bad)

def test_classes_of_a_study(single):
    df = single[0]
    assert answer_classes(df) == CIFAR10
    pie = df.assign(first='pie', second=None, impossible=[()]*len(df), class_a='cake')
    assert answer_classes(pie) == ('cake', 'pie')

def test_blends_that_are_not_named_after_their_parts(blends):
    names = {k: f'blend {i}' for i, k in enumerate(blends.stimulus.unique())}
    other, mine = blends.assign(stimulus=blends.stimulus.map(names)), off_endpoint_mass(build_labels(blends))
    theirs = off_endpoint_mass(build_labels(other), other)
    np.testing.assert_allclose(theirs.off, mine.off)
    with pytest.raises(ValueError, match='is no stimulus id'): off_endpoint_mass(build_labels(other))
    with pytest.raises(ValueError, match="class_b: 'pie' is unknown"): off_endpoint_mass(build_labels(other), other.assign(class_b='pie'))

def test_fig_9(blends):
    x = np.random.default_rng(2).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    images, labels = ImageSet(x, np.zeros(40, int)), build_labels(blends)
    name = blends.stimulus[0]
    s = Stimulus.parse(name)
    np.testing.assert_allclose(stimulus_image(images, s), s.lam_f*x[s.id_a] + (1-s.lam_f)*x[s.id_b], atol=.51)
    axs = plot_blends(labels, images, [name])
    assert f'{off_endpoint_mass(labels).off[name]:.0%}' in title(axs[0, 0])
    heights = [p.get_height() for p in axs[1, 0].patches]
    np.testing.assert_allclose(heights[:10], labels.loc[name].mean())
    np.testing.assert_allclose(heights[10:], s.lam_f*np.eye(10)[CIFAR10.index(s.class_a)] + (1-s.lam_f)*np.eye(10)[CIFAR10.index(s.class_b)])
    with pytest.raises(ValueError, match='number of the image'): plot_blends(labels, ImageSet(x[:3], np.zeros(3, int)))
    with pytest.raises(ValueError, match="names: 'nothing' is unknown"): plot_blends(labels, images, ['nothing'])
    other = blends.assign(stimulus=blends.stimulus.map({k: f'b{i}' for i, k in enumerate(blends.stimulus.unique())}))
    again = plot_blends(build_labels(other), images, ['b0'], other) # a study whose names do not say what was blended
    np.testing.assert_array_equal(again[0, 0].images[0].get_array(), axs[0, 0].images[0].get_array())
    assert [p.get_height() for p in again[1, 0].patches] == heights and title(again[0, 0]) == title(axs[0, 0])
    with pytest.raises(ValueError, match="answers: no column 'id_b'"):
        plot_blends(build_labels(other), images, ['b0'], other.drop(columns='id_b'))
    mass = off_endpoint_mass(labels).assign(class_a='cat', class_b='dog')
    assert example_blends(mass, n=2) == mass.off.nlargest(2).index.tolist()

def test_examples_are_what_they_are_said_to_be(single):
    df, p, images = single
    labels = build_labels(df)
    c, truth = against_votes(labels, p), pd.Series([CIFAR10[k] for k in images.y])
    picked = pick_examples(labels, p, truth, [('a', 'differs', None)]*3 + [('b', 'softens', 'cat'), ('c', 'differs', 'cat')])
    assert picked.image[:3].tolist() == c.wasserstein.nlargest(3).index.tolist()
    cats = c[(truth == 'cat').reindex(c.index)]
    assert picked.image[3] == (cats.entropy - cats.entropy_votes)[cats.top_agrees].idxmax()
    assert picked.image[4] == cats.wasserstein.idxmax() and picked.chosen[4].endswith('cats')
    anything = pick_examples(labels, p, truth.replace('cat', 'kat'), [('b', 'softens', 'cat')])
    assert 'cats' not in anything.chosen[0]
    assert 'from votes' in title(plot_examples(picked, labels, p, images)[0, 0])
    with pytest.raises(ValueError, match='wanted'): pick_examples(labels, p, truth, [('a', 'odd', None)])
    with pytest.raises(ValueError, match='picked: image'): plot_examples(picked.assign(image=99), labels, p, images)

def test_varieties(single):
    df, p, _ = single
    t = varieties(df, p)
    y = pd.DataFrame(soft_labels(df, 'T1', 'uniform'), df.id_a).groupby(level=0).mean()
    h = -(y*np.log(y.where(y > 0, 1))).sum(axis=1).mean()
    assert len(t) == 6 and t.loc[('T1', 'uniform'), 'mean'] == pytest.approx(h)
    assert (t.loc[:, ['one', 'mean']].diff(axis=1)['mean'] > 0).all() # a mean of labels is softer than they are
    assert list(varieties(df)) == ['one', 'mean', 'top']
    assert len(varieties(df.replace('cat', 'kat').assign(impossible=[()]*len(df)))) == 4 # no similarity of such classes is at hand

def test_votes_are_shares(single):
    df, p, images = single
    y, gone, less = build_labels(df), p.copy(), p.copy()
    gone[3], less[4, 0] = np.nan, -.1
    picked = pick_examples(y, p, pd.Series([CIFAR10[k] for k in images.y]), [('a', 'differs', None)])
    for probs, told in [(p*51, r'probs: row 0 is .* of sum 51 \(50 of 50 rows\); allowed are shares'), (gone, 'probs: row 3 is .nan, .* of sum nan'),
                        (less, 'probs: row 4 is .-0.1'), (np.full(50, .1), r'probs: found shape \(50,\)')]:
        for call in (against_votes, lambda _, o: varieties(df, o), lambda _, o: pick_examples(y, o, pd.Series(['cat']*50))):
            with pytest.raises(ValueError, match=told): call(y, probs)
    with pytest.raises(ValueError, match='probs: row'): plot_examples(picked, y, p*51, images)
    with pytest.raises(ValueError, match=rf'labels: row {y.index[0]} is .* of sum 2 '): against_votes(y*2, p)
    with pytest.raises(ValueError, match='labels: row 7 is .nan'): against_votes(y.mul(np.where(y.index == 7, np.nan, 1), axis=0), p)
    unseen = p.copy()
    unseen[0] = np.nan # nobody's votes, and no label asks for them
    assert len(against_votes(y[y.index != 0], unseen)) == 49

def test_counts_of_votes_are_no_shares(hub):
    y = build_labels(categorical(hub, 'cifar-10s'))
    with pytest.raises(ValueError, match=r'probs: row \d+ is \[.*1000 of 1000 rows'): against_votes(y, np.load(hub.path('cifar-10h/cifar10h-counts.npy')))

def test_figure_of_varieties(single, blends):
    df, p, images = single
    k = telling_answer(df)
    assert df.second.iloc[k] != df['first'].iloc[k]
    axs = plot_varieties(df, images)
    for ax, how in zip(axs[1:], [('T1', 'uniform'), ('T1', 'clamp'), ('T2', 'uniform'), ('T2', 'clamp')]):
        np.testing.assert_allclose([b.get_height() for b in ax.patches], soft_labels(df.iloc[[k]], *how)[0])
    for f in (telling_answer, plot_varieties, varieties):
        with pytest.raises(ValueError, match='errors: not allowed here'): f(df, errors='collect')
    assert 'nats' in title(axs[0]) and len(plot_varieties(blends, images, at=3)[0].images) == 1

def test_people():
    df = pd.DataFrame(dict(participant=list('aab'), class_a='cat', first=['cat', 'dog', 'cat'], second=[None, 'cat', None],
                           first_prob=[1., .5, .8], rt_s=[10, 30, np.nan], repeat=[False, True, False], position=[0, 1, 0], stimulus='x',
                           impossible=[()]*3, second_prob=[np.nan, .5, np.nan]))
    t = annotators(df)
    assert t.loc['a'].to_dict() == dict(answers=2, accuracy=.5, accuracy_2=1, first_prob=.75, median_s=20, same=0)
    assert t.loc['b', ['accuracy', 'accuracy_2']].tolist() == [1, 1] and t.loc['b', ['same', 'median_s']].isna().all()
    assert annotators(df.drop(columns=['rt_s', 'repeat']))[['same', 'median_s']].isna().all(axis=None)
    blend = df.assign(class_b='dog')
    assert annotators(blend).accuracy.tolist() == [1, 1]
    assert annotator_summary(df).loc['accuracy', ['mean', 'min', 'max']].tolist() == [.75, .5, 1]
    assert '75%' in title(plot_annotators(df)[0]) and 'takes 20 s' in title(plot_annotators(df)[1]).replace('\n', ' ')

def test_no_torch():
    code = "import sys, hmix_nb.analysis.labels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

def test_released(hub):
    probs = np.load(hub.path('cifar-10h/cifar10h-probs.npy'))
    for study in ('h-mix', 'cifar-10s'):
        df, theirs = categorical(hub, study), released_labels(hub, study)
        assert match_labels(build_labels(df, rule=study), theirs).max() < 1e-12
    picked = pick_examples(theirs, probs, df.drop_duplicates('id_a').set_index('id_a').class_a)
    assert picked.image.tolist() == [6995, 861, 4701, 2549, 2047, 861, 9681, 5963, 31, 5302]
    assert picked['class'].tolist() == ['automobile', 'frog', 'airplane', 'frog', 'dog', 'frog', 'bird', 'truck', 'dog', 'airplane']
    people = annotators(df)
    np.testing.assert_allclose(people[['accuracy', 'accuracy_2']].mean(), [.8434886499402628, .9196535244922341]) # as their notebook says
    c = against_votes(theirs, probs)
    plot_entropies(theirs, c)
    assert c.entropy.mean() == pytest.approx(.6934089) and c.entropy_votes.mean() == pytest.approx(.46187015)
