"What a run is fed: the papers' counts, labels rebuilt by hand, and nothing of what is scored among what is trained on."
import json, random, re
import numpy as np
import pytest
import torch
from hmix_nb.core import CIFAR10, rng
from hmix_nb.data.hub import DataHub
from hmix_nb.data.images import cifar10_test, cifar10h, cifar10s_split, digits, split
from hmix_nb.data.judgments import coefficient
from hmix_nb.data.pool import LabelPool
from hmix_nb.study import material as room
from hmix_nb.softlabels.training import TRAIN_ON, carve, choose, clean_labels, placed, smoothed
from hmix_nb.study.material import digit_answers, digit_material, digit_pool, held_sets, hmix_material

def rows_of(pool, i): return pool.rows[torch.as_tensor(pool.image == i)]
def cifar10s_ids(hub): return sorted(int(k) for k in json.loads(hub.path('cifar-10s/human_soft_labels_data.json').read_text()))

# what anybody can rebuild from the released files: the algorithm of the release, for one answer at a time

def by_hand(answer, top2=True, clamp=True, gamma=.1):
    names = [c.capitalize() for c in CIFAR10]
    v = np.zeros(10)
    v[names.index(answer['Most Probable Class'])] = answer['Most Probable Class Prob']
    second, q = answer['Second Most Probable Class'], answer['Second Most Probable Class Prob']
    if top2 and second in names and q is not None: v[names.index(second)] = q
    v, possible = v/100, [i for i, c in enumerate(names) if c not in answer['Impossible Class(es)']]
    m, damp = len(possible) - (v > 0).sum(), False
    rho = 1 - v.sum() if v.sum() < 1 else 0
    if v.sum() >= 1:
        v = v/v.sum()
        if clamp and m != 0: rho, damp = gamma, True
    empty = v == 0
    if clamp and m != 0:
        if damp: v = v*(1-rho)
        for i in possible:
            if empty[i]: v[i] += rho/m
    elif not clamp and empty.any(): v[empty] = rho/empty.sum()
    return v/v.sum()

@pytest.mark.parametrize('variety, spread', [('T2', 'clamp'), ('T1', 'clamp'), ('T2', 'uniform'), ('T1', 'uniform')])
def test_labels_are_those_of_the_released_algorithm(hub, variety, spread):
    answers = json.loads(hub.path('cifar-10s/human_soft_labels_data.json').read_text())
    how = dict(labels='cifar-10s', construct=dict(variety=variety, spread=spread))
    mean, each = (hmix_material(hub, draw=d, **how) for d in ('mean', 'one'))
    for i in [0, *map(int, rng(0).choice(cifar10s_ids(hub), 40, replace=False))]:
        if str(i) not in answers: continue
        want, at = np.stack([by_hand(a, variety == 'T2', spread == 'clamp') for a in answers[str(i)]]), int(np.flatnonzero(mean.ids == i)[0])
        np.testing.assert_allclose(mean.y[at].numpy(), want.mean(0), atol=2e-7)
        got = rows_of(each.y, at).numpy()
        np.testing.assert_allclose(sorted(got.round(5).tolist()), sorted(want.round(5).tolist()), atol=2e-5) # in any order

def test_gamma_and_rule_reach_the_labels(hub):
    def label(**construct): return hmix_material(hub, labels='cifar-10s', construct=construct).y
    base = label()
    assert torch.equal(base, label(gamma=.1, rule='cifar-10s', variety='T2', spread='clamp'))
    for k in (dict(gamma=.3), dict(rule='h-mix'), dict(spread='semantic')): assert not torch.equal(base, label(**k)) and (label(**k).sum(1)-1).abs().max() < 1e-5

