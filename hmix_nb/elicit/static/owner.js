// The owner's page renews itself: the fragment is fetched anew every few seconds, while somebody looks.
'use strict';
(() => {
  const renew = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(location.pathname.replace(/\/$/, '') + '/part', {cache: 'no-store'});
      if (!answer.ok) return;
      const now = document.getElementById('owner'), next = new DOMParser().parseFromString(await answer.text(), 'text/html').getElementById('owner');
      if (!next || next.outerHTML === now.outerHTML) return;
      const open = new Set([...now.querySelectorAll('details[open]')].map(o => o.id));
      const scrolled = new Map([...now.querySelectorAll('[class]')].filter(o => o.scrollTop).map(o => [o.className, o.scrollTop]));
      now.replaceWith(document.adoptNode(next));
      for (const o of next.querySelectorAll('details')) o.open = open.has(o.id);
      for (const [k, v] of scrolled) { const o = next.getElementsByClassName(k)[0]; if (o) o.scrollTop = v; }
    } catch { /* the server is away for a moment: the page stays as it is */ }
  };
  setInterval(renew, 3000);
  document.documentElement.dataset.ready = '1';
})();
