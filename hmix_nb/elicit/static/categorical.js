// Two classes with percentages and the impossible ones: sums and contradictions are said before the answer is sent.
'use strict';
(() => {
  const form = hmix.form, sum = document.getElementById('sum');
  const [first, second, impossible] = ['first', 'second', 'impossible'].map(o => document.getElementById(o));
  const taken = name => form.querySelector(`input[name=${name}]:checked`)?.value ?? '';
  const field = name => hmix.field(name).value.trim().replace('%', '').replace(',', '.').trim();
  const percent = name => field(name) === '' ? NaN : Number(field(name));
  const fits = x => x >= 1 && x <= 100;
  const short = x => +x.toFixed(2);
  const fill = (name, values) => hmix.text(name).replace(/\{(\w+)\}/g, (all, k) => values[k] ?? all);
  const words = value => form.querySelector(`input[value="${CSS.escape(value)}"]`).parentElement.textContent.trim();
  const none = () => taken('second') === form.dataset.none;

  const look = () => {
    if (none()) hmix.field('second_prob').value = '';
    hmix.field('second_prob').disabled = none();
    const a = percent('first_prob'), b = none() || field('second_prob') === '' ? 0 : percent('second_prob');
    const total = short(a + b), whole = fits(a) && (b === 0 || fits(b));
    sum.textContent = whole ? fill(total > 100 ? 'over' : 'rest', {total, rest: short(100 - total)}) : '';
  };
  const found = () => {
    const out = [], miss = (name, near, values = {}) => out.push({text: fill(name, values), near});
    const ask = (name, near) => {
      if (fits(percent(name))) return true;
      if (Number.isNaN(percent(name))) miss('number', near);
      else miss('range', near, {lo: 1, hi: 100, found: field(name)});
      return false;
    };
    const a = percent('first_prob'), b = percent('second_prob'), one = taken('first'), two = none() ? '' : taken('second');
    const never = [...impossible.querySelectorAll('input:checked')].map(o => o.value);
    const total = short(a + (two ? b : 0)), left = [...impossible.querySelectorAll('input:not(:checked)')].map(o => o.value);
    if (!one) miss('required', first);
    const said = ask('first_prob', first);
    if (!two && !none()) miss('required', second);
    if (two && two === one) miss('same', second, {found: words(two)});
    const both = two ? ask('second_prob', second) && said : said;
    if (both && total > 100) miss('over', second, {total});
    else if (both && two && b > a) miss('order', second, {first: short(a), second: short(b)});
    if (!left.length) miss('all', impossible);
    else for (const o of [one, two]) if (o && never.includes(o)) miss('never', impossible, {found: words(o)});
    if (both && total < 100 && left.length && left.every(o => o === one || o === two)) miss('short', impossible, {total});
    return out;
  };
  form.addEventListener('input', look);
  form.addEventListener('change', look);
  look();
  hmix.checks.push(found);
})();