@pytest.mark.parametrize('train_on, n, n_soft', [('all', 7000, 1000), ('split', 6900, 900), ('split+held', 7000, 900), ('soft', 900, 900)])
def test_counts_and_order(hub, train_on, n, n_soft):
    m = hmix_material(hub, train_on=train_on, labels='uniform', seed=3)
    ids, images = cifar10s_ids(hub), cifar10_test(hub)
    held = random.Random(3).sample(ids, 100)
    train = [i for i in split(hub)[0] if i not in held] if train_on == 'split' else list(split(hub)[0])
    if train_on == 'soft': train = [i for i in train if i in set(ids) - set(held)]
    assert m.ids.tolist() == train and len(m.x) == len(m.y) == n
    np.testing.assert_array_equal(m.x.numpy(), images.x[m.ids])
    soft = (m.y.max(1).values < .2).numpy()
    assert soft.sum() == n_soft and set(m.ids[soft]) <= set(ids)
    if train_on != 'all': assert not set(m.ids[soft]) & set(held)
    np.testing.assert_array_equal(m.y[~soft].argmax(1), images.y[m.ids[~soft]]) # all others have their class
    assert (m.y[~soft].max(1).values == 1).all()

@pytest.mark.parametrize('labelling', ['mixup', 'relabel+omega'])
def test_no_leak_of_the_100(hub, labelling):
    m = hmix_material(hub, train_on='split', labelling=labelling, separate=True, score_s=True, seed=5)
    held = set(cifar10s_split(hub, 5)[1])
    seen = {o.tobytes() for o in m.x.numpy()}
    s = m.sets[1]
    assert s.name == 'CIFAR-10S' and len(s) == 100 and not any(o.numpy().tobytes() in seen for o in s.x)
    t = m.stimuli.table
    shows = t.id_a.isin(held) | t.id_b.isin(held)
    assert m.blends_left_out == shows.sum() > 0 and len(m.blends_x) == len(m.blends_y) == 2070 - shows.sum()
    torch.testing.assert_close(m.blends_x, m.stimuli.images()[torch.as_tensor(~shows.to_numpy())])

def test_the_100_are_never_scored_where_they_are_trained_on_unsaid(hub):
    with pytest.raises(ValueError, match='score_s: .*trains on the 100'): hmix_material(hub, score_s=True)
    m = hmix_material(hub, train_on='split+held', labels='cifar-10s', score_s=True, seed=1) # the thesis's printed count, asked for by name
    at = np.isin(m.ids, cifar10s_split(hub, 1)[1])
    assert at.sum() == 100 and (m.y[at].max(1).values == 1).all()

def test_split_seed_is_the_runs_unless_it_is_given(hub):
    ids = [hmix_material(hub, train_on='split', **k).ids.tolist() for k in (dict(seed=4), dict(split_seed=4, seed=9), dict(seed=9))]
    assert ids[0] == ids[1] != ids[2]

def test_fewer_soft_images_are_some_of_more(hub):
    a, b, c = (set(hmix_material(hub, train_on='soft', n_soft=n, labels='cifar-10s', seed=2).ids) for n in (250, 500, 900))
    assert (len(a), len(b), len(c)) == (250, 500, 900) and a < b < c == set(cifar10s_split(hub, 2)[0])
    assert a != set(hmix_material(hub, train_on='soft', n_soft=250, split_seed=2, seed=3).ids)
    with pytest.raises(ValueError, match='n_soft: found 901'): hmix_material(hub, train_on='soft', n_soft=901)

