// The page of the movies: lists come from the read model, changes go to the service. All data is set as text.
const $ = id => document.getElementById(id);
const LIMIT = 20, FIELDS = ['title', 'director', 'released', 'genre', 'imdb_rating'];
let offset = 0, asked = 0, shown = '', film = null, theirs = null, typing;

async function call(method, path, body) {
  const began = performance.now();
  let response;
  try {
    response = await fetch(path, {
      method, headers: { 'Content-Type': 'application/json', 'Request-Timeout': '5' }, body: body && JSON.stringify(body),
    });
  } catch {
    throw { status: 0, detail: 'The API cannot be reached.' };
  }
  const travelled = Math.round(performance.now() - began);
  if (method !== 'GET' || !path.includes('?')) {
    const there = /total;dur=([\d.]+)/.exec(response.headers.get('Server-Timing'))?.[1];
    $('journey').textContent = `${method} ${path}: ${travelled} ms in all, ${there ?? '?'} ms of it in ` +
      `${response.headers.get('Served-By') ?? 'the API'} and beyond (queue, service, reply). Status ${response.status}.`;
  }
  const answer = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) throw answer ?? { status: response.status, detail: `The API answered ${response.status}.` };
  return answer;
}

function said(problem) {
  if (problem.status === 503 || problem.status === 504) return `The service does not answer at the moment: ${problem.detail}`;
  return problem.detail ?? String(problem);
}

async function list() {
  const mine = ++asked, sort = $('sort').value;
  const query = new URLSearchParams({ search: $('search').value, sort, offset, limit: LIMIT });
  if (sort === 'id' || sort === 'imdb_rating') query.set('descending', 'true');
  try {
    const page = await call('GET', `movies?${query}`);
    if (mine === asked) show(page);
    $('problem').hidden = true;
  } catch (problem) {
    if (mine !== asked) return;
    $('problem-text').textContent = said(problem);
    $('problem').hidden = false;
  }
}

function show(page) {
  const state = JSON.stringify([page, offset]);
  if (state === shown) return; // so that focus and selection stay where they are
  shown = state;
  const last = Math.min(offset + LIMIT, page.total), focused = document.activeElement?.dataset.id;
  $('count').textContent = page.total ? `${offset + 1} to ${last} of ${page.total} films` : 'No film fits.';
  $('previous').disabled = offset === 0;
  $('next').disabled = last >= page.total;
  $('films').tBodies[0].replaceChildren(...page.movies.map(row));
  if (focused) document.querySelector(`[data-id="${focused}"]`)?.focus();
}

function row(movie) {
  const line = document.createElement('tr'), title = document.createElement('button');
  title.textContent = movie.title;
  title.dataset.id = movie.id;
  title.onclick = () => open(movie.id);
  const cells = [title, movie.director, movie.released, movie.genre, movie.imdb_rating];
  line.append(...cells.map((value, n) => {
    const cell = document.createElement('td');
    cell.className = ['', 'wide', '', 'wide', 'number'][n];
    cell.append(value ?? '');
    return cell;
  }));
  return line;
}

async function open(id) {
  try {
    edit(id ? await call('GET', `movies/${id}`) : null);
  } catch (problem) {
    $('problem-text').textContent = said(problem);
    $('problem').hidden = false;
  }
}

function edit(movie) {
  film = movie;
  $('editor-title').textContent = movie ? `Film ${movie.id}, version ${movie.version}` : 'New film';
  for (const name of FIELDS) $('form').elements[name].value = movie?.[name] ?? '';
  $('wrong').hidden = $('conflict').hidden = true;
  $('delete').hidden = !movie;
  $('delete').textContent = 'Delete';
  if (!$('editor').open) $('editor').showModal();
  $('form').elements.title.focus();
}

async function change(work) {
  $('save').disabled = $('delete').disabled = true;
  try {
    const changed = await work();
    $('editor').close();
    if (changed) follow(changed);
    else list();
  } catch (problem) {
    $('wrong').textContent = said(problem);
    $('wrong').hidden = false;
    if (problem.status === 409 && film) {
      theirs = await call('GET', `movies/${film.id}`).catch(() => null);
      if (theirs) $('wrong').textContent = `Somebody changed this film meanwhile: it is "${theirs.title}", version ${theirs.version}.`;
      $('conflict').hidden = !theirs;
    }
  } finally {
    $('save').disabled = $('delete').disabled = false;
  }
}

// Asks the read model until it has a change, and says how far it was behind: to 50 ms, the pause between questions.
async function follow(movie) {
  const began = performance.now(), told = $('journey').textContent;
  const query = new URLSearchParams({ search: movie.title.slice(0, 100), sort: 'id', descending: true, limit: 200 });
  for (let n = 0; n < 100; n++) {
    const page = await call('GET', `movies?${query}`).catch(() => null);
    if (page?.movies.some(seen => seen.id === movie.id && seen.version >= movie.version)) {
      const lag = ` The read model had it ${Math.round(performance.now() - began)} ms after the reply.`;
      if ($('journey').textContent === told) $('journey').textContent += lag;
      break;
    }
    await new Promise(done => setTimeout(done, 50));
  }
  list();
}

function save() {
  const body = { ...film };
  for (const name of FIELDS) body[name] = $('form').elements[name].value || null;
  if (body.imdb_rating !== null) body.imdb_rating = Number(body.imdb_rating);
  return change(() => film ? call('PUT', `movies/${film.id}`, body) : call('POST', 'movies', body));
}

$('form').onsubmit = event => { event.preventDefault(); save(); };
$('cancel').onclick = () => $('editor').close();
$('theirs').onclick = () => edit(theirs);
$('mine').onclick = () => { film = theirs; $('conflict').hidden = true; save(); };
$('delete').onclick = () => {
  if ($('delete').textContent === 'Delete') $('delete').textContent = 'Really delete?';
  else change(() => call('DELETE', `movies/${film.id}`));
};
$('new').onclick = () => open();
$('retry').onclick = list;
$('query').onsubmit = event => { event.preventDefault(); list(); };
$('search').oninput = () => { offset = 0; clearTimeout(typing); typing = setTimeout(list, 100); };
$('sort').onchange = () => { offset = 0; list(); };
$('previous').onclick = () => { offset = Math.max(0, offset - LIMIT); list(); };
$('next').onclick = () => { offset += LIMIT; list(); };
document.onkeydown = event => {
  if ($('editor').open || event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT/.test(event.target.tagName)) return;
  if (event.key === '/') { event.preventDefault(); $('search').focus(); }
  if (event.key === 'n') { event.preventDefault(); open(); }
};
// What others change is seen within two seconds while the page is looked at.
setInterval(() => document.hidden || list(), 2000);
list();
