"Counterfactual reviews: what is no pair is refused, what coincides is masked and counted, and shuffled directions are a control."
import numpy as np
import pandas as pd
import pytest
import torch
from hmix_nb.directions.loss import DirectionLoss
from hmix_nb.directions.many import ARROW_LOSSES, Arrows, Nets, arrow_loss, mk_nets
from hmix_nb.directions.text import (KINDS, LABELS, TEXT_ARMS, Embedder, cad, embed_pairs, made_reviews, pairs_of, text_problem, text_rows,
                                     text_trials)

MADE = made_reviews(120, 1)
ARM = {a.name: a for a in TEXT_ARMS}

@pytest.fixture(scope='module')
def embed(): return Embedder(made_reviews(150).text, dims=40)

@pytest.fixture(scope='module')
def points(embed): return {k: embed_pairs(made_reviews(120, s), embed) for s, k in enumerate(('train', 'dev', 'test'), 1)}

def as_file(made):
    rows = [dict(Sentiment=LABELS[v], Text=t, batch_id=i) for i, o in made.iterrows() for t, v in ((o.text, o.y), (o.revised, 1 - o.y))]
    return pd.DataFrame(rows)

@pytest.mark.parametrize('change, said', [
    (lambda t: t.drop(columns='batch_id'), 'batch_id'),
    (lambda t: t[1:], 'id 0 occurs 1 times'),
    (lambda t: pd.concat([t, t[:2]]), 'id 0 occurs 4 times'),
    (lambda t: t.iloc[[0, 2, 1, 3]], 'rows of id 0 are not adjacent'),
    (lambda t: t.assign(Sentiment='Negative'), 'rows of id 0 have one label'),
    (lambda t: t.assign(Sentiment='negative'), "Did you mean 'Negative'"),
    (lambda t: t.assign(Text=[None, *t.Text[1:]]), 'id 0 has no text'),
])
def test_what_is_no_pair_is_refused_by_name(change, said):
    with pytest.raises(ValueError, match=said): pairs_of(change(as_file(MADE)))

def test_line_breaks_of_the_source_are_blanks():
    t = as_file(MADE[:1])
    t.loc[0, 'Text'] = 'Good.<br /><br />Very.'
    assert pairs_of(t).text.iloc[0] == 'Good.  Very.'

def test_the_embedding_is_frozen_and_asks_originals_alone(embed):
    before = embed(MADE.text)
    embed(['wholly unseen words here'])
    assert torch.equal(before, embed(MADE.text))
    assert torch.equal(embed(['zzz']), embed(['qqq yyy'])) # words of no original are no words

def test_a_missing_package_names_its_remedy(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'sentence_transformers', None)
    with pytest.raises(ValueError, match='pip install sentence-transformers'): Embedder(MADE.text, 'all-MiniLM-L6-v2')

def test_pairs_that_coincide_are_masked_counted_and_finite(embed):
    same = MADE.copy()
    same.loc[:6, 'revised'] = same.loc[:6, 'text']
    t = embed_pairs(same, embed)
    assert t.coincide == 7 and torch.isfinite(t.d).all() and torch.isfinite(t.r).all()
    assert (t.d[:7] == 0).all() and torch.allclose(t.d[7:].norm(dim=1), torch.ones(113), atol=1e-5)
    rows = text_rows(ARM['n + n cosine'], 100, dict(train=t, dev=t, test=t), seeds=[0, 1], tune=[9], steps=20)
    assert all(np.isfinite([o['original'], o['revised'], o['both']]).all() for o in rows)
    assert all(0 < o['masked'] <= 7 for o in rows)
    none = embed_pairs(MADE.assign(revised=MADE.text), embed)
    assert none.coincide == len(MADE)
    assert np.isfinite(text_rows(ARM['n + n tip'], 20, dict(train=none, dev=none, test=none), seeds=[0], tune=[9], steps=20)[0]['original'])

def test_without_any_direction_the_arms_are_plain_labels(embed, points):
    none = embed_pairs(MADE.assign(revised=MADE.text), embed)
    p = text_problem(ARM['n + n hinge'], 20, none, points['test'], [0])
    line = mk_nets([0], p.x.shape[-1], 0)
    assert float(arrow_loss(line, p.arrows, 'hinge', 3.)) == 0