def test_votes_are_drawn_in_proportion(hub):
    m = hmix_material(hub, labels='cifar-10h', draw='one')
    counts, told = cifar10h(hub, counts=True), np.isin(m.ids, cifar10s_ids(hub))
    np.testing.assert_allclose(m.y.mean()[told].numpy(), cifar10h(hub)[m.ids[told]], atol=1e-6)
    at = int(np.flatnonzero(told)[cifar10h(hub)[m.ids[told]].max(1).argmin()]) # the least clear image
    drawn = m.y.draw(torch.full((20_000,), at), torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {0, 1}
    want = counts[m.ids[at]]/counts[m.ids[at]].sum()
    assert np.abs(drawn.mean(0).numpy() - want).max() < .015
    hard = int(np.flatnonzero(~told)[0])
    assert m.y.draw(torch.full((50,), hard)).unique(dim=0).shape[0] == 1

@pytest.mark.parametrize('labels, per', [('cifar-10h', 47), ('cifar-10s', 6)])
def test_annotators_are_taken_once_without_replacement(hub, labels, per):
    def pool(m, seed=0): return hmix_material(hub, labels=labels, draw='one', annotators=m, train_on='split', split_seed=0, seed=seed).y
    everybody, two, again, other = pool(0), pool(2), pool(2), pool(2, seed=1)
    torch.testing.assert_close(two.rows, again.rows)
    assert not torch.equal(two.mean(), other.mean())
    def answers(p): return np.bincount(p.image, weights=p.row_weights, minlength=len(p)).astype(int)
    soft = answers(everybody) > 1
    assert soft.sum() == 900 and set(answers(two)[soft]) == {2} and (answers(two)[~soft] == 1).all() and answers(everybody)[soft].min() == per
    for i in np.flatnonzero(soft)[:20]: # what is taken was there, and no more often than it was
        have = [tuple(r) for r, n in zip(rows_of(everybody, i).tolist(), everybody.row_weights[everybody.image == i]) for _ in range(int(n))]
        for r, n in zip(rows_of(two, i).tolist(), two.row_weights[two.image == i]):
            for _ in range(int(n)): have.remove(tuple(r))
    mean = hmix_material(hub, labels=labels, draw='mean', annotators=2, train_on='split', split_seed=0).y
    torch.testing.assert_close(mean, two.mean())

def test_random_labels_are_drawn_once_per_image_and_run(hub):
    one, same, other = (hmix_material(hub, train_on='split', split_seed=0, labels='random', seed=s) for s in (0, 0, 1))
    assert torch.equal(one.y, same.y)
    soft = np.isin(one.ids, cifar10s_split(hub, 0)[0])
    assert (one.y[soft] != other.y[soft]).any(1).all() and torch.equal(one.y[~soft], other.y[~soft])
    few = hmix_material(hub, train_on='soft', n_soft=50, split_seed=0, labels='random')
    assert torch.equal(few.y, one.y[np.isin(one.ids, few.ids)]) # whichever others are trained on
    u = one.y[soft]
    assert (u.sum(1) - 1).abs().max() < 1e-6 and abs(float(u.mean()) - .1) < 1e-6 and .04 < float(u.std()) < .065 # of 10 U(0,1) over their sum

@pytest.mark.parametrize('form, true, other', [('mixed', .955, .005), ('added', 1., .05)])
def test_smoothing_in_both_forms(hub, form, true, other):
    soft, everywhere = (hmix_material(hub, train_on='split', smoothing=.05, smoothing_form=form, smooth_on=o).y for o in ('soft', 'all'))
    assert (soft.max(1).values < 1 if form == 'mixed' else soft.sum(1) > 1.4).sum() == 900
    torch.testing.assert_close(everywhere.max(1).values, torch.full((6900,), true))
    torch.testing.assert_close(everywhere.min(1).values, torch.full((6900,), other))
    drawn = hmix_material(hub, train_on='split', labels='cifar-10s', draw='one', smoothing=.05, smoothing_form=form).y
    plain = hmix_material(hub, train_on='split', labels='cifar-10s').y
    at = plain.max(1).values < 1
    torch.testing.assert_close(drawn.mean()[at], .95*plain[at] + (.005 if form == 'mixed' else .05))

def test_smoothing_leaves_its_input():
    pool = LabelPool([[1., 0.], [0., 1.]], [0, 1])
    new = smoothed(pool, .2)
    assert pool.rows.max() == 1 and new.rows.max() == pytest.approx(.9) and torch.equal(smoothed(pool, 0.).rows, pool.rows)

def test_blends_are_those_that_people_judged(hub):
    m = hmix_material(hub, labelling='relabel', subset='all')
    assert len(m.blends_x) == 2070 and m.blends_left_out == 0
    at = m.stimuli.names.index('mixed_0.75_Airplane_74_Dog_3610')
    x = cifar10_test(hub).x
    torch.testing.assert_close(m.blends_x[at].permute(1, 2, 0).numpy(), ((.75*x[74] + .25*x[3610])/255).astype(np.float32), atol=1e-6, rtol=0)
    assert float(m.blends_y[at, 0]) == pytest.approx(.583333, abs=1e-6) and float(m.blends_y[at, 5]) == pytest.approx(.416667, abs=1e-6)
    sure = hmix_material(hub, labelling='relabel+omega').blends_y[at]
    assert (float(sure[0]), float(sure[5]), float(sure[1])) == pytest.approx((.546655, .392636, .007589), abs=1e-6)
    each = hmix_material(hub, labelling='relabel', separate=True).blends_y
    df = coefficient(hub)
    lam = df[df.stimulus == 'mixed_0.75_Airplane_74_Dog_3610'].lam_h
    assert sorted(rows_of(each, at)[:, 0].tolist()) == pytest.approx(sorted(lam), abs=1e-6)
    thesis = hmix_material(hub, labelling='mixup', subset='thesis')
    t = thesis.stimuli.table
    assert len(thesis.blends_x) == 810 and (t.groupby(['id_a', 'id_b']).size() == 3).all() and (t.lam_f == .5).sum() == 270
    assert float(hmix_material(hub, labelling='relabel+omega', gamma=.5).blends_y[at, 0]) != float(sure[0])
    a, b = (hmix_material(hub, labelling='random', seed=s).blends_y for s in (0, 1))
    assert not torch.equal(a, b)

def test_soft_endpoints_use_people_and_no_row_of_the_3000(hub, monkeypatch):
    m = hmix_material(hub, endpoints='soft', seed=2)
    told = np.isin(m.ids, cifar10s_ids(hub))
    want = hmix_material(hub, labels='cifar-10s').y
    torch.testing.assert_close(m.y[told], want[told])
    rest = m.y[~told]
    assert rest.shape == (6000, 10) and (rest.sum(1) - 1).abs().max() < 1e-5 and (rest.max(1).values < 1).float().mean() > .3
    y = torch.as_tensor(cifar10_test(hub).y[m.ids[~told]])
    assert .85 < float((rest.argmax(1) == y).float().mean()) < 1
    held, real = split(hub)[1], room.cifar10h
    def garbage(hub, **k): # another CIFAR-10H where nobody may look
        p = real(hub, **k)
        p[held] = np.roll(p[held], 3, axis=1)
        return p
    monkeypatch.setattr(room, 'cifar10h', garbage)
    assert torch.equal(hmix_material(hub, endpoints='soft', seed=2).y, m.y)
    monkeypatch.undo()
    def unreadable(hub, **k): # one row of the 7,000 is read
        p = real(hub, **k)
        p[m.ids[~told][0]] = np.nan
        return p
    monkeypatch.setattr(room, 'cifar10h', unreadable)
    with pytest.raises(ValueError): hmix_material(hub, endpoints='soft', seed=2)

def test_simulated_people_stay_for_a_run_or_come_anew(hub):
    a, b, c = (hmix_material(hub, endpoints='soft', simulator=v, resimulate=r) for v, r in (('stable', False), ('joint', False), ('stable', True)))
    assert a.again is None and not torch.equal(a.y, b.y) and torch.equal(a.y, c.y) and torch.equal(c.again(0), c.y)
    assert torch.equal(c.again(1), c.again(1)) and not torch.equal(c.again(1), c.again(2))
    d = hmix_material(hub, endpoints='soft', endpoint_draw='one')
    told = np.isin(d.ids, cifar10s_ids(hub))
    assert d.y.count[torch.as_tensor(told)].min() >= 6 and (d.y.count[torch.as_tensor(~told)] == 1).all()
    torch.testing.assert_close(d.y.mean(), a.y)
    e = hmix_material(hub, endpoints='soft', train_on='split+held')
    at = np.isin(e.ids, cifar10s_split(hub, 0)[1])
    assert (e.y[at].max(1).values == 1).all() and len(e.y) == 7000
    with pytest.raises(ValueError, match="endpoints: 'soft' takes CIFAR-10S"): hmix_material(hub, endpoints='soft', labels='uniform')

def test_carved_images_are_on_one_side_only(hub):
    m, whole = (hmix_material(hub, held=h, labelling='mixup', train_on='split', seed=s) for h, s in (('carved', 0), ('people', 0)))
    main = m.sets[0]
    assert len(m.x) == 5900 and len(main) == 1000 and np.bincount(main.y_hard).tolist() == [100]*10 and 'of the 7,000' in main.source
    seen = {o.tobytes() for o in m.x.numpy()}
    assert not any(o.numpy().tobytes() in seen for o in main.x)
    carved = set(whole.ids) - set(m.ids)
    t = m.stimuli.table
    assert len(carved) == 1000 and not carved & set(cifar10s_ids(hub)) and not carved & (set(t.id_a) | set(t.id_b))
    assert m.blends_left_out == whole.blends_left_out and torch.equal(main.targ.argmax(1), main.y_hard)
    other = hmix_material(hub, held='carved', seed=8)
    assert torch.equal(other.sets[0].x, main.x) # the same for all seeds: settings are compared on it
    assert not set(other.ids) & set(split(hub)[1])

def test_the_papers_validation_images_or_an_error_that_says_what_else(hub, tmp_path):
    if not hub.has('cifar10-train.npz'):
        with pytest.raises(FileNotFoundError, match="held='carved'"): hmix_material(hub, held='train-15000')
    for o in hub.root.iterdir(): (tmp_path/o.name).symlink_to(o)
    x, y = np.zeros((50_000, 32, 32, 3), np.uint8), np.tile(np.arange(10, dtype=np.uint8), 5000)
    x[:, 0, 0, :2] = np.stack(np.divmod(np.arange(50_000), 256), 1) # each image says its number
    np.savez(tmp_path/'cifar10-train.npz', images=x, labels=y, source='a made set')
    main, = held_sets(DataHub(tmp_path), 'train-15000')
    n = main.x[:, 0, 0, 0].long()*256 + main.x[:, 0, 0, 1].long()
    want = torch.randperm(50_000, generator=torch.Generator().manual_seed(7))[:15_000] # the released code keeps the first part
    assert torch.equal(n, want) and torch.equal(main.y_hard, want % 10) and torch.equal(main.targ.argmax(1), want % 10)
    assert 'a made set' in main.source and 'seed 7' in main.source

def test_corruptions_are_named(hub):
    m = hmix_material(hub, corruptions=3)
    bad = [s for s in m.sets if s.group]
    assert m.sets[0].name == 'CIFAR-10H' and len(m.sets[0]) == 3000 and len(bad) >= 8
    assert all(torch.equal(s.targ, m.sets[0].targ) and not s.attack for s in bad) and len({s.group for s in bad}) == 1
    if not (hub.root/'cifar-10-c').exists(): assert 'stand-in' in bad[0].group and 'torchvision' in bad[0].source
    assert [s is t for s, t in zip(bad, hmix_material(hub, corruptions=3, seed=1).sets[1:])] == [True]*len(bad) # made once
    with pytest.raises(ValueError, match='severity'): hmix_material(hub, corruptions=9)

# without the released data

def test_choose_keeps_its_promises():
    train = rng(1).permutation(100)
    soft, held = np.arange(20), np.arange(20, 30)
    for how in TRAIN_ON:
        ids, is_soft = choose(how, train, soft, held, n_soft=20, leave_out=[50, 51])
        assert len(set(ids)) == len(ids) == len(is_soft) and not {50, 51} & set(ids) and ids.tolist() == [i for i in train if i in set(ids)]
    assert not set(choose('split', train, soft, held)[0]) & set(held)
    with pytest.raises(ValueError, match='n_soft: found 0'): choose('soft', train, soft, held, n_soft=0)

def test_carve_is_balanced_and_seeded():
    y = rng(2).integers(0, 5, 200)
    a, b, c = carve(y, 7), carve(y, 7), carve(y, 7, seed=8)
    assert np.bincount(y[a]).tolist() == [7]*5 and a.tolist() == b.tolist() != c.tolist() and len(set(a)) == 35

def test_placed_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match='labels: found 1; allowed is one for each of 2'): placed([0, 1], [True, True], torch.ones(1, 2)/2, 2)

