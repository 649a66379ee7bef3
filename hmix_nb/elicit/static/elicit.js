// What all pages share: one submit per page, the time it took, and kind words about what is missing.
'use strict';
const hmix = window.hmix = {
  checks: [], // functions that return what is missing: [{text, near}]
  form: document.querySelector('form[data-answer]'),
  text(name) { return hmix.form?.dataset[name] ?? ''; },
  field(name) { return hmix.form?.elements.namedItem(name); },
  touch(name) { const f = hmix.field('moved_' + name); if (f) f.value = '1'; },
  say(found) { // in the notice, which screen readers read out
    const box = document.getElementById('notice');
    const mark = o => o.querySelector('input[type=range]') ?? o; // what a screen reader is told about
    document.querySelectorAll('.missing').forEach(o => o.classList.remove('missing'));
    document.querySelectorAll('[aria-invalid]').forEach(o => ['aria-invalid', 'aria-describedby'].forEach(k => o.removeAttribute(k)));
    const words = [...new Set(found.map(o => o.text))]; // two fields may miss the same
    box.replaceChildren(...words.map(o => Object.assign(document.createElement('p'), {textContent: o})));
    box.className = 'notice';
    box.hidden = !found.length;
    for (const {near} of found.filter(o => o.near)) {
      near.classList.add('missing');
      mark(near).setAttribute('aria-invalid', 'true');
      mark(near).setAttribute('aria-describedby', 'notice');
    }
    if (!found.length) return;
    hmix.form?.querySelector('.on').before(box); // where the eye is
    box.scrollIntoView({block: 'nearest'});
  },
  async pictures(images) { // until all of them can be drawn at once
    await Promise.all(images.map(o => o.decode()));
    hmix.start = performance.now();
    document.documentElement.dataset.ready = '1';
  },
  start: performance.now(),
};

(() => {
  if (!hmix.form) {
    document.documentElement.dataset.ready = '1';
  } else { // what is not seen is not judged
    let missing = 'loading';
    hmix.checks.push(() => missing ? [{text: hmix.text(missing)}] : []);
    hmix.seen = hmix.pictures([...hmix.form.querySelectorAll('img')]);
    hmix.seen.then(() => { missing = ''; }, () => {
      missing = 'broken';
      hmix.say([{text: hmix.text(missing)}]);
    });
  }
  for (const form of document.querySelectorAll('form[method=post]')) {
    let sent = false;
    form.addEventListener('submit', event => {
      if (sent) return event.preventDefault();
      if (form === hmix.form) {
        const found = hmix.checks.flatMap(check => check());
        hmix.say(found);
        if (found.length) return event.preventDefault();
        hmix.field('rt_ms').value = Math.round(performance.now() - hmix.start);
        hmix.field('client_time').value = Date.now();
      }
      sent = true;
      const buttons = form.querySelectorAll('button[type=submit]');
      buttons.forEach(o => o.setAttribute('aria-disabled', 'true'));
      setTimeout(() => { // stopped on the way, the same form may go again: its key counts once
        sent = false;
        buttons.forEach(o => o.removeAttribute('aria-disabled'));
      }, 8000);
    });
  }
  addEventListener('pageshow', event => { if (event.persisted) location.reload(); }); // back: never an old trial
})();