@pytest.mark.parametrize('kind', ARROW_LOSSES)
@pytest.mark.parametrize('hidden', [0, 5])
def test_the_loss_is_that_of_any_torch_model(points, kind, hidden):
    p = text_problem(ARM['n + n tip'], 30, points['train'], points['dev'], [3])
    nets = mk_nets([3], p.x.shape[-1], hidden, dtype=torch.float64)
    if not hidden: nets = nets._replace(w2=torch.randn(nets.w2.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    a = Arrows(*(o.double() for o in p.arrows))
    def two(x):
        h = x if not hidden else torch.tanh(x @ nets.w1[0, 0].T + nets.b1[0, 0])
        z = h @ nets.w2[0, 0] + nets.b2[0, 0]
        return torch.stack([torch.zeros_like(z), z], -1)
    x, d, r, y, w = (o[0] for o in a)
    want = DirectionLoss(kind, gamma=1.5)(two, x, y.long(), 1 - y.long(), d, r, w)
    assert abs(float(arrow_loss(nets, a, kind, 1.5)) - float(want.detach())) < 1e-6

def test_shuffled_steps_are_those_of_other_pairs(points):
    t = points['train']
    one, other = (text_problem(ARM[k], 30, t, points['dev'], [0]).arrows for k in ('n + n softplus', 'n + n softplus, shuffled'))
    assert torch.equal(one.x, other.x) and torch.equal(one.y, other.y)
    assert torch.equal(one.d[0].roll(1, 0), other.d[0]) and not torch.equal(one.d, other.d)

def test_arms_share_originals_and_have_equally_many_trials(points):
    made = {a.name: text_problem(a, 20, points['train'], points['dev'], [4]) for a in TEXT_ARMS}
    for p in made.values(): assert torch.equal(p.x[:, :20], made['n labels'].x)
    assert made['2n labels'].x.shape[1] == made['n + n revised as labels'].x.shape[1] == 40
    assert {len(text_trials(a)) for a in TEXT_ARMS} == {12}
    assert {a.kind for a in TEXT_ARMS if a.shuffled} == set(KINDS)

def test_settings_are_chosen_on_dev_originals_and_other_seeds(points):
    with pytest.raises(ValueError, match='among those to tune on'): text_rows(ARM['n labels'], 10, points, seeds=[1], tune=[1], steps=2)
    spoilt = dict(points, dev=points['dev']._replace(x2=points['dev'].x2*float('nan'))) # revisions of dev are never looked at
    assert text_rows(ARM['n labels'], 10, spoilt, seeds=[0], tune=[9], steps=10) == text_rows(ARM['n labels'], 10, points, seeds=[0], tune=[9], steps=10)

@pytest.mark.parametrize('n', [0, 1.5, -3])
def test_a_number_of_pairs_is_whole(points, n):
    with pytest.raises(ValueError, match=f'n: found {n}'): text_problem(TEXT_ARMS[0], n, points['train'], points['dev'], [0])

def test_one_pair_cannot_be_shuffled(points):
    with pytest.raises(ValueError, match='n: found 1'): text_problem(next(a for a in TEXT_ARMS if a.shuffled), 1, points['train'], points['dev'], [0])

@pytest.mark.parametrize('y', [2, np.nan, .5])
def test_labels_of_pairs_are_0_or_1(embed, y):
    with pytest.raises(ValueError, match='y: found'): embed_pairs(made_reviews(4).assign(y=[0, 1, y, 0]), embed)

def test_texts_without_a_word_in_common_are_refused():
    with pytest.raises(ValueError, match='texts: .* allowed are texts that share words'): Embedder(['a', 'b', 'c'])

def test_too_few_pairs_are_said(points):
    with pytest.raises(ValueError, match='n: found 61; allowed is up to 60'): text_problem(ARM['2n labels'], 61, points['train'], points['dev'], [0])

def test_the_released_pairs_are_those_that_are_known(hub):
    sizes = {k: len(cad(hub, k)) for k in ('train', 'dev', 'test')}
    assert sizes == dict(train=1707, dev=245, test=488)
    with pytest.raises(ValueError, match="Did you mean 'train'"): cad(hub, 'trian')