def test_digit_people_for_training_are_not_those_of_the_scores():
    m = digit_material(n_train=60, n_blends=45, pool=4, labels='cifar-10s', labelling='relabel', seed=3)
    other = digit_material(n_train=60, n_blends=45, pool=4, labels='cifar-10s', seed=4)
    assert (m.y.sum(1) - 1).abs().max() < 1e-5 and set(m.ids) != set(other.ids)
    df = digit_answers(m.ids, 4, seed=room.seed_for(3, 'training pool'))
    scored = digit_answers(np.setdiff1d(np.arange(1797), m.ids), 4, seed=room.seed_for(3, 'held-out pool'))
    assert not set(df.participant) & set(scored.participant)
    one = df[df.id_a == m.ids[0]] # by hand: shares of two classes, then .1 to the 8 others where both add up to 1
    want = np.zeros(10)
    for r in one.itertuples():
        v, named = np.zeros(10), [int(r.first)] + ([int(r.second)] if r.second_prob > 0 else [])
        for c, p in zip(named, (r.first_prob, r.second_prob)): v[c] = .9*p
        v[[i for i in range(10) if i not in named]] = .1/(10-len(named))
        want += v/len(one)
    np.testing.assert_allclose(m.y[0].numpy(), want, atol=1e-6)

def test_digits_of_all_kinds():
    base = dict(n_train=60, n_blends=45, pool=4)
    images = digits()
    hard = digit_material(**base)
    assert hard.blends_x is None and torch.equal(hard.y.argmax(1), torch.as_tensor(images.y[hard.ids])) and hard.y.max(1).values.min() == 1
    votes = digit_material(**base, labels='cifar-10h', draw='one')
    assert set(votes.y.rows.unique().tolist()) == {0, 1} and len(votes.y.rows) == 240
    few = digit_material(**base, labels='cifar-10s', draw='one', annotators=2)
    assert len(few.y.rows) == 120
    assert digit_material(**base, labels='uniform').y.max() == pytest.approx(.1)
    assert digit_material(**base, endpoints='soft').y.max() < 1 and isinstance(digit_material(**base, endpoints='soft', endpoint_draw='one').y, LabelPool)
    bad = digit_material(**base, corruptions=2)
    assert len(bad.sets) == 9 and all('stand-in' in s.group for s in bad.sets[1:])
    carved = digit_material(**base, held='carved', labelling='mixup')
    shown = set(carved.stimuli.table.id_a) | set(carved.stimuli.table.id_b)
    gone = set(hard.ids) - set(carved.ids)
    assert len(gone) == len(carved.sets[0]) == 10 and not shown & gone and shown <= set(carved.ids)

@pytest.mark.parametrize('k, v', [('train_on', 'split'), ('train_on', 'split+held'), ('score_s', True), ('held', 'train-15000'), ('subset', 'thesis'),
                                  ('resimulate', True), ('simulator', 'joint')])
def test_digits_refuse_what_they_have_not(k, v):
    with pytest.raises(ValueError, match=re.escape(f'{k}: found {v!r}, which digits do not have')): digit_material(n_train=60, n_blends=45, pool=3, **{k: v})

@pytest.mark.parametrize('k, v', [('labels', 'cifar10s'), ('draw', 'mena'), ('endpoints', 'softt'), ('smooth_on', 'sof'), ('held', 'carve'), ('train_on', 'al')])
def test_unknown_names_have_neighbours(k, v):
    with pytest.raises(ValueError, match=f"{k}: '{v}' is unknown. Did you mean"): digit_material(n_train=60, n_blends=45, pool=3, **{k: v})

def test_clean_labels_asks_only_for_what_is_used():
    def never(*args): raise AssertionError('asked')
    y, again = clean_labels([0, 1], [3, 4], np.array([True, False]), never, labels='random')
    assert y.shape == (2, 10) and again is None and y[1, 1] == 1
